"""What a TRL trainer on several ranks trains and measures: exactly what one process would, with their batches as one.

n ranks with a batch of B rows each take the steps of one process with a batch of n x B rows. accelerate's own sharding
fills up the last batch of an epoch with rows of its beginning, which would count twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Sampler

from trueup import ranks
from trueup.chat.tokens import IGNORED

Row = dict[str, Any]
At = tuple[int, float]  # a row, and what its weight is multiplied by: 0 where it only fills up a share


class ShareOfBatches(Sampler[list[At]]):
    """This rank's share of each batch of `size` rows a rank: one as long as that of every other rank.

    The last batch may be smaller. Its shares are filled up by rows that have no weight, and as the mean over a share
    then counts them, the weights of the others are raised to make up for it.
    """

    def __init__(self, order: Any, size: int, seed: int, *, drop_last: bool = False) -> None:
        self.order, self.size, self.seed, self.drop_last = order, size, seed, drop_last

    def __len__(self) -> int:
        whole = self.size * ranks.count()
        return len(self.order) // whole if self.drop_last else -(-len(self.order) // whole)

    def __iter__(self) -> Iterator[list[At]]:
        order, whole = list(self.order), self.size * ranks.count()
        for start in range(0, len(self) * whole, whole):
            batch = order[start : start + whole]
            share = -(-len(batch) // ranks.count())
            own = batch[ranks.this() * share : (ranks.this() + 1) * share]
            factor = share * ranks.count() / len(batch)
            yield [(index, factor) for index in own] + [(batch[0], 0.0)] * (share - len(own))

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch; a random order of torch's own is drawn alike on every rank."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)
        elif isinstance(self.order, RandomSampler):
            self.order.generator = torch.Generator().manual_seed(self.seed + epoch)


class WeightedRows:
    """The rows of a dataset that `ShareOfBatches` asks for, those of no weight without labels."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, at: At) -> Row:
        index, factor = at
        row: Row = self.dataset[index]
        if "weight" in row:
            return row | {"weight": row["weight"] * factor}
        return row if factor else row | {"labels": [IGNORED] * len(row["labels"])}


class Epochs(DataLoader[Row]):
    """A DataLoader that tells its order of rows the number of the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class OnRanks:
    """Put before a trainer: its training batches are shared by `ShareOfBatches`, its evaluation batch by batch.

    The held-out loss is that of one process, whatever the number of ranks: the mean over rows of each batch's loss.
    """

    def get_train_dataloader(self) -> Any:
        if ranks.count() == 1:
            return super().get_train_dataloader()  # type: ignore[misc]
        args, trainer = self.args, self  # type: ignore[attr-defined]
        dataset = trainer._remove_unused_columns(self.train_dataset, description="training")  # type: ignore[attr-defined]
        order = trainer._get_train_sampler(dataset)  # type: ignore[attr-defined]
        shares = ShareOfBatches(order, args.per_device_train_batch_size, args.seed, drop_last=args.dataloader_drop_last)
        return Epochs(
            WeightedRows(dataset),  # type: ignore[arg-type]
            batch_sampler=shares,
            collate_fn=self.data_collator,  # type: ignore[attr-defined]
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the figures of a step's micro-batches on every rank."""
        kept = self._metrics["train"]  # type: ignore[attr-defined]
        if ranks.count() > 1:
            everywhere = ranks.gather({name: list(values) for name, values in kept.items()})
            for name in {name for one in everywhere for name in one}:
                kept[name] = [value for one in everywhere for value in one.get(name, [])]
        super().log(logs, start_time)  # type: ignore[misc]

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        if ranks.count() == 1:
            return super().evaluation_loop(dataloader, description, *args, **kwargs)  # type: ignore[misc]
        from transformers.trainer_utils import EvalLoopOutput

        dataset, size = dataloader.dataset, self.args.per_device_eval_batch_size  # type: ignore[attr-defined]
        starts = list(range(0, len(dataset), size))
        model: Any = self.model  # type: ignore[attr-defined]
        model.eval()
        own = []
        with torch.no_grad(), self.compute_loss_context_manager():  # type: ignore[attr-defined]
            for start in ranks.share(starts):
                rows = [dataset[i] for i in range(start, min(start + size, len(dataset)))]
                batch = self._prepare_inputs(self.data_collator(rows))  # type: ignore[attr-defined]
                own.append(float(self.compute_loss(model, batch)) * len(rows))  # type: ignore[attr-defined]
        total = sum(ranks.put_together(own, len(starts)))
        prefix = kwargs.get("metric_key_prefix", "eval")
        return EvalLoopOutput(None, None, {f"{prefix}_loss": total / len(dataset)}, len(dataset))
