"""Files that say who judged: each person is one person in all rows, and agreement is what other libraries say it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sklearn.metrics import cohen_kappa_score

from trueup.cli.main import main
from trueup.data import names, read_preferences
from trueup.data.report import ReadReport
from trueup.errors import DataError
from trueup.feedback.files import judgements_of
from trueup.feedback.judgement import Judgement
from trueup.run.data_config import DataConfig

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
ANN, BO = "uduuduud", "uddudduu"  # thumbs of two people on eight answers


def collected(folder: Path, preferences: str, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what `labels report --json` says, the metrics of collect)."""
    run = folder / "run.yaml"
    run.write_text(f"name: x\nmodel: {{base: nowhere}}\ndata: {{preferences: {preferences}}}\n")
    for words in (["collect", str(run)], ["labels", "report", str(run), "--json"]):
        done = CliRunner().invoke(main, [*words, *more])
        assert done.exit_code == 0, done.output
    record = json.loads((folder / "runs" / "x" / "round-1" / "collect" / "record.json").read_text())
    return json.loads(done.stdout), record["metrics"]


def said(folder: Path, rows: list[dict[str, Any]]) -> list[Judgement]:
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return judgements_of(read_preferences(DataConfig.model_validate({"preferences": folder / "d.jsonl"}))[0])[0]


@pytest.mark.parametrize("form", ["long", "wide"])
def test_two_people_in_either_form(tmp_path: Path, form: str) -> None:
    answers = [{"prompt": f"q{n // 2}", "completion": f"a{n}"} for n in range(len(ANN))]
    if form == "wide":
        rows = [row | {"annotator_ann": a, "annotator_bo": b} for row, a, b in zip(answers, ANN, BO, strict=True)]
    else:
        rows = [
            row | {"annotator": who, "label": one}
            for who, thumbs in (("ann", ANN), ("bo", BO))
            for row, one in zip(answers, thumbs, strict=True)
        ]
    words = {"u": "up", "d": "down"}
    rows = [{name: words.get(value, value) for name, value in row.items()} for row in rows]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, metrics = collected(tmp_path, "d.jsonl")
    (one,) = found["kappa"]["pairs"]
    assert (one["kappa"], one["num_units"]) == (pytest.approx(cohen_kappa_score([*ANN], [*BO])), 8)
    assert {who: person["num_judgements"] for who, person in found["people"].items()} == (
        {"annotator_ann": 8, "annotator_bo": 8} if form == "wide" else {"ann": 8, "bo": 8}
    )
    assert (metrics["num_annotators"], metrics["became"]["thumb"]) == (2, metrics["became"]["thumb"])
    assert sum(metrics["became"]["thumb"].values()) == 16


def test_a_later_verdict_of_one_person_replaces_the_earlier_by_time_where_all_say_when(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a", "annotator": "ann"}
    later = row | {"label": 1, "updated_at": "2026-01-02T00:00:00+00:00"}
    earlier = row | {"label": 0, "updated_at": "2026-01-01T23:00:00-02:00"}  # an hour later than the other, in UTC
    assert [one.verdict for one in said(tmp_path, [earlier, later])] == [True, False]
    naive = row | {"label": 1, "updated_at": "2026-01-01 22:00:00"}  # without a zone: UTC
    assert [one.verdict for one in said(tmp_path, [earlier, later, naive])] == [True, True, False]
    assert [one.verdict for one in said(tmp_path, [earlier, row | {"label": 1}])] == [False, True]


def test_ids_that_a_table_with_gaps_made_fractions_of_are_the_same_people(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "completion": f"a{n}", "label": 1, "annotator": who} for n, who in enumerate((3, "3.0", 3.0))
    ]
    found = said(tmp_path, [*rows, {"prompt": "q", "completion": "b", "label": 0}])
    assert [one.annotator for one in found] == ["3", "3", "3", "unnamed 4.0"]
    assert [one.is_named for one in found] == [True, True, True, False]


def test_a_name_that_looks_like_one_of_ours_stays_a_name(tmp_path: Path) -> None:
    (one,) = said(tmp_path, [{"prompt": "q", "completion": "a", "label": 1, "annotator": "1.5"}])
    assert one.is_named


def test_ratings_by_person_are_ratings(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "completion": text, "rating_ann": one, "rating_bo": two}
        for text, one, two in (("a", 5, 4), ("b", 1, 2))
    ]
    found = said(tmp_path, rows)
    assert [(one.kind, one.annotator, one.verdict) for one in found] == [
        *(
            ("rating", "rating_ann", 5),
            ("rating", "rating_bo", 4),
            ("rating", "rating_ann", 1),
            ("rating", "rating_bo", 2),
        ),
    ]


