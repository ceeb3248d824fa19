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
    """One sample as the model gets it, beside what it should be.

    `ids` are without padding; `labels` are as long, or None where none are trained (rewards, prompts to sample from).
    `prompt` ends with the generation prompt; `whole` is the conversation, uncut. `trained` are the labels it should
    have, as long as `whole`; by default those of all that comes after the prompt. `finished` is False for an answer
    that was cut when it was sampled: it has no end token.
    """

    id: str
    ids: list[int]
    labels: list[int] | None
    prompt: list[int]
    whole: list[int]
    num_bos_written: int = 1  # by the template, as text; some use it to begin every turn
    max_length: int | None = None
    trained: list[int] | None = None
    finished: bool = True
    end: int | None = None  # where a sampled answer's end token is; else the last one that the template writes

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
    end = sample.end if sample.end is not None else last_index(sample.ids, special.eos, start)
    if end is not None and end >= len(sample.ids):
        end = None
    if end is None and sample.finished and not sample.is_cut:
        found.append("no_end")
    if sample.labels is None:
        return found
    trained = sample.trained or [IGNORED] * start + sample.whole[start:]
    pairs = list(enumerate(zip(sample.labels, trained, strict=False)))
    if any(label != IGNORED and wanted == IGNORED for _, (label, wanted) in pairs):
        found.append("prompt")
    if any(label != wanted and wanted != IGNORED for i, (label, wanted) in pairs if i != end):
        found.append("answer")
    if end is not None and sample.labels[end] != sample.ids[end]:
        found.append("end")
    return found


def first_index(ids: Sequence[int], token: int, start: int) -> int | None:
    """The first position of `token` at or after `start`, or None."""
    return next((i for i in range(start, len(ids)) if ids[i] == token), None)


def last_index(ids: Sequence[int], token: int, start: int) -> int | None:
    """The last position of `token` at or after `start`, or None."""
    return next((i for i in range(len(ids) - 1, start - 1, -1) if ids[i] == token), None)


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it says, what to do, and above which share of the samples it stops the stage."""

    says: str
    cure: str
    stops_above: float = 0.0


TEMPLATE = "set model.chat_template to a template that keeps it"
KINDS = {
    "refused": Kind(
        "the chat template refuses it",
        "change these rows to what the template takes (a system message it refuses: leave out data.system, or put it "
        "into the prompts), or set model.chat_template to a template of your own",
    ),
    "system": Kind(
        "the chat template leaves the system message out",
        f"leave out data.system, or put it into the prompts; or {TEMPLATE}",
    ),
    "lost": Kind("the chat template leaves part of the prompt out", f"take it out of the data, or {TEMPLATE}"),
    "history": Kind(
        "the chat template leaves out part of an earlier assistant turn, as it will when it is used",
        "",
        stops_above=1.0,
    ),
    "answer_lost": Kind(
        "the chat template leaves part of the answer out, so it would not be trained",
        f"take it out of the answers, or {TEMPLATE}",
    ),
    "space": Kind("the chat template changes white space in the answer", "", stops_above=1.0),
    "calls": Kind(
        "the chat template leaves tool calls out",
        "choose a model whose template writes tool_calls, or take these rows out; or set model.chat_template",
    ),
    "tools": Kind(
        "the chat template leaves the tools out",
        "choose a model whose template writes tools, or take the column out; or set model.chat_template",
    ),
    "turns": Kind(
        "the chat template neither marks what the assistant says with {% generation %} nor writes an earlier turn "
        "after its prompt as it is sampled, so earlier turns cannot be trained on",
        "set data.train_on: last, or model.chat_template to a template with {% generation %} marks",
    ),
    "marks": Kind(
        "the {% generation %} marks of the chat template are not the assistant's turns with their end tokens",
        "set data.train_on: last, or model.chat_template to a template whose marks hold each answer and its end token",
    ),
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
        "set model.chat_template to a template that writes the prompt alike with and without an answer",
    ),
    "other": Kind(
        "the tokens are not those of the chat template", "report it: the trainer changed rows that were right before"
    ),
    "no_end": Kind(
        "the answer does not end with the end token, so the model never learns to stop",
        "set model.eos_token to the token the chat template ends a turn with",
    ),
    "prompt": Kind("the prompt is trained on", "report it: the trainer labels what is no answer"),
    "answer": Kind("tokens of the answer have no label", "report it: the trainer's collator masks too much"),
    "end": Kind(
        "the end token has no label, so the model never learns to stop",
        "mask by position, never by the padding's id: padding may be the end token",
    ),
    "score": Kind(
        "the score is read before the end: the last token is the padding token",
        "give the tokenizer a padding token of its own",
    ),
    "cut": Kind("cut at max_length, the end of the answer is lost", "raise max_length", stops_above=0.5),
    "beyond": Kind(
        "left out: the whole answer lies beyond max_length, so there is nothing to learn from",
        "raise max_length",
        stops_above=0.5,
    ),
    "too_long": Kind("left out: longer than max_length", "raise max_length", stops_above=0.5),
    "equal": Kind(
        "left out: chosen and rejected are the same tokens, so they are no pair",
        "look at what the chat template leaves out of the answers, and at max_length",
        stops_above=0.5,
    ),
    "unfinished": Kind(
        "the answer was cut when it was sampled: it is trained without an end token",
        "raise max_new_tokens",
        stops_above=1.0,
    ),
    "text": Kind("a special token is written in a message's text", "take it out of the texts", stops_above=1.0),
}
LEFT_OUT = ("beyond", "too_long", "equal")  # kinds whose rows do not train
