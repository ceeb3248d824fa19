"""What is said of the people who judged, counted by hand on small cases; and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from judged import judged_pairs, judged_thumbs

from trueup.cli.main import main
from trueup.feedback import quality, quality_page
from trueup.feedback.judgement import Comparison, Edit, Judgement, Rating, Thumb

COMPLETIONS = [
    {"uid": uid, "prompt_id": uid[0], "messages": [{"role": "user", "content": f"ask {uid[0]}"}], "completion": text}
    for uid, text in {"p1": "short", "p2": "a longer one", "q1": "same", "q2": "size", "r1": "x", "r2": "xx"}.items()
]


def thumb(uid: str, who: str, up: bool, seconds: float | None = None) -> Thumb:
    return Thumb(uid=uid, annotator=who, up=up, lead_time=seconds)


def test_thumbs_of_two_people() -> None:
    said: list[Judgement] = [
        *(thumb("p1", "A", False, 2.0), thumb("p2", "A", False, 4.0)),
        thumb("p2", "A", True, 9.0),  # A's second thoughts replace the line above
        *(thumb("p1", "B", True), thumb("p2", "B", True), thumb("q1", "B", False), thumb("q2", "B", True)),
        Edit(uid="q1", annotator="B", text="better"),
    ]
    found = quality.figures(said, COMPLETIONS)
    assert (found["agreement"], found["num_compared"]) == (0.5, 2)  # p2 agreed on, p1 not
    assert found["num_disputed"] == 1
    assert list(found["people"]) == ["B", "A"]
    a, b = found["people"]["A"], found["people"]["B"]
    assert (a["num_judgements"], a["num_edits"], a["median_s"]) == (2, 0, 5.5)
    assert (b["num_judgements"], b["num_edits"], b["median_s"]) == (4, 1, None)
    assert (a["up"]["estimate"], b["up"]["estimate"]) == (0.5, 0.75)
    assert (a["prefers_longer"]["estimate"], a["prefers_longer"]["num"]) == (1.0, 1)  # p2, the longer, over p1
    assert b["prefers_longer"] is None  # q1 and q2 are as long as each other
    assert found["prefers_side_a"] is None


def test_comparisons_agree_on_the_answer_and_not_on_the_side() -> None:
    def compared(who: str, a: str, b: str, preferred: str) -> Comparison:
        return Comparison(uid="p1 p2", annotator=who, annotation_id=1, a=a, b=b, preferred=preferred)

    said = [compared("A", "p1", "p2", "a"), compared("B", "p2", "p1", "b"), compared("C", "p1", "p2", "tie")]
    found = quality.figures(said, COMPLETIONS)
    assert (found["agreement"], found["num_compared"]) == (1 / 3, 3)  # A and B chose the same text
    assert (found["prefers_side_a"]["estimate"], found["prefers_side_a"]["num"]) == (0.5, 2)
    assert (found["prefers_longer"]["estimate"], found["prefers_longer"]["num"]) == (0.0, 2)
    assert found["people"]["C"]["choices"] == {"tie": 1}


def test_ratings_are_ordered() -> None:
    """One step apart is less disagreement than three: ordinal alpha is above nominal alpha."""
    said = [
        Rating(uid=row["uid"], annotator=who, rating=rating)
        for who, ratings in (("A", (1, 2, 3, 4, 5, 5)), ("B", (2, 3, 4, 5, 5, 4)))
        for row, rating in zip(COMPLETIONS, ratings, strict=True)
    ]
    found = quality.figures(said, COMPLETIONS)
    nominal = quality.agreement.krippendorff_alpha([quality.Label(one.uid, one.annotator, one.rating) for one in said])
    assert nominal is not None
    assert found["alpha"]["estimate"] > 0.5 > nominal["estimate"]
    assert found["people"]["A"]["mean_rating"] == pytest.approx(20 / 6)


def test_the_page_escapes_what_people_and_models_wrote(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    rows = [row | {"completion": script} for row in COMPLETIONS]
    said = [
        Thumb(uid="p1", annotator="A", annotation_id=1, up=True),
        Thumb(uid="p1", annotator=script, annotation_id=2, up=False, reasons=("wrong",), comment=script),
    ]
    page = quality_page.write(tmp_path / "x.html", "t", quality.figures(said, rows), said, rows).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "down (wrong, " in page
    assert "Not enough to tell: 2 verdicts" in page


def test_the_command_draws_what_was_frozen(tmp_path: Path) -> None:
    for name, rows in (("pairs", judged_pairs()), ("thumbs", judged_thumbs())):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run.yaml"
    run.write_text("name: x\nmodel: {base: nowhere}\ndata: {preferences: [pairs.jsonl, thumbs.jsonl]}\n")
    early = CliRunner().invoke(main, ["labels", "report", str(run)])
    assert early.exit_code == 2
    assert f"trueup collect {run}" in early.output
    assert CliRunner().invoke(main, ["collect", str(run)]).exit_code == 0
    done = CliRunner().invoke(main, ["labels", "report", str(run)])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "runs" / "x" / "round-1" / "labels.html").read_text()
    assert "labels, as they were frozen" in page
    assert "from files that do not say who gave which" in page and "Cohen" not in page


def test_a_store_of_which_nothing_can_be_read_is_not_empty(tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    run.write_text("name: x\nmodel: {base: nowhere}\n")
    store = tmp_path / "runs" / "x" / "store"
    store.mkdir(parents=True)
    (store / "annotations.jsonl").write_text("garbage\n{}\n")
    (store / "use.jsonl").write_text("[1]\n")
    done = CliRunner().invoke(main, ["labels", "report", str(run)])
    assert done.exit_code == 2 and "nobody has judged" not in done.output
    assert "annotations.jsonl:1, annotations.jsonl:2, lines of use.jsonl, 1 of them" in done.output


def test_people_who_agreed_are_named_and_the_others_are_ids(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": text, "label": up} for text, up in (("a", 1), ("b", 0))]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run.yaml"
    run.write_text("name: x\nmodel: {base: nowhere}\ndata: {preferences: d.jsonl}\n")
    assert CliRunner().invoke(main, ["collect", str(run)]).exit_code == 0
    frozen = tmp_path / "runs" / "x" / "round-1" / "collect" / "annotations.jsonl"
    given = [json.loads(line) for line in frozen.read_text().splitlines()]
    from_screen = [row | {"annotator": who, "annotation_id": 7} for row in given for who in ("4", "5")]
    frozen.write_text("".join(json.dumps(row) + "\n" for row in from_screen))
    folder = tmp_path / "labelstudio"
    folder.mkdir()
    people = [
        {"id": n, "name": name, "email": f"{name}@x", "password": "", "named": named}
        for n, name, named in ((4, "Ann", True), (5, "Bo", False))
    ]
    (folder / "people.json").write_text(json.dumps({"people": people}))
    done = CliRunner().invoke(main, ["labels", "report", str(run), "--json"])
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["people"]) == {"Ann (4)", "5"}
    assert ">Bo" not in (tmp_path / "runs" / "x" / "round-1" / "labels.html").read_text()
