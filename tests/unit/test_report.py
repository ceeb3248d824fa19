"""The report of a run: its figures are those of the records, whatever is there, and what others wrote stays text."""

import csv
import html
import json
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from reported import JUDGED, built, evaluated, opened, won
from tinyhtml5.parser import HTMLParser as HTML5Parser

from trueup.cli.main import main
from trueup.errors import StageError
from trueup.evaluation import abilities
from trueup.report import answers, rows, writing
from trueup.report.gathered import Built, Gathered
from trueup.run.artifacts import write_json, write_jsonl
from trueup.run.pipeline import Pipeline

EVIL = '<script>alert("1")</script> & <img src=x>'


class Read(HTMLParser):
    """The tables of a page by their captions, its words, ids, elements, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.names: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.in_cell = True
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if (key in ("src", "href", "xlink:href") and not (value or "").startswith("#")) or key.startswith("on"):
                self.fetched.append(f"{tag} {key}={value}")

    def handle_endtag(self, tag: str) -> None:
        self.in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.in_cell:
            self.tables[-1][-1][-1] += data

    def table(self, *header: str) -> list[list[str]]:
        return next(table[1:] for table in self.tables if tuple(table[0][: len(header)]) == header)


def page_of(run: Pipeline, *lacking: str) -> str:
    written = writing.write(run, "run.yaml")
    assert [line.partition(" is not shown")[0] for line in written.not_shown] == list(lacking), written.not_shown
    return written.page.read_text()


def faults(text: str) -> list[Any]:
    """What the parsing algorithm of the HTML standard calls an error."""
    parser = HTML5Parser()
    parser.parse(text)
    return list(parser.errors)


def in_words(found: dict[str, Any]) -> str:
    return f"{100 * found['estimate']:.1f}% ({100 * found['low']:.1f}% to {100 * found['high']:.1f}%)"


@pytest.fixture
def run(tmp_path: Path) -> Pipeline:
    """Two rounds, a variant beside the first, contestants that this version names and one that it does not."""
    made, draw = opened(tmp_path / "here"), random.Random(0)
    built(made, "sft", {"data": {"demonstrations": {"num_rows": 12, "num_used": 7, "left_out": {"blank row": 5}}}})
    evaluated(made, 1, "dpo", draw, "base", "best_of_4")
    evaluated(made, 1, "kto@k", draw)
    evaluated(made, 2, "dpo", draw, "few_shot")
    return made


def records(run: Pipeline) -> list[tuple[str, dict[str, Any]]]:
    return [(str(p.parent), json.loads(p.read_text())) for p in sorted(run.folder.rglob("record.json"))]


def test_each_figure_of_the_page_is_that_of_its_record(run: Pipeline) -> None:
    read = Read(page_of(run))
    shown = {(row[0], row[1]): row for row in read.table("aligned model", "over")}
    variants = {row[0]: row for row in read.table("aligned model", "built with")}
    answering = {row[0]: row for row in read.table("whose answers")}
    named = {"sft": "SFT (before)", "base": "base, bare", "few_shot": "base, few-shot", "best_of_4": "best of 4"}
    number = 0
    for _, record in records(run):
        if record["stage"] != "evaluate":
            continue
        place, adapter = record["inputs"]["aligned"].split("/")
        title, metrics = f"{adapter}, round {place[-1]}", record["metrics"]
        for label, found in metrics["judges"]["disjoint"]["win_rates_over"].items():
            row = shown[title, named[label]]
            assert row[2:4] == [in_words(found), str(found["num_prompts"])] and row[4] == JUDGED
            number += 1
        assert variants[title][2:5] == [in_words(metrics["win_rate"]), JUDGED, f"{metrics['kl_nats_per_token']:.3f}"]
        assert f"{adapter[:3]}.beta=0.{place[-1]}" in variants[title][1]
        assert answering[title][1:4] == [
            in_words(metrics["win_rate"]),
            f"{metrics['aligned']['mean_length_tokens']:.1f}",
            f"{metrics['aligned']['eos_rate']:.1%}",
        ]
    assert number == len(shown) == 6
    headline = json.loads((run.folder / "round-2/evaluate/record.json").read_text())["metrics"]
    text = "".join(read.words).replace("\u00a0", " ")
    assert f"it wins {headline['win_rate']['estimate']:.1%} of its comparisons with SFT" in text
    assert f"The judge is right on {headline['judge']['trust']['estimate']:.1%}" in text
    judges = {row[0]: row for row in read.table("judge", "what it is for")}
    for one in headline["judges"].values():
        assert judges[one["name"]][2] == in_words(one["win_rates_over"]["sft"])
        assert judges[one["name"]][4] == str(one["num_without_answer"]["sft"])
    assert [row[1:3] for row in read.table("stage", "time")[:-1]] == [["61 s", "3.21 GB"]] * 7
    assert read.table("stage", "time")[-1][:3] == ["all", "7.1 min", "3.21 GB"]  # 7 x 61.25 s


def test_the_tables_beside_it_have_the_records_figures(run: Pipeline) -> None:
    written = writing.write(run, "run.yaml")
    contestants, stages = (list(csv.DictReader(path.open())) for path in written.tables)
    known = {(Path(place).parent.name, record["inputs"].get("aligned")): record for place, record in records(run)}
    assert len(contestants) == 2 * 6  # both judges
    for row in contestants:
        metrics = known[f"round-{row['round']}", f"round-{row['round']}/{row['adapter']}"]["metrics"]
        found = metrics["judges"][row["judge_kind"]]["win_rates_over"][row["over"]]
        assert [float(row[name]) for name in ("win_rate", "low", "high")] == [
            found[name] for name in ("estimate", "low", "high")
        ]
        assert int(row["num_prompts"]) == found["num_prompts"]
        assert row["gives_the_verdict"] == str(row["judge_kind"] == "disjoint")
        assert float(row["mean_length_tokens_of_other"]) == metrics[row["over"]]["mean_length_tokens"]
        assert float(row["kl_from_sft_nats_per_token"]) == metrics["kl_nats_per_token"]
    assert [(row["round"], row["stage"], row["variant"], row["fingerprint"]) for row in stages] == [
        ("", "sft", "", "sft"),
        ("1", "dpo", "", "round-1/dpo"),
        ("1", "kto", "k", "round-1/kto@k"),
        ("1", "evaluate", "", "round-1/evaluate"),
        ("1", "evaluate", "k", "round-1/evaluate@k"),
        ("2", "dpo", "", "round-2/dpo"),
        ("2", "evaluate", "", "round-2/evaluate"),
    ]
    assert {(float(row["wall_s"]), int(row["peak_rss_bytes"])) for row in stages} == {(61.25, 3_210_000_000)}


def test_a_cell_that_a_spreadsheet_would_run_is_text(tmp_path: Path) -> None:
    made = rows.write(tmp_path / "t.csv", [{"a": "=1+1", "b": -0.5, "c": "@x"}])
    assert made.read_text() == "a,b,c\n'=1+1,-0.5,'@x\n"


def test_commands_on_the_page_repeat_what_was_typed(run: Pipeline) -> None:
    text = page_of(run)
    assert "trueup kto run.yaml --as k --set kto.beta=0.1\n" in text
    assert "trueup dpo run.yaml --set dpo.beta=0.2 --set round=2\n" in text


def test_it_is_valid_html_that_fetches_nothing_and_runs_nothing(run: Pipeline) -> None:
    text = page_of(run)
    assert faults(text) == []
    assert faults(text.replace("</h2>", "", 1)) and faults(text.replace("<td", "<td <", 1))  # by this parser
    read = Read(text)
    assert read.fetched == [] and "script" not in read.names and "style" in read.names
    assert len(set(read.ids)) == len(read.ids) > 10
    assert "default-src 'none'" in text and "url(" not in text.replace("url(#", "")


def test_what_others_wrote_is_text(tmp_path: Path) -> None:
    run = opened(tmp_path, f"data: {{system: {json.dumps(EVIL)}}}\n")
    source = {"path": EVIL, "weight": 1.0, "columns": {}, "files": {}, "lines": 1}
    counts = {"num_rows": 1, "num_used": 1, "left_out": {EVIL: 1}}
    data = {"demonstrations": {"sha256": "", "sources": [source]}}
    built(run, "sft", {"data": {"demonstrations": counts}}, system=EVIL, data=data)
    people = {"people": {EVIL: {"num_judgements": 1}}, "names_of_annotators": {"7": EVIL}, "num_annotators": 1}
    built(run, "round-1/collect", people)
    path = evaluated(run, 1, "dpo", random.Random(1))
    line = json.loads((path / "answers.jsonl").read_text().splitlines()[0])
    line |= {"sft": EVIL, "aligned": "שלום 👋🏽\x00\x1b[31m" + "long " * 300, "messages": [{"content": EVIL}]}
    write_jsonl(path / "answers.jsonl", [line] * 4)
    text = page_of(run, "People")  # this record lacks what became of the judgements
    read = Read(text)
    assert {"script", "img"}.isdisjoint(read.names) and read.fetched == []
    assert sum(EVIL in words for words in read.words) >= 8 and html.escape(EVIL, quote=False)[:10] in text
    assert '<div class="said" dir="auto">שלום 👋🏽\\x00\\x1b[31m' in text and "\x1b" not in text
    assert '<details><summary class="said"' in text


def test_answers_are_the_clearest_for_the_middle_and_the_clearest_against(tmp_path: Path) -> None:
    preferred = [0.5, 0.9, 0.1, 0.3, 0.7, 0.55, 0.05, 0.95, 0.6, 0.45, 0.2]
    lines = [{"preferred": {"disjoint": value}} for value in preferred]
    evaluation = Built(1, "evaluate", "", tmp_path, {"metrics": {"judge": {"kind": "disjoint"}}})
    chosen, rule = answers.choose(evaluation, lines)
    assert [row["preferred"]["disjoint"] for _, row in chosen] == [0.95, 0.9, 0.7, 0.55, 0.5, 0.45, 0.2, 0.1, 0.05]
    assert rule.startswith("9 of 11 pairs of answers, by the preference of the judge")
    assert (chosen[0][0], chosen[4][0]) == (
        "clearest for the aligned model: 95% for the aligned answer",
        "the middle: a tie",
    )
    few, _ = answers.choose(evaluation, lines[:2])
    assert [row["preferred"]["disjoint"] for _, row in few] == [0.9, 0.5]  # each once
    old = [{"reward": {"aligned": a, "sft": 1.0}} for a in (3.0, 0.0, 2.0)]
    evaluation = Built(1, "evaluate", "", tmp_path, {"metrics": {}})
    assert [row["reward"]["aligned"] for _, row in answers.choose(evaluation, old)[0]] == [3.0, 2.0, 0.0]


def test_people_s_minutes_are_counted_once_for_an_annotation(tmp_path: Path) -> None:
    run = opened(tmp_path)
    thumb = {"project": "p", "annotation_id": 1, "lead_time": 60.0}
    lines = [thumb | {"kind": "thumb"}, thumb | {"kind": "edit"}, thumb | {"annotation_id": 2}, {"annotation_id": None}]
    built(run, "round-1/collect", {}, {"annotations.jsonl": lines})
    (row,) = rows.stages(Gathered(run))
    assert (row["annotator_s"], row["judgements"], row["judgements_without_a_time"]) == (120.0, 4, 1)


def test_people_are_named_where_they_agreed(tmp_path: Path) -> None:
    from trueup.report.people import named

    kappa = {"pairs": [{"annotators": ["3", "7"], "kappa": 0.5, "num_units": 2}], "num_pairs": 1}
    found = named({"people": {"3": {}, "7": {}}, "names_of_annotators": {"7": "Ann"}, "kappa": kappa})
    assert list(found["people"]) == ["person 3", "Ann (7)"]
    assert found["kappa"]["pairs"][0]["annotators"] == ("person 3", "Ann (7)")


def test_without_a_complete_stage_it_says_what_to_do(tmp_path: Path) -> None:
    run = opened(tmp_path)
    with pytest.raises(StageError, match="no stage is complete"):
        writing.write(run)
    found = CliRunner().invoke(main, ["report", str(tmp_path / "run.yaml")])
    assert found.exit_code == 2 and f"trueup status {tmp_path / 'run.yaml'}" in found.output


@pytest.mark.parametrize("stages", [["sft"], ["sft", "round-1/sample"], ["sft", "round-1/sample", "round-1/dpo"]])
def test_a_run_that_is_not_done_says_what_is_missing(tmp_path: Path, stages: list[str]) -> None:
    run = opened(tmp_path)
    for stage in stages:
        built(run, stage, {})
    (run.folder / "round-1/reward.partial").mkdir(parents=True)
    (run.folder / "round-1/reward.partial/kept.bin").write_bytes(b"x")
    (run.folder / "trueup.log").write_text("Traceback")
    read = Read(page_of(run))
    assert any("There is no verdict yet" in words for words in read.words)
    assert any(words.startswith("trueup.log in the folder of the run") for words in read.words)
    missing = {row[0]: row[1:] for row in read.table("stage", "state")}
    assert missing["collect"] == ["missing", "trueup collect run.yaml"]
    assert missing["evaluate"] == ["missing", "trueup evaluate run.yaml"]
    assert missing["reward"] == ["partial: the same command goes on", "trueup reward run.yaml"]


def test_an_evaluation_that_waits_for_people_says_so(tmp_path: Path) -> None:
    run = opened(tmp_path, "evaluate: {judge: people}\n")
    built(run, "sft", {})
    built(run, "round-1/dpo", {})
    (run.folder / "round-1/evaluate.partial").mkdir()
    (run.folder / "ab").mkdir()
    write_json(run.folder / "ab/progress.json", {"labelled": 4, "wanted": 30, "notes": []})
    missing = {row[0]: row[1] for row in Read(page_of(run)).table("stage", "state")}
    assert missing["evaluate"] == "partial: waiting for people's A/B labels 4/30"


def test_what_may_have_been_lost_is_told(tmp_path: Path) -> None:
    run, prompts = opened(tmp_path), [[{"role": "user", "content": "q"}]] * 4
    texts = {"sft": ["Sorry, no"] * 1 + ["yes"] * 3, "aligned": ["Sorry, no"] * 3 + ["yes"]}
    rule = ("openings", lambda prompts, texts: [text.startswith("Sorry") for text in texts])
    lost = {"refusals": abilities.refusals(rule, prompts, list("abcd"), texts)}
    evaluated(run, 1, "dpo", random.Random(6), abilities=lost)
    text = page_of(run)
    assert "What dpo, round 1 may have lost" in text and "refusals: 75.0%" in text
    assert '<td data-name="check">refusals</td>' in text  # as trueup ship checks


def test_a_report_of_a_variant_is_that_of_the_whole_run(run: Pipeline) -> None:
    """As a stage of a variant writes it."""
    file = str(run.folder.parents[1] / "run.yaml")
    pages = []
    for typed in ([], ["--set", "variant=k"], ["--set", "variant=k", "--set", "dpo.beta=0.7", "--set", "round=1"]):
        found = CliRunner().invoke(main, ["report", file, *typed])
        assert found.exit_code == 0, found.output
        pages.append((run.folder / writing.PAGE).read_text().partition("This page was written")[0])
    assert pages[0] == pages[1] == pages[2] and "variant=k" not in pages[0]


def test_whom_people_were_not_asked_about_another_judge_compares(tmp_path: Path) -> None:
    run = opened(tmp_path)
    path = evaluated(run, 1, "dpo", random.Random(7), "base")
    record = json.loads((path / "record.json").read_text())
    judges = record["metrics"]["judges"]
    asked = won(random.Random(8))
    judges["people"] = judges["disjoint"] | {"name": "people", "trust": None, "win_rates_over": {"sft": asked}}
    record["metrics"] |= {"judge": {"kind": "people", "name": "people", "trust": None, "can_tell": None}}
    record["metrics"] |= {"win_rate": asked, "win_rates_over": {"sft": asked}}
    write_json(path / "record.json", record)
    text = page_of(run)
    table = {row[1]: row for row in Read(text).table("aligned model", "over")}
    assert table["SFT (before)"][2::2] == [in_words(asked), "people"]
    assert table["base, bare"][2::2] == [in_words(judges["disjoint"]["win_rates_over"]["base"]), JUDGED]
    assert "Hollow: by another judge than that of the verdict." in text


def test_where_only_a_variant_was_built_the_variant_goes_on(tmp_path: Path) -> None:
    run = opened(tmp_path)
    evaluated(run, 1, "dpo@b", random.Random(5))
    missing = {row[0]: row[2] for row in Read(page_of(run)).table("stage", "state")}
    assert missing["export"] == "trueup export run.yaml --as b" and {"dpo", "evaluate"}.isdisjoint(missing)


def test_a_variant_without_an_evaluation_and_a_torn_record(run: Pipeline) -> None:
    built(run, "round-2/kto@later", {})
    (run.folder / "round-1/kto@k/record.json").write_text("{")
    text = page_of(run)
    assert "trueup evaluate run.yaml --as later --set round=2" in text
    assert "These records cannot be read, so that nothing of them is shown: round-1/kto@k." in text


@pytest.mark.parametrize("metrics", [{}, {"win_rate": {}}, {"win_rate": 0.5}, {"win_rate": {"low": "x"}}])
def test_an_evaluation_without_a_win_rate_is_none(tmp_path: Path, metrics: dict[str, Any]) -> None:
    """As somebody's editor may leave it."""
    run = opened(tmp_path)
    built(run, "round-1/dpo", {})
    built(run, "round-1/evaluate", metrics, inputs={"aligned": "round-1/dpo"})
    assert "There is no verdict yet" in page_of(run)
    assert run.winner(1) == "dpo"


