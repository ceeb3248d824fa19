"""What is saved: fp32, the best epoch where one is promised, ranks of any number; and what makes a stage stale."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import observe
import plain
import pytest
import torch
from click.testing import CliRunner
from tiny import WORDS, copy_of, open_run

from trueup.cli.main import main
from trueup.data import identify
from trueup.errors import StageError
from trueup.feedback.preferences import split_prompts
from trueup.run.pipeline import Pipeline

REWARD = "def length(prompts, completions):\n    return [float(len(c)) for c in completions]\n"


@pytest.mark.parametrize("stage", ["dpo", "kto", "reward", "ppo", "grpo"])
def test_small_updates_survive_in_what_is_saved(judged: Pipeline, sharp: Pipeline, tmp_path: Path, stage: str) -> None:
    """At a learning rate of 1e-6 bf16 would round nearly all of AdamW's first step away; fp32 keeps it."""
    folder = copy_of(sharp if stage in ("ppo", "grpo") else judged, tmp_path / "run")
    (folder / f"{tmp_path.name}.py").write_text(REWARD)
    options: dict[str, Any] = {"learning_rate": 1e-6}
    if stage in ("ppo", "grpo"):
        options |= {"reward_model_weight": 0, "reward_functions": f"{{{tmp_path.name}:length: 1.0}}"}
        options |= {"num_steps": 1, "rollout_batch_size": 8, "max_new_tokens": 6} if stage == "ppo" else {}
        options |= {"max_steps": 2, "max_completion_length": 6, "num_generations": 4} if stage == "grpo" else {}
        options |= {"per_device_train_batch_size": 8} if stage == "grpo" else {}
    run = open_run(folder, *(f"{stage}.{key}={value}" for key, value in options.items()))
    run.execute(stage)
    before, after = plain.saved(run.path("sft")), plain.saved(run.path(stage))
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    moved = [(after[name] - before[name].float()).abs() for name in before]
    assert sum(int((m > 0).sum()) for m in moved) > 0.9 * sum(m.numel() for m in moved)
    assert max(float(m.max()) for m in moved) < 1e-4  # it started from the policy
    if stage == "reward":
        assert [tuple(after[name].shape) for name in set(after) - set(before)] == [(1, 64)]


