"""The disjoint judge learns from the judgements that are held out and nothing else; the headline is its verdict."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest
import torch
from completions_server import Server, completion, shown
from judged import judge
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny import WORDS, copy_of, open_run

from trueup.errors import ConfigError, StageError
from trueup.run.artifacts import Adapter, Feedback, Report, RewardModel, write_json
from trueup.run.files import read_json
from trueup.run.lineage import Family
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import evaluate
from trueup.training import common

ROUND_2 = ("round=2", "method=dpo", "evaluate.num_completions=4")
PROMPTS = [f"{one} {other} rope" for one in WORDS[:6] for other in WORDS[:6]]


@pytest.fixture(scope="module")
def asked(sharp: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 judged prompts, 11 of them held out; answers that begin with `yes` are liked, whatever comes after."""
    folder = tmp_path_factory.mktemp("disjoint") / "run"
    pairs = [
        {"prompt": prompt, "chosen": f"yes {WORDS[i % 10]}", "rejected": f"no {WORDS[(3 * i) % 10]}"}
        for i, prompt in enumerate(PROMPTS)
    ]
    run = judge(sharp, folder, pairs, [])
    (folder / "h.jsonl").write_text("".join(json.dumps({"prompt": f"{word} tent boot"}) + "\n" for word in WORDS))
    text = (folder / "run.yaml").read_text().replace("held_out: p.jsonl", "held_out: h.jsonl")
    (folder / "run.yaml").write_text(text)
    torch.manual_seed(0)
    context = Context(run=run.run, run_dir=run.folder, out=folder)
    model, _ = common.load_policy(context, None, num_labels=1)
    model.save_pretrained(folder / "reward")  # nobody trained it
    other = folder / "other"
    shutil.copytree(run.path("sft"), other)
    tensors = {name: (0.3 if "lora_B" in name else 1.0) * tensor for name, tensor in plain.saved(other).items()}
    save_file(tensors, other / "adapter_model.safetensors")
    return folder


def figures(folder: Path, out: Path, *more: str) -> dict[str, Any]:
    """Of an evaluation of another adapter against SFT, with the judgements as they are in `folder`."""
    run = open_run(folder, "evaluate.num_completions=2", *more)
    out.mkdir()
    found: dict[str, Any] = evaluate.run(
        run.run.section("evaluate"),
        Context(run=run.run, run_dir=run.folder, out=out),
        sft=Adapter(run.path("sft")),
        reference=Adapter(run.path("sft")),
        aligned=Adapter(folder / "other"),
        reward=RewardModel(folder / "reward"),
        feedback=Feedback(run.path("collect")),
    )
    return found


def flipped(asked: Path, folder: Path, split: str) -> Path:
    """A copy in which people said the opposite of the answers of one split."""
    copy_of(open_run(asked), folder)
    for name in ("reward", "other"):
        shutil.copytree(asked / name, folder / name, dirs_exist_ok=True)
    collected = open_run(folder).path("collect")
    for name in ("rows.jsonl", "pairs.jsonl"):
        rows = plain.rows(collected / name)
        for row in rows:
            if row["split"] == split and "label" in row:
                row["label"] = not row["label"]
            elif row["split"] == split:
                row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
        (collected / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def scikit_learns(run: Pipeline, rows: list[dict[str, Any]]) -> Callable[[list[tuple[Any, str]]], Any]:
    """The scores of (prompt, answer) by scikit-learn's own regression on plain states of judged answers."""
    tok, model = plain.tokenizer(run.run.model.base), plain.model(run.run.model.base, run.path("sft"))

    def states(asked: list[tuple[Any, str]]) -> Any:
        found = []
        for prompt, text in asked:
            before, after = plain.encode_templated(tok, prompt, text)
            with torch.no_grad():
                out = model(input_ids=torch.tensor([[*before, *after]]), output_hidden_states=True)
            found.append(out.hidden_states[-1][0, -1].float().numpy())
        return np.array(found)

    expected = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3))
    expected.fit(states([(row["prompt"], row["completion"]) for row in rows]), [row["label"] for row in rows])
    return lambda asked: expected.decision_function(states(asked))


def preferred(out: Path) -> list[float]:
    return [row["preferred"]["disjoint"] for row in plain.rows(out / "answers.jsonl")]