def test_a_record_that_lacks_what_a_part_shows_is_said_in_its_place(run: Pipeline) -> None:
    path = run.folder / "round-2/evaluate/record.json"
    record = json.loads(path.read_text())
    del record["metrics"]["judge"]["can_tell"], record["metrics"]["judges"]["optimized"]["name"]
    write_json(path, record)
    said = "is not shown: a record of this run is not as trueup writes it (KeyError: "
    written = writing.write(run)
    assert any(line.startswith("Who judged") for line in written.not_shown)
    assert written.page.read_text().count(said.replace("'", "&#39;")) == len(written.not_shown) - 1 > 1  # and the table


def test_an_evaluation_of_an_earlier_version(tmp_path: Path) -> None:
    run, draw = opened(tmp_path), random.Random(2)
    one = {"mean_length_tokens": 4.0, "eos_rate": 0.5, "tokens_per_s": 100.0}
    figures = {"sft": one, "aligned": one, "kl_nats_per_token": 0.25, "win_rates_over": {"sft": (found := won(draw))}}
    figures |= {"win_rate_by_reward_model": found, "goal": {"kl": {"wanted_at_most": 0.2, "found": 0.25, "met": False}}}
    lines = [
        {
            "prompt_id": "1",
            "messages": [{"content": "q"}],
            "sft": "a",
            "aligned": "b",
            "reward": {"sft": 1, "aligned": 2},
        }
    ]
    built(run, "round-1/dpo", {})
    inputs = {"aligned": "round-1/dpo"}
    built(run, "round-1/evaluate", figures, {"answers.jsonl": lines}, inputs=inputs)
    text = page_of(run)
    assert "This evaluation is of an earlier version" in text and "NOT met" in text and in_words(found) in text


