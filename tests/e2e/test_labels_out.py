"""Judgements that leave: TRL's own trainers take the files as they are, and every judgement is in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from datasets import Dataset, load_dataset
from judged import judged_pairs, judged_thumbs
from tiny import make_model

from trueup.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose preferences are frozen, and its tiny model."""
    made = tmp_path_factory.mktemp("labels")
    make_model(made / "model")
    for name, rows in (("pairs", judged_pairs()), ("thumbs", judged_thumbs())):
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made / "run.yaml").write_text(
        f"name: x\nmodel: {{base: {made / 'model'}}}\ndata: {{preferences: [pairs.jsonl, thumbs.jsonl]}}\n"
        "collect: {held_out_fraction: 0.3}\n"
    )
    assert CliRunner().invoke(main, ["collect", str(made / "run.yaml")]).exit_code == 0
    return made


def _export(folder: Path, form: str, out: Path, *more: str) -> Dataset:
    words = ["labels", "export", str(folder / "run.yaml"), "--format", form, "--out", str(out), *more]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    builder = "parquet" if out.suffix == ".parquet" else "json"
    return load_dataset(builder, data_files=str(out), split="train", cache_dir=str(out.parent / "cache"))


def _frozen(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "runs" / "x" / "round-1" / "collect" / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _trainer(kind: str, folder: Path, data: Dataset, out: Path) -> Any:
    import trl
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    settings: dict[str, Any] = {
        "output_dir": str(out),
        "max_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
    }
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    if kind == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=1)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / "model")
    config, trainer = {
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "kto": (trl.KTOConfig, trl.KTOTrainer),
        "reward": (trl.RewardConfig, trl.RewardTrainer),
    }[kind]
    return trainer(model=model, args=config(**settings), train_dataset=data, processing_class=tokenizer)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["dpo", "kto", "reward"])
def test_trl_trains_on_the_file_as_it_is(kind: str, suffix: str, folder: Path, tmp_path: Path) -> None:
    data = _export(folder, f"trl-{kind}", tmp_path / f"out.{suffix}", "--split", "train")
    frozen = [row for row in _frozen(folder, "rows" if kind == "kto" else "pairs") if row["split"] == "train"]
    assert len(data) == len(frozen)
    assert data["weight"][:] == [row["weight"] for row in frozen]
    assert all(people for people in data["annotators"])
    trainer = _trainer(kind, folder, data, tmp_path)
    assert trainer.train().training_loss > 0
    if kind == "dpo":  # the tokens are those of the dialogue in the model's template
        prompt, chosen = frozen[0]["prompt"], {"role": "assistant", "content": frozen[0]["chosen"]}
        ids = trainer.processing_class.apply_chat_template([*prompt, chosen])["input_ids"]
        first = trainer.train_dataset[0]
        found = first["prompt_ids"] + first["chosen_ids"]
        assert found[: len(ids)] == ids[: len(found)]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_every_judgement_is_written_with_its_text(form: str, folder: Path, tmp_path: Path) -> None:
    data = _export(folder, form, tmp_path / f"out.{form}")
    frozen = _frozen(folder, "annotations")
    assert [(row["uid"], row["annotator"]) for row in data] == [(row["uid"], row["annotator"]) for row in frozen]
    said = {(row["prompt"][0]["content"], row["completion"], row["up"]) for row in data}
    assert ("red sorry", "no boot", False) in said
    assert ("red glad", "yes rope", True) in said
    assert {row["split"] for row in data} == {"train", "held_out"}
    part = _export(folder, form, tmp_path / f"part.{form}", "--split", "held_out")
    assert 0 < len(part) == sum(row["split"] == "held_out" for row in data)


@pytest.mark.parametrize(
    ("form", "name", "found"),
    [
        ("trl-dpo", "out.csv", "another kind of file"),
        ("parquet", "out.jsonl", "another kind of file"),
        ("jsonl", "run.yaml/out.jsonl", "there is no folder"),
        ("jsonl", "pairs.jsonl", "it is there already"),
    ],
)
def test_a_place_that_will_not_do_is_refused(form: str, name: str, found: str, folder: Path) -> None:
    words = ["labels", "export", str(folder / "run.yaml"), "--format", form, "--out", str(folder / name)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert found in done.output


def test_rows_alone_go_to_standard_output(folder: Path, tmp_path: Path) -> None:
    _export(folder, "trl-dpo", tmp_path / "out.jsonl")
    words = ["labels", "export", str(folder / "run.yaml"), "--out", "-", "--format"]
    done = CliRunner().invoke(main, [*words, "trl-dpo"])
    assert done.exit_code == 0 and done.stdout == (tmp_path / "out.jsonl").read_text()
    assert f"{len(done.stdout.splitlines())} rows (" in done.stderr
    for more, found in (("parquet",), "Parquet is no text"), (("jsonl", "--json"), "--json writes its document there"):
        refused = CliRunner().invoke(main, [*words, *more])
        assert refused.exit_code == 2 and found in refused.stderr
    assert not Path("-").exists()


@pytest.mark.parametrize("name", ["pairs", "rows", "completions"])
def test_a_frozen_file_that_somebody_changed_is_named(name: str, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / "runs" / "x" / "round-1" / "collect" / f"{name}.jsonl"
    changed.write_text(changed.read_text() + '{"split": "train"}\n')
    number = len(changed.read_text().splitlines())
    done = CliRunner().invoke(main, ["labels", "export", str(tmp_path / "run.yaml"), "--format", "jsonl", "--out", "-"])
    assert done.exit_code == 2 and f"{name}.jsonl:{number}: no " in done.output


def test_without_frozen_judgements_the_next_command_is_collect(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: y\nmodel: {base: nowhere}\n")
    words = ["labels", "export", str(tmp_path / "run.yaml"), "--format", "jsonl", "--out", str(tmp_path / "o.jsonl")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert f"trueup collect {tmp_path / 'run.yaml'}" in done.output
