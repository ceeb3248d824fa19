"""Passes over a trainer's rows without a step: the reference's log-probabilities, the first loss, scores of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trueup import ranks
from trueup.models import adapters, base
from trueup.progress import track
from trueup.run import naming
from trueup.training.trainers import Batch, summed_logps


def precompute_reference(trainer: Any) -> None:
    """Add ref_chosen_logps and ref_rejected_logps to the training set: one pass under adapter "ref", no gradient."""
    model, dataset = trainer.model, trainer.train_dataset
    found: list[Tensor] = []  # (2, rows) of each batch of this rank
    size = trainer.args.per_device_train_batch_size
    model.eval()
    with torch.no_grad(), _as_trained(trainer), adapters.using(model, "ref"):
        for batch in _shown(trainer, "reference", dataset, size):
            found.append(torch.stack(summed_logps(model, batch).cpu().chunk(2)))
    chosen, rejected = _of_all(found, dataset, size).tolist()
    columns = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    trainer.train_dataset = dataset


def first_loss(trainer: Any) -> float:
    """The loss of the first batch before any step, for a mean weight of 1; no dropout, no random state touched."""
    trainer.model.eval()
    with torch.no_grad(), _as_trained(trainer):
        batch = _batch(trainer, trainer.train_dataset, 0, trainer.args.per_device_train_batch_size)
        loss = trainer.compute_loss(trainer.model, batch)
    trainer.model.train()
    return float(loss) / float(batch["weight"].mean())


def scores_of_pairs(trainer: Any, dataset: Any, shown: str = "held-out pairs") -> tuple[list[float], list[float]]:
    """(scores of the chosen, scores of the rejected) of each pair of `dataset`, by a reward trainer's model."""
    found: list[Tensor] = []  # (2, rows) of each batch of this rank
    size = trainer.args.per_device_eval_batch_size
    trainer.model.eval()
    with torch.no_grad(), _as_trained(trainer):
        for batch in _shown(trainer, shown, dataset, size):
            scores = trainer.compute_loss(trainer.model, batch, return_outputs=True)[1]["rewards"]
            found.append(scores.float().cpu().T)
    trainer.model.train()
    chosen, rejected = _of_all(found, dataset, size).tolist()
    return chosen, rejected


def scores_of_answers(trainer: Any) -> list[float]:
    """The score of each distinct answer of the training set, by a reward trainer's model, in the order they come."""
    rows = trainer.train_dataset
    sides = scores_of_pairs(trainer, rows, "answers trained on")
    by_ids: dict[tuple[int, ...], float] = {}
    for name, scores in zip(("chosen_ids", "rejected_ids"), sides, strict=True):
        for ids, score in zip(rows[name], scores, strict=True):
            by_ids.setdefault(tuple(ids), score)
    return list(by_ids.values())


def _as_trained(trainer: Any) -> AbstractContextManager[Any]:
    """accelerate wraps the model's forward in autocast only once training begins: here, before it, or after it."""
    return base.arithmetic(trainer.model)


def _shown(trainer: Any, what: str, dataset: Any, size: int) -> Iterator[Batch]:
    """The batches of `dataset` that are this rank's share, under a bar that bears the stage's name."""
    stage = naming.stage_of(Path(trainer.args.output_dir).parent.name)
    starts = ranks.share(range(0, len(dataset), size))
    return track(stage, what, (_batch(trainer, dataset, start, size) for start in starts), len(starts))


def _of_all(found: list[Tensor], dataset: Any, size: int) -> Tensor:
    """What all ranks found, (2, rows), in the order of `dataset`."""
    return torch.cat(ranks.put_together(found, -(-len(dataset) // size)), dim=1)


def _batch(trainer: Any, dataset: Any, start: int, size: int) -> Batch:
    """Rows in order, as the trainer's collator makes them, on the model's device."""
    rows = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
    return {k: v.to(trainer.model.device) for k, v in trainer.data_collator(rows).items()}
