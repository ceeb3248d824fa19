"""The page on the labels of a run: how far people agree, how each of them judges, and what they dispute."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trueup import drawing
from trueup.feedback.judgement import Comparison, Judgement, Thumb
from trueup.feedback.quality import disputed
from trueup.page import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
MOST_DISPUTED = 30
MOST_PEOPLE = 40


def write(
    path: Path, title: str, found: dict[str, Any], judgements: Sequence[Judgement], completions: list[Row]
) -> Path:
    """Write the page; `found` is what `quality.figures` made of `judgements` and `completions`. Returns `path`."""
    page = Page(title)
    people = found["people"]
    number = sum(one["num_judgements"] for one in people.values())
    edits = sum(one["num_edits"] for one in people.values())
    written = f", and wrote {_counted(edits, 'better answer')}" if edits else ""
    if unnamed := found["num_unnamed"]:
        page.text(
            f"{_counted(unnamed, 'judgement')} from files that do not say who gave which. Nothing is said of the "
            "people who gave these, or of how far they agree: docs/data.md says how a file names them."
        )
    if not people:
        _leanings(page, found)
    else:
        page.text(f"{_counted(len(people), 'person', 'people')} gave {_counted(number, 'judgement')}{written}.")
        about_people(page, found)
        _disputed(page, judgements, completions)
    return page.write(path)


def about_people(page: Page, found: dict[str, Any], level: Literal[2, 3] = 2) -> None:
    """What `found` says of those who judged, each part under a heading of this level."""
    _agreement(page, found, level)
    _people(page, found["people"], level)
    _leanings(page, found, level)
    _checked(page, found, level)
    _accuracy(page, found["dawid_skene"], level)


def _agreement(page: Page, found: dict[str, Any], level: Literal[2, 3]) -> None:
    page.heading("Do people agree?", level)
    if not found["num_compared"]:
        page.text(
            "Nobody judged the same thing as somebody else, so nothing is known of their agreement. Set "
            "collect.annotations_per_completion to 2 or more to learn it."
        )
        return
    page.text(
        f"Two people who judged the same thing gave the same verdict in {found['agreement']:.0%} of "
        f"{_counted(found['num_compared'], 'case')}. Some of that is chance."
    )
    alpha = found["alpha"]
    if alpha is None:
        page.text("Krippendorff's alpha, which takes chance away, is not defined: everybody gave the same verdict.")
    else:
        page.text(
            f"Krippendorff's alpha, which takes chance away, is {alpha['estimate']:.2f} (95% interval "
            f"{alpha['low']:.2f} to {alpha['high']:.2f}, {_counted(alpha['num_units'], 'thing')} judged by two people "
            f"or more). {_in_words(alpha)}"
        )
    rows = [[*one["annotators"], one["kappa"], one["num_units"]] for one in found["kappa"]["pairs"]]
    if rows:
        page.table(["person", "and", "Cohen's kappa", "judged by both"], rows)
    if (left := found["kappa"]["num_pairs"] - len(rows)) > 0:
        page.text(f"{_counted(left, 'pair')} of people with less in common {'is' if left == 1 else 'are'} not shown.")


def _in_words(alpha: dict[str, Any]) -> str:
    """Krippendorff's own marks: 0.8 to rely on, 0.667 for tentative conclusions. Taste agrees less than facts do."""
    if alpha["low"] >= 0.8:
        return "These labels can be relied on."
    if alpha["high"] < 0.667:
        why = (
            "by chance alone"
            if alpha["low"] <= 0
            else "less than is usual for facts; for questions of taste it is common"
        )
        return f"People agree {why}. Clearer guidelines help most; more people for each answer help too."
    return "That is in between: good enough for a first try, and clearer guidelines would help."


def _people(page: Page, people: dict[str, dict[str, Any]], level: Literal[2, 3]) -> None:
    page.heading("Each person", level)
    if len(people) > MOST_PEOPLE:
        page.text(f"The {MOST_PEOPLE} with the most judgements are shown, of {len(people):,}.")
    rows = [
        [
            name,
            one["num_judgements"],
            one["num_edits"],
            None if one["median_s"] is None else f"{one['median_s']:.1f}",
            _percent(one["up"]),
            one["mean_rating"],
        ]
        for name, one in list(people.items())[:MOST_PEOPLE]
    ]
    page.table(["person", "judgements", "edits", "median seconds", "thumbs up", "mean rating"], rows)
    up = {name: one["up"] for name, one in people.items() if one["up"]}
    if up:
        page.plot(
            _shares(up),
            "Share of thumbs up by person, with 95% intervals. Who is far from the others is stricter or milder.",
        )


