"""What `collect` refuses before anybody is asked anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from trueup.errors import ConfigError, FeedbackError, TrueupError
from trueup.feedback.use import Use


def all_at_once(checks: Iterable[Callable[[], Any]]) -> None:
    """Make all checks, then raise what one of them raised, or one ConfigError of everything that several raised."""
    faults: list[TrueupError] = []
    for check in checks:
        try:
            check()
        except TrueupError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise ConfigError(
            "collect",
            found=f"{len(faults)} faults\n  " + "\n  ".join(str(error).replace("\n", "\n  ") for error in faults),
            next_step="correct all of them, then run the same command again",
        )


def questions_to_nobody(names: Sequence[str], *, of_files: bool) -> None:
    """Raises ConfigError where the settings `names` say what people are asked, and nobody is asked anything."""
    if names:
        raise ConfigError(
            ", ".join(f"collect.{name}" for name in names),
            found="judgements of data.preferences" if of_files else "collect.interface: use",
            expected="judgements in Label Studio: nobody is asked here",
            next_step="leave it out" if len(names) == 1 else "leave them out",
        )


def nothing_to_learn(method: str, interface: str) -> None:
    """Raises ConfigError where the method could learn nothing from what people are asked."""
    if method == "kto" and interface in ("pairwise", "edit"):
        raise ConfigError(
            "collect.interface",
            found=f"{interface}, and method kto, which learns from single judgements",
            expected="thumbs or rating",
            next_step="set collect.interface: thumbs, or method: dpo",
        )


def too_little_gold(number: int, needed: int) -> None:
    """Raises ConfigError where there are fewer gold questions than a person needs to qualify."""
    if number < needed:
        raise ConfigError(
            "collect.qualification",
            found=f"{number} gold questions",
            expected=f"{needed} or more in the file of collect.gold",
            next_step="add some to it, or set collect.qualification.gold to less",
        )


def nothing_to_ask(asked: Sequence[Any]) -> None:
    """Raises FeedbackError where there is no question."""
    if not asked:
        raise FeedbackError(
            "collect",
            found="no prompt with two different answers",
            expected="pairs of answers for people to compare",
            next_step="sample more of them (sample.num_completions), or set collect.interface: rating",
        )


def nothing_said(store: Path) -> None:
    """Raises FeedbackError where nobody said anything in use, and nobody is asked for more."""
    if not Use(store).num_judgements():
        raise FeedbackError(
            "collect.interface: use",
            found="nobody has said anything of an answer yet",
            expected="judgements given in use",
            next_step="trueup chat RUN.yaml, or trueup serve RUN.yaml",
        )
