"""Tasks of lm-eval, given to SFT and to the aligned model: an optional extra, imported where tasks are asked for.

Gao et al., "The Language Model Evaluation Harness" (https://zenodo.org/records/12608602).
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import ConfigError, StageError
from trueup.evaluation.intervals import change

if TYPE_CHECKING:
    from collections.abc import Iterator

Row = dict[str, Any]
KEY = "evaluate.lm_eval_tasks"
WHO = {"sft": "sft", "aligned": "default"}  # adapters by label
BATCH_SIZE = 8
FILES = (".yaml", ".yml")


def refuse(tasks: Sequence[str], folder: Path) -> None:
    """Raises ConfigError where lm-eval is not installed, or a task's file in `folder` cannot be read."""
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            KEY, found="lm-eval is not installed", next_step="pip install 'trueup[lm-eval]', or leave the key out"
        )
    for task in tasks:
        if task.endswith(FILES):
            _own(folder / task)


def files(tasks: Sequence[str], folder: Path) -> dict[str, Path]:
    """The files of tasks of the user's own, by what they are."""
    return {f"lm-eval task {task}": folder / task for task in tasks if task.endswith(FILES)}


def _own(path: Path) -> Row:
    """The task of a .yaml file; its `data_files` are looked for beside it. Raises ConfigError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        task = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        what = getattr(error, "strerror", None) or f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ConfigError(
            KEY, found=f"{path}: {what}", expected="a task as YAML, without tags such as !function"
        ) from None
    if not isinstance(task, dict) or not isinstance(task.get("task"), str):
        raise ConfigError(
            KEY, found=f"{path}: no name", expected="the keys of a task of lm-eval, the first `task: NAME`"
        )
    given = task.get("dataset_kwargs")
    if isinstance(given, dict) and "data_files" in given:
        given["data_files"] = _beside(given["data_files"], path.parent)
    return task


def _beside(data_files: Any, folder: Path) -> Any:
    if isinstance(data_files, dict):
        return {split: _beside(some, folder) for split, some in data_files.items()}
    if isinstance(data_files, list):
        return [_beside(some, folder) for some in data_files]
    return str(folder / data_files)


def measure(
    model: Any, tokenizer: Any, tasks: Sequence[str], limit: int | None, folder: Path, advance: Callable[[int], None]
) -> dict[str, Row]:
    """JSON: of each task its metric, the mean of SFT and of the aligned model, and the change, paired by question.

    Prompts are as the task writes them, without a chat template. Raises ConfigError where lm-eval knows no such task,
    and StageError where a task cannot be run.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from trueup.models import adapters

    manager = TaskManager()
    if unknown := [task for task in tasks if not task.endswith(FILES) and task not in manager.all_tasks]:
        raise ConfigError(
            KEY,
            found=f"lm-eval knows no task {', '.join(unknown)}",
            expected="names that `lm_eval ls tasks` lists, or .yaml files beside the run file",
        )
    asked = [_own(folder / task) if task.endswith(FILES) else task for task in tasks]
    found: dict[str, Any] = {}
    for label, name in WHO.items():
        with adapters.using(model, name), _quiet():
            seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))
            one = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE)
            try:
                found[label] = simple_evaluate(
                    one, tasks=asked, limit=limit, bootstrap_iters=0, task_manager=manager, **seeds
                )
            except Exception as error:  # whatever a task's data or code makes the library raise
                said = str(error).splitlines()[0][:200] if str(error) else ""
                raise StageError(
                    KEY,
                    found=f"{type(error).__name__}: {said}, while {', '.join(tasks)} ran",
                    expected="tasks whose data is on this machine, or can be loaded",
                    next_step="try them with `lm_eval run`, or leave them out",
                ) from error
        advance(1)
    return {task: compared for task in found["sft"]["samples"] if (compared := _compared(task, found))}


def _compared(task: str, found: Row) -> Row | None:
    """None of a task whose questions have no figure of their own."""
    samples = {label: _by_question(one["samples"][task]) for label, one in found.items()}
    metrics = [name.partition(",")[0] for name in found["sft"]["results"][task]]
    first = next(iter(samples["sft"].values()), {})
    metric = next((m for m in metrics if isinstance(first.get(m), int | float)), None)
    if metric is None:
        return None
    sign = 1.0 if found["sft"].get("higher_is_better", {}).get(task, {}).get(metric, True) else -1.0
    questions = sorted(samples["sft"].keys() & samples["aligned"].keys())
    before, after = ([float(samples[label][q][metric]) for q in questions] for label in WHO)
    return {
        "metric": metric,
        "num_questions": len(questions),
        "sft": sum(before) / len(questions),
        "aligned": sum(after) / len(questions),
        "gain_over_sft": change([sign * (b - a) for a, b in zip(before, after, strict=True)], [1.0] * len(questions)),
    }


def _by_question(samples: list[Row]) -> dict[int, Row]:
    """The first of each question: several filters give a question several samples."""
    found: dict[int, Row] = {}
    for sample in samples:
        found.setdefault(sample["doc_id"], sample)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what lm-eval logs of models that it did not load itself."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
