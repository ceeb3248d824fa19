"""The two tables of a report, of which page and CSV files are made: who won against whom, and what each stage took."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from trueup.evaluation.names import NAMES
from trueup.feedback.freezing import CHECKS
from trueup.feedback.store import Store
from trueup.judges.people import FOLDER as AB
from trueup.report.gathered import Aligned, Built, Gathered
from trueup.run import naming
from trueup.run.files import read_appended, write_text
from trueup.run.goal import judge_of

Row = dict[str, Any]
OLD = "reward model or functions that were optimized"  # who judged before records named the judge
FIGURES = ("estimate", "low", "high", "num_prompts")  # of a win rate; what else one has gets columns of its own


def contestants(gathered: Gathered) -> list[Row]:
    """A row for each aligned adapter, each judge and each contestant it was compared with.

    A win rate is that of the aligned model: a fraction, with its 95 % interval. Lengths are tokens.
    """
    return [row for one in gathered.aligned if one.evaluation is not None for row in _of(one, one.evaluation)]


def _of(one: Aligned, evaluation: Built) -> list[Row]:
    figures, found = evaluation.metrics, []
    judge = judge_of(figures)
    judges = figures.get("judges") or {"": {"name": OLD, "win_rates_over": figures["win_rates_over"]}}
    for kind, said in judges.items():
        for label, won in said["win_rates_over"].items():
            row = {
                "round": one.built.round,
                "adapter": one.built.name,
                "wins_its_round": one.wins,
                "judge": said["name"],
                "judge_kind": kind,
                "gives_the_verdict": judge is None or kind == judge["kind"],
                "over": label,
                "win_rate": won["estimate"],
                "low": won["low"],
                "high": won["high"],
                "num_prompts": won["num_prompts"],
                "num_without_answer": said.get("num_without_answer", {}).get(label),
                "kl_from_sft_nats_per_token": figures.get("kl_nats_per_token"),
                "kl_from_sft_nats_per_token_of_other": kl_of(figures, label),
            }
            for name, value in won.items():
                if name not in FIGURES:
                    row |= _flat(name, value)
            for whose, who in (("", "aligned"), ("_of_other", label)):
                sampled = figures.get(who) or {}
                row |= {f"mean_length_tokens{whose}": sampled.get("mean_length_tokens")}
                row |= {f"eos_rate{whose}": sampled.get("eos_rate")}
            found.append(row)
    return found


def kl_of(figures: Row, label: str) -> float | None:
    """The KL of a contestant from SFT in nats per token, where it was measured."""
    if label == "aligned":
        return figures.get("kl_nats_per_token")
    return 0.0 if label == "sft" else (figures.get(label) or {}).get("kl_nats_per_token")


def _flat(name: str, value: Any) -> Row:
    """A figure as columns: one, or, of an interval, three."""
    if not isinstance(value, dict):
        return {name: value}
    return {name: value.get("estimate"), f"{name}_low": value.get("low"), f"{name}_high": value.get("high")}


def answering(evaluation: Built) -> list[str]:
    """The labels of the contestants of an evaluation: those that its record has lengths for, SFT first."""
    figures = evaluation.metrics
    known = [label for label, one in figures.items() if isinstance(one, dict) and "mean_length_tokens" in one]
    return sorted(known, key=lambda label: list(NAMES).index(label) if label in NAMES else len(NAMES))


@lru_cache(maxsize=1)  # several parts of a page show them, and answers take long to read
def stages(gathered: Gathered) -> list[Row]:
    """A row for each complete stage: what it took, and what it is made of. Times are seconds, memory is bytes."""
    return [
        {
            "round": one.round or None,
            "stage": one.stage,
            "variant": one.variant or None,
            "wall_s": one.record.get("wall_s"),
            "peak_rss_bytes": one.record.get("peak_rss_bytes"),
            "peak_vram_bytes": one.record.get("peak_vram_bytes"),
            "device": one.record.get("device_name"),
            "sampled_tokens": sampled_tokens(one),
            **_labels(one, gathered),
            "fingerprint": one.record.get("fingerprint"),
            "seed": one.record.get("seed"),
            "overrides": " ".join(one.record.get("overrides", ())),
            "trueup": one.record.get("versions", {}).get("trueup"),
        }
        for one in gathered.stages
    ]


def sampled_tokens(one: Built) -> int | None:
    """Tokens that a stage sampled, the ends included; None where its files do not say."""
    if one.stage == "sample":
        counts = [row.get("num_tokens") for row in one.rows("completions.jsonl")]
    elif one.stage == "evaluate":
        counts = [number for row in one.rows("answers.jsonl") for number in row.get("num_tokens", {}).values()]
    else:
        rows = read_appended(one.path / "metrics.jsonl")[0]
        counts = [row["num_tokens"] for row in rows if "num_tokens" in row and "reward" in row]
    known = [count for count in counts if isinstance(count, int)]
    return sum(known) if known else None


def _labels(one: Built, gathered: Gathered) -> Row:
    """What people gave a stage: judgements, and the time the screen measured, once for each annotation."""
    lines: list[Row] = []
    if one.stage == "collect":
        lines = [*one.rows("annotations.jsonl"), *one.rows(CHECKS)]
    elif one.stage == "evaluate":
        lines = Store(gathered.folder / AB / naming.folder_of(f"round-{one.round}", one.variant)).latest()
    times: dict[object, float] = {}
    without = 0
    for number, line in enumerate(lines):
        if isinstance(seconds := line.get("lead_time"), int | float):
            times[line.get("project"), line.get("annotation_id") or number] = float(seconds)
        else:
            without += 1
    return {
        "judgements": len(lines) or None,
        "annotator_s": sum(times.values()) if times else None,
        "judgements_without_a_time": without if lines else None,
    }


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Write the rows as CSV, a column for each key that any of them has; returns `path`."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    table = csv.DictWriter(out, columns, lineterminator="\n")
    table.writeheader()
    table.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    write_text(path, out.getvalue())
    return path


def _plain(value: object) -> object:
    """Text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
