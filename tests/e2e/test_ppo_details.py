"""The details of docs/ppo.md that no formula shows: each against values worked by hand, or a plain computation."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_ppo import QUICK, build, likes_gear, move, prompts

from trueup.errors import StageError
from trueup.models import adapters
from trueup.online import rewards
from trueup.online.ppo import mathematics, roles, rollout, update
from trueup.online.ppo.batch import Batch
from trueup.online.prompts import Prompt, prompts_of_step
from trueup.online.settings import Settings
from trueup.run.pipeline import Pipeline

PART = [rewards.Part("test", 1.0, likes_gear)]


@pytest.mark.parametrize("engine", ["auto", "merged", "generate"])
def test_completions_are_cut_at_the_first_end_and_keep_it(sharp: Pipeline, engine: str) -> None:
    on_base = build(sharp, temperature=1.5)
    settings = Settings(**QUICK | {"engine": engine, "temperature": 1.5})
    found = rollout.collect(on_base, prompts(on_base) * 3, PART, settings, 0.0, 0)
    eos_id = on_base.tokenizer.eos_token_id
    assert {True, False} == set(found.ended)
    for ids, text, ended, mask in zip(found.completions, found.texts, found.ended, found.mask, strict=True):
        assert eos_id not in ids[:-1]
        assert ended == (ids[-1] == eos_id)
        assert ended or len(ids) == settings.max_new_tokens
        assert mask.sum() == len(ids)
        assert "<|im_end|>" not in text


def test_an_update_switches_adapters_once_a_minibatch(sharp: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the value and back, however many micro-batches there are: each switch walks over all layers."""
    on_base = build(sharp)
    settings = Settings(**QUICK | {"micro_batch_size": 2, "num_ppo_epochs": 1})
    experience = rollout.collect(on_base, prompts(on_base), PART, settings, 0.1, 3)
    switches: list[str] = []
    usual = on_base.model.set_adapter
    monkeypatch.setattr(on_base.model, "set_adapter", lambda name: (switches.append(name), usual(name)))
    scaler = update.new_scaler(torch.device("cpu"), torch.float32)
    update.update(on_base, update.new_optimizer(on_base, settings), scaler, experience, settings, 0)
    assert len(experience.completions) > 2 * settings.micro_batch_size
    assert switches == ["value", "default"]


def test_a_completion_without_an_end_loses_the_penalty(sharp: Pipeline) -> None:
    on_base = build(sharp)
    free, fined = (
        rollout.collect(on_base, prompts(on_base) * 3, PART, Settings(**QUICK | {"missing_eos_penalty": p}), 0.0, 0)
        for p in (0.0, 2.5)
    )
    assert free.completions == fined.completions
    assert {True, False} == set(free.ended)
    lost = [0.0 if ended else 2.5 for ended in free.ended]
    torch.testing.assert_close(free.scores - fined.scores, torch.tensor(lost))


def test_adam_has_the_papers_epsilon_and_no_weight_decay(sharp: Pipeline) -> None:
    on_base = build(sharp)
    settings = Settings(learning_rate=0.25, value_learning_rate=0.5)
    optimizer = update.new_optimizer(on_base, settings)
    groups = ((on_base.policy_parameters(), 0.25), (on_base.value_parameters(), 0.5))
    for p in [p for parameters, _ in groups for p in parameters]:
        p.grad = torch.full_like(p, 1e-5)
    before = [[p.detach().clone() for p in parameters] for parameters, _ in groups]
    optimizer.step()
    for (parameters, rate), starts in zip(groups, before, strict=True):
        for p, start in zip(parameters, starts, strict=True):
            # the first step is rate g / (|g| + epsilon), which is rate / 2 where |g| = epsilon = 1e-5
            torch.testing.assert_close(start - p.detach(), torch.full_like(p, rate / 2), atol=1e-5, rtol=1e-4)


def test_a_scaled_loss_gives_the_same_step_and_an_overflow_none(sharp: Pipeline) -> None:
    settings = Settings(**QUICK)
    stepped: list[list[torch.Tensor]] = []
    for scaler in (update.new_scaler(torch.device("cpu"), torch.float32), torch.amp.GradScaler("cpu", 2.0**10)):
        on_base = build(sharp)
        experience = rollout.collect(on_base, prompts(on_base), PART, settings, 0.0, 0)
        update.update(on_base, update.new_optimizer(on_base, settings), scaler, experience, settings, 0)
        stepped.append([p.detach().clone() for p in on_base.policy_parameters()])
    for plain, scaled in zip(*stepped, strict=True):
        torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=1e-5)
    overflowing = torch.amp.GradScaler("cpu", 1e38)
    steep = dataclasses.replace(experience, advantages=experience.advantages * 1e8)
    update.update(on_base, update.new_optimizer(on_base, settings), overflowing, steep, settings, 0)
    assert all(torch.equal(p, q) for p, q in zip(on_base.policy_parameters(), stepped[1], strict=True))
    assert overflowing.get_scale() < 1e38


