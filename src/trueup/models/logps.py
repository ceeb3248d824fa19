"""Log-probabilities of completions, with logits only where there are labels."""

from __future__ import annotations

from typing import Any


def token_logps(model: Any, batch: dict[str, Any]) -> Any:
    """log p of each next token, (batch, tokens - 1) in fp32; zero where the label is -100."""
    import torch

    from trueup.models import head

    hidden, causal = labelled_states(model, batch)
    labels = batch["labels"][:, 1:].to(hidden.device)
    mask = labels != -100
    logps, _ = head.token_logps(hidden, causal.lm_head.weight, labels[mask], with_entropy=False)
    return torch.zeros(mask.shape, device=hidden.device).masked_scatter(mask, logps)


def labelled_states(model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """Hidden states that predict the labels, (labels, hidden), and the causal model under the adapters."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = next(model.parameters()).device
    batch = {key: value.to(device) for key, value in batch.items()}
    hidden = causal.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    return hidden.last_hidden_state[:, :-1][batch["labels"][:, 1:] != -100], causal
