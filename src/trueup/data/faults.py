"""What is wrong or odd in the rows of a file: all counted, the first twenty of each kind kept with their lines."""

from __future__ import annotations

from collections import Counter, defaultdict

from trueup.errors import visible

NUM_SHOWN = 20
FEW = 3
BROKEN = frozenset(
    {"not UTF-8", "not JSON", "not CSV", "no object", "unknown fields", "another format", "half a character"}
)


class RowFault(ValueError):
    """A row that cannot be used. `kind` is what it is counted under, the message says it in full."""

    def __init__(self, kind: str, message: str = "") -> None:
        self.kind = kind
        super().__init__(message or kind)


class Faults:
    """Kinds in BROKEN are of the file; all others are of what a row says."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.num_blank = 0  # rows of a table without any value: skipped, no fault
        self.shown: dict[str, list[tuple[tuple[int, int], str]]] = defaultdict(list)  # kind -> (file, line), words

    def add(self, file: int, line: int, kind: str, words: str) -> None:
        """`words` name the line and the fault, for a person; control characters in them are written out."""
        self.counts[kind] += 1
        if self.counts[kind] <= NUM_SHOWN:
            self.shown[kind].append(((file, line), visible(words)))

    def forget(self, kind: str) -> None:
        """Drop a kind that was found to be said better elsewhere."""
        del self.counts[kind]
        self.shown.pop(kind, None)

    def lines(self, kinds: frozenset[str] | None = None) -> list[str]:
        """The first twenty in the file's order, and how many more there are; all kinds, or those given."""
        chosen = [kind for kind in self.counts if kinds is None or kind in kinds]
        few = FEW if chosen == ["not UTF-8"] else NUM_SHOWN  # one line says it as well as twenty
        first = sorted(item for kind in chosen for item in self.shown[kind])[:few]
        more = sum(self.counts[kind] for kind in chosen) - len(first)
        return [words for _, words in first] + ([f"and {more} more"] if more else [])
