"""How far people have come, and what stands in the way: counted from the tasks and from what the store keeps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trueup.feedback.annotations import SKIPPED, UNKNOWN, Unusable, annotator_of, parse
from trueup.feedback.judgement import Judgement
from trueup.feedback.people import Person
from trueup.feedback.qualification import Qualification
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
    each: int = 1  # verdicts wanted of each, or of some
    left: dict[str, int] = field(default_factory=dict)  # person -> how many more this person can still be given
    doubled: list[Any] = field(default_factory=list)  # ids of tasks that one person judged twice, and nobody else gets
    short_of_people: bool = False  # fewer people can judge than are wanted of each
    overlap: str = ""  # the key that says how many are wanted of some
    held: list[dict[str, Any]] = field(default_factory=list)  # the judgements of people who lack the qualification
    lacking: dict[str, str] = field(default_factory=dict)  # person -> what of the qualification this person lacks
    in_vain: dict[str, int] = field(default_factory=dict)  # uid -> how many annotations these people made of it

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
                f"{len(self.doubled)} judged twice by one person, and so given to nobody else: the later "
                f"judgement counts; delete the earlier one in Label Studio ({_named(self.doubled)})"
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
    tasks: Sequence[dict[str, Any]],
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

    `each` verdicts are wanted of each, or as many as it says of a uid. Label Studio gives a task out until so many
    annotations were submitted, with a verdict or not, and whoever skipped it does not get it again. Where `people` with
    logins are known, they and all who judged here are those who can be given something; elsewhere others may be there,
    who never judged yet. `alone`: what people said in the run's other projects is no verdict here.
    What people said who lack the `qualification` is kept, and counts once they have it.
    """
    parsed = [parse(task, interface) for task in tasks]
    found: list[Judgement] = [one for good, _ in parsed for one in good]
    unusable = [one for _, bad in parsed for one in bad]
    store.append(found, key)
    present = {one.annotation_id for one in found if one.annotation_id is not None}
    hidden = {one.uid for one in unusable if one.raw is None}  # tasks that the server cannot show: the store knows more
    current = store.current(present, key, hidden)
    lacking = qualification.lacking(found) if qualification else {}
    held = [row for row in current if row["annotator"] in lacking and row["uid"] in set(asked)]
    current = [row for row in current if row["annotator"] not in lacking or row["uid"] not in set(asked)]
    counted = [row for row in current if row["project"] == key or not alone]
    said = {(row["annotator"], row["uid"]) for row in counted if row["kind"] == KIND_OF[interface]}
    verdicts, handled = Counter(uid for _, uid in said), Counter(one.uid for one in unusable)
    by_uid, submitted = _handled(found, unusable)
    in_vain = Counter({uid: len({row["annotation_id"] for row in rows}) for uid, rows in _by_uid(held).items()})
    submitted -= in_vain  # Label Studio counts them; the project has these tasks given to as many people more
    gone = {str(person.id) for person in people if person.removed}
    able = {str(person.id) for person in people if not person.removed}
    complete = bool(able)
    able |= {who for handlers in by_uid.values() for who in handlers if not who.startswith(UNKNOWN)} - gone
    wants = dict.fromkeys(asked, each) if isinstance(each, int) else {uid: each[uid] for uid in asked}
    most = max(wants.values(), default=1)
    still = [uid for uid in asked if verdicts[uid] < wants[uid] and submitted[uid] < wants[uid]]
    open_to = {uid: able - by_uid.get(uid, set()) for uid in still}
    coming = [
        uid
        for uid in still
        if len(open_to[uid]) >= wants[uid] - verdicts[uid]
        or (not complete and verdicts[uid] + handled[uid] < wants[uid])
    ]
    names = {str(person.id): person.label for person in people}
    left = Counter(who for uid in coming for who in open_to[uid])
    twice = {uid for uid in asked if verdicts[uid] < wants[uid] <= submitted[uid]} & _judged_twice(found)
    return Standing(
        each=most,
        left={names.get(who, f"person {who}"): left[who] for who in sorted(left)} if complete or most > 1 else {},
        doubled=[task.get("id") for task in tasks if uid_of(task) in twice],
        short_of_people=complete and len(able) < most,
        overlap="overlap.people" if most > min(wants.values(), default=1) else "",
        labelled=sum(verdicts[uid] >= wants[uid] for uid in asked),
        wanted=wanted,
        to_come=len(coming),
        rows=current,
        held=held,
        lacking={names.get(who, f"person {who}"): why for who, why in lacking.items()},
        in_vain=dict(in_vain),
        unusable=unusable,
        foreign=[task.get("id") for task in tasks if uid_of(task) is None],
        num_gone=store.num_gone(present, key, hidden),
        broken=store.broken(),
        begun=sum(0 < verdicts[uid] < wants[uid] for uid in asked),
    )


def _handled(found: list[Judgement], unusable: list[Unusable]) -> tuple[dict[str, set[str]], Counter[str]]:
    """(uid -> who had it, uid -> how many annotations were submitted): of skips, no submission."""
    by_uid: dict[str, set[str]] = {}
    for one in found:
        by_uid.setdefault(one.uid, set()).add(one.annotator)
    for bad in unusable:
        if (who := annotator_of(bad.raw)) is not None:
            by_uid.setdefault(bad.uid, set()).add(who)
    submitted = Counter(uid for uid, _ in {(one.uid, one.annotation_id) for one in found})
    submitted.update(bad.uid for bad in unusable if bad.why != SKIPPED and bad.raw is not None)
    return by_uid, submitted


def _by_uid(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["uid"], []).append(row)
    return found


def _judged_twice(found: list[Judgement]) -> set[str]:
    made = {(one.uid, one.annotator, one.annotation_id) for one in found}
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
