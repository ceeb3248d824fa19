"""Bugs of the page of a run."""

from __future__ import annotations

from .bug import Bug

REPORT = "tests/unit/test_report.py"

BUGS = [
    Bug(
        "an interval of the report that ends where it begins",
        "report",
        "src/trueup/report/rows.py",
        '"high": won["high"],',
        '"high": won["low"],',
        (REPORT + "::test_each_figure_of_the_page_is_that_of_its_record",),
    ),
    Bug(
        "the optimized reward's win rates as the verdict's",
        "report",
        "src/trueup/report/rows.py",
        'judge is None or kind == judge["kind"]',
        'judge is None or kind != judge["kind"]',
        (REPORT + "::test_each_figure_of_the_page_is_that_of_its_record",),
    ),
    Bug(
        "losses left out of the answers",
        "report",
        "src/trueup/report/answers.py",
        "range(len(ranked) - EACH, len(ranked))",
        "range(0)",
        (REPORT + "::test_answers_are_the_clearest_for_the_middle_and_the_clearest_against",),
    ),
    Bug(
        "what a model wrote is markup",
        "report",
        "src/trueup/page.py",
        "Environment(autoescape=True,",
        "Environment(autoescape=False,",
        (REPORT + "::test_what_others_wrote_is_text",),
    ),
    Bug(
        "an annotator's time counted for each judgement of an annotation",
        "report",
        "src/trueup/report/rows.py",
        'times[line.get("project"), line.get("annotation_id") or number]',
        "times[number]",
        (REPORT + "::test_people_s_minutes_are_counted_once_for_an_annotation",),
    ),
]
