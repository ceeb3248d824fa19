"""transformers' `generate`: right for every model, on any device, and slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trueup.chat.ending import end_ids
from trueup.sampling.types import Generated, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from trueup.decoding.batching import Hear


def in_batches(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    sampling: Sampling,
    seed: int,
    progress: Callable[[int], None],
    hear: Hear | None = None,
) -> list[Generated]:
    """A completion of each prompt, `sampling.batch_size` of them at a time; `hear` as in `decoding.batching`."""
    done: list[Generated] = []
    for number, start in enumerate(range(0, len(prompts), sampling.batch_size)):
        chunk = prompts[start : start + sampling.batch_size]
        heard = None if hear is None else _Hearing(hear, start, end_ids(tokenizer, model), max(map(len, chunk)))
        done += _generate(model, tokenizer, chunk, sampling, seed * 100_003 + number, heard)
        progress(len(chunk))
    return done


class _Hearing:
    """A stopping criterion of transformers' that tells `hear` of each token, and ends the rows that it says."""

    def __init__(self, hear: Hear, first: int, ends: tuple[int, ...], width: int) -> None:
        """The chunk's first row is prompt number `first`; its prompts are padded to `width` tokens."""
        self.hear, self.first, self.ends, self.width = hear, first, ends, width
        self.lengths: dict[int, int] = {}  # of the completions that are done, by row

    def __call__(self, so_far: Tensor, scores: Any, **options: Any) -> Tensor:
        """Which rows are done, (rows,); called once a token, with all tokens so far, (rows, T)."""
        import torch

        for row, token in enumerate(so_far[:, -1].tolist()):
            if row not in self.lengths and (self.hear(self.first + row, token) or token in self.ends):
                self.lengths[row] = so_far.shape[1] - self.width
        return torch.tensor([row in self.lengths for row in range(len(so_far))], device=so_far.device)


def _generate(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    sampling: Sampling,
    seed: int,
    hearing: _Hearing | None = None,
) -> list[Generated]:
    """By `generate`, on prompts padded on the left; log-probabilities are noted as it goes."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

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
            stopping_criteria=StoppingCriteriaList([] if hearing is None else [hearing]),
        )
    note(out, latest[0])
    logps, tokens = torch.stack(steps, dim=1).tolist(), out[:, width:].tolist()
    lengths = [next((n for n, token in enumerate(row, 1) if token in ends), len(row)) for row in tokens]
    if hearing is not None:
        lengths = [min(length, hearing.lengths.get(row, length)) for row, length in enumerate(lengths)]
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