def _leanings(page: Page, found: dict[str, Any], level: Literal[2, 3] = 2) -> None:
    page.heading("Do people lean to length or to a side?", level)
    people = found["people"]
    longer = {name: one["prefers_longer"] for name, one in people.items() if one["prefers_longer"]}
    if not found["prefers_longer"]:
        page.text("Nobody told two answers to one prompt apart, so nothing is known of that.")
        return
    page.text(_lean(found["prefers_longer"], "the longer of two answers to a prompt was liked better"))
    if longer:
        page.plot(_shares(longer), "Share in which the longer answer was liked better, by person, with 95% intervals.")
    if found["prefers_side_a"]:
        page.text(_lean(found["prefers_side_a"], "the answer on side A was chosen"))


def _lean(share: dict[str, Any], what: str) -> str:
    even = share["low"] <= 0.5 <= share["high"]
    end = "That is no more than chance." if even else "That is more than chance explains."
    return (
        f"In {share['estimate']:.0%} of {_counted(share['num'], 'case')} {what} (95% interval {share['low']:.0%} to "
        f"{share['high']:.0%}). {end}"
    )


def _checked(page: Page, found: dict[str, Any], level: Literal[2, 3]) -> None:
    """Gold questions and repetitions, where some were asked."""
    if gold := found.get("gold"):
        page.heading("Who is right on gold questions?", level)
        everybody = gold["all"]
        page.text(
            f"{_percent(everybody)} of {_counted(everybody['num'], 'answer')} to questions whose answer was known were "
            "right. People were not told which questions these are, and nothing is trained on them."
        )
        page.table(["person", "right", "of"], _share_rows(gold["people"]))
    if again := found.get("repeated"):
        page.heading("Does each person say the same again?", level)
        if (everybody := again["all"]) is None:
            page.text("Nobody judged a question twice: of each repetition the question itself was judged by others.")
            return
        page.text(
            f"In {_percent(everybody)} of {_counted(everybody['num'], 'case')} a person who was asked a question once "
            "more, without being told, gave the same verdict. The second one is no further vote. "
            f"{_counted(again['num_by_others'], 'repetition was', 'repetitions were')} judged by somebody who had not "
            "judged the question itself."
        )
        page.table(["person", "the same again", "of"], _share_rows(again["people"]))


def _share_rows(people: dict[str, Any]) -> list[list[Any]]:
    most = sorted(people.items(), key=lambda item: -item[1]["num"])[:MOST_PEOPLE]
    return [[name, _percent(share), share["num"]] for name, share in most]


def _accuracy(page: Page, found: dict[str, Any], level: Literal[2, 3]) -> None:
    page.heading("How often is each person right?", level)
    if found["accuracies"] is None:
        page.text(
            f"Not enough to tell: {_counted(found['num_votes'], 'verdict')} on things that several people judged, and "
            f"about {found['votes_needed']:,} are needed before the estimate of Dawid and Skene (1979) is good to 5 "
            "points."
        )
        return
    page.text("Estimated from how people differ, by the model of Dawid and Skene (1979); good to about 5 points.")
    page.table(["person", "accuracy"], [[name, f"{value:.0%}"] for name, value in found["accuracies"].items()])


def _disputed(page: Page, judgements: Sequence[Judgement], completions: list[Row]) -> None:
    found = disputed(list({(one.annotator, one.kind, one.uid): one for one in judgements}.values()))
    page.heading(f"What people dispute: {_counted(len(found), 'thing')}")
    if not found:
        page.text("Nothing.")
        return
    if len(found) > MOST_DISPUTED:
        page.text(f"The {MOST_DISPUTED} with the most verdicts are shown.")
    known = {row["uid"]: row for row in completions}
    rows = []
    for some in list(found.values())[:MOST_DISPUTED]:
        texts = [known[uid] for uid in some[0].about if uid in known]
        prompt = texts[0]["messages"][-1]["content"] if texts else None
        rows.append([prompt, "\n\n".join(row["completion"] for row in texts), "\n".join(map(_said, some))])
    page.table(["prompt", "answer", "verdicts"], rows)


def _said(one: Judgement) -> str:
    if isinstance(one, Thumb):
        said = "up" if one.up else "down"
    elif isinstance(one, Comparison):
        said = {"a": "first is better", "b": "second is better", "tie": "tie"}.get(one.preferred, "both bad")
    else:
        said = str(one.verdict)
    why = ", ".join([*one.reasons, *([one.comment] if one.comment else [])])
    return f"{one.annotator}: {said}{f' ({why})' if why else ''}"


def _percent(share: dict[str, Any] | None) -> str | None:
    return None if share is None else f"{share['estimate']:.0%} ({share['low']:.0%} to {share['high']:.0%})"


def _counted(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _shares(found: dict[str, dict[str, Any]]) -> Figure:
    """One line for each of the people with the most judgements."""
    some = list(found.items())[:MOST_PEOPLE]
    return drawing.forest([drawing.Interval(name, one["estimate"], one["low"], one["high"]) for name, one in some])
