"""What a person reads of PPO and GRPO: sentences when something is off, trackers."""

from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest

from trueup.errors import ConfigError
from trueup.online import log
from trueup.run.artifacts import read_jsonl

FIRST = {
    "step": 1,
    "reward": 0.5,
    "kl": 0.0,
    "entropy": 2.0,
    "clip_fraction": 0.1,
    "explained_variance": 0.2,
    "length_tokens": 40.0,
    "eos_rate": 0.8,
    "engine_mismatch": 0.01,
    "num_tokens": 400,
    "step_s": 4.0,
    "tokens_per_s": 100.0,
}
OFF: list[tuple[dict[str, float], str]] = [
    ({"kl": -0.1}, "KL is negative (-0.100): policy and reference are scored differently from sampling."),
    ({"length_tokens": 19.0}, "Lengths collapse: 40 tokens at first, 19 now."),
    ({"kl": 2.0, "reward": 0.9}, "The reward rises while KL explodes (2.00 nats per token): it is being exploited."),
    ({"kl": 2.0}, "KL explodes (2.00 nats per token): raise the KL coefficient or lower learning_rate."),
    ({"eos_rate": 0.3}, "Completions no longer end: 80% did at first, 30% do now."),
    ({"entropy": 0.1}, "Entropy collapses (0.100 nats per token): the samples are nearly all the same."),
    ({"clip_fraction": 0.5}, "50% of the tokens are clipped: lower learning_rate, or update less often."),
    ({"explained_variance": -3.0}, "The value is worse than a constant (explained variance -3.0)."),
    ({"engine_mismatch": 0.2}, "The rollout engine and the trainer differ by 0.20 nats per token."),
    (
        {"policy_loss": 81.02},
        "The policy's loss is 81.0: single tokens moved far in one update; lower learning_rate.",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), OFF)
def test_one_sentence_for_what_is_off(change: dict[str, float], sentence: str) -> None:
    assert log.warnings(FIRST | change, FIRST) == [sentence]


def test_nothing_is_said_of_a_run_that_is_well() -> None:
    better = {"reward": 0.9, "kl": 0.3, "length_tokens": 30.0, "eos_rate": 0.9, "entropy": 1.0}
    assert log.warnings(FIRST | better, FIRST) == []
    of_grpo = {"reward": 0.9, "length_tokens": 30.0, "eos_rate": 0.9}  # TRL gives no value, engine or clipping
    assert log.warnings(of_grpo, of_grpo) == []


def test_kl_explodes_at_three_times_its_target() -> None:
    row = FIRST | {"kl": 0.4}
    assert log.warnings(row, FIRST, kl_target=0.1) and not log.warnings(row, FIRST, kl_target=0.2)


def test_rows_after_the_step_a_run_goes_on_from_are_dropped(tmp_path: Path) -> None:
    first = log.Log(tmp_path, [], "run", 0)
    for step in (1, 2, 3):
        first.write(FIRST | {"step": step})
        first.write_completions(step, [[{"role": "user", "content": "<b>q"}]] * 9, ["a"] * 9, [0.0] * 9)
    again = log.Log(tmp_path, [], "run", 2)
    assert [row["step"] for row in again.finish()] == [1, 2]
    assert [row["step"] for row in read_jsonl(tmp_path / "completions.jsonl")] == [1] * 4 + [2] * 4


@pytest.mark.parametrize("tear", [b'{"step": 3, "rew', b"\0" * 40, b'{"step": 3, "x": "\xc3', b"3"])
def test_a_torn_log_goes_on_and_says_what_it_left_out(
    tmp_path: Path, tear: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    first = log.Log(tmp_path, [], "run", 0)
    for step in (1, 2):
        first.write(FIRST | {"step": step})
        first.write_completions(step, [[{"role": "user", "content": "q"}]], ["a"], [0.0])
    for name in ("metrics.jsonl", "completions.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(tear)
    again = log.Log(tmp_path, [], "run", 2)
    assert "2 unfinished lines" in capsys.readouterr().out
    again.write(FIRST | {"step": 3})
    assert (again.num_torn, [row["step"] for row in again.finish()]) == (2, [1, 2, 3])
    assert [row["step"] for row in read_jsonl(tmp_path / "completions.jsonl")] == [1, 2]


def test_trackers_are_told_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Tracker:
        requires_logging_directory = True

        def __init__(self, name: str, logging_dir: Path) -> None:
            told.append((name, logging_dir))

        def start(self) -> None:
            told.append("start")

        def log(self, values: dict[str, float], step: int) -> None:
            told.append((step, values))

        def finish(self) -> None:
            told.append("finish")

    monkeypatch.setitem(accelerate.tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Tracker)
    monkeypatch.setattr(log, "find_spec", lambda name: object())
    logging = log.Log(tmp_path, ["tensorboard"], "run", 0)
    logging.write(FIRST | {"reward_parts": {"x": 1.0}})
    logging.finish()
    numbers = {name: value for name, value in FIRST.items() if name != "step"}
    assert told == [("run", tmp_path), "start", (1, numbers), "finish"]


def test_a_tracker_that_is_not_installed_is_named_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed: trackio, wandb"):
        log.Log(tmp_path, ["trackio", "wandb"], "run", 0)


def test_the_summary_is_of_the_first_and_last_tenth() -> None:
    rows = [FIRST | {"step": i, "reward": float(i), "warnings": ["x"] * (i == 3)} for i in range(1, 21)]
    found = log.summary(rows)
    assert (found["first_reward"], found["last_reward"]) == (1.5, 19.5)
    assert (found["num_steps"], found["num_warnings"], found["tokens_per_s"]) == (20, 1, 100.0)
    assert log.summary([]) == {"num_steps": 0}