def test_it_is_scikit_learns_regression_on_plain_transformers_states_of_what_is_held_out(
    asked: Path, tmp_path: Path
) -> None:
    found, run = figures(asked, tmp_path / "out"), open_run(asked)
    scores = scikit_learns(run, [r for r in plain.rows(run.path("collect") / "rows.jsonl") if r["split"] == "held_out"])
    train = [row for row in plain.rows(run.path("collect") / "pairs.jsonl") if row["split"] == "train"]
    better, worse = (scores([(row["prompt"], row[side]) for row in train]) for side in ("chosen", "rejected"))
    trust = found["judge"]["trust"]
    assert trust["estimate"] == pytest.approx(np.mean(better > worse), abs=0.05)
    assert (trust["num_pairs"], trust["num_prompts"]) == (len(train), len({row["prompt_id"] for row in train}))
    assert (found["judge"]["kind"], found["judge"]["can_tell"]) == ("disjoint", True)
    assert found["win_rate"] == found["judges"]["disjoint"]["win_rates_over"]["sft"]
    assert found["win_rate"] != found["win_rate_by_reward_model"]
    assert found["win_rate_by_reward_model"] == found["judges"]["optimized"]["win_rates_over"]["sft"]
    answers = preferred(tmp_path / "out")
    assert found["win_rate"]["estimate"] == pytest.approx(np.mean([(a > 0.5) + 0.5 * (a == 0.5) for a in answers]))
    said = evaluate.STAGE.says(found, run.run)
    assert "judged by a reward model on judgements that nothing was aligned with" in said[0]
    assert said[1].startswith(f"It is right on {trust['estimate']:.1%}")
    assert any(
        line.startswith("beside it, no verdict: the reward model that learned from the same labels gives")
        for line in said
    )


def test_what_the_aligned_model_learned_from_changes_its_accuracy_and_none_of_its_answers(
    asked: Path, tmp_path: Path
) -> None:
    before, after = figures(asked, tmp_path / "a"), figures(flipped(asked, tmp_path / "run", "train"), tmp_path / "b")
    assert preferred(tmp_path / "a") == preferred(tmp_path / "b")
    accuracy = [found["judge"]["trust"]["estimate"] for found in (before, after)]
    assert sum(accuracy) == pytest.approx(1) and accuracy[0] > 0.7
    assert after["judge"]["can_tell"] is False
    assert "this judge cannot tell" in evaluate.STAGE.says(after, open_run(asked).run)[0]


def test_what_is_held_out_is_what_it_learns(asked: Path, tmp_path: Path) -> None:
    figures(asked, tmp_path / "a")
    figures(flipped(asked, tmp_path / "run", "held_out"), tmp_path / "b")
    one, other = preferred(tmp_path / "a"), preferred(tmp_path / "b")
    assert [1 - a for a in one] == pytest.approx(other, abs=1e-3)
    assert any(a != 0.5 for a in one)


