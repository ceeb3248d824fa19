"""What was read of one field of the `data` section, what was not, and why: for the screen and the record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trueup.data.sources import Reader
from trueup.errors import visible
from trueup.run import enough

if TYPE_CHECKING:
    from trueup.data.leaks import Leaks

ENOUGH = {
    "demonstrations": enough.DEMONSTRATIONS,
    "prompts": enough.JUDGED_PROMPTS,
    "preferences": enough.JUDGED_PROMPTS,
}


def too_few(name: str, count: int) -> str:
    """A warning where `count` demonstrations or prompts are too few to expect much of; empty where they are enough."""
    said = enough.few(count, ENOUGH.get(name, 0), "judged prompts" if name == "preferences" else name)
    return said[0].removeprefix("warning: ") if said else ""


@dataclass
class ReadReport:
    """Filled by the `read_` functions of `trueup.data`.

    `num_rows` counts the files' rows, `num_used` those handed on (a weight of 2 hands on each twice), `num_different`
    the demonstrations or prompts that differ. `unused_fields`
    counts, for each field that is not read, the rows in which it says something. `num_untrained_turns` are assistant
    turns before the last one, which `data.train_on: last` leaves out of the loss.
    """

    name: str = ""
    num_rows: int = 0
    num_used: int = 0
    num_different: int = 0
    num_untrained_turns: int = 0
    unused_fields: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    files_not_read: list[str] = field(default_factory=list)
    shares: list[str] = field(default_factory=list)  # what the run file itself leaves out

    def add(self, reader: Reader, *, keeps_other_turns: bool = False) -> None:
        """Count what a source gave; it was read to its end."""
        self.num_rows += reader.num_rows
        self.unused_fields += reader.unused
        self.notes += reader.notes.counts
        self.files_not_read += reader.files_not_read
        if reader.wanted == "demonstrations" and not keeps_other_turns:
            self.num_untrained_turns += reader.num_other_turns
        if reader.wanted != "preferences" and reader.faults.num_blank:
            self.left_out["blank row"] += reader.faults.num_blank
        if reader.source.weight < 1:
            weight = reader.source.weight
            self.shares.append(f"{weight:.4g} of the rows of {reader.source.path.name} are used, as its weight says")

    def finish(self, name: str, num_used: int, num_different: int) -> None:
        """Name the field, and count the rows that were handed on."""
        self.name, self.num_used, self.num_different = name, num_used, num_different
        self.left_out = +self.left_out

    def as_metrics(self) -> dict[str, Any]:
        """For the record: JSON values."""
        return {
            "num_rows": self.num_rows,
            "num_used": self.num_used,
            "num_untrained_turns": self.num_untrained_turns,
            "unused_fields": dict(self.unused_fields),
            "left_out": dict(self.left_out),
            "notes": dict(self.notes),
            "shares": self.shares,
            "files_not_read": self.files_not_read,
        }

    def lines(self) -> list[str]:
        """What is not read or not trained, a line for each; empty where everything is."""
        found = [f"field not used: {name}, in {count:,} rows" for name, count in self.unused_fields.most_common()]
        found += [f"left out, {why}: {count:,} rows" for why, count in self.left_out.items()]
        found += [f"{what}: {count:,}" for what, count in self.notes.items()]
        found += [f"file not read: {name}" for name in self.files_not_read]
        return [visible(f"data.{self.name}: {line}") for line in found]


def tell(*reports: ReadReport, shared: Leaks | None = None) -> dict[str, Any]:
    """Print what was not read, not used, or is held out as well; the same counts for the record."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for report in reports:
        for line in report.shares:
            console.print(Text(visible(f"data.{report.name}: {line}")), soft_wrap=True)
    lines = [line for report in reports for line in report.lines()]
    lines += shared.lines() if shared else []
    for line in lines:
        console.print(Text(f"warning: {line}", style="yellow"), soft_wrap=True)
    counts: dict[str, Any] = {report.name: report.as_metrics() for report in reports}
    return counts | ({"held_out_prompts_shared": shared.shared} if shared else {})
