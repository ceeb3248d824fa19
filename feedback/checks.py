"""What gold questions and repetitions say of each person. Their judgements are set apart, and never trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trueup.feedback import agreement
from trueup.feedback.gold import is_right
from trueup.feedback.judgement import Comparison, Edit, Judgement, from_row

Row = dict[str, Any]


def set_apart(rows: Iterable[Row], asked: Mapping[str, Any]) -> tuple[list[Row], list[Row]]:
    """(judgements of questions, judgements of gold and of repetitions) among the lines of a store.

    `asked` has `right` and `repeated`, as `Store.asked` gives it. A line that is set apart says what it is: `check`,
    and the `right` answer, or the question `of` which it is the repetition.
    """
    right, repeated = asked.get("right", {}), asked.get("repeated", {})
    questions: list[Row] = []
    checks: list[Row] = []
    for row in rows:
        if (uid := row["uid"]) in right:
            checks.append(row | {"check": "gold", "right": right[uid]})
        elif uid in repeated:
            checks.append(row | {"check": "repeated", "of": repeated[uid]})
        else:
            questions.append(row)
    return questions, checks


def figures(checks: Iterable[Row], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """How often each person is right on gold, and says the same again, with intervals; {} where nothing was checked.

    Of each person's judgements of one thing the last counts. Of a repetition it counts only what the person says who
    judged the question itself, too; edits are no verdicts.
    """
    gold: dict[str, dict[str, bool]] = defaultdict(dict)
    same: dict[str, dict[str, bool]] = defaultdict(dict)
    first = {(one.annotator, one.kind, one.uid): _value(one) for one in judgements if not isinstance(one, Edit)}
    num_once_more = 0
    for row in checks:
        for one in from_row(row):
            if isinstance(one, Edit) or row["check"] not in ("gold", "repeated"):
                continue
            if row["check"] == "gold":
                gold[one.annotator][one.uid] = is_right(one, row["right"])
            elif (before := first.get((one.annotator, one.kind, row["of"]))) is not None:
                same[one.annotator][one.uid] = _value(one) == before
            else:
                num_once_more += 1
    found: dict[str, Any] = {}
    if gold:
        found["gold"] = _shares(gold)
    if same or num_once_more:
        found["repeated"] = _shares(same) | {"num_by_others": num_once_more}
    return found


def _value(one: Judgement) -> Any:
    """The verdict, whichever side an answer was on."""
    if isinstance(one, Comparison):
        return {"a": one.a, "b": one.b}.get(one.preferred, one.preferred)
    return one.verdict


def _shares(hits: Mapping[str, Mapping[str, bool]]) -> dict[str, Any]:
    """{all, people}: a share with its interval, of everybody's and of each person's."""
    everybody = [hit for mine in hits.values() for hit in mine.values()]
    return {
        "all": agreement.share(everybody),
        "people": {who: agreement.share(list(mine.values())) for who, mine in sorted(hits.items())},
    }
