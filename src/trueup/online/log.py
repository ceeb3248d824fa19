"""What a person can read while PPO or GRPO runs: a row a step, a plain sentence when something is off, completions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.data.dialogue import Messages
from trueup.errors import ConfigError
from trueup.online.ppo import mathematics
from trueup.online.ppo.rollout import Experience
from trueup.online.settings import Tracker
from trueup.run.files import append_jsonl, read_jsonl, write_jsonl
from trueup.run.stage import Metrics

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]

NUM_SHOWN = 4  # completions a time


def describe(experience: Experience) -> Row:
    """What one rollout says, before the update: KL and entropy in nats per token, lengths in tokens."""
    mask = experience.mask

    def mean(values: Tensor) -> float:
        return float(mathematics.masked_mean(values, mask))

    num_tokens = int(mask.sum())
    return {
        "reward": float(experience.scores.mean()),
        "reward_std": float(experience.scores.std(unbiased=False)),
        "reward_parts": experience.parts,
        "kl": mean(experience.token_kl),
        "entropy": mean(experience.entropy),
        "value": mean(experience.values),
        "explained_variance": float(mathematics.explained_variance(experience.values, experience.returns, mask)),
        "length_tokens": num_tokens / len(mask),
        "eos_rate": sum(experience.ended) / len(experience.ended),
        "num_tokens": num_tokens,
        "engine_mismatch": mean(experience.mismatch),
        "importance_weight": mean(experience.weights),
    }


def warnings(row: Row, first: Row, kl_target: float | None = None) -> list[str]:
    """Plain sentences about what is off in `row`, against the run's `first` row. GRPO's rows lack some figures."""
    explosion = 3 * (kl_target or 0.5)
    kl, entropy, mismatch = row.get("kl", 0.0), row.get("entropy"), row.get("engine_mismatch", 0.0)
    said = []
    if kl < -0.02:
        said.append(f"KL is negative ({kl:.3f}): policy and reference are scored differently from sampling.")
    if row["length_tokens"] < 0.5 * first["length_tokens"]:
        said.append(f"Lengths collapse: {first['length_tokens']:.0f} tokens at first, {row['length_tokens']:.0f} now.")
    if kl > explosion and row["reward"] > first["reward"]:
        said.append(f"The reward rises while KL explodes ({kl:.2f} nats per token): it is being exploited.")
    elif kl > explosion:
        said.append(f"KL explodes ({kl:.2f} nats per token): raise the KL coefficient or lower learning_rate.")
    if row["eos_rate"] < 0.5 * first["eos_rate"]:
        said.append(f"Completions no longer end: {first['eos_rate']:.0%} did at first, {row['eos_rate']:.0%} do now.")
    if entropy is not None and entropy < 0.1 * first["entropy"]:
        said.append(f"Entropy collapses ({entropy:.3f} nats per token): the samples are nearly all the same.")
    if row.get("clip_fraction", 0.0) > 0.4:
        said.append(f"{row['clip_fraction']:.0%} of the tokens are clipped: lower learning_rate, or update less often.")
    if abs(loss := row.get("policy_loss", 0.0)) > 1:  # of whitened advantages: near 0 where ratios are near 1
        said.append(f"The policy's loss is {loss:.1f}: single tokens moved far in one update; lower learning_rate.")
    if row.get("explained_variance", 0.0) < -1:
        said.append(f"The value is worse than a constant (explained variance {row['explained_variance']:.1f}).")
    if mismatch > 0.1:
        said.append(f"The rollout engine and the trainer differ by {mismatch:.2f} nats per token.")
    return said


class Log:
    """metrics.jsonl and completions.jsonl below `out`, and the trackers of `report_to`."""

    def __init__(self, out: Path, report_to: Sequence[Tracker], name: str, step: int) -> None:
        """`step` is where the run goes on: rows after it, of a killed run, are dropped.

        So are lines that are no rows, as a full disk or a power cut leaves them: they are counted in `num_torn`, and
        the run goes on. Raises ConfigError when a tracker is not installed.
        """
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        absent = [kind for kind in report_to if find_spec(kind) is None]
        if absent:
            raise ConfigError(
                "report_to", found=f"not installed: {', '.join(absent)}", next_step=f"pip install {' '.join(absent)}"
            )
        self.metrics, self.completions = out / "metrics.jsonl", out / "completions.jsonl"
        self.num_torn = 0
        for path in (self.metrics, self.completions):
            rows, num_torn = _whole_rows(path)
            write_jsonl(path, [row for row in rows if row["step"] <= step])
            self.num_torn += num_torn
        if self.num_torn:
            from rich.console import Console

            Console().print(f"{self.num_torn} unfinished lines of metrics.jsonl and completions.jsonl are left out")
        self.first: Row | None = next(_rows(self.metrics), None)
        self.trackers = []
        for kind in report_to:
            cls = LOGGER_TYPE_TO_CLASS[kind]
            self.trackers.append(cls(name, logging_dir=out) if cls.requires_logging_directory else cls(name))
            self.trackers[-1].start()

    def write(self, row: Row, kl_target: float | None = None) -> Row:
        """Append a step's row, with its warnings; return it."""
        self.first = self.first or row
        row = row | {"warnings": warnings(row, self.first, kl_target)}
        _append(self.metrics, row)
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
        for tracker in self.trackers:
            tracker.log(numbers, step=row["step"])
        return row

    def write_completions(
        self, step: int, prompts: Sequence[Messages], texts: Sequence[str], rewards: Sequence[float]
    ) -> None:
        """Append the first prompts of a step with what the policy makes of them now."""
        for prompt, text, reward in list(zip(prompts, texts, rewards, strict=True))[:NUM_SHOWN]:
            shown = {"prompt": prompt[-1]["content"], "completion": text, "reward": float(reward)}
            _append(self.completions, {"step": step} | shown)

    def finish(self) -> list[Row]:
        """Close the trackers; return all rows of the run."""
        for tracker in self.trackers:
            tracker.finish()
        return list(_rows(self.metrics))


def summary(rows: list[Row]) -> Metrics:
    """First and last tenth of the run, for the record."""
    if not rows:
        return {"num_steps": 0}
    tenth = max(len(rows) // 10, 1)
    names = ("reward", "kl", "entropy", "length_tokens", "eos_rate", "explained_variance")
    means = {
        f"{when}_{name}": sum(row[name] for row in part) / tenth
        for when, part in (("first", rows[:tenth]), ("last", rows[-tenth:]))
        for name in names
        if name in rows[0]
    }
    seconds = sum(row["step_s"] for row in rows)
    return means | {
        "num_steps": rows[-1]["step"],
        "tokens_per_s": sum(row["num_tokens"] for row in rows) / seconds,
        "train_s": round(seconds, 1),
        "num_warnings": sum(len(row["warnings"]) for row in rows),
    }


def _rows(path: Path) -> Any:
    return read_jsonl(path) if path.exists() else iter(())


def _whole_rows(path: Path) -> tuple[list[Row], int]:
    """(rows, number of lines that are none) of a log whose last writer may have been stopped in the middle."""
    rows, num_torn = [], 0
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no UTF-8
            row = None
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
        else:
            num_torn += 1
    return rows, num_torn


def _append(path: Path, row: Row) -> None:
    append_jsonl(path, [row])
