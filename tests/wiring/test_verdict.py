"""From judgements to the verdict and the export, on files alone: who gains, who is called better, what leaves."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest
import torch
from click.testing import CliRunner
from judged import judge, judged_pairs, judged_thumbs
from safetensors.torch import load_file, save_file
from scipy.stats import bootstrap
from tiny import WORDS, copy_of, open_run
from transformers import AutoModelForCausalLM

from trueup.cli.main import main
from trueup.errors import StageError
from trueup.evaluation import general
from trueup.run.artifacts import Adapter, RewardModel
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import STAGES

SETTINGS = {
    "dpo.learning_rate": 0.002,
    "dpo.num_train_epochs": 6,
    "dpo.save_steps": 2,
    "dpo.keep_checkpoints": 5,
    "kto.learning_rate": 0.003,
    "kto.num_train_epochs": 6,
    "reward.learning_rate": 0.003,
    "reward.num_train_epochs": 6,
    "reward.thumbs_weight": 0,
    "evaluate.temperature": 0,
    "evaluate.num_completions": 2,
}


def opened(folder: Path, **more: Any) -> Pipeline:
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in more.items()}}
    return open_run(folder, *(f"{key}={value}" for key, value in chosen.items()))


@pytest.fixture(scope="module")
def finished(sharp: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run from judgements to export."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    judge(sharp, folder, judged_pairs(), judged_thumbs())
    (folder / "h.jsonl").write_text("".join(json.dumps({"prompt": f"{word} tent rope"}) + "\n" for word in WORDS))
    text = (folder / "run.yaml").read_text().replace("held_out: p.jsonl", "held_out: h.jsonl")
    (folder / "run.yaml").write_text(text)
    run = opened(folder)
    for stage in ("reward", "dpo", "evaluate", "export"):
        run.execute(stage)
    return folder


def metrics(run: Pipeline, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run.path(stage) / "record.json").read_text())["metrics"]
    return found


def margins(run: Pipeline, adapter: Path) -> dict[str, float]:
    """log p(yes ...) - log p(no ...), for one pair of each held-out prompt."""
    base, frozen = run.run.model.base, plain.rows(run.path("collect") / "pairs.jsonl")
    tok, policy = plain.tokenizer(base), plain.model(base, adapter)
    found = {}
    with torch.no_grad():
        for row in frozen:
            if row["split"] == "held_out":
                texts = sorted((row["chosen"], row["rejected"]), reverse=True)  # yes before no
                yes, no = (plain.answer_logp(policy, tok, row["prompt"], text).item() for text in texts)
                found[row["prompt"][-1]["content"]] = yes - no
    assert len(found) >= 3
    return found


@pytest.mark.parametrize(
    ("stage", "swapped"),
    [("dpo", False), ("dpo", True), ("kto", False), pytest.param("kto", True, marks=pytest.mark.slow)],
)
def test_what_is_preferred_gains_on_held_out_prompts(
    pipeline: Pipeline, tmp_path: Path, stage: str, swapped: bool
) -> None:
    pairs, thumbs = judged_pairs(), judged_thumbs()
    if swapped:
        pairs = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs]
        thumbs = [row | {"label": not row["label"]} for row in thumbs]
    judge(pipeline, tmp_path / "run", pairs, thumbs)
    run = opened(tmp_path / "run")
    run.execute(stage)
    before, after = margins(run, run.path("sft")), margins(run, run.path(stage))
    sign = -1 if swapped else 1
    assert all(sign * (after[prompt] - before[prompt]) > 1 for prompt in before), (before, after)


def reward_model(run: Pipeline, folder: Path) -> tuple[Any, Any]:
    """(tokenizer, classifier) of the reward model saved in `folder`, by transformers and peft alone."""
    classifier = plain.classifier(run.run.model.base, folder)
    plain.put(classifier, {plain.plain_name(name): tensor for name, tensor in plain.saved(folder).items()})
    return plain.tokenizer(run.run.model.base), classifier


def scores(run: Pipeline, conversations: list[plain.Messages]) -> list[float]:
    """Of the run's reward model."""
    tok, classifier = reward_model(run, run.path("reward"))
    with torch.no_grad():
        return [plain.score(classifier, tok, conversation).item() for conversation in conversations]


