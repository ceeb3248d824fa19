"""A later round starts from the winner of the one before: its reference is that adapter; KL to SFT is said as well."""

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tiny import make_run
from tiny_ppo import LIKES_GEAR, QUICK, likes_gear, reward_model

from trueup.cli.main import main
from trueup.errors import StageError
from trueup.models import adapters
from trueup.report import writing
from trueup.run.artifacts import Adapter, read_jsonl, write_json
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import evaluate, sample


def at(pipeline: Pipeline, **changes: Any) -> Pipeline:
    """The same run with other top-level settings."""
    return pipeline.with_run(pipeline.run.model_copy(update=changes))


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Two rounds of PPO under a reward function; no reward model, and nobody asked for thumbs."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "gear.py").write_text(LIKES_GEAR)
    first = make_run(folder, sharp=True, sft_epochs=6)
    config = first.run.section("ppo").model_copy(
        update=QUICK | {"num_steps": 3, "reward_model_weight": 0.0, "reward_functions": {"gear:likes_gear": 1.0}}
    )
    first = at(first, method="ppo", ppo=config)
    for pipeline in (first, at(first, round=2)):
        pipeline.execute("sample")
        pipeline.execute("ppo")
    return at(first, round=2)


def metrics(pipeline: Pipeline, number: int) -> dict[str, Any]:
    found: dict[str, Any] = Adapter(pipeline.path("ppo", number)).record()["metrics"]
    return found


def test_the_reference_of_round_2_is_the_winner_of_round_1(two_rounds: Pipeline) -> None:
    sft, *winners = (Adapter(two_rounds.path(*where)) for where in (("sft",), ("ppo", 1), ("ppo", 2)))
    hashes = [adapters.tensors_sha256(adapters.saved_tensors(artifact.path)) for artifact in (sft, *winners)]
    assert len(set(hashes)) == 3
    proven = [metrics(two_rounds, number)["reference_proof"] for number in (1, 2)]
    assert [proof["reference_sha256"] for proof in proven] == hashes[:2]
    assert abs(proven[1]["first_kl"]) < 1e-3
    started_from = winners[1].record()["inputs"]
    assert started_from["policy"] == winners[0].record()["fingerprint"]
    assert started_from["sft"] == sft.record()["fingerprint"]
    sampled_from = two_rounds.stages["sample"].makes(two_rounds.path("sample")).record()["inputs"]
    assert sampled_from == {"policy": started_from["policy"]}


def test_kl_is_said_to_the_reference_and_to_sft(two_rounds: Pipeline) -> None:
    first, second = metrics(two_rounds, 1), metrics(two_rounds, 2)
    assert first["kl_nats_per_token"] == first["kl_to_reference_nats_per_token"]
    assert second["kl_nats_per_token"] > 1.2 * second["kl_to_reference_nats_per_token"] > 0


def test_evaluate_says_both_kls(two_rounds: Pipeline, tmp_path: Path) -> None:
    reward, _ = reward_model(two_rounds, tmp_path / "reward")
    sft, winner = Adapter(two_rounds.path("sft")), Adapter(two_rounds.path("ppo", 1))
    context = Context(run=two_rounds.run, run_dir=two_rounds.folder, out=tmp_path)
    config = evaluate.Config(num_completions=1, max_new_tokens=8)
    found = evaluate.run(config, context, sft=sft, reference=winner, aligned=winner, reward=reward)
    assert found["kl_to_reference_nats_per_token"] == pytest.approx(0, abs=1e-6)
    assert found["kl_nats_per_token"] > 0.01


def test_functions_alone_are_the_judge_and_nobody_is_asked(two_rounds: Pipeline) -> None:
    first = at(two_rounds, round=1)
    assert [stage.name for stage in first.order()] == ["sft", "sample", "ppo", "evaluate", "export"]
    assert first.execute("evaluate")
    record = first.stages["evaluate"].makes(first.path("evaluate")).record()
    figures = record["metrics"]
    assert set(record["inputs"]) == {"sft", "reference", "aligned"}
    assert figures["reward_functions"] == {"gear:likes_gear": 1.0} and "win_rate_by_reward_model" not in figures
    answers = list(read_jsonl(first.path("evaluate") / "answers.jsonl"))
    likes = {side: likes_gear([], [row[side] for row in answers]) for side in ("sft", "aligned")}
    assert {side: [row["reward"][side] for row in answers] for side in likes} == likes
    won = [(a > b) + 0.5 * (a == b) for a, b in zip(likes["aligned"], likes["sft"], strict=True)]
    assert figures["win_rate_by_reward_functions"]["estimate"] == pytest.approx(sum(won) / len(won))
    assert len(set(won)) > 1
    assert "warning: the judge is what was optimized, 1 x gear:likes_gear" in "\n".join(first.says("evaluate"))
    written = writing.write(first)
    page = written.page.read_text()
    assert not written.not_shown
    assert "The judge is the functions that were optimized: gear:likes_gear (weight 1)" in page


