"""Held-out prompts that are trained on, too few data, and faults that are said before anything heavy is loaded."""

import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from trueup.data import read_demonstrations
from trueup.data.check import check, findings, sources_of_run
from trueup.data.leaks import leaks
from trueup.data.report import ReadReport, tell, too_few
from trueup.errors import ConfigError, DataError
from trueup.run.artifacts import write_jsonl
from trueup.run.data_config import COLUMNS, DataConfig
from trueup.run.run_file import load
from trueup.stages import STAGES

SECTIONS = {stage.name: stage.config for stage in STAGES}


def data(folder: Path, **rows: Any) -> DataConfig:
    for name, records in rows.items():
        write_jsonl(folder / f"{name}.jsonl", records)
    return DataConfig.model_validate({name: folder / f"{name}.jsonl" for name in rows})


SAME = [
    ("Was kostet das Zelt?", "  was KOSTET\tdas  Zelt? "),
    ("Ça coûte combien ?", unicodedata.normalize("NFD", "Ça coûte combien ?")),
    ("Straße 5", "STRASSE 5"),
    ("tent №5 ½", "tent No5 1⁄2"),
    ("Ｗｈａｔ？", "What?"),
    ("a tent", "a\u200b te\u00adnt\ufeff"),
    ("a tent", "a\u00a0tent"),
    ("ﬁle", "FILE"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_prompt_in_two_unicode_forms_is_one(tmp_path: Path, one: str, other: str) -> None:
    found = leaks(
        data(
            tmp_path,
            held_out=[{"prompt": one}, {"prompt": "else"}],
            demonstrations=[{"prompt": other, "response": "a"}, {"prompt": "third", "response": "a"}],
        )
    )
    assert (found.num_held_out, found.shared) == (2, {"demonstrations": 1})


@pytest.mark.parametrize(("one", "other"), [("a tent", "a tents"), ("x²", "x3"), ("é", "e"), ("not", "knot")])
def test_other_prompts_are_others(tmp_path: Path, one: str, other: str) -> None:
    found = leaks(data(tmp_path, held_out=[{"prompt": one}], prompts=[{"prompt": other}]))
    assert (found.shared, found.lines()) == ({}, [])


def test_a_prompt_inside_a_dialogue_counts_where_every_turn_trains(tmp_path: Path) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("user", "r"))]
    rows = [{"messages": [*turns, {"role": "assistant", "content": "b"}]}]
    made = data(tmp_path, held_out=[{"prompt": "q"}], demonstrations=rows)
    assert leaks(made).shared == {}
    assert leaks(made.model_copy(update={"train_on": "all"})).shared == {"demonstrations": 1}


def test_every_field_is_looked_at_and_what_is_not_there_yet_is_passed_over(tmp_path: Path) -> None:
    made = data(
        tmp_path,
        held_out=[{"prompt": "q"}, {"prompt": "r"}],
        prompts=[{"prompt": "q"}, {"prompt": "r"}],
        preferences=[{"prompt": "r", "chosen": "a", "rejected": "b"}],
    )
    found = leaks(made)
    assert found.shared == {"prompts": 2, "preferences": 1}
    assert found.lines()[1].startswith("data.preferences: 1 of 2 held-out prompts are among them")
    (tmp_path / "prompts.jsonl").unlink()
    assert leaks(made).shared == {"preferences": 1}
    (tmp_path / "held_out.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"held_out.jsonl: no rows"):
        leaks(made)


def test_what_is_told_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"q{i}", "response": "a", "id": i} for i in range(40)]
    made = data(tmp_path, held_out=[{"prompt": "q3"}], demonstrations=rows)
    read_demonstrations(made, report=(report := ReadReport()))
    counts = tell(report, shared=leaks(made))
    assert counts["held_out_prompts_shared"] == {"demonstrations": 1}
    assert counts["demonstrations"]["unused_fields"] == {"id": 40}
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "warning: data.demonstrations: field not used: id, in 40 rows"
    assert said[1].startswith("warning: data.demonstrations: 1 of 1 held-out prompts are among them")


def test_too_few_is_what_the_documentation_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "choosing.md").read_text()
    assert "100 or more demonstrations" in page
    assert "150 or more judged prompts" in page
    assert [bool(too_few(*given)) for given in (("demonstrations", 99), ("demonstrations", 100))] == [True, False]
    assert [bool(too_few(*given)) for given in (("prompts", 149), ("preferences", 150))] == [True, False]