@pytest.mark.parametrize(
    ("row", "columns", "bad"),
    [
        ({"prompt": "q", "completion": "a"}, {"rating_ann": 4, "rating_bo": "n/a"}, "rating_bo is 'n/a'"),
        (
            {"instruction": "q", "response1": "a", "response2": "b"},
            {"annotator1": 1, "annotator2": 7, "annotator3": 1},
            "annotator2 is 7",
        ),
    ],
)
def test_a_verdict_that_cannot_be_read_takes_no_other_with_it(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any], bad: str
) -> None:
    (tmp_path / "d.jsonl").write_text(json.dumps(row | columns) + "\n")
    rows, unusable = read_preferences(DataConfig.model_validate({"preferences": tmp_path / "d.jsonl"}))
    (one,) = rows
    assert {verdict.annotator for verdict in one["verdicts"]} == {name for name in columns if name not in bad.split()}
    assert unusable == {"one person's unknown verdict": 1}
    said = CliRunner().invoke(main, ["data", "check", str(tmp_path / "d.jsonl")]).output
    assert bad in " ".join(said.split())
    (tmp_path / "d.jsonl").write_text(json.dumps(row | dict.fromkeys(columns, "great")) + "\n")
    with pytest.raises(DataError, match="unknown verdict: 1"):
        read_preferences(DataConfig.model_validate({"preferences": tmp_path / "d.jsonl"}))


def test_ties_and_empty_answers_count_for_agreement_and_are_not_trained_on(tmp_path: Path) -> None:
    def judged(first: str, second: str, *verdicts: int) -> dict[str, Any]:
        people = {f"annotator{n}": verdict for n, verdict in enumerate(verdicts, start=1)}
        return {"instruction": "q", "response1": first, "response2": second} | people

    rows = [judged("a", "b", 1, 1), judged("a", "c", 0, 0), judged("", "d", 2, 2), judged("e", "f", 1, 2)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, metrics = collected(tmp_path, "d.jsonl")
    assert (found["agreement"], found["num_compared"]) == (0.75, 4)
    assert metrics["became"] == {"comparison": {"pairs and rows": 2, "ties": 2, "of an empty answer": 2, "rows": 2}}
    assert metrics["counts"]["pairs"] == 1
    assert found["prefers_side_a"] is None  # a file does not say which answer was on which side


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_was_exported_is_read_again_as_it_was(tmp_path: Path, form: str) -> None:
    """Thumbs, comparisons with ties, ratings and edits, each with who, when, how long and why."""
    common = {
        "annotator": "ann",
        "prompt": [{"role": "user", "content": "q"}],
        "updated_at": "2026-01-01T00:00:00+00:00",
    }
    why = {"lead_time": 2.5, "comment": "because", "reasons": ["wrong"], "guidelines": "12345678"}
    rows = [
        {"kind": "thumb", "completion": "a", "up": False} | why,
        {"kind": "comparison", "completion_a": "a", "completion_b": "b", "preferred": "b"},
        {"kind": "comparison", "completion_a": "a", "completion_b": "c", "preferred": "tie"},
        {"kind": "comparison", "completion_a": "a", "completion_b": "d", "preferred": "both_bad"},
        {"kind": "rating", "completion": "a", "rating": 4},
        {"kind": "edit", "completion": "a", "text": "better"},
    ]
    rows = [row | common for row in rows]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    collected(tmp_path, "d.jsonl")
    first = (tmp_path / "runs" / "x" / "round-1" / "collect" / "annotations.jsonl").read_bytes()
    out = tmp_path / f"out.{form}"
    done = CliRunner().invoke(
        main, ["labels", "export", str(tmp_path / "run.yaml"), "--format", form, "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    again = tmp_path / "again"
    again.mkdir()
    collected(again, str(out))
    assert (again / "runs" / "x" / "round-1" / "collect" / "annotations.jsonl").read_bytes() == first
    assert not said(tmp_path, [rows[0] | {"annotator": "unnamed 7.0"}])[0].is_named  # as an export says it
    thumb = json.loads(first.splitlines()[0])
    assert {name: thumb[name] for name in why} == why


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real judgements")
def test_the_published_agreement_of_real_people_through_the_report(tmp_path: Path) -> None:
    """PandaLM's test set: its README prints kappas of 0.85, 0.88 and 0.86; alpha is the krippendorff library's."""
    found, metrics = collected(tmp_path, str(SHARED / "pandalm_testset_v1.jsonl.gz"))
    kappas = {tuple(one["annotators"]): round(one["kappa"], 2) for one in found["kappa"]["pairs"]}
    one, two, three = (f"annotator{n}" for n in (1, 2, 3))
    assert kappas == {(one, two): 0.85, (one, three): 0.88, (two, three): 0.86}
    assert found["alpha"]["estimate"] == pytest.approx(0.8642, abs=5e-5)
    assert found["alpha"]["num_units"] == 999
    assert sum(metrics["became"]["comparison"].values()) == 3 * 999


def judged_by(*names: Any) -> list[dict[str, Any]]:
    """One row of each name, about answers of their own."""
    return [{"prompt": "q", "completion": f"a{n}", "label": n % 2, "annotator": who} for n, who in enumerate(names)]


@pytest.mark.parametrize("other", ["ann", "ANN", "\uff21nn"])
def test_names_that_may_be_one_persons_are_refused(tmp_path: Path, other: str) -> None:
    with pytest.raises(DataError, match=r"Ann \(2 judgements\)") as raised:
        said(tmp_path, judged_by("Ann", other, "Ann", "Bo"))
    assert "write each person's name in one way" in str(raised.value) and "Bo" not in str(raised.value)


def test_names_of_two_files_and_of_columns_are_compared_too(tmp_path: Path) -> None:
    for name, who in (("a", "Zoë"), ("b", "Zoe\u0308")):  # one letter, or a letter and its dots
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in judged_by(who)))
    files = DataConfig.model_validate({"preferences": [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]})
    with pytest.raises(DataError, match=r"data\.preferences: names of people"):
        read_preferences(files)
    (tmp_path / "run.yaml").write_text("name: x\nmodel: {base: nowhere}\ndata: {preferences: [a.jsonl, b.jsonl]}\n")
    checked = CliRunner().invoke(main, ["data", "check", str(tmp_path / "run.yaml")])
    assert checked.exit_code != 0 and "names of people that differ only" in checked.output
    row = {"prompt": "q", "completion": "a", "rating_Ann": 5, "rating_ann": 1}
    with pytest.raises(DataError, match="rating_Ann"):
        said(tmp_path, [row])


def test_a_name_that_is_written_for_a_missing_value_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in judged_by("nan", "None", None, "Nan", "NULL", "Ann"))
    )
    report = ReadReport()
    rows, _ = read_preferences(DataConfig.model_validate({"preferences": tmp_path / "d.jsonl"}), report=report)
    assert [one.annotator for one in judgements_of(rows)[0]] == [
        *("unnamed 1.0", "unnamed 2.0", "unnamed 3.0", "Nan", "unnamed 5.0", "Ann"),  # Nan is a name that people have
    ]
    assert report.notes == {names.NAMES_NOBODY: 3}


