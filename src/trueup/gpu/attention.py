"""Attention by torch's SDPA where transformers' own call of it finds only the slowest kernel, or has no rows to tell
apart.

Registered with transformers under a name of its own; it is the `sdpa` of transformers but for two cases:
- rows that follow each other in one sequence: each attends to itself, by its own causal call or one of varying lengths
- fewer heads of keys than of queries and no mask, on a GPU below compute capability 8.0: its kernels, the slowest one
  aside, take equal numbers of heads
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

NAME = "trueup_sdpa"
ROWS = torch.int32  # the type of a mask that holds lengths of rows, and of no other mask


def register() -> None:
    """Make the name known to transformers: masks are those of `sdpa`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def lengths_mask(lengths: list[int]) -> Tensor:
    """What stands in the mask's place for rows that follow each other: their lengths, (1, 1, 1, rows), on the CPU.

    transformers hands a mask of four dimensions on to every layer as it is; any attention but `attend` refuses it.
    """
    return torch.tensor(lengths, dtype=ROWS).view(1, 1, 1, -1)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """softmax(q k^T scaling) v: queries (B, H, T, D), keys and values (B, K, S, D) -> (B, T, H, D)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is not None and attention_mask.dtype == ROWS:
        return _by_row(query, key, value, attention_mask.view(-1).tolist(), dropout, scaling, sliding_window), None
    plain = kwargs.get("position_bias") is None and kwargs.get("cache") is None
    if plain and attention_mask is None and not _takes_groups(query, key):
        if query.shape[2] == 1:
            return _one_query(query, key, value, dropout, scaling), None
        key, value = _repeated(query, key), _repeated(query, value)
        module = types.SimpleNamespace(is_causal=getattr(module, "is_causal", True))
    out: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return out


def _by_row(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: list[int],
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    """Causal attention of each row to itself: (1, H, N, D), (1, K, N, D) -> (1, N, H, D).

    With one length, of all rows of a batch of B: (B, H, T, D), (B, K, T, D) -> (B, T, H, D).
    """
    if len(lengths) > 1 and _varies(query, dropout):
        return _varying(query, key, value, lengths, scaling, window)
    groups = _takes_groups(query, key)
    if not groups:
        key, value = _repeated(query, key), _repeated(query, value)
    outs = []
    for q, k, v in zip(*(torch.split(x, lengths, 2) for x in (query, key, value)), strict=True):
        band = None if window is None or q.shape[2] <= window else _band(q.shape[2], window, q.device)
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=band, dropout_p=dropout, is_causal=band is None, scale=scaling, enable_gqa=groups
        )
        outs.append(out.transpose(1, 2))
    return torch.cat(outs, 1)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """(length, length) bool: a token sees itself and the window - 1 tokens before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril_().triu_(1 - window)


def _one_query(query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None) -> Tensor:
    """One query a row, which sees every key: the heads that share keys become queries, and no key is repeated."""
    batch, heads, _, width = query.shape
    shared = query.reshape(batch, key.shape[1], -1, width)
    out = functional.scaled_dot_product_attention(shared, key, value, dropout_p=dropout, scale=scaling)
    return out.reshape(batch, 1, heads, -1)


def _takes_groups(query: Tensor, key: Tensor) -> bool:
    """Whether SDPA has a fast kernel for these heads as they are, without a mask."""
    if query.device.type != "cuda" or query.shape[1] == key.shape[1]:
        return True
    return _capability(query.device) >= (8, 0) and query.shape[-1] <= 256


def _repeated(query: Tensor, x: Tensor) -> Tensor:
    """Keys or values, each head as often as queries share it: (B, K, S, D) -> (B, H, S, D)."""
    return x[:, :, None].expand(-1, -1, query.shape[1] // x.shape[1], -1, -1).flatten(1, 2)


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _varies(query: Tensor, dropout: float) -> bool:
    """Whether one call of torch's flash attention takes all rows: an option, since no CPU can try it."""
    from trueup.gpu import chosen

    return (
        chosen.wants("varlen")
        and query.device.type == "cuda"
        and query.dtype in (torch.float16, torch.bfloat16)
        and _capability(query.device) >= (8, 0)
        and query.shape[-1] <= 256
        and dropout == 0
    )


def why_not_varying(whole: Any) -> str:
    """Why rows of this model are not attended to in one call, as the rest of a sentence; empty where they are."""
    if _capability(whole.device) < (8, 0):
        return "this GPU is below compute capability 8.0"
    return "" if whole.dtype in (torch.float16, torch.bfloat16) else "it computes in fp32"


def _varying(
    query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scaling: float | None, window: int | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    ends = _ends(tuple(lengths), query.device)
    longest = max(lengths)
    q, k, v = (x[0].transpose(0, 1).contiguous() for x in (query, key, value))
    left = -1 if window is None or longest <= window else window - 1
    out: Any = varlen_attn(
        q, k, v, ends, ends, longest, longest, scale=scaling, window_size=(left, 0), enable_gqa=q.shape[1] != k.shape[1]
    )
    return out[None]  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=4)
def _ends(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """0, and where each row ends, (rows + 1,); kept for the layers of one forward."""
    return functional.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(device, torch.int32)
