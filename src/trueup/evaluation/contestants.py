"""Who answers in an evaluation: the labels of its record, what each is called in words, and how it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trueup.data.dialogue import Messages
from trueup.evaluation import baselines
from trueup.evaluation.baselines import Baseline
from trueup.run.goal import ROUND_BEFORE
from trueup.run.run_file import DataConfig, Shot

POLICY, SFT, REFERENCE = "default", "sft", "ref"  # adapters of the model of an evaluation
BEST = {"sft_best": "sft", "aligned_best": "aligned"}  # label of a best-of-n -> whose answers they are
NAMES = {
    "sft": "SFT (before)",
    "aligned": "aligned (after)",
    ROUND_BEFORE: "the round before",
    "base": "base, bare",
    "system_prompt": "base, system prompt",
    "few_shot": "base, few-shot",
    "sft_best": "SFT, best of n",
    "aligned_best": "aligned, best of n",
}


@dataclass(frozen=True)
class Contestant:
    """Whoever answers: an adapter, the prompts as it is asked them, and of how many answers the best one counts.

    `rows` are the places of these prompts among all that the evaluation has.
    """

    adapter: str | None  # None: the bare base
    prompts: list[Messages]
    rows: list[int]
    best_of: int = 1


def all_of(
    prompts: list[Messages],
    *,
    later: bool,
    chosen: Sequence[Baseline],
    some: list[int],
    best_of: int,
    data: DataConfig,
    shots: Sequence[Shot],
) -> dict[str, Contestant]:
    """The contestants by label; in a `later` round, the winner of the one before is among them.

    The baselines `chosen` answer `some` of the prompts, by their places. Raises ConfigError where what a baseline is
    made of is not set.
    """
    every, asked = list(range(len(prompts))), [prompts[i] for i in some]
    found = {"sft": Contestant(SFT, prompts, every), "aligned": Contestant(POLICY, prompts, every)}
    if later:
        found[ROUND_BEFORE] = Contestant(REFERENCE, prompts, every)
    found |= {label: Contestant(None, baselines.prompts(label, asked, data, shots), some) for label in chosen}
    if best_of:
        found |= {label: replace(found[whose], best_of=best_of) for label, whose in BEST.items()}
    return found


def spread(number: int, each: int, most: int | None) -> list[int]:
    """Of `number` prompts with `each` places in a row: the first place of at most `most` of them, evenly spaced."""
    kept = min(most or number, number)
    return [each * (i * number // kept) for i in range(kept)]


def names(figures: dict[str, Any]) -> dict[str, str]:
    """The contestants of an evaluation's figures, by label: SFT, the aligned model, then what else it is compared with.

    `figures` are those of report.json, which has the length and endings of each contestant under its label.
    """
    named = dict(NAMES)
    if began := figures.get("began_from"):
        named[ROUND_BEFORE] = f"round {began['round']} ({began['adapter']})"
    if best := figures.get("best_of"):
        named |= {label: named[label].replace("best of n", f"best of {best['n']}") for label in BEST}
    return {label: name for label, name in named.items() if label in figures}