def test_data_check_says_too_few_of_all_sources_together(tmp_path: Path) -> None:
    made = data(
        tmp_path,
        demonstrations=[{"prompt": f"q{i}", "response": f"a {i}."} for i in range(60)],
        prompts=[{"prompt": f"p{i % 20}"} for i in range(160)],
    )
    kinds = {
        survey.name: [f for f in findings(survey) if f.kind == "few rows"] for survey in check(sources_of_run(made))
    }
    assert kinds["demonstrations"][0].where[0].startswith("60 demonstrations")
    assert kinds["prompts"][0].where[0].startswith("20 prompts")  # repeated ones are one
    twice = made.model_copy(update={"demonstrations": made.demonstrations * 2})
    assert not any(f.kind == "few rows" for f in findings(check(sources_of_run(twice))[1]))


STAGE_FAULTS = {
    "sft": ("demonstrations", '{"prompt": "q", "response": ""}\n'),
    "collect": ("preferences", '{"prompt": "q", "completion": "a", "label": 5}\n'),
}
SAY = """
import sys
from click.testing import CliRunner
from trueup.cli.main import main
result = CliRunner().invoke(main, sys.argv[1:])
print(result.exit_code, sorted({"torch", "transformers", "trl", "datasets"} & set(sys.modules)))
print(result.output)
"""


def in_a_new_process(*arguments: object) -> tuple[str, str, float]:
    began = time.monotonic()
    command = [sys.executable, "-c", SAY, *map(str, arguments)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    first, _, rest = said.partition("\n")
    return first, rest, time.monotonic() - began


@pytest.mark.parametrize("stage", STAGE_FAULTS)
def test_a_stage_says_faults_of_the_data_before_torch_is_imported(tmp_path: Path, stage: str) -> None:
    field, rows = STAGE_FAULTS[stage]
    (tmp_path / "d.jsonl").write_text(rows)
    (tmp_path / "run.yaml").write_text(f"name: x\ndata: {{{field}: d.jsonl}}\n")
    first, said, seconds = in_a_new_process(stage, tmp_path / "run.yaml")
    assert (first, "d.jsonl: " in said) == ("2 []", True), said
    assert seconds < 3


def test_an_emptied_held_out_file_is_said_before_sft_trains(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": f"q{i}", "response": "a"} for i in range(9)])
    (tmp_path / "h.csv").write_text("prompt\n")
    (tmp_path / "run.yaml").write_text("name: x\ndata: {demonstrations: d.jsonl, held_out: h.csv}\n")
    first, said, _ = in_a_new_process("sft", tmp_path / "run.yaml")
    assert (first, "h.csv: no rows" in said) == ("2 []", True), said


def test_data_check_of_a_run_loads_no_torch_and_counts_tokens(tmp_path: Path) -> None:
    from tiny import make_model

    make_model(tmp_path / "model")
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": "red tent", "response": "glad"}, {"prompt": "q", "response": ""}])
    (tmp_path / "run.yaml").write_text(
        f"name: x\nmodel: {{base: {tmp_path / 'model'}}}\ndata: {{demonstrations: d.jsonl}}\n"
    )
    first, said, _ = in_a_new_process("data", "check", tmp_path / "run.yaml", "--page", tmp_path / "p.html")
    assert (first, "prompt + answer, tokens" in said) == ("2 []", True), said


def columns(folder: Path, given: str, header: str = "Question,Answer") -> DataConfig:
    (folder / "d.csv").write_text(f"{header}\na,b\n")
    (folder / "run.yaml").write_text(f"name: x\ndata: {{demonstrations: d.csv, columns: {given}}}\n")
    return load(folder / "run.yaml", SECTIONS).data


def test_a_typo_in_our_own_name_of_a_column_is_said_by_the_run_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reponse is none of ours; did you mean response: antwort"):
        columns(tmp_path, "{prompt: frage, reponse: antwort}")


def test_a_column_that_the_file_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns Question, Answer: frage, named in data.columns, is not among them"):
        read_demonstrations(columns(tmp_path, "{prompt: frage, response: Answer}"))


@pytest.mark.parametrize("header", ["Question,Answer", "Prompt,Response", "query,reply", "user,assistant"])
def test_the_columns_that_are_advised_work(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError) as caught:
        read_demonstrations(columns(tmp_path, "{}", header))
    assert len(str(caught.value)) - 2 * len(str(tmp_path)) < 300
    advised = caught.value.next_step.partition("columns: ")[2]
    rows = read_demonstrations(columns(tmp_path, advised, header))
    assert [message["content"] for message in rows[0]["messages"]] == ["a", "b"]


def test_every_name_of_a_format_can_be_given_to_a_column() -> None:
    from trueup.data.formats import FIELDS

    assert sorted(COLUMNS) == FIELDS
