"""SFT by TRL, without what only feeds its logs: entropy and accuracy cost a pass over every logit."""

from __future__ import annotations

from typing import Any

from trl import SFTTrainer


class LeanSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer's negative log-likelihood, each token of an optimizer step weighing the same."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        outputs = model(**inputs, use_cache=False, fused_lm_head=True, num_items_in_batch=num_items_in_batch)
        return (outputs.loss, outputs) if return_outputs else outputs.loss
