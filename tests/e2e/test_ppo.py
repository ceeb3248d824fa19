"""PPO on the tiny 4-bit Llama: it learns, resumes bit for bit, refuses bad input, and planted faults stop it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import WORDS, make_model

from trueup.artifacts import Adapter, Completions, RewardModel, read_jsonl, write_jsonl
from trueup.config import load
from trueup.errors import ConfigError, DataError, ModelError, ReferenceProofError, StageError
from trueup.models import adapters, base
from trueup.pipeline import Pipeline
from trueup.ppo import loop, rewards, roles, rollout, update
from trueup.ppo.batch import Batch, collate
from trueup.ppo.rollout import Prompt
from trueup.ppo.settings import Settings
from trueup.stage import Context
from trueup.stages import STAGES, grpo, ppo
from trueup.training import checkpoints

QUICK = {
    "num_steps": 12,
    "rollout_batch_size": 64,
    "max_new_tokens": 6,
    "micro_batch_size": 64,
    "learning_rate": 0.005,
    "value_learning_rate": 0.003,
    "kl_coef": 0.0,
    "missing_eos_penalty": 0.0,
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A tiny policy after SFT that says `glad` and repeats the prompt."""
    folder = tmp_path_factory.mktemp("ppo")
    make_model(folder / "model", sharp=True)
    questions = [f"{a} {b}" for a in WORDS for b in WORDS]
    write_jsonl(folder / "d.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in questions[:40]])
    write_jsonl(folder / "p.jsonl", [{"prompt": q} for q in questions[40:50]])
    (folder / "run.yaml").write_text(
        f"name: tiny\nmodel: {{base: {folder / 'model'}}}\n"
        "data: {demonstrations: d.jsonl, prompts: p.jsonl, held_out: p.jsonl}\n"
        "sft: {learning_rate: 0.01, num_train_epochs: 6}\nsample: {num_completions: 2, max_new_tokens: 8}\n"
    )
    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
    made = Pipeline(run, STAGES, folder / "runs")
    made.execute("sft")
    made.execute("sample")
    return made


LIKES_GEAR = """
def likes_gear(prompts, completions):
    words = [completion.split() for completion in completions]
    return [sum(word in ("rope", "boot", "tent") for word in row) / max(len(row), 1) for row in words]
"""
gear: dict[str, Any] = {}
exec(LIKES_GEAR, gear)  # the same text is imported from a file where a run file names the reward
likes_gear = gear["likes_gear"]

CONVERSATIONS = [
    [{"role": "user", "content": "red tent"}, {"role": "assistant", "content": answer}]
    for answer in ("rope rope", "no", "glad red tent boot")
]


def build(pipeline: Pipeline, **options: Any) -> roles.Roles:
    folder = pipeline.path("sft")
    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, folder, trainable=True)
    chosen = {"reward": None, "value_on": "adapter", "temperature": 1.0} | options
    return roles.build(model, base.load_tokenizer(pipeline.run.model.base), policy=folder, **chosen)


def prompts(on_base: roles.Roles) -> list[Prompt]:
    rows = [{"id": w, "messages": [{"role": "user", "content": w}]} for w in WORDS]
    return loop.encode(on_base.tokenizer, rows, 64)[0]