@pytest.mark.parametrize("functions", [False, True])
def test_a_judge_that_cannot_tell_and_functions_alone(tmp_path: Path, functions: bool) -> None:
    run, draw = opened(tmp_path), random.Random(3)
    path = evaluated(run, 1, "ppo", draw)
    record = json.loads((path / "record.json").read_text())
    metrics = record["metrics"]
    if functions:
        metrics["judge"] = {"kind": "optimized", "name": "functions", "trust": None, "can_tell": None}
        metrics |= {"reward_functions": {"gear:likes": 1.0}}
        metrics["judges"]["optimized"]["trust"] = None
    else:
        metrics["judge"]["can_tell"] = False
    write_json(path / "record.json", record)
    rollouts = [{"step": i, "reward": float(i), "kl": 0.1 * i, "num_tokens": 7} for i in (1, 2, 3)]
    write_jsonl(run.folder / "round-1/ppo/metrics.jsonl", rollouts)
    text = page_of(run).replace("\u00a0", " ")
    assert ("The judge is the functions that were optimized: gear:likes (weight 1)" in text) == functions
    assert ("this judge cannot tell" in text) != functions
    assert "trueup ship says" in text and "Reward against KL from the reference, step by step" in text
    assert {row["stage"]: row["sampled_tokens"] for row in rows.stages(Gathered(run))}["ppo"] == 21


