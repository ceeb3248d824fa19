"""What was made of what: stages and the stages they were made from, by the fingerprints in their records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.errors import StageError
from trueup.run.artifacts import Feedback, everything, read_jsonl


@dataclass(frozen=True)
class Member:
    """A complete stage. `made_from` has the names of stages; `missing` the inputs that are there no more."""

    name: str  # its folder within the run's: sft, round-1/dpo@beta-0.3
    fingerprint: str  # SHA-256 of its files
    made_from: tuple[str, ...]
    missing: tuple[str, ...]
    judgements: dict[str, int]  # of feedback: annotator -> how many are frozen in it


class Family:
    """The complete stages of a run. Raises StageError where a record cannot be read."""

    def __init__(self, run_dir: Path) -> None:
        found = [(str(one.path.relative_to(run_dir)), one.path, one.record()) for one in everything(run_dir)]
        by_fingerprint = {record.get("fingerprint"): name for name, _, record in found}
        self.members: dict[str, Member] = {}
        for name, path, record in found:
            inputs: dict[str, Any] = record.get("inputs", {})
            sources = {parameter: by_fingerprint.get(of) for parameter, of in inputs.items()}
            self.members[name] = Member(
                name=name,
                fingerprint=str(record.get("fingerprint", "")),
                made_from=tuple(dict.fromkeys(source for source in sources.values() if source)),
                missing=tuple(parameter for parameter, source in sources.items() if source is None),
                judgements=_judgements(path),
            )
        self.run_dir = run_dir

    def find(self, what: str | None) -> Member:
        """A stage by its folder's name, of the last round that has one; by default the last of all.

        Raises StageError where there is none.
        """
        named = [one for name, one in self.members.items() if what is None or what in (name, name.rpartition("/")[2])]
        if not named:
            there = ", ".join(self.members) or "none"
            raise StageError(
                str(self.run_dir),
                found=f"no complete stage{f' called {what}' if what else ''}",
                expected=f"one of those that are complete: {there}",
                next_step="trueup status RUN.yaml says what to build",
            )
        return named[-1]

    def ancestors(self, one: Member) -> list[Member]:
        """What a stage was made from, directly or not, in the order of the pipeline, and the stage itself."""
        names, todo = set(), [one.name]
        while todo:
            name = todo.pop()
            if name not in names:
                names.add(name)
                todo += self.members[name].made_from
        return [member for name, member in self.members.items() if name in names]

    def of_person(self, annotator: str) -> list[Member]:
        """What a person's judgements are frozen in, and all that was made from it, in the order of the pipeline.

        Raises StageError where no frozen judgement is by that person.
        """
        used = {name for name, one in self.members.items() if annotator in one.judgements}
        if not used:
            known = sorted({who for one in self.members.values() for who in one.judgements})
            raise StageError(
                str(self.run_dir),
                found=f"no frozen judgement of {annotator}",
                expected=f"one of {', '.join(known[:20]) or 'nobody: no judgement is frozen yet'}",
                next_step="trueup labels report RUN.yaml says who judged",
            )
        return [one for name, one in self.members.items() if used & {ancestor.name for ancestor in self.ancestors(one)}]


def described(members: list[Member], annotator: str | None = None) -> list[str]:
    """A line for each, with what it was made from and who judged."""
    lines = []
    for one in members:
        said = [f"made from {', '.join(one.made_from)}"] if one.made_from else []
        said += [f"its {', '.join(one.missing)}: built again since, or deleted"] if one.missing else []
        if one.judgements:
            of_one = "" if annotator is None else f", {one.judgements.get(annotator, 0):,} of {annotator}"
            people = _people(list(one.judgements))
            said.append(f"{sum(one.judgements.values()):,} judgements of {people}{of_one}")
        lines.append(
            f"{one.name} ({one.fingerprint[:12]}): {'; '.join(said)}"
            if said
            else f"{one.name} ({one.fingerprint[:12]})"
        )
    return lines


def _people(names: list[str]) -> str:
    """How many gave judgements; a file that names nobody does not tell how many its people are."""
    named = [name for name in names if not name.startswith("unnamed ")]
    counted = f"{len(named)} annotator{'s' * (len(named) != 1)}"
    unnamed = "people whom the file does not name"
    return counted if len(named) == len(names) else f"{counted} and {unnamed}" if named else unnamed


def _judgements(path: Path) -> dict[str, int]:
    file = path / Feedback.FILES[0]
    if not file.is_file():
        return {}
    return dict(Counter(str(row.get("annotator", "")) for row in read_jsonl(file)))
