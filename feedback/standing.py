"""How far people have come, and what stands in the way: counted from the tasks and from what the store keeps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from trueup.feedback.annotations import UNKNOWN, UNREADABLE, Unusable
from trueup.feedback.judgement import Judgement
from trueup.feedback.people import Person
from trueup.feedback.qualification import Qualification
from trueup.feedback.seen import Seen
from trueup.feedback.store import Said, Store

KIND_OF = {"thumbs": "thumb", "pairwise": "comparison", "rating": "rating", "edit": "edit"}  # what a screen asks for
NAMED = 5  # tasks that a note names


@dataclass(frozen=True)
class Standing:
    """Of `wanted` completions `labelled` have verdicts enough, and `to_come` others can still get theirs."""

    labelled: int
    wanted: int
    to_come: int
    said: list[Said]  # the judgements that count, in the order in which they were given
    unusable: list[Unusable]
    foreign: list[Any]  # ids of tasks that trueup did not publish
    num_gone: int  # annotations pulled earlier and deleted in Label Studio since
    broken: list[str]  # lines of the store that cannot be read
    begun: int = 0  # completions with a verdict, and fewer than are wanted of each
    each: int = 1  # verdicts wanted of each, or of some
    left: dict[str, int] = field(default_factory=dict)  # person -> how many more this person can still be given
    doubled: list[Any] = field(
        default_factory=list
    )  # ids of tasks that one person judged twice, and others are still to judge
    short_of_people: bool = False  # fewer people can judge than are wanted of each
    overlap: str = ""  # the key that says how many are wanted of some
    held: list[Said] = field(default_factory=list)  # the judgements of people who lack the qualification
    lacking: dict[str, str] = field(default_factory=dict)  # person -> what of the qualification this person lacks
    missing: dict[str, int] = field(default_factory=dict)  # uid -> how many more people are to judge it

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
            **(
                {"not_qualified": self.lacking, "judgements_of_unqualified_people": len(self.held)}
                if self.lacking
                else {}
            ),
        }

    def notes(self, address: str, total: int) -> list[str]:
        """What a person should know while the labels are not enough, a line each; `total` completions are asked."""
        lines = []
        if self.begun:
            lines.append(f"{self.begun} have a verdict, but not yet from as many people as are asked about them")
        if self.left:
            each_left = ", ".join(f"{who} {count:,}" for who, count in self.left.items())
            lines.append(f"still to judge, at most: {each_left}")
        if self.short_of_people:
            lines.append(
                f"{self.each} people are asked about {'some' if self.overlap else 'each'}, and fewer can judge: trueup "
                f"people add NAME, or set collect.{self.overlap or 'annotations_per_completion'} to less"
            )
        if self.doubled:
            lines.append(
                f"{len(self.doubled)} judged twice by one person, whose later judgement counts: given to somebody else "
                f"as well ({_named(self.doubled)})"
            )
        if self.lacking:
            lines.append(
                f"{len(self.held)} judgements do not count, of people who are not qualified yet: "
                + "; ".join(f"{who}, {why}" for who, why in sorted(self.lacking.items()))
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
    tasks: Sequence[Seen],
    asked: Sequence[str],
    store: Store,
    key: str,
    *,
    each: int | Mapping[str, int],
    wanted: int,
    interface: str = "thumbs",
    people: Sequence[Person] = (),
    alone: bool = False,
    qualification: Qualification | None = None,
) -> Standing:
    """Take the judgements of `tasks` into the store and count them for what was `asked` about (uids).

    `each` verdicts of different people are wanted of each, or as many as it says of a uid. How many are
    `missing` is counted by people, and Label Studio's own count of annotations, whoever made them, is none of that.
    Whoever judged or skipped a task does not get it again. Where `people` with logins are known, they and all who
    judged here are those who can be given something; elsewhere others may be there, who never judged yet. `alone`: what
    people said in the run's other projects is no verdict here. What people said who lack the `qualification` is kept,
    and counts once they have it.
    """
    found = [one for task in tasks for one in task.judgements]
    unusable = [one for task in tasks for one in task.unusable]
    store.append(found, key)
    present = {one.annotation_id for one in found if one.annotation_id is not None}
    hidden = {one.uid for one in unusable if one.why == UNREADABLE}  # the server cannot show them: the store knows more
    current = store.current(present, key, hidden)
    lacking = qualification.lacking(found) if qualification else {}
    of_ours = set(asked)
    held = [said for said in current if said[1].annotator in lacking and said[1].uid in of_ours]
    current = [said for said in current if said[1].annotator not in lacking or said[1].uid not in of_ours]
    kind = KIND_OF[interface]
    counted = (one for project, one in current if project == key or not alone)
    said = {(one.annotator, one.uid) for one in counted if one.kind == kind}
    verdicts, handled = Counter(uid for _, uid in said), Counter(one.uid for one in unusable)
    by_uid = _handled(tasks)
    gone = {str(person.id) for person in people if person.removed}
    able = {str(person.id) for person in people if not person.removed}
    complete = bool(able)
    able |= {who for handlers in by_uid.values() for who in handlers if not who.startswith(UNKNOWN)} - gone
    wants = dict.fromkeys(asked, each) if isinstance(each, int) else {uid: each[uid] for uid in asked}
    most = max(wants.values(), default=1)
    still = [uid for uid in asked if verdicts[uid] < wants[uid]]
    open_to = {uid: able - by_uid.get(uid, frozenset()) for uid in still}
    coming = [
        uid
        for uid in still
        if len(open_to[uid]) >= wants[uid] - verdicts[uid]
        or (not complete and verdicts[uid] + handled[uid] < wants[uid])
    ]
    names = {str(person.id): person.label for person in people}
    left = Counter(who for uid in coming for who in open_to[uid])
    twice = _judged_twice(found, set(still))
    return Standing(
        each=most,
        left={names.get(who, f"person {who}"): left[who] for who in sorted(left)} if complete or most > 1 else {},
        doubled=[task.task for task in tasks if task.uid in twice],
        short_of_people=complete and len(able) < most,
        overlap="overlap.people" if most > min(wants.values(), default=1) else "",
        labelled=sum(verdicts[uid] >= wants[uid] for uid in asked),
        wanted=wanted,
        to_come=len(coming),
        said=current,
        held=held,
        lacking={names.get(who, f"person {who}"): why for who, why in lacking.items()},
        missing={uid: wants[uid] - verdicts[uid] for uid in still},
        unusable=unusable,
        foreign=[task.task for task in tasks if task.uid is None],
        num_gone=store.num_gone(present, key, hidden),
        broken=store.broken(),
        begun=sum(0 < verdicts[uid] < wants[uid] for uid in asked),
    )


def _handled(tasks: Sequence[Seen]) -> dict[str, frozenset[str]]:
    """uid -> who judged or skipped it, and so is not given it again."""
    by_uid: dict[str, frozenset[str]] = {}
    same: dict[frozenset[str], frozenset[str]] = {}  # of the same people one set is enough
    for task in tasks:
        who = {one.annotator for one in task.judgements}
        who |= {one.annotator for one in task.unusable if one.annotator is not None}
        if task.uid is not None and who:
            both = by_uid.get(task.uid, frozenset()) | who
            by_uid[task.uid] = same.setdefault(both, both)
    return by_uid


def _judged_twice(found: Iterable[Judgement], among: Set[str]) -> set[str]:
    made = {(one.uid, one.annotator, one.annotation_id) for one in found if one.uid in among}
    return {uid for (uid, _), number in Counter((uid, who) for uid, who, _ in made).items() if number > 1}


def _by_reason(unusable: list[Unusable]) -> dict[str, list[Unusable]]:
    found: dict[str, list[Unusable]] = {}
    for one in unusable:
        found.setdefault(one.why, []).append(one)
    return found


def _named(tasks: Sequence[Any]) -> str:
    ids = list(dict.fromkeys(str(task) for task in tasks))
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"task{'s' if len(ids) > 1 else ''} {', '.join(ids[:NAMED])}{more}"
