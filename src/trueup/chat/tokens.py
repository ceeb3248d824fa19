"""What is wrong with the tokens of one sample. Pure functions on token ids; `preflight` asks them of whole stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

IGNORED = -100  # the label of a token that is not trained on


@dataclass(frozen=True)
class Special:
    """Token ids of a tokenizer that mean something to training."""

    bos: int | None
    eos: int
    pad: int
    all: frozenset[int]


@dataclass(frozen=True)
class Sample:
    """One sample as the model gets it, beside what the chat template makes of it.

    `ids` are without padding; `labels` are as long, or None where none are trained (rewards, prompts to sample from).
    `prompt` ends with the generation prompt; `whole` is the conversation, uncut.
    """

    id: str
    ids: list[int]
    labels: list[int] | None
    prompt: list[int]
    whole: list[int]
    num_bos_written: int = 1  # by the template, as text; some use it to begin every turn
    max_length: int | None = None

    @property
    def is_cut(self) -> bool:
        return self.max_length is not None and len(self.whole) > self.max_length

    @property
    def answer_start(self) -> int:
        """The first position of the answer in `whole`."""
        return common_prefix(self.prompt, self.whole)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def faults(sample: Sample, special: Special) -> list[str]:
    """The kinds of fault (keys of `KINDS`) of one sample."""
    found = []
    start = sample.answer_start
    if special.bos is not None and sample.ids.count(special.bos) > max(1, sample.num_bos_written):
        found.append("bos")
    if any(a == b and a in special.all for a, b in zip(sample.ids, sample.ids[1:], strict=False)):
        found.append("doubled")
    if start < len(sample.prompt):
        found.append("prefix")
    if sample.ids != sample.whole[: len(sample.ids) if sample.is_cut else None]:
        return [*found, "other"]
    end = last_index(sample.ids, special.eos, start)
    if end is None and not sample.is_cut:
        found.append("no_end")
    if sample.labels is None:
        return found
    if any(label != IGNORED for label in sample.labels[:start]):
        found.append("prompt")
    answer = range(start, len(sample.ids))
    if any(sample.labels[i] != sample.ids[i] for i in answer if i != end):
        found.append("answer")
    if end is not None and sample.labels[end] != special.eos:
        found.append("end")
    return found


def last_index(ids: Sequence[int], token: int, start: int) -> int | None:
    """The last position of `token` at or after `start`, or None."""
    return next((i for i in range(len(ids) - 1, start - 1, -1) if ids[i] == token), None)


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it says, what to do, and above which share of the samples it stops the stage."""

    says: str
    cure: str
    stops_above: float = 0.0


KINDS = {
    "bos": Kind(
        "the beginning-of-text token comes twice",
        "the template writes it and the tokenizer adds it again: set add_bos_token to false in tokenizer_config.json",
    ),
    "doubled": Kind(
        "a special token comes twice in a row",
        "take template tokens out of the texts: the chat template adds them",
        stops_above=0.1,
    ),
    "prefix": Kind(
        "the prompt as it is sampled from is not how the trained conversation begins",
        "use a chat template that writes the prompt alike with and without an answer",
        stops_above=0.1,
    ),
    "other": Kind("the tokens are not those of the chat template", "mend the trainer's dataset or collator"),
    "no_end": Kind(
        "the answer does not end with the end token, so the model never learns to stop",
        "set eos_token of the tokenizer to the token the chat template ends a turn with",
    ),
    "prompt": Kind("the prompt is trained on", "mask the labels before the answer"),
    "answer": Kind("tokens of the answer have no label", "mask by position, never by token id"),
    "end": Kind(
        "the end token has no label, so the model never learns to stop",
        "mask by position, never by the padding's id: padding may be the end token",
    ),
    "score": Kind(
        "the score is read before the end: the last token is the padding token",
        "give the tokenizer a padding token of its own",
    ),
    "cut": Kind("cut at max_length, the end of the answer is lost", "raise max_length", stops_above=0.5),
    "dropped": Kind("dropped, longer than max_length", "raise max_length", stops_above=0.5),
    "text": Kind("a special token is written in a message's text", "take it out of the texts", stops_above=1.0),
}
