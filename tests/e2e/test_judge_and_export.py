"""Evaluate and export on the tiny 4-bit Llama: a policy is even with itself; what is exported is what was trained."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trueup import progress
from trueup.chat.template import Chat
from trueup.evaluation import compare
from trueup.models import adapters, base, causal, scoring
from trueup.run.artifacts import Adapter, RewardModel, file_sha256, read_jsonl
from trueup.run.data_config import Shot
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import evaluate, export
from trueup.training import common


@pytest.fixture
def context(pipeline: Pipeline, tmp_path: Path) -> Context:
    out = tmp_path / "out"
    out.mkdir()
    return Context(run=pipeline.run, run_dir=pipeline.folder, out=out)


@pytest.fixture
def reward(context: Context, tmp_path: Path) -> RewardModel:
    """A reward adapter nobody trained: its scores differ from text to text."""
    torch.manual_seed(0)
    model, _ = common.load_policy(context, None, num_labels=1)
    model.save_pretrained(tmp_path / "reward")
    return RewardModel(tmp_path / "reward")


def test_a_policy_against_itself_is_even(pipeline: Pipeline, context: Context, reward: RewardModel) -> None:
    policy = Adapter(pipeline.path("sft"))
    metrics = evaluate.run(
        evaluate.Config(max_new_tokens=8), context, sft=policy, reference=policy, aligned=policy, reward=reward
    )
    assert metrics["win_rate_by_reward_model"]["estimate"] == 0.5  # the same seed gives the same answers: all ties
    assert metrics["kl_nats_per_token"] == pytest.approx(0, abs=1e-6)
    assert metrics["linear4bit_layers"] == 14
    answers = list(read_jsonl(context.out / "answers.jsonl"))
    assert len(answers) == 12  # 6 held-out prompts, 2 answers each
    assert all(row["sft"] == row["aligned"] for row in answers)


def test_baselines_are_answered_by_the_bare_base(pipeline: Pipeline, context: Context, reward: RewardModel) -> None:
    policy = Adapter(pipeline.path("sft"))
    example = Shot(prompt="red tent", response="glad red tent")
    config = evaluate.Config(max_new_tokens=8, temperature=0, baselines=("base", "few_shot"), few_shot=(example,))
    metrics = evaluate.run(config, context, sft=policy, reference=policy, aligned=policy, reward=reward)
    answers = list(read_jsonl(context.out / "answers.jsonl"))
    assert set(metrics["win_rates_over"]) == {"sft", "base", "few_shot"}

    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    tokenizer = base.load_tokenizer(pipeline.run.model.base)
    for row in answers[::2]:
        prompt = tokenizer.apply_chat_template(row["messages"], add_generation_prompt=True, return_dict=False)
        ids = torch.tensor([prompt])
        out = bare.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert row["base"] == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert any(row["base"] != row["sft"] for row in answers)


def test_baselines_may_answer_fewer_prompts(pipeline: Pipeline, context: Context, reward: RewardModel) -> None:
    policy = Adapter(pipeline.path("sft"))
    run = pipeline.run.model_copy(update={"data": pipeline.run.data.model_copy(update={"system": "be glad"})})
    told = Context(run=run, run_dir=context.run_dir, out=context.out)
    chosen = {"baselines": ("base", "system_prompt"), "baseline_prompts": 4}
    config = evaluate.Config(max_new_tokens=8, temperature=0, **chosen)
    metrics = evaluate.run(config, told, sft=policy, reference=policy, aligned=policy, reward=reward)
    answers = list(read_jsonl(context.out / "answers.jsonl"))
    asked = [i for i, row in enumerate(answers) if "base" in row]
    assert asked == [0, 2, 6, 8]  # of six prompts, two answers each: the first of prompts 1, 2, 4 and 5
    over = metrics["judges"]["optimized"]["win_rates_over"]
    assert set(over) == {"sft", "base", "system_prompt"}
    for label in ("base", "system_prompt"):
        some = [(answers[i]["reward"]["aligned"], answers[i]["reward"][label]) for i in asked]
        wins = [(mine > other) + 0.5 * (mine == other) for mine, other in some]
        assert over[label]["estimate"] == pytest.approx(sum(wins) / 4) and over[label]["num_prompts"] == 4
        assert metrics["judges"]["optimized"]["win_rates_over_sft"][label]["estimate"] == pytest.approx(
            1 - sum(wins) / 4
        )
    assert metrics["system_prompt"]["prompt_tokens"] > metrics["base"]["prompt_tokens"]
    said = " ".join(evaluate.STAGE.says(metrics, run))
    assert "On 4 prompts alone: base, bare; base, system prompt." in said
    assert "Do not rely on the figures of base, bare; base, system prompt" in said


def test_kl_between_two_adapters_is_positive(
    pipeline: Pipeline, context: Context, reward: RewardModel, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model, _ = common.load_policy(context, Adapter(pipeline.path("sft")))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "moved")
    metrics = evaluate.run(
        evaluate.Config(num_completions=16, max_new_tokens=8),
        context,
        sft=Adapter(pipeline.path("sft")),
        reference=Adapter(pipeline.path("sft")),
        aligned=Adapter(tmp_path / "moved"),
        reward=reward,
    )
    assert metrics["kl_nats_per_token"] > 0.01  # with the two exchanged it would be negative


def test_scores_come_back_in_the_order_asked(pipeline: Pipeline, reward: RewardModel) -> None:
    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, pipeline.path("sft"), trainable=False).eval()
    tokenizer, head = base.load_tokenizer(pipeline.run.model.base), scoring.load_reward(model, reward.path)
    texts = ["red " * (7 * i % 20 + 1) for i in range(20)]  # neither short to long nor long to short
    prompts = [[{"role": "user", "content": "tent"}]] * len(texts)
    ids = [Chat(tokenizer).answer(p, text).ids for p, text in zip(prompts, texts, strict=True)]
    alone = [compare.rewards(model, head, [one])[0] for one in ids]
    assert max(alone) - min(alone) > 0.1
    assert compare.rewards(model, head, ids) == pytest.approx(alone, abs=0.02)


def test_the_merged_weights_are_the_policy(
    pipeline: Pipeline, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, begun = progress.parts, []

    @contextmanager
    def noted(title: str, total: int) -> Iterator[Callable[[str], None]]:
        with shown(title, total) as say:
            yield lambda text: (begun.append(text), say(text))[1]
        assert len(begun) == total  # or the time left would be wrong

    monkeypatch.setattr(progress, "parts", noted)
    for left in (
        "merged/model-00002-of-00002.safetensors",
        "merged/tokenizer_config.json",
        "adapter/adapter_config.json",
        "README.md",
    ):  # by an export that was killed
        (context.out / left).parent.mkdir(exist_ok=True)
        (context.out / left).write_text('{"half')
    aligned = Adapter(pipeline.path("sft"))
    metrics = export.run(export.Config(), context, aligned=aligned)
    assert len(begun) == 4  # the trained one; merging, and measuring it; the adapter on 16 bits
    merged = AutoModelForCausalLM.from_pretrained(context.out / "merged", dtype=torch.bfloat16)
    probe = load_file(aligned.path / "probe.safetensors")
    recorded = probe.pop("logps")
    with torch.no_grad():
        found = causal.token_logps(merged, probe)
    assert (found - recorded).abs().max() < 0.1  # bf16; without the adapter several nats
    assert 0 <= metrics["merge_kl_nats_per_token"] < 0.01

    saved, original = adapters.saved_tensors(context.out / "adapter"), adapters.saved_tensors(aligned.path)
    assert all(torch.equal(saved[key], original[key]) for key in original)
    listed = {file["path"]: file["sha256"] for file in json.loads((context.out / "receipt.json").read_text())["files"]}
    assert {path: file_sha256(context.out / path) for path in listed} == listed
    assert not (context.out / "merged" / "model-00002-of-00002.safetensors").exists()
    tokenizer = AutoTokenizer.from_pretrained(context.out / "merged")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(pipeline.run.model.base).chat_template
    card = (context.out / "merged" / "README.md").read_text()
    assert saved.keys() == original.keys()
    record = json.loads((aligned.path / "record.json").read_text())
    assert f"| sft | `{record['fingerprint'][:16]}`" in card


def test_without_merging_no_weights_are_written(pipeline: Pipeline, context: Context) -> None:
    metrics = export.run(export.Config(merged=False), context, aligned=Adapter(pipeline.path("sft")))
    assert metrics["merge_kl_nats_per_token"] is None
    assert not (context.out / "merged").exists()
    assert "merged" not in (context.out / "README.md").read_text()
