"""Held-out prompts that are also trained on: a comparison on them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trueup.data import asked, asked_by, in_context
from trueup.data.dialogue import Messages
from trueup.data.faults import BROKEN
from trueup.data.sources import Reader, refuse

if TYPE_CHECKING:
    from trueup.run.data_config import DataConfig

WANTED = {"demonstrations": "demonstrations", "prompts": "prompts", "held_out": "prompts", "preferences": "preferences"}


@dataclass(frozen=True)
class Leaks:
    """`num_held_out` distinct prompts, and how many of them each other field `shared`; fields without are absent."""

    num_held_out: int = 0
    shared: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """A warning for each field that shares prompts with the held-out ones."""
        return [
            f"data.{name}: {count:,} of {self.num_held_out:,} held-out prompts are among them; "
            "what is measured on these is not held out"
            for name, count in self.shared.items()
        ]


def leaks(data: DataConfig, fields: tuple[str, ...] = ("demonstrations", "prompts", "preferences")) -> Leaks:
    """Compare the held-out prompts with those of `fields`, but for case, white space and Unicode forms.

    Every local source of the run that is there is read once, so that a file that a later stage would refuse (an emptied
    one, say) is refused now: raises DataError. Files that are not there yet, and the hub's, are passed over.
    """
    held_out = _prompts(data, "held_out")
    found = {name: len(held_out & _prompts(data, name)) for name in fields}
    return Leaks(len(held_out), {name: count for name, count in found.items() if count})


def of_held_out(data: DataConfig) -> Callable[[Messages], bool]:
    """Whether the messages of a prompt, with the run's system message and examples, are a held-out prompt's.

    The files are read when this is first asked: raises DataError then, as `leaks` does.
    """
    shots = in_context(data, [{"role": "user", "content": ""}])[:-1]
    num_shots = sum(message["role"] != "system" for message in shots)
    known: list[set[int]] = []

    def is_held_out(messages: Messages) -> bool:
        if not known:
            known.append(_prompts(data, "held_out"))
        turns = [message for message in messages if message["role"] != "system"]
        given = [message for message in shots if message["role"] != "system"]
        own = turns[num_shots:] if turns[:num_shots] == given else turns
        return hash(asked_by(own)) in known[0]

    return is_held_out


def _prompts(data: DataConfig, name: str) -> set[int]:
    """Hashes of the prompts of a field: 64 bits each, so that a large file fits in memory."""
    found: set[int] = set()
    for source in data.sources(name):
        paths = source.paths()
        if source.on_hub or not paths or not all(path.exists() for path in paths):
            continue
        reader = Reader(source, WANTED[name])
        every_turn = name == "demonstrations" and data.train_on == "all"
        for _, example in reader:
            found.update(hash(text) for text in asked(example, every_turn=every_turn))
        refuse(reader, BROKEN if name == "preferences" else None)
    return found