def test_the_epoch_that_is_reported_is_the_one_that_is_kept(
    sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained says yes and what is held out says no: the surer the policy, the worse it predicts the latter."""
    folder = copy_of(sharp, tmp_path / "run")
    asked = [f"{a} {b}" for a in WORDS[:6] for b in WORDS[:4]]
    names = {q: identify([{"role": "user", "content": q}]) for q in asked}
    splits = split_prompts(list(names.values()), 0.3, 0)
    answers = {q: "yes tent" if splits[names[q]] == "train" else "no boot rope" for q in asked}
    (folder / "d.jsonl").write_text(
        "".join(json.dumps({"prompt": q, "response": a}) + "\n" for q, a in answers.items())
    )
    run = open_run(
        folder, "sft.learning_rate=0.01", "sft.num_train_epochs=6", "sft.warmup_steps=0", "sft.held_out_fraction=0.3"
    )
    steps = observe.watch(monkeypatch, 10_000)
    run.execute("sft", rebuild=True)
    trained = {text.split("user\n")[1].split("<|im_end|>")[0] for step in steps for text in step.texts}
    held_out = [q for q in answers if q not in trained]
    assert {answers[q] for q in trained} == {"yes tent"} and {answers[q] for q in held_out} == {"no boot rope"}
    metrics = json.loads((run.path("sft") / "record.json").read_text())["metrics"]
    losses = metrics["eval_loss_by_epoch"]
    assert len(held_out) == round(0.3 * len(answers))
    assert losses[-1] > min(losses) + 0.02, losses  # else the last epoch could pass for the best
    assert metrics["eval_loss"] == min(losses)
    tok, policy = plain.tokenizer(run.run.model.base), plain.model(run.run.model.base, run.path("sft"))
    total, num_tokens = 0.0, 0
    with torch.no_grad():
        for question in held_out:
            encoded = plain.encode_templated(tok, [{"role": "user", "content": question}], answers[question])
            logps = plain.token_logps(policy, *encoded)
            total, num_tokens = total - logps.sum().item(), num_tokens + len(logps)
    assert total / num_tokens == pytest.approx(min(losses), abs=0.01)


@pytest.mark.parametrize("rank", [5, 12])
def test_a_rank_that_is_no_multiple_of_8(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """Gradients and greedy answers against plain peft's, once B is no longer 0."""
    folder = copy_of(pipeline, tmp_path / "run")
    run = open_run(folder, f"adapter.r={rank}", "sft.num_train_epochs=2", "sft.warmup_steps=0")
    steps = observe.watch(monkeypatch, 10_000)
    run.execute("sft", rebuild=True)
    step, base = steps[-1], run.run.model.base
    tok, policy = plain.tokenizer(base), plain.model(base, run.path("sft"))
    assert {tensor.shape[0] for name, tensor in step.weights.items() if "lora_A" in name} == {rank}
    plain.put(policy, step.weights)
    total, num_tokens = torch.tensor(0.0), 0
    for text in step.texts:
        found = re.search(r"user\n(.*)<\|im_end\|>\n<\|im_start\|>assistant\n(.*)<\|im_end\|>", text)
        assert found
        encoded = plain.encode_templated(tok, [{"role": "user", "content": found[1]}], found[2])
        logps = plain.token_logps(policy, *encoded)
        total, num_tokens = total - logps.sum(), num_tokens + len(logps)
    (total / num_tokens).backward()
    assert plain.differ(step.gradients, plain.gradients(policy)) < 0.03

    hot = open_run(folder, f"adapter.r={rank}", "sft.num_train_epochs=2", "sft.warmup_steps=0", "sample.temperature=1")
    hot.execute("sample")
    rows = plain.rows(run.path("sample") / "completions.jsonl")
    plain.check_logps(base, run.path("sft"), rows, 1.0)


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_a_seed_decides_the_weights(judged: Pipeline, tmp_path: Path, stage: str) -> None:
    """A fresh adapter and a fresh score head are drawn under the seed: two runs give one adapter, bit for bit."""
    made = []
    for number, seed in enumerate((0, 0, 1)):
        short = ["sft.num_train_epochs=1"] if stage == "sft" else []
        run = open_run(copy_of(judged, tmp_path / str(number)), f"seed={seed}", *short)
        torch.manual_seed(number)  # whatever was drawn before
        run.execute(stage, rebuild=True, use_stale=True)  # the reward model of seed 1 is made on the SFT of seed 0
        made.append(plain.saved(run.path(stage)))
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    drawn = [name for name in made[0] if "score" in name] if stage == "reward" else list(made[0])
    found, other = ({name: adapter[name] for name in drawn} for adapter in (made[2], made[0]))
    assert drawn and plain.differ(found, other) > 0.1


CHANGES = {
    "seed": ("seed=1", r"seed 0 -> 1"),
    "rank": ("adapter.r=4", r"\br 16 -> 4"),
    "beta": ("dpo.beta=0.7", r"beta 0.1 -> 0.7"),
    "system prompt": ("data.system=Be brief.", r"system None -> Be brief"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_finished_stage_is_stale_after_a_change(judged: Pipeline, tmp_path: Path, change: str) -> None:
    folder = copy_of(judged, tmp_path / "run")
    quick = "dpo.num_train_epochs=0.5"
    open_run(folder, quick).execute("dpo")
    assert open_run(folder, quick).execute("dpo") is False
    override, said = CHANGES[change]
    with pytest.raises(StageError, match=said):
        open_run(folder, quick, override).execute("dpo")
    result = CliRunner().invoke(main, ["status", str(folder / "run.yaml"), "--set", quick, "--set", override])
    assert re.search(r"dpo +│ stale", result.output), result.output
    assert CliRunner().invoke(main, ["status", str(folder / "run.yaml"), "--set", quick]).output.count("│ stale") == 0


@pytest.mark.parametrize("file", ["pairs.jsonl", "thumbs.jsonl"])
def test_judgements_that_changed_make_collect_stale(judged: Pipeline, tmp_path: Path, file: str) -> None:
    folder = copy_of(judged, tmp_path / "run")
    lines = (folder / file).read_text().splitlines()
    (folder / file).write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(StageError, match="preferences"):
        open_run(folder).execute("collect")


def test_a_stage_is_stale_after_its_input_was_built_again(judged: Pipeline, tmp_path: Path) -> None:
    folder = copy_of(judged, tmp_path / "run")
    open_run(folder, "dpo.num_train_epochs=0.5").execute("dpo")
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    (folder / "pairs.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    open_run(folder).execute("collect", rebuild=True)
    with pytest.raises(StageError, match="judgements were frozen again"):
        open_run(folder, "dpo.num_train_epochs=0.5").execute("dpo")
