"""Batched, seeded sampling, prompts grouped by length: by our decoder where it fits, by `generate` elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trueup.models import logps


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the sampler; temperature 0 means greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    batch_size: int
    seed: int
    engine: str = "auto"  # auto: our decoder on the 4-bit policy | merged: on a bf16 copy | generate: transformers' own


@dataclass(frozen=True)
class Sampled:
    """One completion: text without the end token, tokens with it, log-probability in nats, and why it ended."""

    text: str
    num_tokens: int
    logp: float
    finish: str  # eos | length


def sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[dict[str, str]]],
    sampling: Sampling,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Sampled]:
    """One completion for each prompt, in the order given. The same seed and batch size give the same texts."""
    from trueup.rollout import decoder

    model.eval()
    encoded = [
        tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=True, return_dict=False) for p in prompts
    ]
    known = sampling.engine != "generate" and decoder.fits(model)
    ours = decoder.Decoder(model, merged=sampling.engine == "merged") if known else None
    order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
    results: dict[int, Sampled] = {}
    for number, start in enumerate(range(0, len(order), sampling.batch_size)):
        chunk = order[start : start + sampling.batch_size]
        rows, seed = [encoded[i] for i in chunk], sampling.seed * 100_003 + number
        if ours is None:
            completions, sums = _generate(model, tokenizer, rows, sampling, seed)
        else:
            completions, sums = ours.generate(
                rows,
                max_new_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                eos_id=tokenizer.eos_token_id,
                seed=seed,
            )
        for i, ids, total in zip(chunk, completions, sums, strict=True):
            ended = bool(ids) and ids[-1] == tokenizer.eos_token_id
            text = tokenizer.decode(ids, skip_special_tokens=True).strip()
            results[i] = Sampled(text, len(ids), total, "eos" if ended else "length")
        progress(len(chunk))
    return [results[i] for i in range(len(prompts))]


def _generate(
    model: Any, tokenizer: Any, prompts: list[list[int]], sampling: Sampling, seed: int
) -> tuple[list[list[int]], list[float]]:
    """What `Decoder.generate` returns, by transformers; the log-probabilities take a second forward."""
    import torch

    torch.manual_seed(seed)
    width = max(map(len, prompts))
    pad_id, eos_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = torch.tensor([[pad_id] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=pad_id,
            eos_token_id=eos_id,
            **(chosen if sampling.temperature > 0 else {"do_sample": False}),
        )
        completions = [row[: row.index(eos_id) + 1] if eos_id in row else row for row in out[:, width:].tolist()]
        batch = logps.pad(list(zip(prompts, completions, strict=True)), pad_id)
        return completions, logps.token_logps(model, batch).sum(1).tolist()
