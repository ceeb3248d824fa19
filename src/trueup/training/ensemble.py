"""Several reward models of the same labels, on one scale (Coste et al. 2024, arXiv 2310.02743).

Heads on frozen states differ by the prompts that each is fitted on; adapters by their seed: the first state of the
score head, dropout, and the order of the pairs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trueup import ranks
from trueup.errors import FeedbackError, StageError
from trueup.models import adapters, scoring
from trueup.run.artifacts import member_folders
from trueup.run.building import release
from trueup.run.files import KEPT, append_jsonl, read_appended
from trueup.run.stage import Context, Metrics

SEEDS = 2**32  # seeds are taken modulo this
ALIKE = 1e-6  # a spread of scores below this is none


@dataclass(frozen=True)
class Scored:
    """A member's scores: of the distinct answers that it was trained on, and of both sides of the held-out pairs."""

    trained: list[float]
    chosen: list[float]
    rejected: list[float]
    prompts: list[str]  # of those pairs


@dataclass(frozen=True)
class Members:
    """What `scoring.save_members` writes."""

    weight: Tensor  # (members, hidden)
    mean: Tensor  # (members,) of its scores of the answers that were trained on
    spread: Tensor  # (members,)

    def one_scale(self, raw: Tensor) -> Tensor:
        """Scores as each member gives them, (members, answers), on the scale of all."""
        return (raw - self.mean[:, None]) / self.spread[:, None]

    def sides(self, scores: Sequence[Scored]) -> tuple[list[list[float]], list[list[float]]]:
        """The scores of the chosen and of the rejected side of held-out pairs, (members, pairs) each, on one scale."""
        chosen, rejected = [one.chosen for one in scores], [one.rejected for one in scores]
        return self.one_scale(torch.tensor(chosen)).tolist(), self.one_scale(torch.tensor(rejected)).tolist()


def members(weight: Tensor, raw: Tensor) -> Members:
    """Members with these score weights, (members, hidden), and scores of the answers trained on, (members, answers).

    Their scale is the mean and the spread of those scores. Raises StageError where a member tells no answers apart.
    """
    mean, spread = raw.mean(1), raw.std(1, correction=0)
    if alike := [number for number, one in enumerate(spread.tolist(), start=1) if not one > ALIKE]:
        raise StageError(
            "reward.members",
            found=f"the same score for all answers by member {', '.join(map(str, alike))}",
            expected="scores that differ",
            next_step="collect more judgements, or set reward.members to 1",
        )
    return Members(weight, mean, spread)


def bootstrap(prompt: Tensor, number: int, seed: int, enough: Callable[[Tensor], bool]) -> Tensor:
    """How often each row counts in each member's draw, (number, rows): prompts are drawn with replacement, whole.

    `prompt`, (rows,), numbers the prompt of each row. A draw is repeated until its rows, (rows,) bool, are `enough` to
    learn from. Raises FeedbackError where there are fewer prompts than members.
    """
    prompts, place = torch.unique(prompt, return_inverse=True)
    if len(prompts) < number:
        raise FeedbackError(
            "reward.members",
            found=f"{number} members, and judgements of {len(prompts)} prompts to train on",
            expected="at least as many prompts as members, so that their draws differ",
            next_step="collect more judgements, or set reward.members lower",
        )
    generator = torch.Generator().manual_seed(seed)
    draws: list[Tensor] = []
    while len(draws) < number:
        drawn = torch.randint(len(prompts), (len(prompts),), generator=generator)
        counts = torch.bincount(drawn, minlength=len(prompts))[place]
        if enough(counts > 0):
            draws.append(counts)
    return torch.stack(draws)


def train(
    number: int, context: Context, one: Callable[[Context], tuple[Metrics, Scored]]
) -> tuple[list[Metrics], Members | None, Sequence[Scored]]:
    """Train `number` adapters by `one`, each with a seed of its own; write the file of members beside them.

    Returns the metrics of each, the members, which the first rank alone knows, and their scores. What was trained
    before an interruption is not trained again.
    """
    kept = (context.out_of_first or context.out) / f"members{KEPT}"
    done: list[dict[str, Any]] = ranks.from_first(lambda: read_appended(kept)[0])
    for place in range(len(done), number):
        run = context.run.model_copy(update={"seed": (context.run.seed + place) % SEEDS})
        part = replace(context, run=run, part=f"-{place + 1}" if place else "")
        metrics, scored = one(part)
        done.append({"metrics": metrics, "scored": vars(scored)})
        if ranks.is_first():
            append_jsonl(kept, done[-1:])
            if part.part:
                shutil.rmtree(part.checkpoints)
        release()  # the next member loads the base again
    scores = [Scored(**row["scored"]) for row in done]
    made = None
    if ranks.is_first():
        made = members(_weights(context.out), torch.tensor([one.trained for one in scores]))
        scoring.save_members(context.out, made.weight, made.mean, made.spread)
    return [row["metrics"] for row in done], made, scores


def folder(context: Context) -> Path:
    """Where a member is saved: the first in the stage's own folder, where a single reward model is."""
    return context.out / f"member{context.part}" if context.part else context.out


def _weights(out: Path) -> Tensor:
    """The score weights of all members, (members, hidden)."""
    saved = [adapters.saved_tensors(one) for one in (out, *member_folders(out))]
    return torch.cat([tensor for one in saved for key, tensor in one.items() if key.endswith("score.weight")])
