"""transformers' `generate`: right for every model, on any device, and slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trueup.chat.ending import end_ids
from trueup.sampling.types import Generated, Sampling

if TYPE_CHECKING:
    from torch import Tensor


def in_batches(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    sampling: Sampling,
    seed: int,
    progress: Callable[[int], None],
) -> list[Generated]:
    """A completion of each prompt, `sampling.batch_size` of them at a time."""
    done: list[Generated] = []
    for number, start in enumerate(range(0, len(prompts), sampling.batch_size)):
        chunk = prompts[start : start + sampling.batch_size]
        done += _generate(model, tokenizer, chunk, sampling, seed * 100_003 + number)
        progress(len(chunk))
    return done


def _generate(model: Any, tokenizer: Any, prompts: list[list[int]], sampling: Sampling, seed: int) -> list[Generated]:
    """By `generate`, on prompts padded on the left; log-probabilities are noted as it goes."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    torch.manual_seed(seed)
    width = max(map(len, prompts))
    pad_id, ends = tokenizer.pad_token_id, end_ids(tokenizer, model)
    ids = torch.tensor([[pad_id] * (width - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    settings = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        pad_token_id=pad_id,
        eos_token_id=list(ends),
        **(chosen if sampling.temperature > 0 else {"do_sample": False}),
    )
    steps: list[Tensor] = []  # log-probabilities of each token chosen, (rows,)
    latest: list[Tensor] = []

    def note(so_far: Tensor, scores: Tensor) -> Tensor:  # called before temperature and top-p, once per token
        if latest:
            steps.append(latest.pop().gather(-1, so_far[:, -1:])[:, 0])
        latest.append(torch.log_softmax(scores.float() / (sampling.temperature or 1.0), -1))
        return scores

    with torch.no_grad(), nothing_inherited(model):
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([note]),
        )
    note(out, latest[0])
    logps, tokens = torch.stack(steps, dim=1).tolist(), out[:, width:].tolist()
    lengths = [next((n for n, token in enumerate(row, 1) if token in ends), len(row)) for row in tokens]
    return [Generated(t[:n], p[:n]) for t, p, n in zip(tokens, logps, lengths, strict=True)]


@contextmanager
def nothing_inherited(model: Any) -> Iterator[None]:
    """Within this, `generate` does not fill in what the base's generation_config names, such as a repetition penalty.

    transformers takes whatever a call leaves open from there, so that answers would be another policy's than ours.
    """
    from transformers import GenerationConfig

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept, base.generation_config = base.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = kept
