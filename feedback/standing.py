"""How far people have come, and what stands in the way: counted from the tasks and from what the store keeps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trueup.feedback.annotations import Unusable, parse
from trueup.feedback.judgement import Judgement
from trueup.feedback.store import Store
from trueup.feedback.tasks import uid_of

KIND_OF = {"thumbs": "thumb", "pairwise": "comparison", "rating": "rating", "edit": "edit"}  # what a screen asks for
NAMED = 5  # tasks that a note names


@dataclass(frozen=True)
class Standing:
    """Of `wanted` completions `labelled` have verdicts enough, and `to_come` others can still get theirs."""

    labelled: int
    wanted: int
    to_come: int
    rows: list[dict[str, Any]]  # the judgements that count, in the order in which they were given
    unusable: list[Unusable]
    foreign: list[Any]  # ids of tasks that trueup did not publish
    num_gone: int  # annotations pulled earlier and deleted in Label Studio since
    broken: list[str]  # lines of the store that cannot be read
    begun: int = 0  # completions with a verdict, and fewer than are wanted of each

    @property
    def done(self) -> bool:
        return self.labelled >= self.wanted

    @property
    def stuck(self) -> bool:
        """Nobody is given anything more to judge, and it is not enough."""
        return not self.done and self.to_come == 0

    def counts(self) -> dict[str, Any]:
        """What was not used, for the record."""
        return {
            "unusable_annotations": dict(Counter(one.why for one in self.unusable)),
            "foreign_tasks": len(self.foreign),
            "labels_deleted_in_label_studio": self.num_gone,
            "store_lines_that_cannot_be_read": self.broken,
        }

    def notes(self, address: str, total: int) -> list[str]:
        """What a person should know while the labels are not enough, a line each; `total` completions are asked."""
        lines = []
        if self.begun:
            lines.append(
                f"{self.begun} have a verdict, but not yet from as many people as annotations_per_completion asks"
            )
        for why, found in _by_reason(self.unusable).items():
            lines.append(f"{len(found)} not counted: {why} ({_named([one.task for one in found])})")
        if self.foreign:
            lines.append(f"{len(self.foreign)} not published by trueup and left alone ({_named(self.foreign)})")
        if self.num_gone:
            lines.append(f"{self.num_gone} annotations pulled earlier were deleted in Label Studio and do not count")
        if self.broken:
            lines.append(f"{len(self.broken)} lines of the store cannot be read ({', '.join(self.broken[:NAMED])})")
        reachable = self.labelled + self.to_come
        if reachable < self.wanted:
            more = f"only {self.to_come} more will come" if self.to_come else "nothing more will come by itself"
            tasks = address.partition("?")[0]
            line = f"{more}, and {self.wanted - self.labelled} are missing: judge the tasks above at {tasks}"
            fraction = math.floor(1000 * reachable / total) / 1000
            lines.append(line + (f", or take less: collect.min_labelled_fraction: {fraction}" if fraction > 0 else ""))
        return lines


def standing(
    tasks: Sequence[dict[str, Any]],
    asked: Sequence[str],
    store: Store,
    key: str,
    *,
    each: int,
    wanted: int,
    interface: str = "thumbs",
) -> Standing:
    """Take the judgements of `tasks` into the store and count them for what was `asked` about (uids).

    `each` verdicts are wanted of each. One that people were given so often already, and skipped or left
    without a verdict, is not given to anybody by itself again.
    """
    parsed = [parse(task, interface) for task in tasks]
    found: list[Judgement] = [one for good, _ in parsed for one in good]
    unusable = [one for _, bad in parsed for one in bad]
    store.append(found, key)
    present = {one.annotation_id for one in found if one.annotation_id is not None}
    hidden = {one.uid for one in unusable if one.raw is None}  # tasks that the server cannot show: the store knows more
    current = store.current(present, key, hidden)
    people = {(row["annotator"], row["uid"]) for row in current if row["kind"] == KIND_OF[interface]}
    verdicts, handled = Counter(uid for _, uid in people), Counter(one.uid for one in unusable)
    return Standing(
        labelled=sum(verdicts[uid] >= each for uid in asked),
        wanted=wanted,
        to_come=sum(verdicts[uid] < each and verdicts[uid] + handled[uid] < each for uid in asked),
        rows=current,
        unusable=unusable,
        foreign=[task.get("id") for task in tasks if uid_of(task) is None],
        num_gone=store.num_gone(present, key, hidden),
        broken=store.broken(),
        begun=sum(0 < verdicts[uid] < each for uid in asked),
    )


def _by_reason(unusable: list[Unusable]) -> dict[str, list[Unusable]]:
    found: dict[str, list[Unusable]] = {}
    for one in unusable:
        found.setdefault(one.why, []).append(one)
    return found


def _named(tasks: Sequence[Any]) -> str:
    ids = list(dict.fromkeys(str(task) for task in tasks))
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"task{'s' if len(ids) > 1 else ''} {', '.join(ids[:NAMED])}{more}"
