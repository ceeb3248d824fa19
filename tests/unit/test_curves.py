"""curves.html: every stage that has logged steps is drawn, with what its rows say, on one page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trueup.training import curves
from trueup.training.step_log import rows

TRAINED = [{"step": i, "epoch": i / 2, "loss": 1 / i, "grad_norm": 0.5} for i in (1, 2, 3, 4)]
ROLLED_OUT = [
    {"step": i, "reward": 0.1 * i, "kl": 0.01, "eos_rate": 0.9, "warnings": ["too <fast>"] if i == 2 else []}
    for i in (1, 2)
]


def log(folder: Path, logged: list[dict[str, Any]], when: int) -> None:
    folder.mkdir(parents=True)
    path = folder / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in logged) + '{"step": 9, "lo')  # torn by a kill
    os.utime(path, (when, when))


def test_all_stages_of_all_rounds_are_on_the_page_in_order(tmp_path: Path) -> None:
    log(tmp_path / "round-10" / "ppo.partial", ROLLED_OUT, 5)
    log(tmp_path / "round-2" / "dpo", TRAINED, 4)
    log(tmp_path / "round-2" / "dpo.old-1", TRAINED, 3)
    log(tmp_path / "sft", [*TRAINED[:3], TRAINED[3] | {"eval_loss": 0.3}], 1)
    log(tmp_path / "round-2" / "reward", [row | {"accuracy": 0.75} for row in TRAINED], 2)
    titles = ["sft", "reward, round 2", "dpo, round 2", "ppo, round 10, not finished"]
    assert list(curves.rows_of_stages(tmp_path)) == titles
    written = curves.write(tmp_path, "a <run>")
    assert written == tmp_path / "curves.html"
    page = written.read_text()
    places = [page.index(f">{title}</h2>") for title in titles]
    assert places == sorted(places)
    # loss and norm of sft and dpo; loss, accuracy and norm of reward; reward, KL and ends of ppo
    assert page.count("<svg") == 2 + 3 + 2 + 3
    assert "4 steps; 0 warnings." in page and "2 steps; 1 warning." in page
    assert "too &lt;fast&gt;" in page and "<run>" not in page


def test_a_plot_shows_the_rows(tmp_path: Path) -> None:
    ((figure, words),) = curves.plots([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "eval_loss": 0.4}])
    assert words.startswith("Loss of each step")
    (axes,) = figure.axes
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 0.5], [2, 0.25]], [[2, 0.4]]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "held out"]
    assert axes.get_xlabel() == "step"


def test_without_a_step_there_is_no_page(tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "metrics.jsonl").write_text("")
    assert curves.write(tmp_path, "run") is None
    assert not (tmp_path / "curves.html").exists()


def test_a_trainers_log_becomes_a_row_a_step() -> None:
    """As transformers 5 logs a run of two epochs: steps, an evaluation after each epoch, and the whole at the end."""
    history: list[dict[str, Any]] = [
        {"loss": 2.0, "grad_norm": 1.5, "learning_rate": 1e-4, "epoch": 1.0, "step": 1},
        {"eval_loss": 1.9, "eval_runtime": 1.0, "eval_samples_per_second": 4.0, "epoch": 1.0, "step": 1},
        {"loss": 1.0, "grad_norm": 0.5, "learning_rate": 5e-5, "epoch": 2.0, "step": 2},
        {"train_runtime": 9.0, "train_loss": 1.5, "total_flos": 1.0, "epoch": 2.0, "step": 2},
    ]
    assert rows(history) == [
        {"step": 1, "epoch": 1.0, "loss": 2.0, "grad_norm": 1.5, "learning_rate": 1e-4, "eval_loss": 1.9},
        {"step": 2, "epoch": 2.0, "loss": 1.0, "grad_norm": 0.5, "learning_rate": 5e-5},
    ]