def test_characters_of_a_name_that_cannot_be_printed_are_left_out_and_counted(tmp_path: Path) -> None:
    given = judged_by("An\x1b[31mn", "Bo\0", "Bo\tK", "\u202eCy", "x" * 201, "\x07")
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    report = ReadReport()
    rows, left_out = read_preferences(DataConfig.model_validate({"preferences": tmp_path / "d.jsonl"}), report=report)
    assert [one.annotator for one in judgements_of(rows)[0]] == ["An[31mn", "Bo", "Bo K", "Cy"]
    assert report.notes == {names.NOT_PRINTABLE: 3} and left_out == {"no name": 2}


def test_a_time_that_is_none_is_counted(tmp_path: Path) -> None:
    given = [
        row | {"updated_at": when} for row, when in zip(judged_by("a", "b"), ("yesterday", "2026-01-02"), strict=True)
    ]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    report = ReadReport()
    read_preferences(DataConfig.model_validate({"preferences": tmp_path / "d.jsonl"}), report=report)
    assert list(report.notes.values()) == [1]


def test_a_row_in_which_nobody_said_anything_is_no_tie(tmp_path: Path) -> None:
    answer = {"prompt": "q", "completion": "a"}
    rows: list[dict[str, Any]] = [
        {"rating_ann": None, "rating_bo": ""} | answer,
        {"rating_ann": 4, "rating_bo": None} | answer,
    ]
    counted = [{"up": 2, "down": 2} | answer, {"up": 0, "down": 0} | answer, {"up": None, "down": ""} | answer]
    pairs = [
        {"prompt": "q", "response1": "a", "response2": "b", "annotator1": first, "annotator2": None}
        for first in (None, 1)
    ]
    for name, some, expected in (
        ("ratings", rows, {"no verdict": 1}),
        ("counted", [*counted, {"up": 2, "down": 0} | answer], {"no verdict": 2, "no preference": 1}),
        ("pairs", pairs, {"no verdict": 1}),
        ("rating", [{"rating": None} | answer, {"rating": 3} | answer], {"no verdict": 1}),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        found = read_preferences(DataConfig.model_validate({"preferences": tmp_path / f"{name}.jsonl"}))
        assert (len(found[0]), found[1]) == (1, expected), name
