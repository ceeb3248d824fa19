"""The optimizer steps of PPO and GRPO against closed forms on plain transformers' logits.

Which tokens were drawn is read off the tokenizer as it decodes them for the reward function; all else is computed here.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import observe
import plain
import pytest
import torch
from tiny import copy_of, open_run
from torch import Tensor

from trueup.run.pipeline import Pipeline

REWARD = """
import json, pathlib
def gear(prompts, completions):
    scores = [sum(c.count(word) for word in ("rope", "tent", "boot")) - 0.1 * len(c) for c in completions]
    with pathlib.Path(__file__).with_name("calls.jsonl").open("a") as out:
        out.write(json.dumps([[p[-1]["content"] for p in prompts], completions, scores]) + chr(10))
    return scores
"""
ROUNDING = 0.03  # of the whole gradient's norm: bf16 against fp32
EDGE = 0.01  # how far rounding moves a ratio or a value, at most
LENGTH = 6  # tokens of a completion, at most


def online(sharp: Pipeline, tmp_path: Path) -> Path:
    """The folder of a copy of the sharp run, with a reward function that notes what it was asked."""
    folder = copy_of(sharp, tmp_path / "run")
    (folder / f"{tmp_path.name}.py").write_text(REWARD)  # a name of its own: Python imports a module once
    return folder


Row = tuple[list[int], list[int], float]  # ids of a prompt and of its completion, and the completion's score


def rollouts(folder: Path, decoded: list[tuple[list[int], str]], tok: Any) -> list[list[Row]]:
    """The rows of each call of the reward function.

    A text is decoded without its end token, so an answer of fewer than LENGTH tokens is one that ended.
    """
    by_text: dict[str, list[list[int]]] = {}
    for ids, text in decoded:
        drawn = ids if len(ids) >= LENGTH or ids[-1:] == [tok.eos_token_id] else [*ids, tok.eos_token_id]
        by_text.setdefault(text, []).append(drawn)
    calls = []
    for prompts, texts, scores in plain.rows(folder / "calls.jsonl"):
        rows: list[Row] = []
        for prompt, text, score in zip(prompts, texts, scores, strict=True):
            asked = [{"role": "user", "content": prompt}]
            before = tok.apply_chat_template(asked, add_generation_prompt=True, tokenize=True, return_dict=False)
            rows.append((before, by_text[text].pop(0), score))
        calls.append(rows)
    return calls


def of_rows(rows: list[Row], of: Any, temperature: float) -> list[Tensor]:
    return [plain.token_logps(of, before, after, temperature) for before, after, _ in rows]


def values_of_rows(rows: list[Row], of: Any, head: Tensor, bias: Tensor) -> list[Tensor]:
    """V of the state each completion token was drawn in: read at the token before it."""
    found = []
    for before, after, _ in rows:
        hidden = of.get_base_model().model(input_ids=torch.tensor([[*before, *after]])).last_hidden_state[0]
        found.append(hidden[len(before) - 1 : -1] @ head[0] + bias)
    return found


def advantages_by_hand(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> Tensor:
    """Eq. 16 of Schulman et al. 2016, as the double sum it is: A_t = sum_l (gamma lam)^l delta_t+l."""
    following = torch.cat([values[1:], torch.zeros(1)])
    delta = rewards + gamma * following - values
    return torch.stack(
        [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(delta))) for t in range(len(delta))]
    )


def within(ratio: Tensor, gain: Tensor, clip: float) -> Tensor:
    """Where the clipped objective is the ratio times the gain, and so has a gradient."""
    return ratio * gain <= ratio.clamp(1 - clip, 1 + clip) * gain


def value_within(value: Tensor, old: Tensor, target: Tensor, clip: float) -> Tensor:
    """Where the clipped value loss is that of the value itself, and so has a gradient."""
    return (value - target) ** 2 > (old + (value - old).clamp(-clip, clip) - target) ** 2 - 1e-5


def apart(found: dict[str, Tensor], of: Any, sure: Tensor, doubtful: list[Tensor], **more: Tensor) -> float:
    """The distance of a gradient to that of the loss `sure` with some of the terms `doubtful`.

    A term is doubtful where its token is so near the edge of its clip that rounding decides whether it has a gradient:
    with it and without it are both right. `more` are tensors with gradients beside the parameters of `of`.
    """
    taken = []
    for term in (sure, *doubtful):
        of.zero_grad(set_to_none=True)
        for tensor in more.values():
            tensor.grad = None
        term.backward(retain_graph=True)
        taken.append(plain.gradients(of) | {name: tensor.grad.clone() for name, tensor in more.items()})
    assert len(doubtful) <= 6  # of some forty tokens; with more, little would be held
    return min(
        plain.differ(
            found,
            {
                n: g + sum((part[n] for part, yes in zip(taken[1:], chosen, strict=True) if yes))
                for n, g in taken[0].items()
            },
        )
        for chosen in itertools.product((False, True), repeat=len(doubtful))
    )


def test_ppo(sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rollouts of two epochs: at the second rollout KL is not 0, at second epochs the ratio is not 1."""
    folder = online(sharp, tmp_path)
    kl_coef, penalty, gamma, lam, temperature, vf_coef, clip = 0.3, 2.0, 0.9, 0.8, 2.0, 0.5, 0.1
    options = {
        "num_steps": 2,
        "rollout_batch_size": 8,
        "micro_batch_size": 3,
        "num_ppo_epochs": 2,
        "max_new_tokens": LENGTH,
        "max_grad_norm": 1e9,
        "learning_rate": 0.002,
        "value_learning_rate": 0.01,
        "kl_coef": kl_coef,
        "missing_eos_penalty": penalty,
        "gamma": gamma,
        "lam": lam,
        "temperature": temperature,
        "vf_coef": vf_coef,
        "cliprange": clip,
        "cliprange_value": clip,
        "reward_model_weight": 0,
    }
    run = open_run(
        folder,
        *(f"ppo.{k}={v}" for k, v in options.items()),
        f"ppo.reward_functions={{{tmp_path.name}:gear: 0.5}}",
    )
    decoded, updates = observe.decoded(monkeypatch), observe.watch_adamw(monkeypatch, 4)
    run.execute("ppo")
    base, sft = run.run.model.base, run.path("sft")
    tok = plain.tokenizer(base)
    policy, reference, valuer = (plain.model(base, sft) for _ in range(3))
    names = list(plain.parameters(policy))
    num = len(names)

    def put(update: observe.Update) -> tuple[Tensor, Tensor]:
        plain.put(policy, dict(zip(names, update.weights[:num], strict=True)))
        plain.put(valuer, dict(zip(names, update.weights[num : 2 * num], strict=True)))
        head, bias = update.weights[2 * num :]
        return head.clone().requires_grad_(), bias.clone().requires_grad_()

    assert len(updates) == 4
    for number, rows in enumerate(rollouts(folder, decoded, tok)):
        ended = [after[-1] == tok.eos_token_id for _, after, _ in rows]
        assert {len(after) for _, after, _ in rows} > {LENGTH} and any(ended) and not all(ended)
        head, bias = put(updates[2 * number])
        with torch.no_grad():
            old, ref = of_rows(rows, policy, temperature), of_rows(rows, reference, temperature)
            values = values_of_rows(rows, valuer, head, bias)
        gains = []
        for row, (_, _, score) in enumerate(rows):
            rewards = -kl_coef * (old[row] - ref[row])
            rewards[-1] += 0.5 * score - penalty * (not ended[row])
            gains.append(advantages_by_hand(rewards, values[row], gamma, lam))
        flat = torch.cat(gains)
        whitened = [(gain - flat.mean()) / flat.std(correction=0) for gain in gains]
        kl = torch.cat(old).mean() - torch.cat(ref).mean()
        assert (abs(kl) < 1e-4) if number == 0 else (abs(kl) > 0.05)
        for update in updates[2 * number : 2 * number + 2]:
            head, bias = put(update)
            now, value_now = of_rows(rows, policy, temperature), values_of_rows(rows, valuer, head, bias)
            loss = value_loss = torch.tensor(0.0)
            doubtful: list[Tensor] = []
            value_doubtful: list[Tensor] = []
            for row in range(len(rows)):
                ratio, advantage = (now[row] - old[row]).exp(), whitened[row]
                target, value = gains[row] + values[row], value_now[row]
                terms = -ratio * advantage / len(flat)
                value_terms = vf_coef * 0.5 * (value - target) ** 2 / len(flat)
                low, high = (within(ratio.detach() + e, advantage, clip) for e in (-EDGE, EDGE))
                loss = loss + terms[low & high].sum()
                doubtful += terms[low ^ high]
                low, high = (value_within(value.detach() + e, values[row], target, clip) for e in (-EDGE, EDGE))
                value_loss = value_loss + value_terms[low & high].sum()
                value_doubtful += value_terms[low ^ high]
            found = [torch.zeros(()) if g is None else g for g in update.gradients]
            of_policy = dict(zip(names, found[:num], strict=True))
            assert apart(of_policy, policy, loss, doubtful) < ROUNDING
            of_value = dict(zip([*names, "head", "bias"], found[num:], strict=True))
            assert apart(of_value, valuer, value_loss, value_doubtful, head=head, bias=bias) < ROUNDING