@pytest.mark.parametrize("micro_batch_size", [64, 5])  # the whole rollout, whose graph is kept, and parts of it
def test_in_the_first_epoch_every_ratio_is_1(sharp: Pipeline, micro_batch_size: int) -> None:
    on_base = build(sharp)
    settings = Settings(**QUICK | {"micro_batch_size": micro_batch_size, "num_ppo_epochs": 1})
    experience = rollout.collect(on_base, prompts(on_base) * 3, PART, settings, 0.0, 0)
    lengths = [len(p.ids) + len(c) for p, c in zip(experience.prompts, experience.completions, strict=True)]
    assert len(set(lengths)) < len(lengths)  # rows of one length, which a shuffle could exchange
    assert bool(experience.graph) == (micro_batch_size == 64)
    scaler = update.new_scaler(torch.device("cpu"), torch.float32)
    found = update.update(on_base, update.new_optimizer(on_base, settings), scaler, experience, settings, 0)
    assert found["clip_fraction"] == 0
    assert found["update_kl"] == pytest.approx(0, abs=1e-8)
    weighted = (experience.weights * experience.advantages)[experience.mask]  # whitened: without the weights, 0
    assert found["policy_loss"] == pytest.approx(-weighted.mean().item(), abs=1e-6)


def test_learning_rates_fall_linearly_to_0(sharp: Pipeline) -> None:
    settings = Settings(num_steps=4, learning_rate=0.8, value_learning_rate=0.4)
    optimizer = update.new_optimizer(build(sharp), settings)
    found = []
    for step in range(4):
        update.anneal(optimizer, settings, step)
        found.append([group["lr"] for group in optimizer.param_groups])
    assert found == [pytest.approx([a, a / 2]) for a in (0.8, 0.6, 0.4, 0.2)]


def test_prompts_come_without_replacement_in_a_new_order_every_pass() -> None:
    known = [Prompt(str(i), [], []) for i in range(10)]
    drawn = [prompt.id for step in range(10) for prompt in prompts_of_step(known, 4, step, seed=0)]
    passes = [drawn[start : start + 10] for start in range(0, 40, 10)]
    assert all(sorted(ids) == sorted(p.id for p in known) for ids in passes)
    assert len({tuple(ids) for ids in passes}) == 4
    assert [p.id for p in prompts_of_step(known, 4, 7, seed=0)] == drawn[28:32]  # of (seed, step) alone
    assert drawn != [prompt.id for step in range(10) for prompt in prompts_of_step(known, 4, step, seed=1)]


