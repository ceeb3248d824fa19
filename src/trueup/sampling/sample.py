"""Seeded sampling of texts, prompts grouped by length, answers kept as they are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from trueup.chat.ending import end_ids
from trueup.chat.template import Chat
from trueup.errors import StageError
from trueup.sampling.engines import engine as engine
from trueup.sampling.engines import engine_bytes as engine_bytes
from trueup.sampling.kept import Kept, key_of
from trueup.sampling.types import Generated, Sampled, Sampling

MOST_WIDER = 1.5  # times the shortest prompt and answer of a chunk that is decoded together
LARGEST_CHUNK = 512  # answers: what a killed stage loses


def sample(
    model: Any,
    tokenizer: Any,
    prompts: list[list[dict[str, str]]],
    sampling: Sampling,
    progress: Callable[[int], None] = lambda done: None,
    kept: Kept | None = None,
) -> list[Sampled]:
    """One completion for each prompt, in the order given. The same seed and batch size give the same texts.

    Chunks of answers that `kept` holds are taken from there, the others are added to it as they are finished.
    """
    chat = Chat(tokenizer)
    encoded = [chat.prompt(prompt) for prompt in prompts]
    refuse_beyond_context(tokenizer, encoded, sampling.max_new_tokens)
    run = engine(model, tokenizer, sampling, progress)
    order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), encoded[i]))  # equal prompts are neighbours
    results: dict[int, Sampled] = {}
    for number, chunk in enumerate(_alike(order, [len(ids) + sampling.max_new_tokens for ids in encoded])):
        asked, seed = [encoded[i] for i in chunk], sampling.seed + 100_003 * number
        done = kept.get(key_of(asked, seed)) if kept else None
        if done is None:
            began = time.monotonic()
            found = run(asked, seed)
            done = [as_sampled(model, tokenizer, encoded[i], g) for i, g in zip(chunk, found, strict=True)]
            if kept:
                kept.add(key_of(asked, seed), done, time.monotonic() - began, run.ran)
        else:
            progress(len(done))
        results |= zip(chunk, done, strict=True)
    return [results[i] for i in range(len(prompts))]


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


def used(sampling: Sampling, tokenizer: Any, model: Any, ran: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What answers were sampled with, for the record: all of it is ours but the base's further end tokens.

    `ran`: by what, and how many answers each, as `Kept.ran` counts them.
    """
    ends = tokenizer.convert_ids_to_tokens(list(end_ids(tokenizer, model)))
    return {**vars(sampling), "end_tokens": ends} | ({"ran": dict(ran)} if ran else {})


def cut_answers(num_cut: int, num_answers: int, max_new_tokens: int) -> str:
    """How many answers were cut, and what to set."""
    return (
        f"{num_cut} of {num_answers} answers ({num_cut / num_answers:.0%}) were cut at max_new_tokens "
        f"{max_new_tokens}: they are shown to annotators as cut, and trained without an end token. To let answers end, "
        f"set sample.max_new_tokens and evaluate.max_new_tokens to {2 * max_new_tokens} or more, and sample again"
    )