def train(pipeline: Pipeline, out: Path, seed: int = 0, score: Any = likes_gear, **changes: Any) -> dict[str, Any]:
    settings = Settings(**(QUICK | changes))
    on_base = build(pipeline, value_on=settings.value_on)
    out.mkdir(parents=True, exist_ok=True)
    return loop.train(
        on_base,
        prompts(on_base),
        [rewards.Part("test", 1.0, score)],
        settings,
        start=pipeline.path("sft"),
        out=out,
        seed=seed,
        name="test",
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_learns_a_simple_reward(pipeline: Pipeline, tmp_path: Path, seed: int) -> None:
    metrics = train(pipeline, tmp_path, seed)
    assert metrics["last_reward"] > metrics["first_reward"] + 0.3


def test_a_run_cut_off_resumes_and_equals_the_uninterrupted_one(pipeline: Pipeline, tmp_path: Path) -> None:
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
    whole = train(pipeline, tmp_path / "whole", **changes)
    with pytest.raises(Killed):
        train(pipeline, tmp_path / "cut", score=dies_at_step_6, **changes)
    resumed = train(pipeline, tmp_path / "cut", **changes)
    assert (whole["resumed_from_step"], resumed["resumed_from_step"]) == (0, 4)
    folders = [tmp_path / name / "checkpoints" / "checkpoint-7" for name in ("whole", "cut")]
    first, second = (load_file(folder / "state.safetensors") for folder in folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (folders[0] / "state.json").read_text() == (folders[1] / "state.json").read_text()
    timed = ("rollout_s", "update_s", "tokens_per_s")
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


def test_logps_are_those_of_a_plain_forward_at_the_rollouts_temperature(pipeline: Pipeline) -> None:
    check_logps(build(pipeline))
    check_logps(build(pipeline, temperature=0.7))


@pytest.mark.parametrize("bug", ["off by one", "temperature forgotten", "attention to the wrong mask"])
def test_planted_faults_in_logps_are_caught(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    on_base = build(pipeline, temperature=0.7)
    right = batch_of(on_base)
    if bug == "off by one":
        wrong = replace(right, states=(right.states + 1).clamp(max=right.input_ids.shape[1] - 1))
        monkeypatch.setitem(globals(), "batch_of", lambda on_base: wrong)
    elif bug == "temperature forgotten":
        real = roles.token_logps
        monkeypatch.setattr(
            roles, "token_logps", lambda hidden, weight, targets, temperature: real(hidden, weight, targets, 1.0)
        )
    else:
        wrong = replace(right, attention_mask=right.attention_mask.flip(1))
        monkeypatch.setitem(globals(), "batch_of", lambda on_base: wrong)
    with pytest.raises(AssertionError):
        check_logps(on_base)


def test_the_bare_base_as_reference_is_caught(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(self: roles.Roles, batch: Batch) -> torch.Tensor:
        with torch.no_grad(), adapters.using(self.model, None):
            return self.policy(batch)[0]

    monkeypatch.setattr(roles.Roles, "reference_logps", bare)
    with pytest.raises(ReferenceProofError, match=r"KL -?\d.* nats before step 1"):
        loop.prove(build(pipeline), pipeline.path("sft"))


def test_a_fresh_adapter_as_reference_is_caught(pipeline: Pipeline) -> None:
    on_base = build(pipeline)
    for name, parameter in on_base.model.named_parameters():
        if ".ref." in name:
            parameter.data.zero_()
    with pytest.raises(ReferenceProofError, match="tensors hash to"):
        loop.prove(on_base, pipeline.path("sft"))


def test_the_proof_says_what_it_measured(pipeline: Pipeline) -> None:
    proven = loop.prove(build(pipeline), pipeline.path("sft"))
    assert abs(proven["first_kl"]) <= loop.KL_ROUNDING
    assert proven["max_abs_first_log_ratio"] <= 0.05
    assert proven["max_abs_logp_effect"] > 0.1


def gradients(pipeline: Pipeline, **changes: Any) -> list[torch.Tensor]:
    """The gradients of one whole-batch update of a fresh policy; the optimizer makes no step."""
    settings = Settings(**(QUICK | {"num_ppo_epochs": 1, "kl_coef": 0.1, "max_grad_norm": 1e9} | changes))
    on_base = build(pipeline, value_on=settings.value_on)
    if settings.gradient_checkpointing:
        on_base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    part = [rewards.Part("test", 1.0, likes_gear)]
    experience = rollout.collect(on_base, prompts(on_base), part, settings, 0.1, 3)
    optimizer = update.new_optimizer(on_base, settings)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    update.update(on_base, optimizer, experience, settings, 0)
    trained = [*on_base.policy_parameters(), *on_base.value_parameters()]
    assert all(p.dtype == torch.float32 and p.grad is not None for p in trained)
    untrained = [p for p in on_base.model.parameters() if all(p is not q for q in trained)]
    assert all(p.grad is None and not p.requires_grad for p in untrained)
    assert on_base.model.active_adapter == "default"
    return [p.grad for p in trained if p.grad is not None]


@pytest.mark.parametrize("value_on", ["adapter", "trunk"])
@pytest.mark.parametrize("change", [{"micro_batch_size": 3}, {"gradient_checkpointing": True}])
def test_memory_options_change_no_gradient(pipeline: Pipeline, value_on: str, change: dict[str, Any]) -> None:
    for one, other in zip(
        gradients(pipeline, value_on=value_on), gradients(pipeline, value_on=value_on, **change), strict=True
    ):
        assert (one - other).norm() <= 0.05 * one.norm() + 1e-6  # bf16, other batch shapes


def test_a_nan_reward_stops_with_the_checkpoint_kept(pipeline: Pipeline, tmp_path: Path) -> None:
    calls = 0

    def turns_nan(prompts: list[Any], completions: list[str]) -> list[float]:
        nonlocal calls
        calls += 1
        return [float("nan") if calls == 3 and i == 1 else 0.0 for i in range(len(completions))]

    with pytest.raises(StageError, match=r"reward test: a reward of nan, at the prompt '\w+'"):
        train(pipeline, tmp_path, score=turns_nan, save_steps=1)
    assert checkpoints.latest_whole(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-2"


def test_a_gradient_that_is_not_finite_stops_before_the_step(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"is (nan|inf|-inf)"):
        train(pipeline, tmp_path, score=lambda prompts, completions: [3e38 * i for i in range(len(completions))])


def test_kl_above_stop_kl_ends_the_run(pipeline: Pipeline, tmp_path: Path) -> None:
    metrics = train(pipeline, tmp_path, stop_kl=0.02)
    assert "above stop_kl 0.02" in metrics["stopped"]
    assert 0 < metrics["num_steps"] < QUICK["num_steps"]


def test_a_reward_function_that_raises_or_miscounts_names_prompt_and_function(tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def breaks(prompts, completions):\n    return [1 / (p[-1]['content'] != 'boot') for p in prompts]\n"
        "def miscounts(prompts, completions):\n    return [1.0]\n"
    )
    asked = [[{"role": "user", "content": word}] for word in ("tent", "boot")]
    with pytest.raises(StageError, match=r"my_rewards:breaks: it raised ZeroDivisionError.*at the prompt 'boot'"):
        rewards.of_function("my_rewards:breaks", tmp_path)(asked, ["a", "b"])
    with pytest.raises(StageError, match="my_rewards:miscounts: 1 rewards for 2 completions, at the prompt 'tent'"):
        rewards.of_function("my_rewards:miscounts", tmp_path)(asked, ["a", "b"])
    with pytest.raises(ConfigError, match="my_rewards:absent"):
        rewards.of_function("my_rewards:absent", tmp_path)


def test_prompts_longer_than_the_limit_are_named(pipeline: Pipeline) -> None:
    tokenizer = base.load_tokenizer(pipeline.run.model.base)
    rows = [{"id": str(n), "messages": [{"role": "user", "content": "red " * n}]} for n in (1, 50)]
    kept, too_long = loop.encode(tokenizer, rows, 40)
    assert ([prompt.id for prompt in kept], too_long) == (["1"], ["50"])
    with pytest.raises(DataError, match="all 2 prompts are longer than 3 tokens"):
        loop.encode(tokenizer, rows, 3)


def reward_model(pipeline: Pipeline, folder: Path) -> tuple[RewardModel, torch.Tensor]:
    """A classifier whose weights were drawn, saved as the reward stage saves it, and its scores of CONVERSATIONS."""
    bare = base.load_base(pipeline.run.model.base, four_bit=True, num_labels=1)
    tokenizer = base.load_tokenizer(pipeline.run.model.base)
    bare.config.pad_token_id = tokenizer.pad_token_id
    model = adapters.new_adapter(bare, pipeline.run.adapter, task_type="SEQ_CLS").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    model.save_pretrained(folder)
    score = model.get_base_model().score
    score.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(), *inputs[1:]))
    with torch.no_grad():
        rows = [tokenizer.apply_chat_template(c, return_tensors="pt", return_dict=True) for c in CONVERSATIONS]
        return RewardModel(folder), torch.cat([model(**row).logits.float().squeeze(-1) for row in rows])


def test_the_stage_with_a_reward_model_and_a_function(pipeline: Pipeline, tmp_path: Path) -> None:
    model, expected = reward_model(pipeline, tmp_path / "reward")
    (pipeline.folder.parents[1] / "short.py").write_text(
        "def brief(prompts, completions):\n    return [-float(len(c)) for c in completions]\n"
    )
    config = ppo.Config(**QUICK | {"num_steps": 2, "reward_functions": {"short:brief": 0.01}, "value_on": "adapter"})
    out = tmp_path / "ppo"
    out.mkdir()
    context = Context(run=pipeline.run, run_dir=pipeline.folder, out=out)
    policy, completions = Adapter(pipeline.path("sft")), Completions(pipeline.path("sample"))
    metrics = ppo.run(config, context, policy=policy, completions=completions, reward=model)
    assert [part["name"] for part in metrics["reward_parts"]] == ["reward_model", "short:brief"]
    assert metrics["linear4bit_layers"] == 14
    saved = adapters.saved_tensors(out)
    assert saved.keys() == adapters.saved_tensors(policy.path).keys()  # only the policy is saved
    assert any(not torch.equal(saved[k], v) for k, v in adapters.saved_tensors(policy.path).items())

    on_base = build(pipeline, reward=model.path)
    assert torch.equal(on_base.value_head.weight, on_base.score_head)
    held = {name: adapters.adapter_tensors(on_base.model, name) for name in ("reward", "value")}
    assert all(torch.equal(held["value"][k], v) for k, v in held["reward"].items())
    assert expected.std() > 0.1
    torch.testing.assert_close(on_base.scores(CONVERSATIONS), expected, atol=0.05, rtol=0.02)  # bf16, another batch

    config_file = model.path / "adapter_config.json"
    config_file.write_text(config_file.read_text().replace(pipeline.run.model.base, "another/base"))
    with pytest.raises(ModelError, match=r"a reward model trained on another/base"):
        build(pipeline, reward=model.path)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grpo_learns_a_simple_reward(pipeline: Pipeline, tmp_path: Path, seed: int) -> None:
    (pipeline.folder.parents[1] / "preferences.py").write_text(LIKES_GEAR)
    config = grpo.Config(
        reward_model_weight=0,
        reward_functions={"preferences:likes_gear": 1.0},
        beta=0.001,
        learning_rate=0.01,
        num_generations=16,
        per_device_train_batch_size=64,
        max_steps=36,
        max_completion_length=6,
    )
    run = pipeline.run.model_copy(update={"seed": seed})
    context = Context(run=run, run_dir=pipeline.folder, out=tmp_path)
    policy, completions = Adapter(pipeline.path("sft")), Completions(pipeline.path("sample"))
    metrics = grpo.run(config, context, policy=policy, completions=completions)
    assert metrics["last_reward"] > metrics["first_reward"] + 0.2


def test_grpo_rewards_by_an_adapter_on_the_same_base(pipeline: Pipeline, tmp_path: Path) -> None:
    model, _ = reward_model(pipeline, tmp_path / "reward")
    context = Context(run=pipeline.run, run_dir=pipeline.folder, out=tmp_path / "out")
    policy, completions = Adapter(pipeline.path("sft")), Completions(pipeline.path("sample"))
    config = grpo.Config(max_steps=3, max_completion_length=6, learning_rate=0.01, save_steps=1)
    metrics = grpo.run(config, context, policy=policy, completions=completions, reward=model)
    assert metrics["linear4bit_layers"] == 14  # one base
    assert metrics["reward_parts"][0]["spread"] > 0
    assert metrics["reference_proof"]["max_abs_logp_effect"] > 0.1
    assert adapters.saved_tensors(context.out).keys() == adapters.saved_tensors(policy.path).keys()
