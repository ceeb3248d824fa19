"""How often intervals hold the truth, and how many labels a sequential A/B takes, on simulated truth: docs/verdict.md.

    python benchmarks/verdict.py intervals|sequential [--repetitions 1000] [--seed 0]

prints the tables as Markdown. The truth is a rate at which answers win; the outcomes of a prompt are independent, or
correlated by a beta distribution of the prompts' own rates.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from numpy.typing import NDArray

from trueup.evaluation import intervals, sequential

PROMPTS = (10, 20, 40, 80, 200)
RATES = (0.5, 0.6, 0.75, 0.9, 0.97)
CLUSTERS = ((1, 0.0), (4, 0.0), (4, 0.3), (4, 0.7))  # answers for each prompt, and the correlation of their outcomes
SEED = 0
MOST_LABELS = 2000
WANTED = 0.5


def outcomes(
    draw: np.random.Generator, num_prompts: int, size: int, rate: float, correlation: float
) -> NDArray[np.float64]:
    """Wins (1) and losses (0), (num_prompts, size)."""
    if correlation == 0:
        return (draw.random((num_prompts, size)) < rate).astype(float)
    total = 1 / correlation - 1  # of a beta distribution whose draws correlate so
    own = draw.beta(rate * total, (1 - rate) * total, size=(num_prompts, 1))
    return (draw.random((num_prompts, size)) < own).astype(float)


def coverage(num_prompts: int, size: int, rate: float, correlation: float, repetitions: int, seed: int = SEED) -> float:
    """The share of `repetitions` whose interval holds `rate`."""
    draw = np.random.default_rng([seed, num_prompts, size, round(100 * rate), round(100 * correlation)])
    ids = [str(i) for i in range(num_prompts) for _ in range(size)]
    held = 0
    for _ in range(repetitions):
        found = intervals.win_rate(outcomes(draw, num_prompts, size, rate, correlation).ravel().tolist(), ids)
        held += found["low"] <= rate <= found["high"]
    return held / repetitions


def stopped(rate: float, size: int, correlation: float, draw: np.random.Generator) -> tuple[str, int]:
    """(the answer when it is first known, how many labels that took), looked at after every label."""
    means = outcomes(draw, MOST_LABELS // size, size, rate, correlation).mean(1).tolist()
    for number in range(1, len(means) + 1):  # between, while a prompt has some of its labels, the answer is as before
        if (answer := sequential.answer(means[:number], WANTED)) != "open":
            return answer, number * size
    return "open", MOST_LABELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=("intervals", "sequential"))
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=SEED, help="of the intervals' table")
    asked = parser.parse_args()
    if asked.table == "intervals":
        _intervals(asked.repetitions, asked.seed)
    else:
        _sequential(asked.repetitions)


def _intervals(repetitions: int, seed: int) -> None:
    within = total = 0
    for size, correlation in CLUSTERS:
        print(f"\n{size} answer{'s' * (size > 1)} for each prompt, correlation {correlation:g}\n")
        print("| prompts | " + " | ".join(f"{rate:g}" for rate in RATES) + " |")
        print("|---|" + "---|" * len(RATES))
        for number in PROMPTS:
            row = [coverage(number, size, rate, correlation, repetitions, seed) for rate in RATES]
            within, total = within + sum(0.93 <= found <= 0.97 for found in row), total + len(row)
            print(f"| {number} | " + " | ".join(f"{found:.1%}" for found in row) + " |", flush=True)
    print(f"\n{within} of {total} within 93 to 97 %")


def _sequential(repetitions: int) -> None:
    print("| labels for each prompt | correlation | true rate | answered | wrongly | labels, median | 90 % |")
    print("|---|---|---|---|---|---|---|")
    for size, correlation in ((1, 0.0), (3, 0.3), (3, 0.7)):
        for rate in (0.5, 0.6, 0.65, 0.7, 0.8):
            draw = np.random.default_rng([SEED, size, round(100 * rate), round(100 * correlation)])
            found = [stopped(rate, size, correlation, draw) for _ in range(repetitions)]
            known = [number for answer, number in found if answer != "open"]
            wrong = sum(answer == "not met" or (answer == "met" and rate <= WANTED) for answer, _ in found)
            ranked = sorted(number if answer != "open" else MOST_LABELS + 1 for answer, number in found)
            middle, late = statistics.median(ranked), ranked[int(0.9 * len(ranked))]
            print(
                f"| {size} | {correlation:g} | {rate:.0%} | {len(known) / len(found):.1%} | {wrong / len(found):.1%} "
                f"| {_or_more(middle)} | {_or_more(late)} |",
                flush=True,
            )


def _or_more(number: float) -> str:
    return f"above {MOST_LABELS:,}" if number > MOST_LABELS else f"{number:,.0f}"


if __name__ == "__main__":
    main()
