"""Round 2 against round 1 on the demo's simulated preference, whose truth is known: docs/rounds.md.

    python benchmarks/rounds.py DEMO_FOLDER...

In each folder `trueup demo` has finished. Round 2 samples from the winner of round 1, three simulated annotators
judge in the Label Studio of the run, and the round goes on to its evaluation on the held-out prompts. A row for each
folder says what the judge found and what the annotators' hidden preference without their noise says, round 2 over round
1 and either over SFT. Run the same command again after an interruption. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from trueup.demo import judge
from trueup.demo.hidden_preference import score
from trueup.evaluation import intervals
from trueup.feedback import server
from trueup.run.artifacts import read_jsonl
from trueup.run.files import read_json
from trueup.run.goal import ROUND_BEFORE

WAITING = 3  # the exit code of a stage that waits for people


def play(demo: Path) -> Path:
    """Play round 2 of a finished demo to its end; returns its evaluation."""
    run = next(path for path in (demo / "runs").iterdir() if (path / "sft/record.json").exists())
    seed = int(read_json(run / "sft/record.json")["seed"])
    evaluation, run_file = run / "round-2/evaluate", demo / "demo.yaml"
    told = [f"name={run.name}", f"seed={seed}", "labelstudio.wait=false", "round=2"]
    command = [sys.executable, "-m", "trueup", "run", str(run_file), *(x for one in told for x in ("--set", one))]
    try:
        while not (evaluation / "record.json").exists():
            ended = subprocess.run(command, check=False, stdout=sys.stderr).returncode
            if ended == WAITING:
                judge(run_file, overrides=tuple(told), seed=seed)
            elif ended:
                sys.exit(f"{demo}: trueup run ended with {ended}")
    finally:
        server.stop(demo / "labelstudio")
    return evaluation


def truth(rows: list[dict[str, Any]], one: str, other: str) -> dict[str, float]:
    """How often the hidden preference has the answer of `one` before that of `other`, with its 95 % interval."""
    won = intervals.wins([score(row[one]) for row in rows], [score(row[other]) for row in rows])
    return intervals.win_rate(won, [row["prompt_id"] for row in rows])


def measure(evaluation: Path) -> dict[str, Any]:
    """What the judge and the truth say of a second round."""
    record, rows = read_json(evaluation / "record.json"), list(read_jsonl(evaluation / "answers.jsonl"))
    found = record["metrics"]
    return {
        "seed": record["seed"],
        "judge": found["judge"]["kind"],
        "judged": found["win_rates_over"][ROUND_BEFORE],
        "truth": truth(rows, "aligned", ROUND_BEFORE),
        "over_sft": truth(rows, "aligned", "sft"),
        "round_1_over_sft": truth(rows, ROUND_BEFORE, "sft"),
        "kl": found["kl_nats_per_token"],
        "kl_to_round_1": found["kl_to_reference_nats_per_token"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", nargs="+", type=Path)
    done = [measure(play(demo.resolve())) for demo in parser.parse_args().demos]
    print("| seed | round 2 over round 1, judged | in truth | round 1 over SFT, in truth | round 2 | KL from SFT |")
    print("|---|---|---|---|---|---|")
    for row in done:
        rates = [_said(row[key]) for key in ("judged", "truth", "round_1_over_sft", "over_sft")]
        print(f"| {' | '.join([str(row['seed']), *rates, format(row['kl'], '.2f')])} |")
    means = {key: statistics.mean(row[key]["estimate"] for row in done) for key in ("judged", "truth", "over_sft")}
    print(json.dumps(means | {"runs": len(done)}))


def _said(rate: dict[str, float]) -> str:
    return f"{rate['estimate']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"


if __name__ == "__main__":
    main()
