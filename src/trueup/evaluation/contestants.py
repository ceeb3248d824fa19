"""Who answers in an evaluation: the labels of its record, what each is called in words, and how it answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trueup.data.dialogue import Messages
from trueup.evaluation import baselines
from trueup.evaluation.baselines import Baseline
from trueup.evaluation.names import NAMES
from trueup.run.data_config import DataConfig, Shot
from trueup.run.goal import ROUND_BEFORE

POLICY, SFT, REFERENCE = "default", "sft", "ref"  # adapters of the model of an evaluation
BEST_OF = re.compile(r"(sft|aligned)_best_of_(\d+)")  # labels of the best of n answers, and whose answers they are
STEP = re.compile(r"step_(\d+)")  # labels of the aligned model's own checkpoints, and their steps; adapters as well


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
    steps: Sequence[str] = (),
) -> dict[str, Contestant]:
    """The contestants by label; in a `later` round, the winner of the one before is among them.

    `steps` are the labels of checkpoints. The baselines `chosen` answer `some` of the prompts, by their places. Raises
    ConfigError where what a baseline is made of is not set.
    """
    every, asked = list(range(len(prompts))), [prompts[i] for i in some]
    found = {"sft": Contestant(SFT, prompts, every), "aligned": Contestant(POLICY, prompts, every)}
    if later:
        found[ROUND_BEFORE] = Contestant(REFERENCE, prompts, every)
    found |= {label: Contestant(None, baselines.prompts(label, asked, data, shots), some) for label in chosen}
    if best_of:
        found |= {f"{whose}_best_of_{best_of}": replace(found[whose], best_of=best_of) for whose in ("sft", "aligned")}
    return found | {label: Contestant(label, prompts, every) for label in steps}


def spread(number: int, each: int, most: int | None) -> list[int]:
    """Of `number` prompts with `each` places in a row: the first place of at most `most` of them, evenly spaced."""
    kept = min(most or number, number)
    return [each * (i * number // kept) for i in range(kept)]


def name_of(label: str, figures: dict[str, Any]) -> str:
    """What a contestant of an evaluation's figures is called; one that this version does not know bears its label."""
    began = figures.get("began_from") or {}
    if label == ROUND_BEFORE and "round" in began:
        return f"round {began['round']} ({began.get('adapter', 'its winner')})"
    if best := BEST_OF.fullmatch(label):
        return f"{'SFT' if best[1] == 'sft' else best[1]}, best of {best[2]}"
    return NAMES.get(label, label.replace("_", " "))


def names(figures: dict[str, Any]) -> dict[str, str]:
    """The contestants of an evaluation's figures, by label: SFT, the aligned model, then what else it is compared with.

    `figures` are those of report.json, which has the length and endings of each contestant under its label.
    """
    there = [label for label, one in figures.items() if isinstance(one, dict) and "mean_length_tokens" in one]
    order = [*NAMES, *there]
    return {label: name_of(label, figures) for label in sorted(there, key=order.index)}
