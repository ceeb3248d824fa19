"""Who judged, how far they agree, and what became of what they said."""

from __future__ import annotations

from typing import Any

from trueup.feedback import quality_page
from trueup.page import Page
from trueup.report import rows, words
from trueup.report.gathered import Built, Gathered

Row = dict[str, Any]


def add(page: Page, gathered: Gathered) -> None:
    """For each round that has judgements: how many, by whom, and what they became; agreement of the last one."""
    collected = gathered.of("collect")
    if not collected:
        page.text(
            "Nobody's judgements are frozen in this run yet: trueup collect asks people, or takes in a file of "
            "judgements. A method that is rewarded by functions alone needs none."
        )
        return
    for one in collected:
        if len(collected) > 1:
            page.heading(one.title, 3)
        _round(page, gathered, one)
    last = named(collected[-1].metrics)
    if "num_judged" in last:
        return
    if last.get("people"):
        with page.folded("Agreement, person by person"):
            quality_page.about_people(page, last, level=3)


def _round(page: Page, gathered: Gathered, one: Built) -> None:
    metrics = one.metrics
    if "num_judged" in metrics:
        page.text(f"{metrics['num_judged']:,} preferences that were there already; nobody was asked.")
    else:
        page.text(" ".join([*_who(metrics), _time(gathered, one), *_agreement(metrics)]))
    try:
        page.bullets(gathered.pipeline.stages["collect"].says(metrics, gathered.run))
    except (KeyError, TypeError):  # a record of an earlier version
        page.text("What became of these judgements is not in the record of this earlier version.")
    if counts := {name: number for name, number in (metrics.get("counts") or {}).items() if number}:
        with page.folded("What became of the judgements, counted"):
            page.table(["what", "number"], [[words.spoken(name), number] for name, number in counts.items()])


def _who(metrics: Row) -> list[str]:
    people = metrics.get("people") or {}
    number = metrics.get("num_annotators", len(people))
    given = sum(one.get("num_judgements", 0) for one in people.values()) or (metrics.get("counts") or {}).get("votes")
    lines = [f"{words.counted(number, 'person', 'people')} gave {given:,} judgements." if given else ""]
    if names := metrics.get("names_of_annotators"):
        lines.append(f"Those who agreed to be named: {', '.join(names.values())}.")
    return [line for line in lines if line]


def _time(gathered: Gathered, one: Built) -> str:
    row = next(row for row in rows.stages(gathered) if row["fingerprint"] == one.record.get("fingerprint"))
    if row["annotator_s"] is None:
        return "How long they took is not recorded."
    lacking = row["judgements_without_a_time"]
    more = f", {lacking:,} judgements without a time aside" if lacking else ""
    return f"It took them {words.minutes(row['annotator_s'])} as the screen measured it{more}."


def _agreement(metrics: Row) -> list[str]:
    if metrics.get("agreement") is None:
        return ["Nobody judged the same thing as somebody else, so how far people agree is not known."]
    lines = [f"Two who judged the same thing agree in {metrics['agreement']:.1%} of {metrics['num_compared']:,} cases."]
    if alpha := metrics.get("alpha"):
        lines.append(
            f"Krippendorff's alpha, which takes chance away, is {alpha['estimate']:.2f} (95% interval "
            f"{alpha['low']:.2f} to {alpha['high']:.2f})."
        )
    for kind, what in (("gold", "right on questions with a known answer"), ("repeated", "the same when asked again")):
        if found := (metrics.get(kind) or {}).get("all"):
            lines.append(f"{words.share(found)} of {found['num']:,} verdicts were {what}.")
    return lines


def named(metrics: Row) -> Row:
    """The figures of people under their names, where they agreed to that, else under their numbers."""
    agreed = metrics.get("names_of_annotators") or {}

    def label(who: str) -> str:
        return f"{agreed[who]} ({who})" if who in agreed else f"person {who}" if who.isdecimal() else who

    found = dict(metrics)
    found["people"] = {label(who): one for who, one in (metrics.get("people") or {}).items()}
    if kappa := metrics.get("kappa"):
        pairs = [one | {"annotators": tuple(map(label, one["annotators"]))} for one in kappa["pairs"]]
        found["kappa"] = kappa | {"pairs": pairs}
    for kind in ("gold", "repeated"):
        if checked := metrics.get(kind):
            found[kind] = checked | {"people": {label(who): one for who, one in checked["people"].items()}}
    if accuracies := (metrics.get("dawid_skene") or {}).get("accuracies"):
        found["dawid_skene"] = {"accuracies": {label(who): value for who, value in accuracies.items()}}
    return found