def test_ties_and_equal_length_have_columns_and_unknown_figures_are_shown(tmp_path: Path) -> None:
    run, draw = opened(tmp_path), random.Random(4)
    even = {"estimate": 0.625, "low": 0.5, "high": 0.75}
    began, extra = {"round": 1, "adapter": "dpo"}, {"sft": {"estimate": 0.875, "low": 0.75, "high": 1.0}}
    path = evaluated(run, 2, "dpo", draw, "round_before", began_from=began, manners=extra)
    record = json.loads((path / "record.json").read_text())
    judge = record["metrics"]["judges"]["disjoint"]
    judge["win_rates_over"]["sft"] |= {"ties": 0.125, "length_controlled": even, "by_chance": 0.25}
    judge["win_rates_over_sft"] = {"round_before": even}
    record["metrics"]["sft"] |= {"prompt_tokens": 20.0, "sampled_tokens": 31.0}
    write_json(
        path / "record.json", record | {"metrics": record["metrics"] | {"win_rates_over": judge["win_rates_over"]}}
    )
    read = Read(page_of(run))
    table = {row[1]: row for row in read.table("aligned model", "over")}
    assert table["SFT (before)"][3:5] == ["12.5%", "62.5% (50.0% to 75.0%)"]
    assert table["round 1 (dpo)"][3:5] == ["–", "–"]
    answering = {row[0]: row for row in read.table("whose answers", "wins over SFT")}
    assert answering["round 1 (dpo)"][1] == "62.5% (50.0% to 75.0%)" and answering["SFT (before)"][4] == "51"
    assert read.table("aligned model", "figure") == [
        ["dpo, round 2", "by chance, over SFT (before)", "0.25"],
        ["dpo, round 2", "manners, SFT (before)", "87.5% (75.0% to 100.0%)"],
    ]
    (row,) = (row for row in csv.DictReader((run.folder / writing.CONTESTANTS).open()) if row["ties"])
    assert [float(row[name]) for name in ("ties", "length_controlled", "length_controlled_low")] == [0.125, 0.625, 0.5]
