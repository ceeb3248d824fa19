"""The one way from a causal language model to hidden states and log-probabilities.

Whatever needs either (reference proof, KL, export, PPO, training head) asks here: where the trunk ends, what the
output layer does to its logits, and whether that is what transformers' own forward does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trueup.errors import ModelError
from trueup.models import base, head
from trueup.models.families import FAMILIES
from trueup.models.head import OutputLayer

RIGHT = 0.75  # share of the tokens
MAX_ERROR = 0.1  # relative, of centred logits; 4-bit weights and bf16 arithmetic alone make up to 0.03


def bare(model: Any) -> Any:
    """The causal model or classifier under the adapters of `model`."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def hidden_states(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What the output layer reads, (B, T, H), from token ids and their mask, (B, T) each, with the adapter in use.

    Computed as in training: see `base.arithmetic`.
    """
    whole = bare(model)
    with base.arithmetic(whole):
        out = whole.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    states: Tensor = out.last_hidden_state
    return states


def output_layer(model: Any) -> OutputLayer:
    """The frozen output layer of a causal model, with its bias, logit scale and soft cap."""
    causal = bare(model)
    family, layer = FAMILIES[causal.config.model_type], causal.get_output_embeddings()
    products = getattr(causal, "output_products", head.plain_products)  # a CPU's own, from cpu.accelerate
    bias = getattr(layer, "bias", None)
    return OutputLayer(layer.weight, bias, family.scale(causal.config), family.cap(causal.config), products)


def token_logps(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """log p of each next token in nats, (B, T - 1) in fp32; zero where the label is -100.

    `batch` holds input_ids, attention_mask and labels, (B, T) each.
    """
    hidden = labelled_states(model, batch)
    labels = batch["labels"][:, 1:].to(hidden.device)
    mask = labels != -100
    logps, _ = head.token_logps(hidden, output_layer(model), labels[mask], with_entropy=False)
    return torch.zeros(mask.shape, device=hidden.device).masked_scatter(mask, logps)


def labelled_states(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Hidden states that predict the labels of `batch`, (labels, H)."""
    device = next(model.parameters()).device
    ids, mask, labels = (batch[name].to(device) for name in ("input_ids", "attention_mask", "labels"))
    return hidden_states(model, ids, mask)[:, :-1][labels[:, 1:] != -100]


@torch.no_grad()
def plain_outputs(model: Any) -> Tensor:
    """What transformers' own forward makes of a few tokens, (tokens, V) or (tokens, H), before anything is changed.

    Logits of a causal model; hidden states of a classifier, whose score head is new.
    """
    ids, mask = _few_tokens(model)
    if bare(model).get_output_embeddings() is None:
        return hidden_states(model, ids, mask)[mask.bool()].float()
    logits: Tensor = bare(model)(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[mask.bool()].float()


@torch.no_grad()
def refuse_another_forward(model: Any, plain: Tensor, where: str) -> None:
    """Raises ModelError unless the forward in use gives what `plain_outputs` gave, within rounding.

    Of the few tokens three quarters at least must be right: in bf16 a model may say something else after a token that
    it has hardly ever seen, each time it is computed in another order. A forward that is wrong for the padded row is
    wrong for more than a third of them.
    """
    ids, mask = _few_tokens(model)
    found = hidden_states(model, ids, mask)[mask.bool()]
    if bare(model).get_output_embeddings() is not None:
        found = output_layer(model).logits(found)
    spread = (plain - plain.mean(-1, keepdim=True)).norm(dim=-1)
    error = float(((found.float() - plain).norm(dim=-1) / spread).quantile(RIGHT))
    if not error <= MAX_ERROR:  # a NaN fails as well
        kind = bare(model).config.model_type
        raise ModelError(
            where,
            found=f"outputs that differ from transformers' own by {error:.1%} of their spread (architecture {kind})",
            expected=f"at most {MAX_ERROR:.0%}",
            next_step="set TRUEUP_CPU=portable on a CPU; on a GPU that computes in fp16, set model.dtype: float32",
        )


def _few_tokens(model: Any) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, (2, 8): spread over the vocabulary, the second row three tokens shorter."""
    config = bare(model).config
    ids = torch.arange(1, 17, device=model.device).view(2, 8) * 7919 % config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return ids, mask
