"""Log-probabilities of completions, with logits only where there are labels."""

from __future__ import annotations

from typing import Any


def encode(tokenizer: Any, messages: list[dict[str, str]], completion: str) -> tuple[list[int], list[int]]:
    """Token ids of the prompt (with the generation prompt) and of the completion (with the end-of-turn token)."""
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    return prompt, [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def pad(rows: list[tuple[list[int], list[int]]], pad_id: int) -> dict[str, Any]:
    """Right-padded input_ids, attention_mask and labels (-100 outside completions), each (batch, tokens)."""
    import torch

    width = max(len(p) + len(c) for p, c in rows)
    ids, mask, labels = [], [], []
    for prompt, completion in rows:
        tail = width - len(prompt) - len(completion)
        ids.append(prompt + completion + [pad_id] * tail)
        mask.append([1] * (width - tail) + [0] * tail)
        labels.append([-100] * len(prompt) + completion + [-100] * tail)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "labels": torch.tensor(labels)}


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
