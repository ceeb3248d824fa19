"""PPO on the tiny 4-bit Llama: it learns, resumes bit for bit, proves its reference, and planted faults stop it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_ppo import CONVERSATIONS, QUICK, build, likes_gear, prompts, reward_model, train

from trueup.errors import ReferenceProofError
from trueup.models import adapters
from trueup.online import rewards
from trueup.online.ppo import loop, roles, rollout, update
from trueup.online.ppo.batch import Batch, collate
from trueup.online.settings import Settings
from trueup.run.artifacts import Adapter, Completions, read_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.sampling.sample import engine_bytes
from trueup.stages import ppo
from trueup.training import along


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_it_learns_a_simple_reward(sharp: Pipeline, tmp_path: Path, seed: int) -> None:
    metrics = train(sharp, tmp_path, seed)
    assert metrics["last_reward"] > metrics["first_reward"] + 0.3


def test_a_run_cut_off_resumes_and_equals_the_uninterrupted_one(sharp: Pipeline, tmp_path: Path) -> None:
    calls = 0

    class Killed(BaseException):
        pass

    def dies_at_step_6(prompts: list[Any], completions: list[str]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise Killed
        return likes_gear(prompts, completions)

    changes = {
        "num_steps": 7,
        "save_steps": 2,
        "kl_coef": 0.1,
        "kl_target": 0.05,
        "num_mini_batches": 2,
        "rollout_batch_size": 16,
    }
    kept = 3
    whole = train(sharp, tmp_path / "whole", keep_checkpoints=kept, **changes)
    with pytest.raises(Killed):
        train(sharp, tmp_path / "cut", score=dies_at_step_6, keep_checkpoints=kept, **changes)
    resumed = train(sharp, tmp_path / "cut", keep_checkpoints=kept, **changes)
    for name in ("whole", "cut"):
        assert {path.name[11:] for path in (tmp_path / name / "checkpoints").iterdir()} == {"4", "6", "7"}
    assert (whole["resumed_from_step"], resumed["resumed_from_step"]) == (0, 4)
    folders = [tmp_path / name / "checkpoints" / "checkpoint-7" for name in ("whole", "cut")]
    first, second = (load_file(folder / "state.safetensors") for folder in folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (folders[0] / "state.json").read_text() == (folders[1] / "state.json").read_text()
    timed = ("rollout_s", "update_s", "step_s", "tokens_per_s")
    logs = [[r | dict.fromkeys(timed) for r in read_jsonl(tmp_path / n / "metrics.jsonl")] for n in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[1]] == list(range(1, 8))
    assert len({row["kl_coef"] for row in logs[0]}) > 1  # the controller moved, so its state was part of this


def batch_of(on_base: roles.Roles) -> Batch:
    return collate([[5, 6, 7, 8], [9], [10, 11]], [[20, 21], [22, 23, 24, 0], [25]], on_base.tokenizer.pad_token_id)


def expected_logps(on_base: roles.Roles, name: str | None, temperature: float) -> list[float]:
    """Each completion token's log-probability from a plain forward of its row alone, without padding."""
    found = []
    with torch.no_grad(), adapters.using(on_base.model.eval(), name):
        for prompt, completion in (([5, 6, 7, 8], [20, 21]), ([9], [22, 23, 24, 0]), ([10, 11], [25])):
            logits = on_base.model(torch.tensor([prompt + completion])).logits[0].float() / temperature
            for t, token in enumerate(completion):
                found.append(torch.log_softmax(logits[len(prompt) + t - 1], -1)[token].item())
    return found


def check_logps(on_base: roles.Roles) -> None:
    batch = batch_of(on_base)
    with torch.no_grad():
        policy, reference = on_base.policy(batch)[0], on_base.reference_logps(batch)
    for logps, name in ((policy, "default"), (reference, "ref")):
        expected = torch.tensor(expected_logps(on_base, name, on_base.temperature))
        torch.testing.assert_close(logps[batch.mask], expected, atol=0.05, rtol=0)  # bf16, other batch shapes
        assert not logps[~batch.mask].any()


