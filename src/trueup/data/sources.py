"""A source of the run file becomes examples: its files, its columns, its formats, its weight."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from rapidfuzz import process

from trueup.data.dialogue import RowFault
from trueup.data.faults import Faults
from trueup.data.files import DataFile, files_of
from trueup.data.formats import FIELDS, FORMATS, Example, Format, Record, detect
from trueup.errors import DataError
from trueup.run.run_file import Source

Place = tuple[int, int]  # number of the file, and of the line (or row) in it
MAX_SHAPES = 1000  # sets of field names remembered: a file has one, or a few


class Reader:
    """Reads one source once. Iterating fills `faults`, `formats`, `num_rows` and `num_ties`.

    `wanted` is demonstrations, prompts or preferences, or None for whatever the file is good for.
    """

    def __init__(self, source: Source, wanted: str | None = None) -> None:
        self.source, self.wanted = source, wanted
        self.files = files_of(source.path)
        self.faults = Faults()
        self.formats: dict[str, str] = {}  # file -> the format found
        self.num_rows = 0
        self.num_ties = 0  # judged rows without a preference
        self._shapes: dict[tuple[str, ...], Format | None] = {}

    def place(self, place: Place) -> str:
        """`line 17`, with the file's name where there are several."""
        return self.files[place[0]].at(place[1])

    def __iter__(self) -> Iterator[tuple[Place, Example]]:
        """Raises DataError on a file that is lost, or whose fields are none of the formats."""
        for file in self.files:
            yield from self._of_file(file)
        if not self.num_rows and not self.faults.counts:
            raise DataError(str(self.source.path), found="no rows", expected=f"rows of {self.wanted or 'any format'}")

    def _of_file(self, file: DataFile) -> Iterator[tuple[Place, Example]]:
        faults, expected, unknown = self.faults, None, None
        for number, record in file.records(faults):
            if self.source.columns:
                record = self._renamed(record)
            self.num_rows += 1
            found = self._format(record)
            if expected is None and found is not None:
                expected = found
                self.formats[file.name or str(file.path)] = found.name
                if self.wanted is not None and self.wanted not in found.gives:
                    raise self._cannot_give(file, record, found)
            if found is None:
                unknown = unknown or record
                names = ", ".join(record) or "no columns"
                faults.add(file.number, number, "unknown fields", f"{file.at(number)}: unknown fields {names}")
                continue
            if found is not expected and expected is not None:
                words = f"{file.at(number)}: {found.name} in a file of {expected.name}"
                faults.add(file.number, number, "another format", words)
                continue
            try:
                examples = found.read(record)
                if self.wanted == "demonstrations" and any(one.completion is None for one in examples):
                    raise RowFault("empty answer", "ends with the user's turn: no answer")
            except RowFault as fault:
                faults.add(file.number, number, fault.kind, f"{file.at(number)}: {fault}")
                continue
            if not examples:
                self.num_ties += 1
            for example in examples:
                yield (file.number, number), example
        if expected is None and unknown is not None:
            raise self._unknown(file, unknown)

    def _renamed(self, record: Record) -> Record:
        """The file's names become ours; a column that is mapped away is not seen under its old name."""
        columns = self.source.columns
        taken = set(columns.values())
        kept = {name: value for name, value in record.items() if name not in taken and name not in columns}
        return kept | {ours: record[theirs] for ours, theirs in columns.items() if theirs in record}

    def _format(self, record: Record) -> Format | None:
        shape = tuple(record)
        if shape not in self._shapes:
            if len(self._shapes) >= MAX_SHAPES:
                self._shapes.clear()
            self._shapes[shape] = detect(record)
        return self._shapes[shape]

    def _unknown(self, file: DataFile, record: Record) -> DataError:
        known = "; ".join(f"{one.name} ({', '.join(sorted(one.fields))})" for one in FORMATS)
        return DataError(
            str(file.path),
            found=f"fields {', '.join(record) or 'none'}: no known format",
            expected=known,
            next_step=_hint(record)
            or "name your columns in data.columns, such as {prompt: question, response: answer}",
        )

    def _cannot_give(self, file: DataFile, record: Record, found: Format) -> DataError:
        fitting = [one.name for one in FORMATS if self.wanted in one.gives]
        return DataError(
            str(file.path),
            found=f"{found.name} (fields {', '.join(record)}): no {self.wanted}",
            expected=f"{self.wanted} as {', '.join(fitting)}",
            next_step=_hint(record),
        )


def _hint(record: Record) -> str:
    """`did you mean ...` for a column whose name is nearly ours; nothing where there is none."""
    missing = [field for field in FIELDS if field not in record]
    for name in record:
        near = process.extractOne(name, missing, score_cutoff=80)
        if name not in FIELDS and near:
            return f"did you mean {name}? Then set data.columns.{near[0]}: {name}"
    return ""


def weighted(reader: Reader, seed: int) -> Iterator[tuple[Place, Example]]:
    """The examples as often as the source's weight says: 0.5 keeps a seeded half, 2 gives each twice."""
    whole, part = divmod(reader.source.weight, 1)
    draw = random.Random(f"{seed} {reader.source.path.name}").random  # noqa: S311 - a choice of rows, not a secret
    for place, example in reader:
        for _ in range(int(whole) + (part > 0 and draw() < part)):
            yield place, example


def refuse(reader: Reader, kinds: frozenset[str] | None = None) -> None:
    """Raise DataError naming the faults, of these kinds or of all, when there are any."""
    if lines := reader.faults.lines(kinds):
        raise DataError(
            str(reader.source.path),
            found="\n  ".join(lines),
            expected=f"{reader.wanted or 'examples'} in every row",
            next_step=f"mend them; or drop them: trueup data prepare {reader.source.path} --out DIR",
        )


def unusable(reader: Reader) -> Counter[str]:
    """How many rows were not used, by reason."""
    return reader.faults.counts + Counter({"no preference": reader.num_ties})