def test_round_2_is_compared_with_the_winner_of_round_1(two_rounds: Pipeline) -> None:
    first, run_file = at(two_rounds, round=1), two_rounds.folder.parents[1] / "run.yaml"
    first.execute("evaluate")
    assert "began_from" not in first.stages["evaluate"].makes(first.path("evaluate")).record()["metrics"]
    assert two_rounds.execute("evaluate")
    figures = two_rounds.stages["evaluate"].makes(two_rounds.path("evaluate")).record()["metrics"]
    answers = list(read_jsonl(two_rounds.path("evaluate") / "answers.jsonl"))
    likes = {side: likes_gear([], [row[side] for row in answers]) for side in ("round_before", "aligned")}
    pairs = zip(likes["aligned"], likes["round_before"], strict=True)
    wins = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(answers)
    over = figures["win_rates_over"]
    assert list(over) == ["sft", "round_before", "base"] and over["round_before"]["estimate"] == pytest.approx(wins)
    assert figures["win_rate"] == over["sft"]
    first_sentence, second_sentence, *_ = two_rounds.says("evaluate")
    assert "comparisons with SFT" in first_sentence
    assert "the winner of round 1: " in second_sentence
    assert f"it wins {wins:.1%} of the comparisons between the two" in second_sentence
    page = writing.write(two_rounds).page.read_text()
    assert "round 1 (ppo)" in page and "the winner of round 1: " in page
    said = CliRunner().invoke(main, ["status", str(run_file)], env={"COLUMNS": "80"}).output
    assert "over last round" in said
    assert re.search(rf"2 +│ ppo +│ 100\.0% \(\d+ to 100\) +│ {wins:.1%} \(\d+ to \d+\) +│", said), said


