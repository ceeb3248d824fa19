"""A training stage that is stopped at a checkpoint, in any epoch, ends bit for bit where an uninterrupted one does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import WORDS
from tiny_ppo import LIKES_GEAR
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from trueup.models.adapters import saved_tensors
from trueup.run.artifacts import Adapter, Completions, Feedback, read_jsonl, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import STAGES

FUNCTION = {"reward_model_weight": 0, "reward_functions": {"gear:likes_gear": 1.0}}
GRPO = FUNCTION | {"max_completion_length": 6, "num_generations": 4, "per_device_train_batch_size": 8, "save_steps": 1}
BATCH = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
EVALUATED = -1  # stopped after the first epoch's evaluation, before its checkpoint
ENDED = -2  # stopped behind the checkpoint of the last step, with nothing left to train
SLOW = {"sft-3", "reward-5", "grpo-7"}  # less of what the others of their stage do
# the section, a step within the second or a later epoch, and that of the newest checkpoint by then
STOPPED: list[tuple[str, dict[str, Any], int, int]] = [
    ("sft", {"num_train_epochs": 3, "save_steps": 3, "learning_rate": 0.01}, 8, 6),  # 5 steps an epoch
    ("sft", {"num_train_epochs": 1, "save_steps": 3, "learning_rate": 0.01}, 3, 3),
    ("sft", {"num_train_epochs": 3, "save_steps": 1, "learning_rate": 0.01}, EVALUATED, 4),
    ("dpo", BATCH | {"num_train_epochs": 3, "save_steps": 1}, 5, 5),  # 3 steps an epoch
    ("dpo", BATCH | {"num_train_epochs": 1, "save_steps": 2}, ENDED, 3),
    ("kto", BATCH | {"num_train_epochs": 3, "save_steps": 1}, 4, 4),
    ("reward", BATCH | {"num_train_epochs": 3, "save_steps": 1, "thumbs_weight": 0}, 5, 5),
    ("reward", BATCH | {"num_train_epochs": 3, "save_steps": 1, "thumbs_weight": 1}, 8, 8),  # 6 steps an epoch
    ("grpo", GRPO | {"max_steps": 9}, 7, 7),  # 5 steps an epoch: two prompts of ten a step
    ("grpo", GRPO | {"max_steps": 14, "num_iterations": 2}, 13, 12),
]


class Stop(TrainerCallback):  # type: ignore[misc]
    """What a kill right after a checkpoint was sealed leaves behind."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if 0 <= self.step <= state.global_step:
            raise KeyboardInterrupt

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.step == EVALUATED:
            raise KeyboardInterrupt

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.step == ENDED:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "section", "step", "saved"),
    [pytest.param(*one, id=(id_ := f"{one[0]}-{one[2]}"), marks=[pytest.mark.slow] * (id_ in SLOW)) for one in STOPPED],
)
def test_a_stopped_stage_ends_where_the_uninterrupted_one_does(
    sharp: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    section: dict[str, Any],
    step: int,
    saved: int,
) -> None:
    (sharp.folder.parents[1] / "gear.py").write_text(LIKES_GEAR)
    shared = [
        {"prompt_id": str(i), "split": "train", "prompt": [{"role": "user", "content": f"{word} rope"}], "weight": 1.0}
        for i, word in enumerate(WORDS[:6])
    ]
    write_jsonl(
        tmp_path / "pairs.jsonl", [row | {"chosen": WORDS[-1 - i], "rejected": "no"} for i, row in enumerate(shared)]
    )
    rows = [
        row | {"completion": WORDS[-1 - i], "label": i % 2 == 0, "uid": str(i), "annotator": "x"}
        for i, row in enumerate(shared)
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    stage, policy = next(stage for stage in STAGES if stage.name == name), Adapter(sharp.path("sft"))
    inputs = {"policy": policy, "sft": policy, "feedback": Feedback(tmp_path)}
    inputs["completions"] = Completions(sharp.path("sample"))

    def run(folder: str) -> dict[str, Any]:
        out = tmp_path / folder / name  # by which the stage knows its section
        out.mkdir(parents=True, exist_ok=True)
        context = Context(run=sharp.run, run_dir=sharp.folder, out=out)
        metrics: dict[str, Any] = stage.run(
            stage.config(**section), context, **{key: inputs[key] for key in stage.needs if key in inputs}
        )
        return metrics

    whole = run("whole")
    added, init = [Stop(step)], CallbackHandler.__init__
    monkeypatch.setattr(
        CallbackHandler, "__init__", lambda self, callbacks, *more: init(self, [*callbacks, *added], *more)
    )
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    added.clear()
    metrics = run("stopped")
    assert metrics["resumed_from_step"] == saved
    assert metrics["num_steps"] == whole["num_steps"] > step
    assert metrics["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-9)
    assert metrics.get("thresholds") == whole.get("thresholds")
    assert metrics.get("eval_loss_by_epoch") == whole.get("eval_loss_by_epoch")
    first, second = saved_tensors(tmp_path / "whole" / name), saved_tensors(tmp_path / "stopped" / name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    if name == "grpo":
        logged = [
            [row["step"] for row in read_jsonl(tmp_path / kind / name / "metrics.jsonl")]
            for kind in ("whole", "stopped")
        ]
        assert logged[0] == logged[1] and len(logged[0]) == section["max_steps"] / section.get("num_iterations", 1)
