"""SFT by TRL, without what only feeds its logs: entropy and accuracy cost a pass over every logit."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Sampler
from trl import SFTTrainer

from trueup.training.order import ByLength
from trueup.training.sharing import OnRanks


class LeanSFTTrainer(OnRanks, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer's negative log-likelihood, each token of an optimizer step weighing the same."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if self.args.train_sampling_strategy != "group_by_length":
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        rows_per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return ByLength(lengths, rows_per_step, self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs, use_cache=False, fused_lm_head=True, num_items_in_batch=num_items_in_batch)
        loss = outputs.loss
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # it counts the tokens of all ranks, whose gradients are then averaged
            loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss
