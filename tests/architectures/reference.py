"""What plain transformers and peft give in fp32, a row at a time, without padding, without anything of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

PROMPTS = ([5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [5, 6, 7, 8, 9, 10, 11, 12, 40], [5, 6, 7, 8], [60, 61, 62])
COMPLETIONS = ([20, 21, 22, 2], [30, 31, 2], [41, 42, 43, 44, 45, 46, 47, 48, 49, 2], [77, 2])
NEW_TOKENS = 6


@dataclass(frozen=True)
class Expected:
    """Of PROMPTS and COMPLETIONS: log-probabilities, the loss, LoRA's gradients, and greedy completions."""

    logps: list[torch.Tensor]
    loss: float
    gradients: dict[str, torch.Tensor]
    greedy: list[list[int]]
    model: Any

    def bare_logps_of(self, prompt: list[int], completion: list[int]) -> torch.Tensor:
        """`logps_of` without the adapter."""
        with self.model.disable_adapter():
            return self.logps_of(prompt, completion)

    def logps_of(self, prompt: list[int], completion: list[int]) -> torch.Tensor:
        """(T, V) log-probabilities of every token where those of `completion` were chosen."""
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + completion])).logits[0]
        return torch.log_softmax(logits[len(prompt) - 1 : -1], -1)


def expected(folder: Path, stored: Any, lora: dict[str, torch.Tensor], config: LoraConfig) -> Expected:
    """By transformers' own fp32 forward on the weights of `stored`, dequantized, with the LoRA matrices `lora`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            weight = stored.get_parameter(name)
            state = getattr(weight, "quant_state", None)
            if state is not None:
                state.dtype = torch.float32
            dense = weight if state is None else bnb.functional.dequantize_4bit(weight.data, state)
            parameter.copy_(dense)
    model.requires_grad_(False)
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = lora[name].clone()
    wrapped.eval()
    rows = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        logits = wrapped(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        rows.append(torch.log_softmax(logits, -1).gather(-1, torch.tensor(completion)[:, None])[:, 0])
    loss = -torch.cat(rows).mean()
    loss.backward()
    greedy = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = wrapped.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=2,
            )
        greedy.append(out[0, len(prompt) :].tolist())
    grads = {name: p.grad.clone() for name, p in wrapped.named_parameters() if p.grad is not None}
    return Expected([row.detach() for row in rows], float(loss.detach()), grads, greedy, wrapped)
