"""What is asked of a model and what it answers, with all that a judgement of the answer needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trueup.data import identify
from trueup.data.dialogue import Messages
from trueup.feedback.use import SOURCE
from trueup.sampling.types import Sampled
from trueup.stages.sample import uids
from trueup.talk.roster import Model


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is answered: `messages` with the run's system message and examples, as token `ids`.

    `notes` say what of the messages the model does not get as it was written.
    """

    messages: Messages
    ids: list[int]
    notes: list[str]
    system: str  # where the system message is from: data.system, the request, or none


@dataclass(frozen=True, kw_only=True)
class How:
    """How an answer is sampled; temperature 0 is greedy. `stops` are texts before which it ends."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """That an answer is no sample of its model: it is the `rank`-th best, from 1 on, of `n` answers to its prompt.

    `by` is the name of what chose, `fingerprint` that of its files, and `reward` the score it gave. `num_tokens` were
    sampled for all n answers.
    """

    n: int
    rank: int
    by: str
    fingerprint: str
    reward: float
    num_tokens: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. `finish`: it ended by itself (eos), by a stop text (stop), or was cut (length, cancelled).

    `chosen` is None of one that was sampled alone, or given whatever its reward.
    """

    model: Model
    prompt: Prompt
    how: How
    text: str
    sampled: Sampled
    finish: str
    chosen: Chosen | None = None

    def row(self) -> dict[str, Any]:
        """The answer as `sample` writes a completion, with the model that gave it and how.

        The sampled ids are left out where a stop text ended the answer: they hold more than its text. `best_of` says
        of an answer that it was chosen among several, and how: it is no sample of the model, then.
        """
        prompt_id = identify(self.prompt.messages)
        row = {
            "uid": next(uids([(prompt_id, self.text)])),
            "prompt_id": prompt_id,
            "messages": self.prompt.messages,
            "completion": self.text,
            "num_tokens": self.sampled.num_tokens,
            "finish": "eos" if self.finish == "eos" else "length",
            "source": SOURCE,
            "model": self.model.name,
            "adapter": self.model.fingerprint,
            "sampling": {"temperature": self.how.temperature, "top_p": self.how.top_p, "seed": self.how.seed},
        }
        if (best := self.chosen) is not None:
            how = {"n": best.n, "rank": best.rank, "by": best.by, "fingerprint": best.fingerprint}
            row["best_of"] = how | {"reward": best.reward}
        return row if self.finish == "stop" else row | {"ids": self.sampled.ids, "logp": self.sampled.logp}


def num_sampled_tokens(answers: Sequence[Answer]) -> int:
    """How many tokens were sampled for the answers of one request, those of answers that were not given among them."""
    best = answers[0].chosen
    return sum(answer.sampled.num_tokens for answer in answers) if best is None else best.num_tokens
