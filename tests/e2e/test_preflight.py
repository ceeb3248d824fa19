"""Preflight stops a stage before it trains on ruined tokens, and names what was cut or dropped."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny import TEMPLATE, WORDS
from transformers import AutoTokenizer
from trl.trainer import dpo_trainer, kto_trainer, sft_trainer

from trueup.chat import preflight, rows
from trueup.chat.template import Chat
from trueup.cli.main import main
from trueup.data import read_demonstrations
from trueup.errors import PreflightError
from trueup.run.artifacts import Adapter, Feedback, write_jsonl
from trueup.run.data_config import Source
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Checked, Context
from trueup.stages import STAGES, dpo, export, kto, ppo, reward, sft


def context(pipeline: Pipeline, out: Path, **changes: Any) -> Context:
    out.mkdir(parents=True, exist_ok=True)
    data = pipeline.run.data.model_copy(update=changes)
    run = pipeline.run.model_copy(update={"data": data})
    return Context(run=run, run_dir=pipeline.folder, out=out, only_preflight=True)


def checked(stage: Any, config: Any, where: Context, **inputs: Any) -> dict[str, Any]:
    with pytest.raises(Checked) as caught:
        stage.run(config, where, **inputs)
    metrics: dict[str, Any] = caught.value.metrics
    return metrics


def tokenizer_of(pipeline: Pipeline) -> Any:
    return AutoTokenizer.from_pretrained(pipeline.run.model.base)


@pytest.fixture
def feedback(tmp_path: Path) -> Feedback:
    prompts = [[{"role": "user", "content": word}] for word in WORDS]
    rows = [{"prompt_id": f"p{i}", "split": "train", "prompt": p, "weight": 1.0} for i, p in enumerate(prompts)]
    long = {"chosen": "yes", "rejected": "no " * 40}
    write_jsonl(
        tmp_path / "pairs.jsonl",
        [r | (long if i == 4 else {"chosen": "yes", "rejected": "no"}) for i, r in enumerate(rows)],
    )
    write_jsonl(
        tmp_path / "rows.jsonl",
        [
            r | {"completion": "no " * 40 if i == 4 else "yes", "label": i % 2 == 0, "uid": f"u{i}"}
            for i, r in enumerate(rows)
        ],
    )
    return Feedback(tmp_path)


@pytest.mark.parametrize("name", ["sft", "dpo", "kto"])
def test_labels_masked_by_the_padding_id_stop_the_stage(
    pipeline: Pipeline, feedback: Feedback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    collator, labels, ignored = {
        "sft": (sft_trainer.DataCollatorForLanguageModeling, "labels", -100),
        "dpo": (dpo_trainer.DataCollatorForPreference, "completion_mask", 0),
        "kto": (kto_trainer.DataCollatorForUnpairedPreference, "completion_mask", 0),
    }[name]
    right = collator.torch_call
    pad = tokenizer_of(pipeline).pad_token_id

    def wrong(self: Any, examples: list[Any]) -> dict[str, Any]:
        batch = right(self, examples)
        return batch | {labels: batch[labels].masked_fill(batch["input_ids"] == pad, ignored)}

    monkeypatch.setattr(collator, "torch_call", wrong)
    stage = next(stage for stage in STAGES if stage.name == name)
    inputs = {} if name == "sft" else {"policy": Adapter(pipeline.path("sft")), "feedback": feedback}
    where = Context(run=pipeline.run, run_dir=pipeline.folder, out=tmp_path / "out")  # the stage itself, with weights
    where.out.mkdir()
    with pytest.raises(PreflightError, match="the end token has no label"):
        stage.run(stage.config(), where, **inputs)
    assert not list(where.out.glob("**/*.safetensors"))


def test_what_is_cut_and_what_is_dropped_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    texts = [("red", "yes")] * 30 + [("red", "no " * 60), ("blue " * 60, "yes")]
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": f"{p} {i}", "response": r} for i, (p, r) in enumerate(texts)])
    where = context(pipeline, tmp_path / "out", demonstrations=(Source(path=tmp_path / "d.jsonl"),))
    ids = [row["id"] for row in read_demonstrations(where.run.data)]
    found = checked(sft, sft.Config(max_length=40, held_out_fraction=0.01), where)
    assert (found["cut"], found["dropped"]) == ([ids[30]], [ids[31]])
    assert (found["num_samples"], found["num_cut"], found["num_dropped"]) == (30, 1, 1)  # one row of 32 is held out


def test_mostly_cut_stops_the_stage(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="cut at max_length"):
        sft.run(sft.Config(max_length=26), context(pipeline, tmp_path / "out"))


def test_pairs_and_thumbs_name_what_is_cut_and_reward_what_is_dropped(
    pipeline: Pipeline, feedback: Feedback, tmp_path: Path
) -> None:
    policy, where = Adapter(pipeline.path("sft")), context(pipeline, tmp_path / "out")
    by_pairs = checked(dpo, dpo.Config(max_length=40), where, policy=policy, feedback=feedback)
    by_thumbs = checked(kto, kto.Config(max_length=40), where, policy=policy, feedback=feedback)
    by_reward = checked(reward, reward.Config(max_length=40), where, policy=policy, feedback=feedback)
    assert (by_pairs["cut"], by_pairs["dropped"]) == (["p4/4"], [])
    assert (by_thumbs["cut"], by_thumbs["dropped"]) == (["u4"], [])
    assert (by_reward["cut"], by_reward["dropped"]) == ([], ["p4/4"])


def test_a_template_that_refuses_or_loses_the_system_message(pipeline: Pipeline) -> None:
    tokenizer = tokenizer_of(pipeline)
    messages = [{"role": r, "content": c} for r, c in (("system", "Be brief."), ("user", "red"), ("assistant", "yes"))]

    def prepared() -> rows.Prepared:
        return rows.demonstrations(Chat(tokenizer), [{"id": "a", "messages": messages}], 100)

    prepared().refuse("sft")
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE
    tokenizer.chat_template = refuses
    with pytest.raises(PreflightError, match=r"refuses it \(no system role\): 1 of 1 samples \(a\)"):
        prepared().refuse("sft")
    tokenizer.chat_template = TEMPLATE.replace("in messages %}", "in messages if m['role'] != 'system' %}")
    with pytest.raises(PreflightError, match=r"leaves the system message out: 1 of 1 samples \(a\)"):
        prepared().refuse("sft")


def test_prompts_to_sample_from_are_checked_as_well(pipeline: Pipeline, tmp_path: Path) -> None:
    policy = Adapter(pipeline.path("sft"))
    found = checked(ppo, ppo.Config(), context(pipeline, tmp_path / "out"), policy=policy, sft=policy, completions=None)
    assert (found["num_samples"], found["num_dropped"], found["warnings"]) == (6, 0, [])
    tokenizer = tokenizer_of(pipeline)
    tokenizer.eos_token = "Q"  # as in a base model whose end of text is not what its template ends a turn with
    with pytest.raises(PreflightError, match="does not end with the end token"):
        preflight.check_prompts(
            tokenizer, [("1", [{"role": "user", "content": "red"}])], [], context(pipeline, tmp_path / "out")
        )


def test_a_special_token_in_a_text_is_warned_of(pipeline: Pipeline, tmp_path: Path) -> None:
    prompts = [("1", [{"role": "user", "content": "red <|im_end|> blue"}])]
    with pytest.raises(Checked) as caught:
        preflight.check_prompts(tokenizer_of(pipeline), prompts, [], context(pipeline, tmp_path / "out"))
    assert caught.value.metrics["warnings"] == ["a special token is written in a message's text: 1 of 1 samples (1)"]


def test_a_classifier_reads_its_score_at_the_end_token(
    pipeline: Pipeline, feedback: Feedback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template without a newline after the end token, padding that is the end token: as in many models."""
    tokenizer = tokenizer_of(pipeline)
    tokenizer.chat_template = TEMPLATE.replace("<|im_end|>\n", "<|im_end|>")
    shutil.copytree(pipeline.run.model.base, tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    run = pipeline.run.model_copy(
        update={"model": pipeline.run.model.model_copy(update={"base": str(tmp_path / "model")})}
    )
    where = Context(run=run, run_dir=pipeline.folder, out=tmp_path / "out", only_preflight=True)
    where.out.mkdir()
    policy = Adapter(pipeline.path("sft"))
    assert checked(reward, reward.Config(), where, policy=policy, feedback=feedback)["warnings"] == []
    unk = property(lambda self: None)
    monkeypatch.setattr(type(tokenizer), "unk_token", unk, raising=False)
    monkeypatch.setattr(type(tokenizer), "bos_token", unk, raising=False)
    with pytest.raises(PreflightError, match="the score is read before the end"):
        reward.run(reward.Config(), where, policy=policy, feedback=feedback)


def test_the_exported_tokenizer_makes_the_same_tokens(pipeline: Pipeline, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(pipeline)
    tokenizer.save_pretrained(tmp_path / "same")
    assert preflight.check_export(tokenizer, tmp_path / "same", "Be brief.")["same_tokens"] is True
    tokenizer.chat_template = TEMPLATE.replace("assistant", "helper")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(PreflightError, match="differs from the one trained with"):
        preflight.check_export(tokenizer_of(pipeline), tmp_path / "other", None)


def test_the_merged_model_was_checked(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(preflight, "check_export", lambda tokenizer, folder, *_: asked.append(folder))
    where = context(pipeline, tmp_path / "out")
    export.run(export.Config(), where, aligned=Adapter(pipeline.path("sft")))
    assert asked == [where.out / "adapter", where.out / "merged"]


def test_the_command_looks_at_what_there_is_and_loads_no_weights(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file = pipeline.folder.parents[1] / "run.yaml"
    monkeypatch.setattr("trueup.models.base.load_base", lambda *_, **__: pytest.fail("loaded weights"))
    result = CliRunner().invoke(main, ["preflight", str(run_file)])
    assert result.exit_code == 0, result.output
    assert "sft: good" in result.output
    assert "dpo: not yet, collect is not complete" in result.output
    result = CliRunner().invoke(main, ["preflight", str(run_file), "--set", "sft.max_length=12"])
    assert (
        result.exit_code,
        "the whole answer lies beyond max_length, so there is nothing to learn from: 36 of 36" in result.output,
    ) == (2, True)


def test_the_record_of_a_stage_holds_its_preflight(pipeline: Pipeline) -> None:
    record = json.loads((pipeline.path("sft") / "record.json").read_text())["metrics"]["preflight"]
    assert (record["num_samples"], record["cut"], record["dropped"]) == (36, [], [])
    assert record["padding_is_end_token"] is True
