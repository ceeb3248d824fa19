"""How far each judge's win rate is from the hidden truth, on finished runs of the demo: docs/verdict.md.

    python benchmarks/judges.py DEMO_FOLDER...

Of each evaluation in them, those of variants and of later rounds included: the simulated annotators' hidden preference
without their noise (the truth), the reward model that was trained on the labels (`optimized`), the disjoint judge, and
blind comparisons of 60 prompts by the simulated annotators. Nothing in the runs is changed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trueup.demo.hidden_preference import score
from trueup.demo.simulate import SimulatedAnnotator
from trueup.evaluation import intervals
from trueup.feedback.connection import Connection
from trueup.run.artifacts import read_jsonl
from trueup.run.files import read_json

NUM_LABELS = 60
DRAWS = 200  # of which prompts are labelled, and of the annotators' noise


def measured(demo: Path) -> Iterator[Path]:
    """The evaluations of a folder of the demo, variants and later rounds included."""
    for record in sorted(demo.glob("runs/*/round-*/evaluate*/record.json")):
        if ".old-" not in record.parent.name and not record.parent.name.endswith(".partial"):
            yield record.parent


def measure(evaluation: Path) -> dict[str, Any]:
    """The figures of one evaluation, as its record has them, beside the truth."""
    record = read_json(evaluation / "record.json")
    answers = list(read_jsonl(evaluation / "answers.jsonl"))
    truth = intervals.wins([score(row["aligned"]) for row in answers], [score(row["sft"]) for row in answers])
    judges = record["metrics"]["judges"]
    trusted = judges["disjoint"]["trust"]
    variant = evaluation.name.partition("@")[2] or "dpo"
    number = evaluation.parent.name.removeprefix("round-")
    return {
        "run": str(evaluation),
        "name": f"{variant}, seed {record['seed']}" + ("" if number == "1" else f", round {number}"),
        "truth": statistics.mean(truth),
        **{kind: judges[kind]["win_rates_over"]["sft"] for kind in WHO},
        "kl": record["metrics"]["kl_nats_per_token"],
        "accuracy": {key: trusted[key] for key in ("estimate", "low", "high", "num_pairs", "num_prompts")},
        "people": _people(answers, statistics.mean(truth)),
    }


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", nargs="+", type=Path)
    asked = parser.parse_args()
    done = [measure(evaluation) for demo in asked.demos for evaluation in measured(demo)]
    print("| run | KL | truth | optimized, its error | disjoint, its error | its interval | its accuracy | 60 labels |")
    print("|---|---|---|---|---|---|---|---|")
    for row in sorted(done, key=lambda row: row["name"]):
        parts = [f"{row[who]['estimate']:.1%}, {abs(row[who]['estimate'] - row['truth']):.1%}" for who in WHO]
        interval = f"{row['disjoint']['low']:.1%} to {row['disjoint']['high']:.1%}, {_held(row)}"
        right = f"{row['accuracy']['estimate']:.1%} ({row['accuracy']['low']:.1%} to {row['accuracy']['high']:.1%})"
        people = (
            f"{row['people']['estimate']:.1%}, {row['people']['error']:.1%} (holds it in {row['people']['held']:.0%})"
        )
        cells = [row["name"], f"{row['kl']:.2f}", f"{row['truth']:.1%}", *parts, interval, right, people]
        print(f"| {' | '.join(cells)} |")
    errors = {who: statistics.mean(abs(row[who]["estimate"] - row["truth"]) for row in done) for who in WHO}
    errors["people"] = statistics.mean(row["people"]["error"] for row in done)
    held = sum(_held(row) == HOLDS for row in done)
    print(json.dumps({"mean_error": errors, "disjoint_interval_holds_the_truth": held, "of": len(done)}))


def _held(row: dict[str, Any]) -> str:
    return HOLDS if row["disjoint"]["low"] <= row["truth"] <= row["disjoint"]["high"] else "does not"


HOLDS = "holds it"
WHO = ("optimized", "disjoint")

if __name__ == "__main__":
    main()
