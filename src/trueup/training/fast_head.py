"""Logits only where there are labels. TRL does this on Triton devices; elsewhere it scores padding and prompts too."""

from __future__ import annotations

import types
from typing import Any


def install(causal: Any) -> None:
    """Answer TRL's `forward(..., fused_lm_head=True)` on CPU by projecting labelled positions only.

    `causal` is the base causal model under the adapters. Returns, like TRL's FusedCausalLMOutput, log_probs, entropy,
    mean_logits and is_top1, each (batch, tokens - 1) and zero where the label is -100.
    """
    import torch

    if next(causal.parameters()).device.type != "cpu":
        return
    patched = causal.forward

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return patched(*args, labels=labels, **kwargs) if labels is not None else patched(*args, **kwargs)
        from trl.trainer.utils import FusedCausalLMOutput

        num_items = kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        mask = targets != -100
        logits = self.get_output_embeddings()(hidden[mask]).float()
        log_probs = torch.log_softmax(logits, dim=-1)
        chosen = log_probs.gather(-1, targets[mask].unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            mean, top1 = logits.mean(-1), logits.argmax(-1) == targets[mask]

        def scatter(values: Any) -> Any:
            return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter(mask, values)

        filled = scatter(chosen)
        return FusedCausalLMOutput(
            loss=-filled.sum() / (mask.sum().clamp(min=1) if num_items is None else num_items),
            log_probs=filled,
            entropy=scatter(entropy),
            mean_logits=scatter(mean),
            is_top1=scatter(top1),
            label_mask=mask,
        )

    causal.forward = types.MethodType(forward, causal)