def test_logps_are_those_of_a_plain_forward_at_the_rollouts_temperature(sharp: Pipeline) -> None:
    check_logps(build(sharp))
    check_logps(build(sharp, temperature=0.7))


@pytest.mark.parametrize("bug", ["off by one", "temperature forgotten", "attention to the wrong mask"])
def test_planted_faults_in_logps_are_caught(sharp: Pipeline, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    on_base = build(sharp, temperature=0.7)
    right = batch_of(on_base)
    if bug == "off by one":
        wrong = replace(right, states=(right.states + 1).clamp(max=right.input_ids.shape[1] - 1))
        monkeypatch.setitem(globals(), "batch_of", lambda on_base: wrong)
    elif bug == "temperature forgotten":
        real = roles.token_logps
        monkeypatch.setattr(
            roles, "token_logps", lambda hidden, weight, targets, _, **asked: real(hidden, weight, targets, **asked)
        )
    else:
        wrong = replace(right, attention_mask=right.attention_mask.flip(1))
        monkeypatch.setitem(globals(), "batch_of", lambda on_base: wrong)
    with pytest.raises(AssertionError):
        check_logps(on_base)


def blank(on_base: roles.Roles, *names: str) -> None:
    """Make adapters do nothing, which leaves the bare base."""
    for key, parameter in on_base.model.named_parameters():
        if "lora_B" in key and any(f".{name}." in key for name in names):
            parameter.data.zero_()


@pytest.mark.parametrize(
    ("bug", "said"),
    [
        ("the reference is a fresh adapter", "tensors hash to"),
        ("policy and reference are fresh adapters", "tensors hash to"),
        ("the reference is scored with its adapter off", r"KL -?\d.* nats per token before step 1"),
        ("the policy is not where it was saved", "policy and reference differ by"),
    ],
)
def test_the_bare_base_as_reference_stops_the_run(
    sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: str, said: str
) -> None:
    real = roles.build

    def planted(*args: Any, **options: Any) -> roles.Roles:
        on_base = real(*args, **options)
        if bug == "the reference is a fresh adapter":
            blank(on_base, "ref")
        elif bug == "policy and reference are fresh adapters":  # KL = 0 and ratio = 1 hold
            blank(on_base, "ref", "default")
        elif bug == "the policy is not where it was saved":
            blank(on_base, "default")
        return on_base

    def bare(self: roles.Roles, batch: Batch) -> torch.Tensor:
        with torch.no_grad(), adapters.using(self.model, None):
            return self.policy(batch)[0]

    monkeypatch.setattr(roles, "build", planted)
    if "adapter off" in bug:
        monkeypatch.setattr(roles.Roles, "reference_logps", bare)
    with pytest.raises(ReferenceProofError, match=said):
        train(sharp, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_proof_says_what_it_measured(sharp: Pipeline) -> None:
    proven = loop.prove(build(sharp), sharp.path("sft"), micro_batch_size=3)
    assert abs(proven["first_kl"]) <= loop.KL_ROUNDING
    assert proven["mean_abs_first_log_ratio"] <= 0.1
    assert proven["max_abs_logp_effect"] > 0.1


def gradients(sharp: Pipeline, **changes: Any) -> list[torch.Tensor]:
    """The gradients of one whole-batch update of a fresh policy; the optimizer makes no step."""
    settings = Settings(**(QUICK | {"num_ppo_epochs": 1, "kl_coef": 0.1, "max_grad_norm": 1e9} | changes))
    on_base = build(sharp, value_on=settings.value_on)
    if settings.gradient_checkpointing:
        on_base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    part = [rewards.Part("test", 1.0, likes_gear)]
    experience = rollout.collect(on_base, prompts(on_base), part, settings, 0.1, 3)
    optimizer = update.new_optimizer(on_base, settings)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    scaler = update.new_scaler(torch.device("cpu"), torch.float32)
    update.update(on_base, optimizer, scaler, experience, settings, 0)
    trained = [*on_base.policy_parameters(), *on_base.value_parameters()]
    assert all(p.dtype == torch.float32 and p.grad is not None for p in trained)
    untrained = [p for p in on_base.model.parameters() if all(p is not q for q in trained)]
    assert all(p.grad is None and not p.requires_grad for p in untrained)
    assert on_base.model.active_adapter == "default"
    return [p.grad for p in trained if p.grad is not None]


@pytest.mark.parametrize("value_on", ["adapter", "trunk"])
@pytest.mark.parametrize("change", [{"micro_batch_size": 3}, {"gradient_checkpointing": True}])
def test_memory_options_change_no_gradient(sharp: Pipeline, value_on: str, change: dict[str, Any]) -> None:
    for one, other in zip(
        gradients(sharp, value_on=value_on), gradients(sharp, value_on=value_on, **change), strict=True
    ):
        assert (one - other).norm() <= 0.05 * one.norm() + 1e-6  # bf16, other batch shapes


def test_kl_above_stop_kl_ends_the_run(sharp: Pipeline, tmp_path: Path) -> None:
    metrics = train(sharp, tmp_path, stop_kl=0.02)
    assert "above stop_kl 0.02" in metrics["stopped"]
    assert 0 < metrics["num_steps"] < QUICK["num_steps"]


def test_the_stage_with_a_reward_model_and_a_function(sharp: Pipeline, tmp_path: Path) -> None:
    model, _ = reward_model(sharp, tmp_path / "reward")
    (sharp.folder.parents[1] / "short.py").write_text(
        "def brief(prompts, completions):\n    return [-float(len(c)) for c in completions]\n"
    )
    config = ppo.Config(
        **QUICK
        | {"num_steps": 2, "reward_functions": {"short:brief": 0.01}, "engine": "merged", "completions_steps": 2}
        | {"save_steps": 1}
    )
    out = tmp_path / "ppo"
    out.mkdir()
    context = Context(run=sharp.run, run_dir=sharp.folder, out=out)
    policy, completions = Adapter(sharp.path("sft")), Completions(sharp.path("sample"))
    metrics = ppo.run(config, context, policy=policy, sft=policy, completions=completions, reward=model)
    assert [part["name"] for part in metrics["reward_parts"]] == ["reward_model", "short:brief"]
    assert metrics["linear4bit_layers"] == 14
    assert (
        metrics["kl_nats_per_token"] == metrics["kl_to_reference_nats_per_token"] > 0
    )  # round 1: SFT is the reference
    saved = adapters.saved_tensors(out)
    assert saved.keys() == adapters.saved_tensors(policy.path).keys()  # only the policy is saved
    assert [row["step"] for row in read_jsonl(out / "metrics.jsonl")] == [1, 2]
    assert {row["step"] for row in read_jsonl(out / "completions.jsonl")} == {1}
    (label, first), *more = along.chosen(out, 1).items()
    assert (label, first.name, more) == ("step_1", "checkpoint-1", [])  # the last holds the policy itself
    before, last = adapters.saved_tensors(first), adapters.saved_tensors(out / "checkpoints" / "checkpoint-2")
    assert before.keys() == last.keys() == saved.keys() and all(torch.equal(last[key], saved[key]) for key in saved)
    assert not all(torch.equal(before[key], saved[key]) for key in saved)


def test_reward_and_value_are_copies_on_the_base_of_the_classifier(sharp: Pipeline, tmp_path: Path) -> None:
    model, expected = reward_model(sharp, tmp_path / "reward")
    on_base = build(sharp, reward=model.path)
    assert torch.equal(on_base.value_head.weight, on_base.score_head.own)
    held = {name: adapters.adapter_tensors(on_base.model, name) for name in ("reward", "value")}
    assert all(torch.equal(held["value"][k], v) for k, v in held["reward"].items())
    assert expected.std() > 0.1
    torch.testing.assert_close(on_base.scores(CONVERSATIONS), expected, atol=0.05, rtol=0.02)  # bf16, another batch


@pytest.mark.doors
def test_the_bytes_of_the_merged_copy_are_those_of_its_weights(sharp: Pipeline) -> None:
    on_base = build(sharp)
    # two layers of q 64x64, k and v 64x32, o 64x64, gate and up 64x128, down 128x64, in bf16
    assert engine_bytes(on_base.model, "merged") == 2 * 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    assert engine_bytes(on_base.model, "auto") == engine_bytes(on_base.model, "generate") == 0
