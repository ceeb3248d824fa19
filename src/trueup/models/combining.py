"""How the scores of several reward models become one reward: Coste et al. 2024, arXiv 2310.02743, section 3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trueup.errors import ConfigError
from trueup.run.artifacts import MEMBERS

if TYPE_CHECKING:
    from torch import Tensor

Rule = Literal["mean", "min", "mean_minus_variance"]


@dataclass(frozen=True)
class Combination:
    """A rule, and for `mean_minus_variance` what each unit of variance costs (lambda of Coste et al.)."""

    rule: Rule = "mean"
    variance_coefficient: float = 0.1

    def __call__(self, scores: Tensor) -> Tensor:
        """One reward for each conversation: (members, conversations) -> (conversations,).

        `min` is worst-case optimization, and `mean_minus_variance` is uncertainty-weighted optimization, with the
        variance over the members (divided by their number). Members must be on one scale before: see `scoring.Head`.
        """
        if self.rule == "min":
            return scores.amin(0)
        if self.rule == "mean":
            return scores.mean(0)
        return scores.mean(0) - self.variance_coefficient * scores.var(0, correction=0)

    def refuse_one(self, folder: Path) -> None:
        """Raises ConfigError where the reward model of `folder` has one member, and this is not their mean."""
        if self.rule != "mean" and not (folder / MEMBERS).exists():
            raise ConfigError(
                f"combine: {self.rule}",
                found=f"a reward model of one member, {folder}",
                expected="one of several members",
                next_step="set reward.members, then: trueup reward RUN.yaml --rebuild; or leave combine out",
            )
