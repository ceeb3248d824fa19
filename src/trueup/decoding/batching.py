"""Continuous batching: when a completion ends, its place in the batch goes to the next prompt that waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from trueup.decoding.draw import draw

LEAVING = 0.125  # share of rows that are done before others take their place, or the cache is copied without them
Completion = tuple[list[int], list[float]]  # token ids, and the log-probability of each in nats
Hear = Callable[[int, int], bool]  # (which prompt, the token just drawn for it) -> whether its completion ends here


class Decoder(Protocol):
    """A policy with a cache of keys and values, whose kind is its own."""

    device: torch.device

    def new_cache(self, num_rows: int, width: int) -> Any:
        """A cache for so many rows, each of at most `width` tokens."""

    def admit(self, prompts: list[list[int]], places: Tensor, cache: Any) -> Tensor:
        """Put prompts into these places of the batch, (prompts,); logits after each, (prompts, V) in fp32."""

    def step(self, tokens: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Logits, (rows, V) in fp32, after one more token a row, (rows,), which stands at `positions`, (rows,)."""

    def narrow(self, cache: Any, alive: Tensor) -> Any | None:
        """The cache of these rows alone, a mask of (rows,); None where the decoder keeps all rows."""


@torch.no_grad()
def complete(
    decoder: Decoder,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    end_ids: tuple[int, ...],
    seed: int,
    batch_size: int,
    progress: Callable[[int], None] = lambda done: None,
    order: Sequence[int] | None = None,
    share: tuple[int, int] = (0, 1),
    hear: Hear | None = None,
) -> list[Completion]:
    """A completion of each prompt, in the order given; when rows of the batch are done, others take their place.

    `order`: which prompt gets a place first. It changes no completion beyond rounding: the random numbers are each
    prompt's own.
    `share`, (first, n): the prompts are every n-th of more, from `first` on, and have the random numbers of their
    places there.
    `hear` is told of every token as it is drawn. What it raises ends all of it.
    """
    first, step = share
    drawn = torch.rand(first + step * len(prompts), max_new_tokens, generator=torch.Generator().manual_seed(seed))
    uniform = drawn[first::step]
    ends, device = torch.tensor(end_ids), decoder.device
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    queue = torch.arange(len(prompts)) if order is None else torch.tensor(order)
    done: list[Completion] = [([], []) for _ in prompts]
    rows = queue[:batch_size].clone()  # which prompt is in each place of the batch
    waiting = len(rows)  # the first of the queue that has no place yet
    ages = torch.zeros_like(rows)  # tokens drawn for each
    alive = torch.ones_like(rows, dtype=torch.bool)
    cache = decoder.new_cache(len(rows), int(lengths.max()) + max_new_tokens)
    logits = decoder.admit([prompts[row] for row in rows], torch.arange(len(rows)), cache)
    while True:
        numbers = uniform[rows, ages.clamp(max=max_new_tokens - 1)].to(device)
        tokens, logps = draw(logits, numbers, temperature, top_p)
        drawn, found = torch.stack([tokens.double(), logps.double()]).cpu()  # the host waits once a step
        drawn = drawn.long()
        ended = torch.zeros_like(alive)  # by who hears
        places = zip(rows.tolist(), drawn.tolist(), found.tolist(), alive.tolist(), strict=True)
        for place, (row, token, logp, going) in enumerate(places):
            if going:
                done[row][0].append(token)
                done[row][1].append(logp)
                ended[place] = hear is not None and hear(row, token)
        ages += alive
        going_on = alive & ~ended & ~torch.isin(drawn, ends) & (ages < max_new_tokens)
        progress(int((alive & ~going_on).sum()))
        alive = going_on
        free, all_placed = (~alive).nonzero()[:, 0], waiting == len(prompts)
        if all_placed and not alive.any():
            return done
        if all_placed and len(free) > len(rows) * LEAVING and (narrower := decoder.narrow(cache, alive)) is not None:
            cache = narrower
            rows, tokens, ages, alive = rows[alive], tokens[alive.to(device)], ages[alive], alive[alive]
        if alive.any():
            positions = (lengths[rows] + ages - 1).to(device)
            logits = decoder.step(tokens, positions, cache)
        if not all_placed and len(free) >= len(rows) * LEAVING:
            free = free[: len(prompts) - waiting]
            rows[free] = queue[waiting : waiting + len(free)]
            waiting += len(free)
            ages[free], alive[free] = 0, True
            logits[free.to(device)] = decoder.admit([prompts[row] for row in rows[free]], free, cache)