@pytest.mark.parametrize("beta", [0.04, 2.0])
def test_grpo(sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beta: float) -> None:
    """Two updates on one rollout: at the second the ratio is not 1, and KL to the reference is not 0."""
    folder = online(sharp, tmp_path)
    group, size = 4, 8
    run = open_run(
        folder,
        f"grpo.beta={beta}",
        "grpo.max_steps=3",
        "grpo.num_iterations=2",
        f"grpo.num_generations={group}",
        f"grpo.per_device_train_batch_size={size}",
        f"grpo.max_completion_length={LENGTH}",
        "grpo.learning_rate=0.002",
        "grpo.reward_model_weight=0",
        f"grpo.reward_functions={{{tmp_path.name}:gear: 2.0}}",
    )
    decoded, steps = observe.decoded(monkeypatch), observe.watch(monkeypatch, 2)
    with pytest.raises(observe.Enough):
        run.execute("grpo")
    base, sft = run.run.model.base, run.path("sft")
    tok, policy, reference = plain.tokenizer(base), plain.model(base, sft), plain.model(base, sft)
    rows = rollouts(folder, decoded, tok)[0]
    assert len(rows) == size
    scores = torch.tensor([2.0 * score for *_, score in rows]).reshape(-1, group)  # a function's weight is 2
    assert (scores.std(1) > 0).any()
    advantages = ((scores - scores.mean(1, keepdim=True)) / (scores.std(1, keepdim=True) + 1e-4)).flatten()
    with torch.no_grad():
        ref = of_rows(rows, reference, 1.0)
        old = ref  # the rollout is the policy's before step 1
    num_tokens = sum(map(len, ref))
    for step in steps:
        plain.put(policy, step.weights)
        loss = sure = torch.tensor(0.0)
        doubtful: list[Tensor] = []
        for row, now in enumerate(of_rows(rows, policy, 1.0)):
            ratio, gain, log_ratio = (now - old[row]).exp(), advantages[row], ref[row] - now
            surrogate = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain)
            kl = ratio * (log_ratio.exp() - log_ratio - 1)  # weighted as TRL does: DeepSeek-V3.2, section 3.1
            loss = loss - (surrogate - beta * kl).sum().detach() / num_tokens
            terms = -ratio * gain / num_tokens
            low, high = (within(ratio.detach() + e, gain, 0.2) for e in (-EDGE, EDGE))
            sure = sure + terms[low & high].sum() + beta * kl.sum() / num_tokens
            doubtful += terms[low ^ high]
        assert sum(step.losses) == pytest.approx(loss.item(), abs=0.005, rel=0.01)
        assert apart(step.gradients, policy, sure, doubtful) < ROUNDING