@pytest.fixture(scope="module")
def second(asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second round of thumbs, evaluated: on other answers, and on one prompt the opposite of the same answers.

    A prompt that round 1 held out is trained on in round 2, and one that it trained on is held out; both weigh much.
    """
    folder = copy_of(open_run(asked), tmp_path_factory.mktemp("second") / "run")
    run = open_run(folder, *ROUND_2)
    first, then = run.path("collect", 1), run.path("collect", 2)
    for place, made in (("dpo", "other"), ("reward", "reward")):
        for number in (1, 2):
            shutil.copytree(asked / made, run.path(place, number))
            write_json(run.path(place, number) / "record.json", {"fingerprint": f"{place} of round {number}"})
    shutil.copytree(first, then)
    trained, changed, *_ = prompts_of(first, "held_out")
    held_out, *_ = prompts_of(first, "train")
    for name in ("rows.jsonl", "pairs.jsonl"):
        rows = [row | {"kind": "thumb"} for row in plain.rows(first / name)]
        for row in rows:
            row["weight"] *= 50 if row["prompt_id"] in (trained, held_out) else 1
        (first / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            row["split"] = {trained: "train", held_out: "held_out"}.get(row["prompt_id"], row["split"])
            if "label" in row and row["prompt_id"] == changed:
                row["label"] = not row["label"]
            elif "label" in row:
                row["completion"] += " rope"
        (then / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number, place in ((1, first), (2, then)):
        (place / "annotations.jsonl").write_text(json.dumps({"annotator": f"of round {number}"}) + "\n")
        freeze(place)
    assert run.execute("evaluate")
    return folder


def prompts_of(collected: Path, split: str) -> list[str]:
    return sorted({row["prompt_id"] for row in plain.rows(collected / "rows.jsonl") if row["split"] == split})


def freeze(collected: Path) -> None:
    """Give judgements that were changed the record that `collect` would give them."""
    made, path = Feedback(collected), collected / "record.json"
    write_json(path, read_json(path) | {"files": made.hashes(), "fingerprint": made.fingerprint()})


def test_in_a_later_round_it_learns_what_all_rounds_held_out_and_none_trained_on(second: Path) -> None:
    run = open_run(second, *ROUND_2)
    first, then = (plain.rows(run.path("collect", number) / "rows.jsonl") for number in (1, 2))
    _, changed, *others = prompts_of(run.path("collect", 1), "held_out")
    learned = [row for row in first if row["prompt_id"] in others]
    learned += [row for row in then if row["prompt_id"] in (changed, *others)]
    scores = scikit_learns(run, learned)
    answers = plain.rows(run.path("evaluate") / "answers.jsonl")
    tok, labels = plain.tokenizer(run.run.model.base), ("aligned", "sft")

    def as_tokenized(row: dict[str, Any], label: str) -> bool:
        ids, text = row["ids"][label], plain.encode_templated(tok, row["messages"], row[label])[1]
        return row["finish"][label] == "eos" and text[: len(ids)] == ids

    ended = [row for row in answers if all(as_tokenized(row, label) for label in labels)]
    mine, other = (scores([(row["messages"], row[label]) for row in ended]) for label in labels)
    said = np.array([row["preferred"]["disjoint"] for row in ended])
    assert len(said) > 9
    assert np.log(said / (1 - said)) == pytest.approx(mine - other, abs=0.1 * float(np.ptp(mine - other)))
    counts = {"num_judgements": len(learned), "num_prompts": 1 + len(others), "num_rounds": 2}
    counts |= {"num_left_out": 4, "num_said_again": 2}
    assert Report(run.path("evaluate")).record()["metrics"]["judges"]["disjoint"]["learned_from"] == counts
    words = f"It learned from {len(learned)} held-out judgements of 2 rounds, on {1 + len(others)} prompts; "
    words += "without 4 on prompts that a round trained on; without 2 that were given again in a later round."
    assert words in run.says("evaluate")


def test_an_evaluation_is_made_of_the_judgements_of_earlier_rounds(second: Path, tmp_path: Path) -> None:
    run = open_run(copy_of(open_run(second), tmp_path / "run"), *ROUND_2)
    collected, evaluation = run.path("collect", 1), run.path("evaluate")

    def state() -> tuple[str, str]:
        return next((one.state, one.why) for one in run.states() if one.stage == "evaluate")

    assert state() == ("complete", "")
    family = Family(run.folder)
    assert {"round-1/collect", "round-2/collect"} <= set(family.members["round-2/evaluate"].made_from)
    assert [one.name for one in family.of_person("of round 1")] == ["round-1/collect", "round-2/evaluate"]
    with (collected / "rows.jsonl").open("a") as out:
        out.write("\n")
    assert state() == ("stale", "built on a stale collect of round 1")
    freeze(collected)
    assert state() == ("stale", "round 1: the judgements were frozen again")
    shutil.rmtree(collected)
    assert state() == ("stale", "collect of round 1, which it should be made from, is missing")
    record = read_json(evaluation / "record.json")
    half_built = evaluation.rename(evaluation.with_name("evaluate.partial"))
    (half_built / "record.json").unlink()
    with pytest.raises(StageError, match="feedback_of_round_1, which it was made from, is missing"):
        run.execute("evaluate")
    half_built.rename(evaluation)
    del record["inputs"]["feedback_of_round_1"]  # as it is in records of earlier versions
    write_json(evaluation / "record.json", record)
    assert state() == ("complete", "")


def test_functions_judge_and_are_measured_on_all_that_people_judged(asked: Path, tmp_path: Path) -> None:
    code = "def yes(prompts, completions):\n    return [float(one.startswith('yes')) for one in completions]\n"
    (asked / "taste.py").write_text(code)
    chosen = ("evaluate.judge=function", "evaluate.judge_functions={taste:yes: 1.0}")
    found = figures(asked, tmp_path / "out", *chosen)
    trust = found["judge"]["trust"]
    assert (found["judge"]["kind"], found["judge"]["name"]) == ("function", "the function 1 x taste:yes")
    assert (trust["estimate"], trust["num_pairs"], trust["num_prompts"]) == (1.0, len(PROMPTS), len(PROMPTS))
    assert set(found["judges"]) == {"optimized", "disjoint", "function"}
    rows = plain.rows(tmp_path / "out" / "answers.jsonl")
    likes = [[row[side].startswith("yes") for side in ("aligned", "sft")] for row in rows]
    assert found["win_rate"]["estimate"] == pytest.approx(np.mean([0.5 + (a - b) / 2 for a, b in likes]))


def test_a_function_that_fails_is_called_the_judge_that_it_is(asked: Path, tmp_path: Path) -> None:
    (asked / "broken.py").write_text("def judge(prompts, completions):\n    return [float('nan')] * len(completions)\n")
    chosen = ("evaluate.judge=function", "evaluate.judge_functions={broken:judge: 1.0}")
    with pytest.raises(StageError, match=r"evaluate\.judge_functions broken:judge: a score of nan, at the prompt"):
        figures(asked, tmp_path / "out", *chosen)


def test_a_model_behind_an_endpoint_judges_and_is_told_nobody_s_key(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It likes `yes`, and refuses one of the words."""
    monkeypatch.setenv("TRUEUP_JUDGE_API_KEY", "a-key-of-this-test")

    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        a, b = (text.startswith("yes") for text in shown(body))
        if "sorry" in body["messages"][1]["content"]:
            return 200, completion("I'm sorry, I cannot say.")
        return 200, completion(f"[[{'C' if a == b else 'A' if a else 'B'}]]")

    server = Server(reply)
    chosen = ("evaluate.judge=endpoint", f"evaluate.judge_url={server.url}", "evaluate.judge_model=m")
    found = figures(asked, tmp_path / "out", *chosen, "evaluate.judge_pairs=12")
    server.close()
    judge, notes = found["judge"], found["judges"]["endpoint"]["notes"]["sft"]
    assert (judge["kind"], judge["name"]) == ("endpoint", f"m at {server.url}")
    told = judge["trust"]
    assert told["num_pairs"] + told["num_without_answer"] == 12 and told["estimate"] == 1.0
    assert notes["requests"]["refused"] > 0 and sum(notes["requests"].values()) == 2 * 2 * len(WORDS)
    said = "\n".join(evaluate.STAGE.says(found, open_run(asked).run))
    assert f"{notes['requests']['refused']} refused" in said and "the order decided 0 of" in said
    assert {key for _, key, _ in server.asked} == {"Bearer a-key-of-this-test"}
    written = [path.read_text(errors="replace") for path in (tmp_path / "out").iterdir() if path.is_file()]
    assert not any("a-key-of-this-test" in text for text in written)


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (("evaluate.judge=function",), "function, and no evaluate.judge_functions"),
        (("evaluate.judge=endpoint",), "endpoint, and no evaluate.judge_url and no evaluate.judge_model"),
        (("evaluate.judge=function", "evaluate.judge_functions={nowhere:yes: 1}"), "No module named 'nowhere'"),
        (("evaluate.judge_url=http://me:secret@127.0.0.1/v1",), "a name or a password in the address"),
        (("evaluate.judge_url=127.0.0.1:8000",), "http:// or https:// and a host"),
    ],
)
def test_a_judge_without_what_it_is_made_of_is_refused_before_anything_is_sampled(
    asked: Path, tmp_path: Path, chosen: tuple[str, ...], found: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(found)) as error:
        figures(asked, tmp_path / "out", *chosen)
    assert "secret" not in str(error.value)
    assert not list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else True


