"""A reward model on labels that neither the optimized reward nor the aligned model learned from.

`collect` holds the judgements of some prompts out (`collect.held_out_fraction`): nothing is trained on them. This judge
learns from them alone, and how often it is right is measured on the others, which it never saw. In a later round it
learns from those of the earlier rounds as well: the answers of one round alone are too much alike to tell a good one
from a bad one. They are few, so only a linear head is learned, on what the frozen SFT model makes of a conversation at
its last token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trueup.chat.template import Chat
from trueup.data.dialogue import Messages
from trueup.judges.protocol import Answer, ByScore
from trueup.run.artifacts import Feedback
from trueup.run.goal import FEWEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "a reward model on judgements that nothing was aligned with"
FEWEST_LABELS = 20
CONSTANT = 30.0  # so large that the penalty hardly touches its weight
STRENGTH = 1e-3  # C of scikit-learn: chosen on the demo, docs/verdict.md
Row = dict[str, Any]
States = Callable[[list[list[int]]], list[list[float]]]  # token ids of conversations -> their features


@dataclass(frozen=True)
class Examples:
    """What people said that the judge learns from: single answers, good or not, and pairs.

    `counts`: num_judgements, of num_prompts and num_rounds; num_left_out, of prompts that a round trained on; and
    num_said_again, which the same person judged in a later round once more.
    """

    rows: list[Row]
    pairs: list[Row]
    counts: dict[str, int]

    def too_few(self) -> str:
        """Why no judge can be made of these, in words; empty where one can."""
        prompts, number = self.counts["num_prompts"], self.counts["num_judgements"]
        left_out = self.counts["num_left_out"]
        besides = f" (besides {left_out} on prompts that a round trained on)" * bool(left_out)
        if prompts < FEWEST:
            return f"judgements of {prompts} prompts are held out{besides}, and {FEWEST} at least are needed"
        if number < FEWEST_LABELS or (not self.pairs and len({row["label"] for row in self.rows}) < 2):
            return f"{number} judgements are held out{besides}, and {FEWEST_LABELS} of both kinds at least are needed"
        return ""


def train(examples: Examples, chat: Chat, states: States, encoded: Callable[[Messages, Answer], list[int]]) -> ByScore:
    """The judge: a logistic regression on `states`, (conversations, hidden), with an L2 penalty.

    A single answer is an example with its label; a pair is one of the difference of its two states, as in Bradley and
    Terry's model, which has no constant. Features are scaled to a variance of 1. Each example weighs what `collect`
    says it does.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    sides = ("chosen", "rejected")
    conversations = [chat.encode(row).ids for row in examples.rows]
    conversations += [chat.encode(pair, side).ids for pair in examples.pairs for side in sides]
    found = np.array(states(conversations), dtype=np.float64)
    scale = found.std(0) + 1e-6
    single, paired = found[: len(examples.rows)], found[len(examples.rows) :]
    middle = (single if len(single) else paired).mean(0)
    differences = (paired[::2] - paired[1::2]) / scale
    features = _with_constant((single - middle) / scale, differences)
    labels = [int(row["label"]) for row in examples.rows] + [1, 0] * len(examples.pairs)
    weights = [row["weight"] for row in examples.rows]
    weights += [pair["weight"] / 2 for pair in examples.pairs for _ in sides]
    model = LogisticRegression(C=STRENGTH, fit_intercept=False, max_iter=10_000)
    model.fit(features, labels, sample_weight=weights)
    direction = model.coef_[0][:-1] / scale

    def scores(prompts: list[Messages], answers: list[Answer]) -> list[float]:
        read = states([encoded(messages, answer) for messages, answer in zip(prompts, answers, strict=True)])
        result: list[float] = ((np.array(read) - middle) @ direction).tolist()
        return result

    return ByScore(NAME, scores)


def _with_constant(single: NDArray[Any], differences: NDArray[Any]) -> NDArray[Any]:
    """The examples as they are fitted: each pair both ways round; a constant for single answers alone."""
    import numpy as np

    both = np.stack([differences, -differences], axis=1).reshape(-1, differences.shape[1])
    constant = np.concatenate([np.full(len(single), CONSTANT), np.zeros(len(both))])
    return np.concatenate([np.concatenate([single, both]), constant[:, None]], axis=1)


def encoder(chat: Chat) -> Callable[[Messages, Answer], list[int]]:
    """(messages, answer) -> token ids: those that were sampled, where they are known."""

    def encoded(messages: Messages, answer: Answer) -> list[int]:
        if answer.ids is not None:
            return chat.sampled(messages, list(answer.ids), finished=answer.finished).ids
        return chat.answer(messages, answer.text, finished=answer.finished).ids

    return encoded


def examples(rounds: Sequence[Feedback]) -> Examples:
    """What is held out in `rounds`, the earliest first: thumbs as single answers, and pairs of what is no thumb.

    The pairs that thumbs make say nothing that the thumbs do not. Prompts that any of the rounds trained on are left
    out. What a person said of the same answers in several rounds counts once, as it was said last.
    """
    trained = {row["prompt_id"] for one in rounds for row in (*one.rows("train"), *one.pairs("train"))}
    last: dict[Hashable, tuple[int, list[Row]]] = {}
    num_held_out = num_left_out = 0
    for number, feedback in enumerate(rounds):
        paired = [pair for pair in feedback.pairs("held_out") if pair.get("kind", "thumb") != "thumb"]
        held_out = [*feedback.rows("held_out"), *paired]
        kept = [row for row in held_out if row["prompt_id"] not in trained]
        num_held_out += len(held_out)
        num_left_out += len(held_out) - len(kept)
        said: dict[Hashable, list[Row]] = defaultdict(list)
        for row in kept:
            said[_judged(row)].append(row)
        last |= {judged: (number, some) for judged, some in said.items()}
    found = [row for _, some in last.values() for row in some]
    counts = {
        "num_judgements": len(found),
        "num_prompts": len({row["prompt_id"] for row in found}),
        "num_rounds": len({number for number, _ in last.values()}),
        "num_left_out": num_left_out,
        "num_said_again": num_held_out - num_left_out - len(found),
    }
    return Examples([row for row in found if "label" in row], [row for row in found if "label" not in row], counts)


def _judged(row: Row) -> Hashable:
    """Who judged which answers to which prompt, and how; a pair is of all who compared the two."""
    texts = frozenset(row[name] for name in ("completion", "chosen", "rejected") if name in row)
    return row["prompt_id"], row.get("kind"), row.get("annotator"), texts