def test_people_judge_the_best_of_several_completions(two_rounds: Pipeline, tmp_path: Path) -> None:
    """The same seed gives the same completions: each is the best of three of those without best_of."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, settings in {"every": {"num_completions": 6}, "best": {"num_completions": 2, "best_of": 3}}.items():
        config = two_rounds.run.section("sample").model_copy(update=settings)
        (tmp_path / name).mkdir()
        context = Context(run=two_rounds.run, run_dir=two_rounds.folder, out=tmp_path / name)
        metrics = sample.run(config, context, policy=Adapter(two_rounds.path("ppo", 1)))
        found[name] = list(read_jsonl(tmp_path / name / "completions.jsonl"))
    every, best = found["every"], found["best"]
    likes = likes_gear([], [row["completion"] for row in every])
    groups = [range(start, start + 3) for start in range(0, len(every), 3)]
    kept = [max(group, key=lambda i: likes[i]) for group in groups]
    assert [(row["prompt_id"], row["ids"]) for row in best] == [(every[i]["prompt_id"], every[i]["ids"]) for i in kept]
    assert kept != [group[0] for group in groups]
    assert metrics["num_completions"] == len(best) == 12 and metrics["best_of"]["num_sampled"] == 36
    assert metrics["best_of"]["mean_reward"] == {
        "of_all": pytest.approx(sum(likes) / 36),
        "of_best": pytest.approx(sum(likes[i] for i in kept) / 12),
    }
    assert "each is the best of 3 by the reward" in sample.says(metrics, two_rounds.run)[1]


def test_best_of_needs_a_reward_that_is_there(two_rounds: Pipeline) -> None:
    run_file = two_rounds.folder.parents[1] / "run.yaml"

    def said(*more: str, n: str = "4") -> str:
        result = CliRunner().invoke(main, ["sample", str(run_file), "--best-of", n, "--rebuild", *more])
        assert result.exit_code == 2 and "Traceback" not in result.output
        return " ".join(result.output.split())

    assert "no reward to choose by" in said() and "leave sample.best_of out in round 1" in said()
    assert "reward is not complete" in said("--set", "round=2")
    assert f"trueup reward {run_file}" in said("--set", "round=2") and said("--set", "round=2").endswith(
        "--set round=1"
    )
    assert "0, for off, or 2 and more" in said(n="1")


def test_best_of_n_of_both_models_is_judged_beside_them(two_rounds: Pipeline, tmp_path: Path) -> None:
    first = at(two_rounds, round=1)
    context = Context(run=first.run, run_dir=first.folder, out=tmp_path)
    config = first.run.section("evaluate").model_copy(update={"best_of": 4, "baselines": (), "num_completions": 4})
    sft, aligned = Adapter(first.path("sft")), Adapter(first.path("ppo"))
    figures = evaluate.run(config, context, sft=sft, reference=sft, aligned=aligned)
    answers = list(read_jsonl(tmp_path / "answers.jsonl"))
    mean = {label: sum(row["reward"][label] for row in answers) / len(answers) for label in answers[0]["reward"]}
    assert list(mean) == ["sft", "aligned", "sft_best_of_4", "aligned_best_of_4"]
    assert mean["sft"] < mean["sft_best_of_4"] and mean["aligned"] <= mean["aligned_best_of_4"]
    own = figures["judges"]["optimized"]["win_rates_over_sft"]
    wins = [
        (r["reward"]["sft_best_of_4"] > r["reward"]["sft"]) + 0.5 * (r["reward"]["sft_best_of_4"] == r["reward"]["sft"])
        for r in answers
    ]
    assert own["sft_best_of_4"]["estimate"] == pytest.approx(sum(wins) / len(wins)) and set(own) == {
        "aligned",
        "sft_best_of_4",
        "aligned_best_of_4",
    }
    assert own["sft_best_of_4"]["low"] < figures["best_of"]["most_won"] == 0.8  # four of five
    assert figures["sft_best_of_4"]["sampled_tokens"] > 2 * figures["sft"]["sampled_tokens"]
    assert figures["sft_best_of_4"]["prompt_tokens"] == figures["sft"]["prompt_tokens"]
    assert any("SFT, best of 4" in line for line in evaluate.STAGE.says(figures, first.run))


def test_a_reward_model_of_some_weight_is_the_judge_and_people_are_asked(two_rounds: Pipeline) -> None:
    config = two_rounds.run.section("ppo").model_copy(update={"reward_model_weight": 0.5})
    names = [stage.name for stage in at(two_rounds, ppo=config).order()]
    assert names == ["sft", "sample", "collect", "reward", "ppo", "evaluate", "export"]


def test_both_rounds_are_complete_and_status_says_which_it_shows(two_rounds: Pipeline) -> None:
    for pipeline in (two_rounds, at(two_rounds, round=1)):
        states = {state.stage: state.state for state in pipeline.states()}
        assert (states["sft"], states["sample"], states["ppo"]) == ("complete",) * 3
    run_file = two_rounds.folder.parents[1] / "run.yaml"
    said = CliRunner().invoke(main, ["status", str(run_file), "--set", "round=3"]).output
    assert "tiny, round 3" in said
    assert "--set round=3" in said.splitlines()[-1]


def built(pipeline: Pipeline, name: str, number: int) -> None:
    folder = pipeline.path(name, number)
    folder.mkdir(parents=True)
    write_json(folder / "record.json", {"fingerprint": f"{name} of round {number}"})


def test_the_winner_is_of_the_method_that_was_built(pipeline: Pipeline, tmp_path: Path) -> None:
    second = Pipeline(
        pipeline.run.model_copy(update={"round": 2, "method": "dpo"}), tuple(pipeline.stages.values()), tmp_path
    )
    with pytest.raises(StageError, match=r"dpo is not complete\n.*round-1/dpo\n.*trueup dpo RUN.yaml --set round=1"):
        second.execute("sample")
    built(second, "kto", 1)
    assert second.where("policy") == ("kto", 1)  # the only one
    built(second, "dpo", 1)
    assert second.where("policy") == ("dpo", 1)  # the run file's
    assert at(second, round=3).where("policy") == ("dpo", 2)
    assert at(second, round=1).where("policy") == ("sft", 1)
