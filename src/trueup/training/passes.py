"""Passes over a trainer's rows without a step: the reference's log-probabilities, the first loss, scores of pairs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from trueup.models import adapters, base
from trueup.progress import track
from trueup.training.trainers import Batch, summed_logps


def precompute_reference(trainer: Any) -> None:
    """Add ref_chosen_logps and ref_rejected_logps to the training set: one pass under adapter "ref", no gradient."""
    model, dataset = trainer.model, trainer.train_dataset
    chosen: list[float] = []
    rejected: list[float] = []
    model.eval()
    with torch.no_grad(), _as_trained(trainer), adapters.using(model, "ref"):
        batches = _batches(trainer, dataset, trainer.args.per_device_train_batch_size)
        for batch in _shown(trainer, "reference", batches, dataset, trainer.args.per_device_train_batch_size):
            first, second = summed_logps(model, batch).cpu().chunk(2)
            chosen += first.tolist()
            rejected += second.tolist()
    columns = {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    trainer.train_dataset = dataset


def first_loss(trainer: Any) -> float:
    """The loss of the first batch before any step, for a mean weight of 1; no dropout, no random state touched."""
    trainer.model.eval()
    with torch.no_grad(), _as_trained(trainer):
        batch = next(_batches(trainer, trainer.train_dataset, trainer.args.per_device_train_batch_size))
        loss = trainer.compute_loss(trainer.model, batch)
    trainer.model.train()
    return float(loss) / float(batch["weight"].mean())


def scores_of_pairs(trainer: Any, dataset: Any) -> tuple[list[float], list[float]]:
    """(scores of the chosen, scores of the rejected) of each pair of `dataset`, by a reward trainer's model."""
    found = []
    trainer.model.eval()
    with torch.no_grad(), _as_trained(trainer):
        batches = _batches(trainer, dataset, trainer.args.per_device_eval_batch_size)
        for batch in _shown(trainer, "held-out pairs", batches, dataset, trainer.args.per_device_eval_batch_size):
            found.append(trainer.compute_loss(trainer.model, batch, return_outputs=True)[1]["rewards"].float().cpu())
    trainer.model.train()
    chosen, rejected = torch.cat(found).unbind(1)
    return chosen.tolist(), rejected.tolist()


def _as_trained(trainer: Any) -> AbstractContextManager[Any]:
    """accelerate wraps the model's forward in autocast only once training begins: here, before it, or after it."""
    return base.arithmetic(trainer.model)


def _shown(trainer: Any, what: str, batches: Iterator[Batch], dataset: Any, size: int) -> Iterator[Batch]:
    """`batches` under a bar that bears the stage's name."""
    stage = Path(trainer.args.output_dir).parent.name.removesuffix(".partial")
    return track(stage, what, batches, -(-len(dataset) // size))


def _batches(trainer: Any, dataset: Any, size: int) -> Iterator[Batch]:
    """The rows in order, as the trainer's collator makes them, on the model's device."""
    for start in range(0, len(dataset), size):
        rows = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
        yield {k: v.to(trainer.model.device) for k, v in trainer.data_collator(rows).items()}