def scores_of_answers(run: Pipeline, reward: Path, answers: list[dict[str, Any]], label: str) -> list[float]:
    """Of the reward model saved in `reward`, of answers.jsonl as it was sampled."""
    tok, classifier = reward_model(run, reward)
    with torch.no_grad():
        return [plain.score_sampled(classifier, tok, row["messages"], row["ids"][label]).item() for row in answers]


def test_the_reward_model_prefers_what_people_did_on_held_out_prompts(finished: Path) -> None:
    run = opened(finished)
    frozen = [r for r in plain.rows(run.path("collect") / "pairs.jsonl") if r["split"] == "held_out"]
    said = [
        [*r["prompt"], {"role": "assistant", "content": r[side]}] for r in frozen for side in ("chosen", "rejected")
    ]
    found = scores(run, said)
    right = [chosen > rejected for chosen, rejected in zip(found[::2], found[1::2], strict=True)]
    assert sum(right) / len(right) == metrics(run, "reward")["held_out_accuracy"] >= 0.8


def test_the_accuracy_is_of_held_out_pairs(judged: Pipeline, tmp_path: Path) -> None:
    """With the held-out pairs turned over, the same training is right where it was wrong, and the other way round."""
    found = []
    for turned in (False, True):
        folder = copy_of(judged, tmp_path / f"turned {turned}")
        run = opened(folder)
        path = run.path("collect") / "pairs.jsonl"
        rows = [
            row | {"chosen": row["rejected"], "rejected": row["chosen"]}
            if turned and row["split"] == "held_out"
            else row
            for row in plain.rows(path)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run.execute("reward", use_stale=True)  # the files of collect were changed by hand
        found.append(metrics(run, "reward")["held_out_accuracy"])
    assert found[0] > 0.5 and found[1] == pytest.approx(1 - found[0])


def test_answers_are_those_of_the_adapter_they_are_shown_for(finished: Path) -> None:
    run = opened(finished)
    tok, answers = plain.tokenizer(run.run.model.base), plain.rows(run.path("evaluate") / "answers.jsonl")
    asked = [row["messages"][-1]["content"] for row in answers]
    assert sorted(set(asked)) == sorted(f"{word} tent rope" for word in WORDS) and len(asked) == 2 * len(WORDS)
    for label, stage in (("sft", "sft"), ("aligned", "dpo")):
        policy = plain.model(run.run.model.base, run.path(stage))
        expected = [plain.greedy(policy, tok, row["messages"], 8) for row in answers]
        assert sum(row[label] == text for row, text in zip(answers, expected, strict=True)) >= len(answers) - 2
    assert sum(row["sft"] != row["aligned"] for row in answers) > len(answers) / 2  # else nothing is compared


def test_rewards_win_rate_and_verdict_follow_from_the_answers(finished: Path) -> None:
    run = opened(finished)
    answers, figures = plain.rows(run.path("evaluate") / "answers.jsonl"), metrics(run, "evaluate")
    for label in ("sft", "aligned"):
        found = [row["reward"][label] for row in answers]
        assert found == pytest.approx(
            scores_of_answers(run, run.path("reward"), answers, label), abs=0.1 * np.abs(found).max()
        )
    by_prompt: dict[str, list[float]] = {}
    for row in answers:
        ours, theirs = row["reward"]["aligned"], row["reward"]["sft"]
        by_prompt.setdefault(row["prompt_id"], []).append(1.0 if ours > theirs else 0.5 if ours == theirs else 0.0)
    win_rate = figures["win_rate_by_reward_model"]
    assert win_rate["estimate"] == pytest.approx(np.mean([np.mean(wins) for wins in by_prompt.values()]))
    assert win_rate["estimate"] != 0.5
    assert win_rate == json.loads((run.path("evaluate") / "report.json").read_text())["win_rate_by_reward_model"]
    typed = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    result = CliRunner().invoke(main, ["status", str(finished / "run.yaml"), *typed])
    output = " ".join(result.output.split())
    assert "The aligned model is neither shown better nor worse, for this judge cannot tell" in output, output
    assert f"it wins {win_rate['estimate']:.1%} of its comparisons" in output
    assert "prompts are held out, and 10 at least are needed" in output


def test_kl_is_on_the_aligned_models_own_answers(finished: Path, tmp_path: Path) -> None:
    """Both ways round: where the two texts happen to give nearly the same KL one way, they do not the other."""
    run = opened(finished)
    base, sft, dpo = run.run.model.base, run.path("sft"), run.path("dpo")
    judged_by(run, tmp_path / "out", dpo, dpo, sft)
    tok, apart = plain.tokenizer(base), []
    for out, before, after in ((run.path("evaluate"), sft, dpo), (tmp_path / "out", dpo, sft)):
        answers, figures = plain.rows(out / "answers.jsonl"), json.loads((out / "report.json").read_text())
        aligned, reference = plain.model(base, after), plain.model(base, before)

        def kl(one: Any, other: Any, label: str, rows: list[dict[str, Any]]) -> float:
            tokens = [plain.answer_kl(one, other, tok, row["messages"], row["ids"][label]) for row in rows]
            return float(torch.cat(tokens).mean())

        expected = kl(aligned, reference, "aligned", answers)
        assert figures["kl_nats_per_token"] == pytest.approx(expected, rel=0.02)
        assert figures["kl_to_reference_nats_per_token"] == pytest.approx(expected, rel=0.02)
        wrong = kl(aligned, reference, "sft", answers), kl(reference, aligned, "aligned", answers)
        apart.append([abs(value / expected - 1) for value in wrong])
    assert all(max(found) > 0.05 for found in zip(*apart, strict=True)), apart


def judged_by(
    run: Pipeline, out: Path, sft: Path, reference: Path, aligned: Path, reward: Path | None = None, **changes: Any
) -> dict[str, Any]:
    """The figures of `evaluate` on adapters of the test's choosing."""
    stage = next(stage for stage in STAGES if stage.name == "evaluate")
    out.mkdir()
    config = run.run.section("evaluate").model_copy(update=changes)
    figures: dict[str, Any] = stage.run(
        config,
        Context(run=run.run, run_dir=run.folder, out=out),
        sft=Adapter(sft),
        reference=Adapter(reference),
        aligned=Adapter(aligned),
        reward=RewardModel(reward or run.path("reward")),
    )
    return figures


def test_swapped_the_better_adapter_loses(finished: Path, tmp_path: Path) -> None:
    run = opened(finished)
    figures = judged_by(run, tmp_path / "out", run.path("dpo"), run.path("dpo"), run.path("sft"))
    won = metrics(run, "evaluate")["win_rate_by_reward_model"]["estimate"]
    assert figures["win_rate_by_reward_model"]["estimate"] == pytest.approx(1 - won)


def taught(run: Pipeline, folder: Path, answer: str) -> Path:
    """An adapter that says `answer` to anything, trained from SFT by plain transformers and peft."""
    base, sft = run.run.model.base, run.path("sft")
    tok, policy = plain.tokenizer(base), plain.model(base, sft)
    rows = [plain.encode_templated(tok, [{"role": "user", "content": f"{word} rope"}], answer) for word in WORDS]
    width = max(len(before) + len(after) for before, after in rows)
    ids = torch.full((len(rows), width), tok.pad_token_id)
    labels = torch.full((len(rows), width), -100)
    for row, (before, after) in enumerate(rows):  # padded on the right, where no token looks
        ids[row, : len(before) + len(after)] = torch.tensor([*before, *after])
        labels[row, len(before) : len(before) + len(after)] = torch.tensor(after)
    trained, num_steps = [p for p in policy.parameters() if p.requires_grad], 60
    optimizer = torch.optim.AdamW(trained, lr=0.005, weight_decay=0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, num_steps)
    for _ in range(num_steps):
        logits = policy(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
    assert loss < 0.05, loss
    shutil.copytree(sft, folder)
    learned = plain.parameters(policy)
    tensors = {name: learned[plain.plain_name(name)].contiguous() for name in plain.saved(sft)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_that_says_what_people_like_is_called_better_and_swapped_worse(
    finished: Path, tmp_path: Path
) -> None:
    """People preferred `yes red` to `no tent boot rope`; each adapter says one of them, whatever it is asked."""
    run = opened(finished)
    liked, disliked = "yes red", "no tent boot rope"
    assert all(row["chosen"].startswith("yes") and row["rejected"].startswith("no") for row in judged_pairs())
    good, bad = taught(run, tmp_path / "good", liked), taught(run, tmp_path / "bad", disliked)
    evaluate = next(stage for stage in STAGES if stage.name == "evaluate")
    for word, before, after in (("better", bad, good), ("worse", good, bad)):
        figures = judged_by(run, tmp_path / word, before, before, after)
        answers = plain.rows(tmp_path / word / "answers.jsonl")
        said = [(row["sft"], row["aligned"]) for row in answers]
        expected = (disliked, liked) if word == "better" else (liked, disliked)
        assert sum(found == expected for found in said) >= 0.9 * len(said), said
        won = figures["win_rate_by_reward_model"]
        assert won["low"] > 0.6 if word == "better" else won["high"] < 0.4, won  # 10 of 10 prompts: 0.69
        assert "this judge cannot tell" in evaluate.says(figures, run.run)[0]
        known = figures | {"judge": figures["judge"] | {"can_tell": True}}  # as if more pairs had been held out
        assert f"The aligned model is {word}: " in evaluate.says(known, run.run)[0]


def test_in_a_later_round_kl_is_to_sft_and_to_what_the_round_began_with(finished: Path, tmp_path: Path) -> None:
    run = opened(finished)
    later = run.with_run(run.run.model_copy(update={"round": 2}))
    sft, began, aligned = run.path("sft"), run.path("dpo"), tmp_path / "aligned"
    tensors = {name: 1.3 * tensor for name, tensor in plain.saved(began).items()}
    shutil.copytree(began, aligned)
    save_file(tensors, aligned / "adapter_model.safetensors")
    figures = judged_by(later, tmp_path / "out", sft, began, aligned, run.path("reward"))
    base, answers = run.run.model.base, plain.rows(tmp_path / "out" / "answers.jsonl")
    tok, policy = plain.tokenizer(base), plain.model(base, aligned)
    for name, folder in (("kl_nats_per_token", sft), ("kl_to_reference_nats_per_token", began)):
        other = plain.model(base, folder)
        kl = [plain.answer_kl(policy, other, tok, row["messages"], row["ids"]["aligned"]) for row in answers]
        assert figures[name] == pytest.approx(float(torch.cat(kl).mean()), rel=0.07)
    assert figures["kl_nats_per_token"] > 1.15 * figures["kl_to_reference_nats_per_token"]
    for label, folder in (("round_before", began), ("aligned", aligned)):
        policy = plain.model(base, folder)
        expected = [plain.greedy(policy, tok, row["messages"], 8) for row in answers]
        assert sum(row[label] == text for row, text in zip(answers, expected, strict=True)) >= len(answers) - 2
    scores = {label: scores_of_answers(run, run.path("reward"), answers, label) for label in ("round_before", "sft")}
    assert [row["reward"]["round_before"] for row in answers] == pytest.approx(scores["round_before"], abs=0.05)
    over = figures["judges"]["optimized"]["win_rates_over"]
    for label in scores:
        won = [(r["reward"]["aligned"] > r["reward"][label]) + 0.5 * (r[label] == r["aligned"]) for r in answers]
        assert over[label]["estimate"] == pytest.approx(np.mean(won))
    assert over["round_before"] != over["sft"] == figures["win_rate"]
    assert figures["began_from"] == {"round": 1, "adapter": "dpo"}


def test_best_of_n_is_of_the_model_it_is_called_after(finished: Path, tmp_path: Path) -> None:
    """Greedy answers are alike, so that the best of them is what plain transformers says."""
    run = opened(finished)
    sft, aligned = run.path("sft"), run.path("dpo")
    judged_by(run, tmp_path / "out", sft, sft, aligned, best_of=2, baselines=(), num_completions=1)
    tok, answers = plain.tokenizer(run.run.model.base), plain.rows(tmp_path / "out" / "answers.jsonl")
    for label, folder in (("sft_best_of_2", sft), ("aligned_best_of_2", aligned)):
        policy = plain.model(run.run.model.base, folder)
        expected = [plain.greedy(policy, tok, row["messages"], 8) for row in answers]
        assert sum(row[label] == text for row, text in zip(answers, expected, strict=True)) >= len(answers) - 2


def test_the_best_of_n_is_the_one_that_the_reward_model_likes_best(finished: Path, tmp_path: Path) -> None:
    run = opened(finished)
    sft, aligned = run.path("sft"), run.path("dpo")
    changes = {"best_of": 3, "baselines": (), "num_completions": 1, "temperature": 2.0}
    judged_by(run, tmp_path / "out", sft, sft, aligned, **changes)
    answers = plain.rows(tmp_path / "out" / "answers.jsonl")
    kept = plain.rows(tmp_path / "out" / "answers-sft_best_of_3.kept.jsonl")
    candidates = [answer for chunk in kept for answer in chunk["answers"]]
    tok, classifier = reward_model(run, run.path("reward"))
    order = sorted(range(len(answers)), key=lambda i: _asked(tok, answers[i]))
    better = 0
    for place, i in enumerate(order):
        three = candidates[3 * place : 3 * place + 3]
        with torch.no_grad():
            scores = [plain.score_sampled(classifier, tok, answers[i]["messages"], a["ids"]).item() for a in three]
        mine = next(k for k, a in enumerate(three) if a["ids"] == answers[i]["ids"]["sft_best_of_3"])
        assert scores[mine] >= max(scores) - 0.02 * max(map(abs, scores))
        assert answers[i]["reward"]["sft_best_of_3"] == pytest.approx(scores[mine], abs=0.1 * max(map(abs, scores)))
        better += scores[mine] > min(scores)
    assert better > len(answers) / 2


def _asked(tok: Any, row: dict[str, Any]) -> tuple[int, list[int]]:
    """Answers are sampled for the shortest prompts first."""
    ids = tok.apply_chat_template(row["messages"], add_generation_prompt=True, return_dict=False)
    return len(ids), ids


def margin(policy: Any, tok: Any, row: dict[str, Any], label: str) -> float:
    """By how much the logit of the best token is above that of the token of an answer, at most over its tokens."""
    before, _ = plain.encode(tok, row["messages"], "")
    ids = torch.tensor([[*before, *row["ids"][label]]])
    with torch.no_grad():
        logits = policy(input_ids=ids).logits[0, len(before) - 1 : -1].double()
    return float((logits.max(-1).values - logits.gather(-1, ids[0, len(before) :, None])[:, 0]).max())


def test_checkpoints_answer_as_the_adapters_that_they_hold(finished: Path, tmp_path: Path) -> None:
    """Their greedy answers, and the KL of these from SFT, are those of plain transformers and peft."""
    run = opened(finished)
    base, sft, dpo = run.run.model.base, run.path("sft"), run.path("dpo")
    found = sorted(int(path.name[11:]) for path in (dpo / "checkpoints").glob("checkpoint-*"))
    assert found == [4, 6, 8, 10, 12] and metrics(run, "dpo")["num_steps"] == 12  # the newest five
    figures = judged_by(run, tmp_path / "out", sft, sft, dpo, checkpoints=2)
    answers, tok = plain.rows(tmp_path / "out" / "answers.jsonl"), plain.tokenizer(base)
    labels = [label for label in figures if label.startswith("step_")]
    assert labels == ["step_4", "step_8"]
    reference = plain.model(base, sft)
    for label in labels:
        policy = plain.model(base, dpo / "checkpoints" / label.replace("step_", "checkpoint-"))
        expected = [plain.greedy(policy, tok, row["messages"], 8) for row in answers]
        for row, text in zip(answers, expected, strict=True):  # equal, but where two tokens are as good: bf16 rounds
            assert row[label] == text or margin(policy, tok, row, label) < 1
        kl = [plain.answer_kl(policy, reference, tok, row["messages"], row["ids"][label]) for row in answers]
        assert figures[label]["kl_nats_per_token"] == pytest.approx(float(torch.cat(kl).mean()), rel=0.03)
        scores = scores_of_answers(run, run.path("reward"), answers, label)
        assert [row["reward"][label] for row in answers] == pytest.approx(scores, abs=0.1 * np.abs(scores).max())
    assert sum(row["step_4"] != row["aligned"] for row in answers) >= 4  # else nothing tells the two apart
    rates = figures["judges"]["optimized"]
    assert {*labels, "sft"} == rates["win_rates_over"].keys() and {*labels, "aligned"} == rates[
        "win_rates_over_sft"
    ].keys()
    with pytest.raises(
        StageError, match=r"checkpoints 4, 6, 8, 10 before its last step\n  expected: 5 whole checkpoints"
    ):
        judged_by(run, tmp_path / "more", sft, sft, dpo, checkpoints=5)
    assert not list((tmp_path / "more").iterdir())  # nothing was sampled


def test_the_interval_is_of_prompts_not_of_answers(finished: Path, tmp_path: Path) -> None:
    """Greedy answers are the same four times over: they say no more than once, so the interval does not shrink."""
    run = opened(finished)
    some = tmp_path / "reward"  # a reward model nobody trained, which likes some answers of each adapter
    shutil.copytree(run.path("reward"), some)
    greedy = plain.rows(run.path("evaluate") / "answers.jsonl")
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        save_file(
            {n: 0.2 * torch.randn(t.shape, generator=generator) for n, t in plain.saved(run.path("reward")).items()},
            some / "adapter_model.safetensors",
        )
        ours, theirs = (np.array(scores_of_answers(run, some, greedy, label)) for label in ("aligned", "sft"))
        if 0.2 <= np.mean(ours > theirs) <= 0.8:
            break
    adapters = (run.path("sft"), run.path("sft"), run.path("dpo"))
    once, four_times = (
        judged_by(run, tmp_path / f"out-{n}", *adapters, reward=some, num_completions=n)["win_rate_by_reward_model"]
        for n in (1, 4)
    )
    assert 0 < once["estimate"] < 1
    assert (four_times["low"], four_times["high"]) == pytest.approx((once["low"], once["high"]))
    answers = plain.rows(tmp_path / "out-1" / "answers.jsonl")
    wins = np.array([float(row["reward"]["aligned"] > row["reward"]["sft"]) for row in answers])
    interval = bootstrap((wins,), np.mean, rng=np.random.default_rng(99)).confidence_interval
    assert (once["low"], once["high"]) == pytest.approx(
        (interval.low, interval.high), abs=0.101
    )  # ten prompts: steps of 0.1


def test_what_is_exported_is_the_aligned_adapter(finished: Path) -> None:
    run = opened(finished)
    export, dpo, sft = run.path("export"), plain.saved(run.path("dpo")), plain.saved(run.path("sft"))
    exported = load_file(export / "adapter" / "adapter_model.safetensors")
    assert set(exported) == set(dpo)
    assert all(torch.equal(exported[name], dpo[name]) for name in dpo)
    base = run.run.model.base
    merged = AutoModelForCausalLM.from_pretrained(export / "merged").float()
    tok, row = plain.tokenizer(base), plain.rows(run.path("collect") / "pairs.jsonl")[0]
    with torch.no_grad():
        found, aligned, before = (
            plain.answer_logp(policy, tok, row["prompt"], row["rejected"]).item()
            for policy in (merged, plain.model(base, run.path("dpo")), plain.model(base, run.path("sft")))
        )
    assert found == pytest.approx(aligned, abs=0.1 * abs(aligned - before))
    assert sft.keys() == dpo.keys()


def test_answers_that_are_sampled_are_kept_for_another_judge(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    copy_of(opened(finished), folder)
    (folder / "never_judges.py").write_text("def judge(prompts, completions):\n    raise ValueError('no')\n")
    asked = {"evaluate__judge": "function", "evaluate__judge_functions": "{never_judges:judge: 1.0}"}
    with pytest.raises(StageError, match=r"evaluate\.judge_functions never_judges:judge: it raised ValueError: no"):
        opened(folder, **asked).execute("evaluate", rebuild=True)
    kept = opened(folder).path("evaluate").with_name("evaluate.partial") / "measured.kept.jsonl"
    before = json.loads(kept.read_text())["done"]
    monkeypatch.setattr("trueup.judges.contest.measure", lambda *anything: pytest.fail("answers are sampled again"))
    assert opened(folder, evaluate__judge="optimized").execute("evaluate", rebuild=True)
    rows = plain.rows(opened(folder).path("evaluate") / "answers.jsonl")
    assert [row["aligned"] for row in rows] == [one["text"] for one in before["aligned"]]
    assert metrics(opened(folder), "evaluate")["abilities"]["refusals"]["share"]["sft"] == 0


def test_other_answers_need_another_beginning_whoever_judges(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    copy_of(opened(finished), folder)
    complete = opened(folder).path("evaluate")
    complete.rename(complete.with_name("evaluate.partial"))
    (complete.with_name("evaluate.partial") / "record.json").unlink()
    with pytest.raises(StageError, match=r"evaluate.temperature 0.0 -> 0.5 since evaluate.partial was begun"):
        opened(folder, evaluate__temperature=0.5, evaluate__judge="optimized").execute("evaluate")


def test_a_general_text_is_read_under_each_adapter(finished: Path) -> None:
    run = opened(finished)
    found, text = metrics(run, "evaluate")["abilities"]["general_text"], general.read(None, finished)
    assert text is not None
    tok = plain.tokenizer(run.run.model.base)
    documents = [torch.tensor([tok(one)["input_ids"][: text.max_tokens]]) for one in text.documents]
    for label, adapter in (("base", None), ("sft", run.path("sft")), ("aligned", run.path("dpo"))):
        model = plain.model(run.run.model.base, adapter or run.path("sft"))
        with torch.no_grad(), nullcontext() if adapter else model.disable_adapter():
            lost = sum(float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1) for ids in documents)
        expected = lost / sum(ids.shape[1] - 1 for ids in documents)
        assert found["nll_nats_per_token"][label] == pytest.approx(expected, rel=0.01), label
    changes = {label: one["estimate"] for label, one in found["change_from"].items()}
    assert all(abs(change) > 0.015 * found["nll_nats_per_token"]["sft"] for change in changes.values()), changes
    assert any(line.startswith("general text: ") for line in run.says("evaluate"))