def test_dropout_of_the_adapter_is_off(sharp: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    shutil.copytree(sharp.path("sft"), folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.5}))
    on_base = build(sharp, policy=folder)
    assert any(isinstance(module, torch.nn.Dropout) for module in on_base.model.modules())
    on_base.model.train()
    batch = rollout.collate([[5, 6, 7]], [[20, 21, 22]], 0)
    first, second = (on_base.policy(batch)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_the_reward_model_is_normalized_on_sft_samples_and_functions_are_not(tmp_path: Path) -> None:
    (tmp_path / "length.py").write_text("def length(prompts, completions):\n    return [len(c) for c in completions]\n")
    samples = [([{"role": "user", "content": "q"}], text) for text in ("a", "abc", "abcde")]

    def model(asked: list[Any], completions: list[str]) -> list[float]:
        return [10.0 * len(text) for text in completions]

    settings = Settings(reward_model_weight=2.0, reward_functions={"length:length": -1.0}, num_reward_samples=2)
    parts = rewards.build(settings, tmp_path, model, samples)
    # on the first two: scores 10 and 30, mean 20, spread 10; then 2 (50 - 20) / 10, and -5 as it is
    assert [(part.mean, part.spread) for part in parts] == [(20.0, 10.0), (0.0, 1.0)]
    assert [part([samples[2][0]], ["abcde"]) for part in parts] == [[6.0], [-5.0]]
    with pytest.raises(StageError, match=r"the same score, 10.*, for all SFT samples"):
        rewards.build(settings, tmp_path, model, [samples[0]] * 2)


SETTINGS = Settings(**QUICK | {"missing_eos_penalty": 0.5, "gamma": 0.9, "lam": 0.8, "kl_estimator": "k1"})
KL_COEF = 0.7


def moved(sharp: Pipeline) -> roles.Roles:
    """Roles with a policy away from its reference, and a value that is not 0."""
    on_base = build(sharp)
    move(on_base)
    generator = torch.Generator().manual_seed(1)
    on_base.value_head.weight.data = 0.3 * torch.randn(on_base.value_head.weight.shape, generator=generator)
    return on_base


def plain(on_base: roles.Roles, name: str, prompt: list[int], completion: list[int]) -> tuple[list[float], list[float]]:
    """log p of each completion token, and the value before it, from a forward of this row alone under `name`."""
    with torch.no_grad(), adapters.using(on_base.model.eval(), name):
        causal = on_base.model.get_base_model()
        hidden = causal.model(torch.tensor([prompt + completion])).last_hidden_state[0].float()
        logps = torch.log_softmax(hidden @ causal.lm_head.weight.float().T, -1)
        values = on_base.value_head(hidden)[:, 0]
    places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
    return [logps[i, ids].item() for i, ids in zip(places, completion, strict=True)], [values[i].item() for i in places]


def check_experience(on_base: roles.Roles) -> None:
    """Everything of a rollout again, in plain Python, a token at a time."""
    asked = prompts(on_base) * 2
    found = rollout.collect(on_base, asked, PART, SETTINGS, KL_COEF, 3)
    assert {True, False} == set(found.ended)
    every: list[tuple[int, int, float]] = []
    for row, (prompt, ids) in enumerate(zip(asked, found.completions, strict=True)):
        policy, reference = plain(on_base, "default", prompt.ids, ids)[0], plain(on_base, "ref", prompt.ids, ids)[0]
        values = plain(on_base, "value", prompt.ids, ids)[1]
        score = likes_gear([prompt.messages], [found.texts[row]])[0] - (0.0 if found.ended[row] else 0.5)
        last = len(ids) - 1
        kl = [p - r for p, r in zip(policy, reference, strict=True)]
        steps = [-KL_COEF * kl[t] + (score if t == last else 0) for t in range(len(ids))]
        deltas = [r + 0.9 * (values[t + 1] if t < last else 0) - values[t] for t, r in enumerate(steps)]
        for t in range(len(ids)):
            advantage = sum((0.9 * 0.8) ** (s - t) * deltas[s] for s in range(t, len(ids)))  # eq. 11 of Schulman 2016
            every.append((row, t, advantage))
            close = {"abs": 0.08}  # bf16: a log-probability moves by this much in batches of another shape
            assert found.old_logps[row, t].item() == pytest.approx(policy[t], **close)
            assert found.token_kl[row, t].item() == pytest.approx(kl[t], **close)
            assert found.values[row, t].item() == pytest.approx(values[t], **close)
            assert found.returns[row, t].item() == pytest.approx(advantage + values[t], abs=0.15)
    advantages = [a for _, _, a in every]
    mean = sum(advantages) / len(advantages)
    spread = math.sqrt(sum((a - mean) ** 2 for a in advantages) / len(advantages))
    for row, t, advantage in every:
        assert found.advantages[row, t].item() == pytest.approx((advantage - mean) / spread, abs=0.2)
    assert found.token_kl[found.mask].mean() > 0.05  # else a wrong sign could not show


def test_a_rollout_is_what_a_plain_computation_gives(sharp: Pipeline) -> None:
    check_experience(moved(sharp))


PLANTED = {
    "KL the wrong way round": (mathematics, "kl", lambda real: lambda a, b, e="k1": real(b, a, e)),
    "KL rewarded": (mathematics, "token_rewards", lambda real: lambda s, kl, m, c: real(s, kl, m, -c)),
    "the score a token early": (
        mathematics,
        "token_rewards",
        lambda real: lambda s, kl, m, c: real(s, kl, m, c).roll(-1, 1) * m,
    ),
    "the value of the next state": (roles.Roles, "values", lambda real: lambda self, b: real(self, b).roll(-1, 1)),
    "the reference with its adapter off": (
        roles.Roles,
        "reference_logps",
        lambda real: lambda self, batch: unadapted(self, batch),
    ),
    "old logps of the policy's first version": (
        roles.Roles,
        "policy",
        lambda real: lambda self, batch, **asked: stale(real, self, batch, **asked),
    ),
    "advantages not whitened": (mathematics, "whiten", lambda real: lambda values, mask, **options: values),
    "no penalty for a missing end": (
        rollout,
        "_sample",
        lambda real: lambda *args: (lambda r, logps: (all_ended(r), logps))(*real(*args)),
    ),
}


def unadapted(on_base: roles.Roles, batch: Batch) -> torch.Tensor:
    with torch.no_grad(), adapters.using(on_base.model, None):
        return on_base.policy(batch)[0]


def stale(real: Any, on_base: roles.Roles, batch: Batch, **asked: bool) -> Any:
    with adapters.using(on_base.model, "ref"):
        return real(on_base, batch, **asked)


def all_ended(found: rollout.Rollout) -> rollout.Rollout:
    return rollout.Rollout(found.prompts, found.completions, found.texts, [True] * len(found.ended), found.ran)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_bug_planted_in_the_rollout_fails_the_check(
    sharp: Pipeline, monkeypatch: pytest.MonkeyPatch, bug: str
) -> None:
    on_base = moved(sharp)
    owner, name, wrong = PLANTED[bug]
    monkeypatch.setattr(owner, name, wrong(getattr(owner, name)))
    with pytest.raises((AssertionError, StageError)):
        check_experience(on_base)
