"""Prompts and completions as token ids, and as padded batches."""

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
