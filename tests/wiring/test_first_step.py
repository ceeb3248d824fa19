"""The gradients of a stage's optimizer steps against closed forms on plain transformers' logits.

What is expected comes from the judgements as the user wrote them; of the run, only the split of
each prompt is read. Both sides start from the same NF4 weights; ours multiplies in bf16, the other in fp32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import observe
import plain
import pytest
import torch
from judged import by_two, judge, judged_pairs, judged_thumbs
from tiny import WORDS, open_run
from torch.nn.functional import logsigmoid

from trueup.run.pipeline import Pipeline

ROUNDING = 0.03  # of the whole gradient's norm: bf16 against fp32. Any wrong wire is above 0.2

REWARD_ROUNDING = 0.12  # the score head's gradient is a difference of two nearly equal states, rounded to bf16


def training_pairs(run: Pipeline) -> list[tuple[plain.Messages, str, str, float]]:
    """(prompt, chosen, rejected, weight) of the training prompts; those of a prompt weigh 1 together, the mean is 1."""
    frozen = plain.rows(run.path("collect") / "pairs.jsonl")
    held_out = {row["prompt"][-1]["content"] for row in frozen if row["split"] == "held_out"}
    assert held_out and len(frozen) == len(judged_pairs())
    kept = [row for row in judged_pairs() if row["prompt"] not in held_out]
    of_prompt = {row["prompt"]: sum(row["prompt"] == other["prompt"] for other in kept) for row in kept}
    weights = [1 / of_prompt[row["prompt"]] for row in kept]
    mean = sum(weights) / len(weights)
    return [
        ([{"role": "user", "content": row["prompt"]}], row["chosen"], row["rejected"], weight / mean)
        for row, weight in zip(kept, weights, strict=True)
    ]


def training_thumbs(
    run: Pipeline, pairs: list[dict[str, str]], thumbs: list[dict[str, object]]
) -> list[tuple[plain.Messages, str, bool, float]]:
    """(prompt, text, label, weight) in the order of rows.jsonl: a thumb weighs the share of those who agree with it."""
    frozen = plain.rows(run.path("collect") / "rows.jsonl")
    held_out = {row["prompt"][-1]["content"] for row in frozen if row["split"] == "held_out"}
    said = [(row["prompt"], row[side], side == "chosen") for row in pairs for side in ("chosen", "rejected")]
    said += [(str(row["prompt"]), str(row["completion"]), bool(row["label"])) for row in thumbs]
    kept = [row for row in said if row[0] not in held_out]
    assert held_out & {row[0] for row in said}
    order = [(row["prompt"][-1]["content"], row["completion"]) for row in frozen if row["split"] == "train"]
    kept.sort(key=lambda row: (order.index(row[:2]), [r["label"] for r in frozen].index(row[2])))
    assert sorted(order) == sorted(row[:2] for row in kept)
    return [
        ([{"role": "user", "content": prompt}], text, up, kept.count((prompt, text, up)) / order.count((prompt, text)))
        for prompt, text, up in kept
    ]


def watched(run: Pipeline, stage: str, monkeypatch: pytest.MonkeyPatch, num_steps: int) -> list[observe.Step]:
    steps = observe.watch(monkeypatch, num_steps)
    with pytest.raises(observe.Enough):
        run.execute(stage, use_stale=True)  # judgements may have been changed by hand
    return steps


@pytest.mark.parametrize(("beta", "disputed"), [(0.1, "weight"), (0.6, "weight"), (0.6, "scale"), (0.6, "soft")])
def test_dpo(run_copy: Path, monkeypatch: pytest.MonkeyPatch, beta: float, disputed: str) -> None:
    pairs, margin = training_pairs(open_run(run_copy)), 1.0
    if disputed != "weight":
        margin = 0.4  # of every pair: the weights stay as they are
        path = open_run(run_copy).path("collect") / "pairs.jsonl"
        disputed_rows = [row | {"margin": margin, "weight": margin * row["weight"]} for row in plain.rows(path)]
        path.write_text("".join(json.dumps(row) + "\n" for row in disputed_rows))
    size = next(n for n in (2, 3, 5, 1) if len(pairs) % n == 0)
    accumulation = len(pairs) // size
    assert accumulation > 1 and len({weight for *_, weight in pairs}) > 1
    run = open_run(
        run_copy,
        f"dpo.beta={beta}",
        "dpo.learning_rate=0.002",
        "dpo.num_train_epochs=3",
        f"dpo.per_device_train_batch_size={size}",
        f"dpo.gradient_accumulation_steps={accumulation}",
        f"dpo.disputed_pairs={disputed}",
    )
    steps = watched(run, "dpo", monkeypatch, 2)
    base, sft = run.run.model.base, run.path("sft")
    tok, policy, reference = plain.tokenizer(base), plain.model(base, sft), plain.model(base, sft)
    for step in steps:
        plain.put(policy, step.weights)
        loss = torch.tensor(0.0)
        for prompt, chosen, rejected, weight in pairs:
            with torch.no_grad():
                before = [plain.answer_logp(reference, tok, prompt, text) for text in (chosen, rejected)]
            now = [plain.answer_logp(policy, tok, prompt, text) for text in (chosen, rejected)]
            apart = beta * ((now[0] - before[0]) - (now[1] - before[1]))
            likely = logsigmoid(margin * apart if disputed == "scale" else apart)
            if disputed == "soft":
                likely = (1 + margin) / 2 * likely + (1 - margin) / 2 * logsigmoid(-apart)
            loss = loss - weight * likely / len(pairs)
        loss.backward()
        assert sum(step.losses) == pytest.approx(loss.item(), abs=0.002)
        assert plain.differ(step.gradients, plain.gradients(policy)) < ROUNDING


MOSTLY_UP: list[dict[str, object]] = [
    {
        "prompt": f"{word} rope",
        "completion": f"yes tent{' boot' * (1 + n % 3)}" if n % 5 < 4 else "no",
        "label": n % 5 < 4,
    }
    for n, word in enumerate(WORDS)
]


@pytest.mark.parametrize("mostly", ["down", "up"])
def test_kto(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mostly: str) -> None:
    given = (judged_pairs(), judged_thumbs()) if mostly == "down" else ([], MOSTLY_UP)
    rows = training_thumbs(judge(pipeline, tmp_path / "run", *given), *given)
    size = next(n for n in (6, 7, 8, 9, 5, 4) if len(rows) % n == 0)
    beta = 0.5 if mostly == "down" else 2.0
    up, down = (sum(weight for _, _, label, weight in rows if label is side) for side in (True, False))
    # eq. 9 of Ethayarajh et al. 2024: the rarer side is raised until up / down is 1, or 4/3
    lambdas = {True: down / up, False: 1.0} if mostly == "down" else {True: 1.0, False: up / down / (4 / 3)}
    assert min(lambdas.values()) == 1 < max(lambdas.values())
    run = open_run(
        tmp_path / "run",
        f"kto.beta={beta}",
        f"kto.learning_rate={0.003 if mostly == 'down' else 0.004}",
        "kto.num_train_epochs=6",
        f"kto.per_device_train_batch_size={size}",
        f"kto.gradient_accumulation_steps={len(rows) // size}",
    )
    steps = watched(run, "kto", monkeypatch, 4)
    base, sft = run.run.model.base, run.path("sft")
    tok, policy, reference = plain.tokenizer(base), plain.model(base, sft), plain.model(base, sft)
    divergences = []

    def log_ratio(prompt: plain.Messages, text: str) -> torch.Tensor:
        with torch.no_grad():
            before = plain.answer_logp(reference, tok, prompt, text)
        return plain.answer_logp(policy, tok, prompt, text) - before

    for step in steps:
        plain.put(policy, step.weights)
        loss = torch.tensor(0.0)
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            neighbours = [batch[-1], *batch[:-1]]  # as TRL takes them: each prompt with the answer before its own
            with torch.no_grad():
                others = [log_ratio(row[0], other[1]) for row, other in zip(batch, neighbours, strict=True)]
            divergences.append(float(torch.stack(others).mean()))
            for prompt, text, label, weight in batch:
                gain = log_ratio(prompt, text) - max(divergences[-1], 0)
                value = torch.sigmoid(beta * (gain if label else -gain))
                loss = loss + weight * lambdas[label] * (1 - value) / len(rows)
        loss.backward()
        assert sum(step.losses) == pytest.approx(loss.item(), abs=0.002)
        assert plain.differ(step.gradients, plain.gradients(policy)) < ROUNDING
    # with many thumbs up the term is above 0; with many down its estimate falls below, where it is clamped
    assert max(divergences) > 0.1 if mostly == "up" else min(divergences) < -0.1, divergences


def test_reward(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = training_pairs(open_run(run_copy))
    size = next(n for n in (2, 3, 5, 1) if len(pairs) % n == 0)
    run = open_run(
        run_copy,
        "reward.learning_rate=0.002",
        "reward.thumbs_weight=0",
        "reward.num_train_epochs=3",
        f"reward.per_device_train_batch_size={size}",
        f"reward.gradient_accumulation_steps={len(pairs) // size}",
    )
    steps = watched(run, "reward", monkeypatch, 2)
    tok = plain.tokenizer(run.run.model.base)
    classifier = plain.classifier(run.run.model.base, run.path("sft"))
    for step in steps:
        plain.put(classifier, step.weights)
        loss = torch.tensor(0.0)
        for prompt, chosen, rejected, weight in pairs:
            scores = [
                plain.score(classifier, tok, [*prompt, {"role": "assistant", "content": text}])
                for text in (chosen, rejected)
            ]
            loss = loss - weight * logsigmoid(scores[0] - scores[1]) / len(pairs)
        loss.backward()
        found, expected = step.gradients, plain.gradients(classifier)
        heads = [name for name in expected if "score" in name]
        assert sum(step.losses) == pytest.approx(loss.item(), abs=0.002)
        assert heads
        assert plain.differ(found, expected) < REWARD_ROUNDING
    sft = {plain.plain_name(name): tensor for name, tensor in plain.saved(run.path("sft")).items()}
    for name, tensor in sft.items():  # it starts from the policy
        torch.testing.assert_close(steps[0].weights[name], tensor.float())


@pytest.mark.parametrize("disputed", ["weight", "scale", "soft"])
def test_reward_on_disputed_pairs_and_thumbs(run_copy: Path, monkeypatch: pytest.MonkeyPatch, disputed: str) -> None:
    """The second step, with thresholds as they are by then; the first shows where they begin."""
    margins = [1.0, 0.2, 0.6]  # of five, three and four people against the others of five
    frozen = plain.rows(open_run(run_copy).path("collect") / "pairs.jsonl")
    pairs = [row | {"margin": m, "weight": row["weight"] * m} for row, m in zip(frozen, margins * 99, strict=False)]
    thumbs = by_two(plain.rows(open_run(run_copy).path("collect") / "rows.jsonl"))
    for name, rows in (("pairs", pairs), ("rows", thumbs)):
        path = open_run(run_copy).path("collect") / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs, thumbs = ([row for row in some if row["split"] == "train"] for some in (pairs, thumbs))
    thumbs = [row for row in thumbs if row["kind"] != "comparison"]
    monkeypatch.setattr("trueup.training.counting.FEWEST", 1)
    run = open_run(
        run_copy,
        "reward.learning_rate=0.002",
        "reward.num_train_epochs=3",
        f"reward.per_device_train_batch_size={len(pairs) + len(thumbs)}",
        "reward.gradient_accumulation_steps=1",
        f"reward.disputed_pairs={disputed}",
        "reward.thumbs_weight=0.3",
    )
    steps = watched(run, "reward", monkeypatch, 2)
    tok = plain.tokenizer(run.run.model.base)
    classifier = plain.classifier(run.run.model.base, run.path("sft"))

    def score(row: dict[str, Any], side: str) -> torch.Tensor:
        return plain.score(classifier, tok, [*row["prompt"], {"role": "assistant", "content": row[side]}])

    for step in steps:
        name = next(name for name in step.weights if name.endswith("thresholds"))
        thresholds = (step.weights.pop(name) * 300).requires_grad_()
        plain.put(classifier, step.weights)
        if step is steps[0]:
            assert not thresholds.any()
            scores = [score(row, "chosen").item() for row in pairs]
            scores += [score(row, "completion").item() for row in thumbs]
            thresholds = torch.full((2,), sum(scores) / len(scores)).requires_grad_()
        shares = [row["weight"] / row["margin"] for row in pairs]
        weights = [row["weight"] for row in pairs] if disputed == "weight" else shares
        total, loss = sum(weights) + 0.3 * len(thumbs), torch.tensor(0.0)
        for row, weight in zip(pairs, weights, strict=True):
            apart, m = score(row, "chosen") - score(row, "rejected"), row["margin"]
            if disputed == "soft":
                of_pair = (1 + m) / 2 * logsigmoid(apart) + (1 - m) / 2 * logsigmoid(-apart)
            else:
                of_pair = logsigmoid(m * apart if disputed == "scale" else apart)
            loss = loss - weight / total * of_pair
        for row in thumbs:
            side = 1 if row["label"] else -1
            above = score(row, "completion") - thresholds["ab".index(row["annotator"])]
            loss = loss - 0.3 / total * logsigmoid(side * above)
        loss.backward()  # type: ignore[no-untyped-call]
        assert thresholds.grad is not None
        assert sum(step.losses) == pytest.approx(loss.item(), abs=0.003)
        torch.testing.assert_close(step.gradients.pop(name), thresholds.grad, rtol=0.05, atol=0.002)
        assert plain.differ(step.gradients, plain.gradients(classifier)) < REWARD_ROUNDING


def test_sft(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [f"{'tent ' * (n % 3)}{word}" for n, word in enumerate(WORDS)]
    answers = {q: f"yes {'boot ' * (n % 4)}{q}" for n, q in enumerate(asked)}
    (run_copy / "d.jsonl").write_text(
        "".join(json.dumps({"prompt": q, "response": a}) + "\n" for q, a in answers.items())
    )
    run = open_run(
        run_copy,
        "sft.held_out_fraction=0.2",
        "sft.per_device_train_batch_size=2",
        "sft.gradient_accumulation_steps=4",
        "sft.warmup_steps=0",
    )
    steps = observe.watch(monkeypatch, 2)
    with pytest.raises(observe.Enough):
        run.execute("sft", rebuild=True)
    tok = plain.tokenizer(run.run.model.base)
    policy = plain.model(run.run.model.base, run.path("sft"))
    for step in steps:
        plain.put(policy, step.weights)
        trained = [text.split("<|im_end|>\n<|im_start|>user\n")[-1] for text in step.texts]
        prompts = [next(q for q in asked if f"user\n{q}<|im_end|>" in text) for text in trained]
        assert len(prompts) == len(set(prompts)) == 8  # of ten, two are held out
        total, num_tokens = torch.tensor(0.0), 0
        for prompt in prompts:
            before, after = plain.encode_templated(tok, [{"role": "user", "content": prompt}], answers[prompt])
            total = total - plain.token_logps(policy, before, after).sum()
            num_tokens += len(after)
        loss = total / num_tokens
        loss.backward()
        assert sum(step.losses) == pytest.approx(loss.item(), abs=0.002)
        assert plain.differ(step.gradients, plain.gradients(policy)) < ROUNDING
