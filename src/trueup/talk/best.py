"""The best of several answers to one prompt: of how many, chosen by what the run's method optimizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trueup.chat.template import Chat
from trueup.errors import TrueupError
from trueup.judges import optimized
from trueup.run.stage import Context
from trueup.sampling.types import Sampled
from trueup.talk.answers import Answer, Chosen
from trueup.talk.asked import Asked, BadRequest
from trueup.talk.chooser import Chooser
from trueup.talk.roster import Roster
from trueup.talk.usable import refuse_another


class Best:
    """What `by` names, loaded: a reward model is one more adapter of `model`, functions are imported."""

    def __init__(self, by: Chooser, context: Context, model: Any, tokenizer: Any) -> None:
        """Raises ModelError where the reward model was built again since it was found, and as `optimized.of_run`."""
        if by.path is not None:
            refuse_another(by.name, by.path, by.fingerprint)
        self.by, self.chat = by, Chat(tokenizer)
        self.judge = optimized.of_run(context, model, tokenizer, by.path)

    def of(self, answers: list[Answer], keep: int = 1) -> list[Answer]:
        """The `keep` best of `answers`, the best first, all scored in one batch.

        Raises ModelError or StageError where a reward is no finite number.
        """
        n, shown = len(answers), [self._as_shown(answer) for answer in answers]
        places, rewards = self.judge.best([answers[0].prompt.messages], shown, n, keep=keep)
        tokens = sum(answer.sampled.num_tokens for answer in answers)
        by, files = self.by.name, self.by.fingerprint
        return [
            replace(
                answers[i],
                chosen=Chosen(n=n, rank=rank, by=by, fingerprint=files, reward=rewards[i], num_tokens=tokens),
            )
            for rank, i in enumerate(places, start=1)
        ]

    def _as_shown(self, answer: Answer) -> Sampled:
        """What is scored: of an answer that a stop text ended, what comes before that text."""
        if answer.finish != "stop":
            return answer.sampled
        before = self.chat.answer(answer.prompt.messages, answer.text, finished=False)
        return Sampled(answer.text, before.answer, answer.sampled.logp, "length")


def number_asked(asked: Asked, default: int, temperature: float, roster: Roster) -> int:
    """Of how many answers a request wants the best; 0 where all that are sampled are given, as they are.

    `default` (0 is off) holds where the request does not say, and no draw is made twice: at temperature 0 all answers
    are the same. Raises BadRequest where the request says so itself, and where nothing can choose.
    """
    if (n := asked.best_of) is None:
        return max(default, asked.n or 1) if default and temperature > 0 else 0
    if n == 1:
        return 0
    if temperature == 0:
        raise BadRequest(f"best_of is {n}, and at temperature 0 all answers are the same", param="best_of")
    try:
        roster.chooses()
    except TrueupError as error:
        next_step = f"; next: {error.next_step}" if error.next_step else ""
        raise BadRequest(f"best_of: {error.found}{next_step}", param="best_of") from None
    return n


def in_words(n: int, roster: Roster) -> str:
    """That each answer is the best of `n`, by what, and what this changes for who waits for it."""
    return f"Each answer is the best of {n} by {roster.chooses().name}. It is shown once it is chosen, not as it grows."
