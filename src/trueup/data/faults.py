"""What is wrong with the rows of a file: all counted, the first twenty of each kind kept with their lines."""

from __future__ import annotations

from collections import Counter, defaultdict

NUM_SHOWN = 20
BROKEN = frozenset({"not UTF-8", "not JSON", "not CSV", "no object", "unknown fields", "another format"})


class Faults:
    """Kinds in BROKEN are of the file; all others are of what a row says."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shown: dict[str, list[tuple[tuple[int, int], str]]] = defaultdict(list)  # kind -> (file, line), words

    def add(self, file: int, line: int, kind: str, words: str) -> None:
        """`words` name the line and the fault, for a person."""
        self.counts[kind] += 1
        if self.counts[kind] <= NUM_SHOWN:
            self.shown[kind].append(((file, line), words))

    def lines(self, kinds: frozenset[str] | None = None) -> list[str]:
        """The first twenty in the file's order, and how many more there are; all kinds, or those given."""
        chosen = [kind for kind in self.counts if kinds is None or kind in kinds]
        first = sorted(item for kind in chosen for item in self.shown[kind])[:NUM_SHOWN]
        more = sum(self.counts[kind] for kind in chosen) - len(first)
        return [words for _, words in first] + ([f"and {more} more"] if more else [])
