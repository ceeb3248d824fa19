"""What turns hidden states into log-probabilities and scores while a TRL trainer trains, in place of TRL's own.

TRL keeps logits of 32,768 entries of the vocabulary for each token; on devices without Triton it scores padding and
prompts too. Under autocast, its score head is computed in 16 bits.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def install(whole: Any, *, with_entropy: bool = False) -> None:
    """Answer TRL's `forward(..., fused_lm_head=True)` by projecting labelled positions only, a block at a time.

    `whole` is the base causal model under the adapters. Returns, like TRL's FusedCausalLMOutput, loss, log_probs,
    label_mask and with `with_entropy` entropy, each (batch, tokens - 1) and zero where the label is -100.
    """

    from trueup.models.causal import output_layer
    from trueup.models.head import token_logps

    patched = whole.forward

    @functools.wraps(type(whole).forward)  # `generate` reads the signature, and leaves out what is not there
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            return patched(*args, labels=labels, **kwargs) if labels is not None else patched(*args, **kwargs)
        from trl.trainer.utils import FusedCausalLMOutput

        num_items = kwargs.pop("num_items_in_batch", None)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        mask = targets != -100
        logps, entropy = token_logps(hidden[mask], output_layer(self), targets[mask], with_entropy=with_entropy)

        def scatter(values: Tensor) -> Tensor:
            return values.new_zeros(mask.shape).masked_scatter(mask, values)

        filled = scatter(logps)
        return FusedCausalLMOutput(
            loss=-filled.sum() / (mask.sum().clamp(min=1) if num_items is None else num_items),
            log_probs=filled,
            entropy=scatter(entropy) if with_entropy else None,
            label_mask=mask,
        )

    whole.forward = types.MethodType(forward, whole)


def score_in_fp32(score: Any) -> None:
    """Let every linear map of a classifier's `score` compute in fp32, under autocast too: (B, T, H) -> (B, T, labels).

    bf16 leaves a score of 4 uncertain by 0.016, of which the difference of two good answers may be a tenth.
    """
    import torch
    from torch import nn
    from torch.nn.functional import linear

    def forward(self: nn.Linear, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return linear(states.float(), self.weight.float(), None if self.bias is None else self.bias.float())

    for module in score.modules():
        if isinstance(module, nn.Linear):
            module.forward = types.MethodType(forward, module)  # type: ignore[method-assign]