def test_dpo_of_a_later_round_trains_on_the_pairs_of_all_rounds_where_asked_to(second: Path, tmp_path: Path) -> None:
    folder = copy_of(open_run(second), tmp_path / "run")
    run = open_run(folder, *ROUND_2, "dpo.rounds=all", "variant=all", "dpo.num_train_epochs=1")
    pairs = [plain.rows(run.path("collect", number) / "pairs.jsonl") for number in (1, 2)]
    (first, now) = ([row for row in some if row["split"] == "train"] for some in pairs)
    apart = {row["prompt_id"] for row in pairs[1] if row["split"] == "held_out"}
    for row in first:  # else every pair of round 1 was compared again
        row["chosen"] += " rope"
    path = run.path("collect", 1)
    (path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in first))
    freeze(path)
    shutil.rmtree(run.path("dpo", 1))
    shutil.copytree(run.path("sft"), run.path("dpo", 1))  # a winner whose log-probabilities are those it recorded
    assert run.execute("dpo")
    record = read_json(run.path("dpo") / "record.json")
    kept = [row for row in first if row["prompt_id"] not in apart]
    assert 0 < len(kept) < len(first)
    assert record["metrics"]["num_pairs"] == len(kept) + len(now)
    assert {"feedback", "feedback_of_round_1"} <= record["inputs"].keys()
    said = f"{len(kept)} pairs are of earlier rounds; of these rounds, {len(first) - len(kept)} pairs of prompts"
    assert any(line.startswith(said) for line in run.says("dpo"))
    assert "feedback_of_round_1" not in open_run(folder, *ROUND_2).needs(run.stages["dpo"])
