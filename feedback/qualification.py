"""Whose judgements count: of people who were right on enough gold questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trueup.feedback.gold import is_right
from trueup.feedback.judgement import Edit, Judgement


@dataclass(frozen=True)
class Qualification:
    """Of the gold questions `right` (uid -> right answer), so many have to be judged, and so large a share rightly."""

    right: Mapping[str, str]
    gold: int
    accuracy: float

    def lacking(self, judgements: Iterable[Judgement]) -> dict[str, str]:
        """annotator -> why this person's judgements do not count yet; of each gold question the last verdict counts."""
        hits: dict[str, dict[str, bool]] = defaultdict(dict)
        for one in judgements:
            mine = hits[one.annotator]
            if one.uid in self.right and not isinstance(one, Edit):
                mine[one.uid] = is_right(one, self.right[one.uid])
        found: dict[str, str] = {}
        for who, mine in hits.items():
            if len(mine) < self.gold:
                found[who] = f"{len(mine)} of {self.gold} gold questions judged"
            elif sum(mine.values()) < self.accuracy * len(mine):
                found[who] = f"{sum(mine.values())} of {len(mine)} gold questions right, expected {self.accuracy:.0%}"
        return found
