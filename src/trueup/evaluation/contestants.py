"""Who answers in an evaluation: the labels of its record, and what each is called in words."""

from __future__ import annotations

from typing import Any

from trueup.evaluation.drawing import NAMES
from trueup.run.goal import ROUND_BEFORE


def names(figures: dict[str, Any]) -> dict[str, str]:
    """The contestants of an evaluation's figures, by label: SFT, the aligned model, then what else it is compared with.

    `figures` are those of report.json, which has the length and endings of each contestant under its label.
    """
    named = dict(NAMES)
    if began := figures.get("began_from"):
        named[ROUND_BEFORE] = f"round {began['round']} ({began['adapter']})"
    return {label: name for label, name in named.items() if label in figures}
