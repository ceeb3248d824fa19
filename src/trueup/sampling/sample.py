"""Batched, seeded sampling, prompts grouped by length: by our decoder where it fits, by `generate`, or by vLLM."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from trueup import cpu, ranks
from trueup.chat.ending import end_ids
from trueup.chat.template import Chat
from trueup.errors import StageError
from trueup.sampling.kept import Kept, key_of
from trueup.sampling.types import Engine, Generated, Run, Sampled, Sampling

if TYPE_CHECKING:
    from torch import Tensor

MOST_WIDER = 1.5  # times the shortest prompt and answer of a chunk that is decoded together
SEED_OF_RANK = 15_485_863  # between the seeds of one rank and the next
LARGEST_CHUNK = 512  # answers: what a killed stage loses


def sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[dict[str, str]]],
    sampling: Sampling,
    progress: Callable[[int], None] = lambda done: None,
    kept: Kept | None = None,
) -> list[Sampled]:
    """One completion for each prompt, in the order given. The same seed, batch size and number of ranks give the same
    texts.

    Chunks of answers that `kept` holds are taken from there, the others are added to it as they are finished.
    """
    chat = Chat(tokenizer)
    encoded = [chat.prompt(prompt) for prompt in prompts]
    refuse_beyond_context(tokenizer, encoded, sampling.max_new_tokens)
    run = on_ranks(engine(model, tokenizer, sampling, lambda done: progress(done * ranks.count())))
    order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), encoded[i]))  # equal prompts are neighbours
    results: dict[int, Sampled] = {}
    for number, chunk in enumerate(_alike(order, [len(ids) + sampling.max_new_tokens for ids in encoded])):
        asked, seed = [encoded[i] for i in chunk], sampling.seed + 100_003 * number
        done = ranks.from_first(functools.partial(kept.get, key_of(asked, seed))) if kept else None
        if done is None:
            began = time.monotonic()
            found = run(asked, seed)
            done = [as_sampled(model, tokenizer, encoded[i], g) for i, g in zip(chunk, found, strict=True)]
            if kept:
                kept.add(key_of(asked, seed), done, time.monotonic() - began)
        else:
            progress(len(done))
        results |= zip(chunk, done, strict=True)
    return [results[i] for i in range(len(prompts))]


def on_ranks(run: Run) -> Run:
    """`run`, with each rank completing its share of the prompts: on ranks after the first under a seed of its own,
    since equal prompts would otherwise have equal answers.
    """
    if ranks.count() == 1:
        return run

    def shared(prompts: list[list[int]], seed: int) -> list[Generated]:
        return ranks.by_share(prompts, lambda own: run(own, seed + SEED_OF_RANK * ranks.this()))

    return shared


def as_sampled(model: Any, tokenizer: Any, prompt: list[int], generated: Generated) -> Sampled:
    """What came after `prompt`, as text and with the reason why it ended."""
    ids = generated.ids
    ended = bool(ids) and ids[-1] in end_ids(tokenizer, model)
    text = Chat(tokenizer).shown(prompt, ids[:-1] if ended else ids)
    return Sampled(text, ids, sum(generated.logps), "eos" if ended else "length")


def refuse_beyond_context(tokenizer: Any, prompts: list[list[int]], max_new_tokens: int) -> None:
    """Raise StageError where a prompt and its answer could be longer than the base was made for."""
    longest, most = max(map(len, prompts), default=0), tokenizer.model_max_length
    if longest + max_new_tokens > most:
        raise StageError(
            "sampling",
            found=f"a prompt of {longest} tokens and max_new_tokens {max_new_tokens}: {longest + max_new_tokens}",
            expected=f"at most the context of the base, {most} tokens (max_position_embeddings)",
            next_step="lower max_new_tokens, or take the longest prompts out",
        )


def _alike(order: list[int], widths: list[int]) -> list[list[int]]:
    """`order`, shortest first, cut where a width is far above its chunk's first: all rows take the widest's memory.

    Long chunks are cut, too.
    """
    chunks: list[list[int]] = []
    for i in order:
        if not chunks or widths[i] > MOST_WIDER * widths[chunks[-1][0]] or len(chunks[-1]) == LARGEST_CHUNK:
            chunks.append([])
        chunks[-1].append(i)
    return chunks


def engine(model: Any, tokenizer: Any, sampling: Sampling, progress: Callable[[int], None] = lambda done: None) -> Run:
    """What completes prompts (token ids) under a seed, with the model's active adapter as it is now.

    At most `sampling.batch_size` are worked on at a time; `progress` hears of those that are done.
    """
    model.eval()
    if sampling.engine == "vllm":
        from trueup.sampling import vllm_engine

        return vllm_engine.engine(model, tokenizer, sampling, progress)
    ours = None if sampling.engine == "generate" else cpu.engine(model, merged=sampling.engine == "merged")
    if ours is None:
        return lambda prompts, seed: _in_batches(model, tokenizer, prompts, sampling, seed, progress)

    def run(prompts: list[list[int]], seed: int) -> list[Generated]:
        done = ours.generate(
            prompts,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            end_ids=end_ids(tokenizer, model),
            seed=seed,
            batch_size=sampling.batch_size,
            progress=progress,
        )
        return [Generated(ids, logps) for ids, logps in done]

    return run


def used(sampling: Sampling, tokenizer: Any, model: Any) -> dict[str, Any]:
    """What answers were sampled with, for the record: all of it is ours but the base's further end tokens."""
    ends = tokenizer.convert_ids_to_tokens(list(end_ids(tokenizer, model)))
    return {**vars(sampling), "end_tokens": ends}


def cut_answers(num_cut: int, num_answers: int, max_new_tokens: int) -> str:
    """How many answers were cut, and what to set."""
    return (
        f"{num_cut} of {num_answers} answers ({num_cut / num_answers:.0%}) were cut at max_new_tokens "
        f"{max_new_tokens}: they are shown to annotators as cut, and trained without an end token. To let answers end, "
        f"set sample.max_new_tokens and evaluate.max_new_tokens to {2 * max_new_tokens} or more, and sample again"
    )


def engine_bytes(model: Any, name: Engine) -> int:
    """Bytes of weights that an engine holds beside `model`: those of `merged`'s bf16 copy. vLLM counts its own."""
    ours = cpu.engine(model, merged=True) if name == "merged" else None
    return 0 if ours is None else ours.num_bytes


def _in_batches(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    sampling: Sampling,
    seed: int,
    progress: Callable[[int], None],
) -> list[Generated]:
    done: list[Generated] = []
    for number, start in enumerate(range(0, len(prompts), sampling.batch_size)):
        chunk = prompts[start : start + sampling.batch_size]
        done += _generate(model, tokenizer, chunk, sampling, seed * 100_003 + number)
        progress(len(chunk))
    return done


def _generate(model: Any, tokenizer: Any, prompts: list[list[int]], sampling: Sampling, seed: int) -> list[Generated]:
    """transformers' `generate`, on prompts padded on the left; log-probabilities are noted as it goes."""
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
