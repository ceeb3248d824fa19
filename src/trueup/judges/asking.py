"""Everybody whom an evaluation asks: what was optimized and the disjoint judge always, another where it is named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from trueup.data.dialogue import Messages
from trueup.errors import StageError
from trueup.evaluation import sequential
from trueup.feedback.screens import read_guidelines
from trueup.judges import contest, trust
from trueup.judges.contest import Contest
from trueup.judges.endpoint import Endpoint
from trueup.judges.headline import Opinion
from trueup.judges.people import FOLDER, People
from trueup.judges.protocol import Answer, ByScore, Judge, Question
from trueup.judges.settings import JudgeSettings
from trueup.online import rewards
from trueup.run import naming
from trueup.run.artifacts import RewardModel
from trueup.run.stage import Context

Row = dict[str, Any]
JUDGED = "pairs that people judged"
FEWEST_ANSWERED = 0.5  # of the comparisons: with fewer answers, a judge has not judged


def opinions(
    config: JudgeSettings, context: Context, played: Contest, found: Row, reward: RewardModel | None
) -> dict[str, Opinion]:
    """What each judge says, by kind; `found` is what `contest.measured` found. Raises Waiting until people answered."""
    said = {"optimized": contest.by_optimized(played, found["scores"], _of_reward(reward))}
    if found["disjoint"] is not None:
        said["disjoint"] = Opinion(**found["disjoint"])
    done = {label: [contest.sampled(one) for one in some] for label, some in found["done"].items()}
    asked = contest.questions(played, done)
    pairs = [] if played.feedback is None else [*played.feedback.pairs("train"), *played.feedback.pairs("held_out")]
    if config.judge == "function":
        said["function"] = _answered(contest.opinion("function", *_measured(_functions(config, context), pairs, asked)))
    if config.judge == "endpoint":
        endpoint = Endpoint(
            config.judge_url or "", config.judge_model or "", context.out, config.judge_timeout_s, _guidelines(context)
        )
        some = _spread(pairs, config.judge_pairs)
        said["endpoint"] = _answered(contest.opinion("endpoint", *_measured(endpoint, some, asked)))
    if config.judge == "people":
        said["people"] = _of_people(config, context, asked["sft"])
    return said


def _measured(judge: Judge, pairs: Sequence[Row], asked: Row) -> tuple[Judge, Row, Row | None]:
    """The judge, what it is asked, and how far it can be trusted; it was told of nothing that people judged."""
    return judge, asked, trust.measure(judge, pairs, JUDGED)


def _answered(opinion: Opinion) -> Opinion:
    """The opinion. Raises StageError where it has too few answers to be one."""
    for label, answers in opinion.answers.items():
        told = sum(answer is not None for answer in answers)
        if told < FEWEST_ANSWERED * len(answers):
            raise StageError(
                f"evaluate.judge: {opinion.name}",
                found=f"an answer to {told} of {len(answers)} comparisons with {label}{_how(opinion, label)}",
                expected="an answer to half of them at least",
                next_step="choose another model or another evaluate.judge, with --rebuild",
            )
    return opinion


def _how(opinion: Opinion, label: str) -> str:
    """What its requests came to, in words."""
    kinds = opinion.notes.get(label, {}).get("requests", {})
    return f"; of its requests, {', '.join(f'{n:,} {kind}' for kind, n in kinds.items())}" if kinds else ""


def _functions(config: JudgeSettings, context: Context) -> ByScore:
    """The weighted sum of the functions that the run file names."""
    weights: dict[str, float] = config.judge_functions
    key = "evaluate.judge_functions"
    parts = [
        rewards.Part(name, weight, rewards.of_function(name, context.run_file_dir, key), where=key)
        for name, weight in weights.items()
    ]

    def scores(prompts: list[Messages], answers: list[Answer]) -> list[float]:
        return rewards.total(parts, prompts, [answer.text for answer in answers])

    return ByScore("the function " + " + ".join(f"{weight:g} x {name}" for name, weight in weights.items()), scores)


def _of_people(config: JudgeSettings, context: Context, asked: Sequence[Question]) -> Opinion:
    """What people said, with the interval that holds at every look, since they were asked until it was enough."""
    run = context.run
    judge = People(
        settings=run.labelstudio,
        folder=context.run_dir / FOLDER / naming.folder_of(f"round-{run.round}", run.variant),
        title=f"trueup {run.name}: which is better?",
        wanted=0.5 if run.goal.win_rate is None else run.goal.win_rate,
        each=config.people_per_prompt,
        guidelines=_guidelines(context),
        seed=run.seed,
    )
    judged = judge.judge(asked)
    told = [answer for answer in judged.answers if answer is not None]
    return Opinion(
        "people", judge.name, {"sft": judged.answers}, notes=judged.notes, interval=sequential.interval(told)
    )


def _guidelines(context: Context) -> str:
    """What people go by, where the run file says so."""
    return read_guidelines(context.run.section("collect").model_dump()["guidelines"], context.run_file_dir)


def _of_reward(reward: RewardModel | None) -> Row | None:
    """How often the optimized reward model is right on held-out pairs, as its stage found; None where it noted none."""
    metrics = {} if reward is None or not reward.is_there() else reward.record().get("metrics", {})
    found = metrics.get("held_out_accuracy_by_prompt")
    if found is None:
        return None
    return {**found, "num_pairs": metrics["num_held_out"], "on": "held-out pairs", "calibration": []}


def _spread(pairs: Sequence[Row], most: int) -> list[Row]:
    """At most so many of `pairs`, one of each prompt before a second of any."""
    by_prompt: dict[str, list[Row]] = defaultdict(list)
    for pair in pairs:
        by_prompt[pair["prompt_id"]].append(pair)
    turns = zip_longest(*by_prompt.values())
    return [pair for turn in turns for pair in turn if pair is not None][:most]
