"""Attention on a GPU, as far as a CPU can tell: heads that share keys, rows of varying lengths, and TRUEUP_GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.attention.varlen
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from trueup import gpu
from trueup.errors import ConfigError
from trueup.gpu import attention

HEADS, KEY_HEADS, WIDTH = 6, 2, 8


class Module(torch.nn.Module):
    """As much of an attention layer as transformers' SDPA reads."""

    num_key_value_groups = HEADS // KEY_HEADS
    is_causal = True


def heads(batch: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((batch, HEADS, queries, WIDTH), *[(batch, KEY_HEADS, keys, WIDTH)] * 2)
    q, k, v = (torch.randn(size, generator=generator) for size in sizes)
    return q, k, v


@pytest.mark.parametrize(("queries", "keys"), [(5, 5), (1, 7), (4, 9)], ids=["a batch", "decoding", "a static cache"])
def test_heads_that_share_keys_where_no_kernel_takes_them(
    queries: int, keys: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expected is transformers' SDPA, which torch's plain operators compute where heads share keys."""
    q, k, v = heads(2, queries, keys)
    right, _ = sdpa_attention_forward(Module(), q, k, v, None, scaling=0.3)
    seen: list[bool] = []
    plain = functional.scaled_dot_product_attention

    def watched(q: Tensor, k: Tensor, *more: Any, **options: Any) -> Tensor:
        seen.append(q.shape[1] == k.shape[1] and not options.get("enable_gqa"))
        return plain(q, k, *more, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(attention, "_takes_groups", lambda query, key: False)
    found, _ = attention.attend(Module(), q, k, v, None, scaling=0.3)
    assert seen == [True]
    assert torch.allclose(found, right, atol=1e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_one_call_of_varying_lengths_is_a_call_a_row(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own call runs on a GPU alone: in its place, plain softmax over what its arguments say."""

    def varlen_attn(
        q: Tensor, k: Tensor, v: Tensor, *ends: Any, scale: float, window_size: Any, enable_gqa: bool
    ) -> Any:
        starts, stops, left = ends[0].tolist(), ends[0].tolist()[1:], window_size[0]
        assert ends[2:] == (5, 5) and window_size[1] == 0 and enable_gqa and q.is_contiguous()
        out = torch.empty_like(q)
        for start, stop in zip(starts, stops, strict=False):
            place = torch.arange(stop - start)
            back = place[:, None] - place
            unseen = (back < 0) | ((back > left) if left >= 0 else torch.zeros_like(back, dtype=torch.bool))
            keys, values = (x[start:stop].repeat_interleave(HEADS // KEY_HEADS, 1) for x in (k, v))
            scores = torch.einsum("qhd,khd->hqk", q[start:stop], keys) * scale
            p = scores.masked_fill(unseen, -torch.inf).softmax(-1)
            out[start:stop] = torch.einsum("hqk,khd->qhd", p, values)
        return out

    q, k, v = heads(1, 10, 10)
    mask = attention.lengths_mask([5, 2, 3])
    right, _ = attention.attend(Module(), q, k, v, mask, scaling=0.3, sliding_window=window)
    monkeypatch.setattr(torch.nn.attention.varlen, "varlen_attn", varlen_attn)
    monkeypatch.setattr(attention, "_varies", lambda query, dropout: True)
    found, _ = attention.attend(Module(), q, k, v, mask, scaling=0.3, sliding_window=window)
    assert found.shape == right.shape == (1, 10, HEADS, WIDTH)
    assert torch.allclose(found, right, atol=1e-6)


def test_lengths_of_rows_are_refused_by_any_other_attention() -> None:
    q, k, v = heads(1, 10, 10)
    with pytest.raises(RuntimeError, match="mask"):
        sdpa_attention_forward(Module(), q, k, v, attention.lengths_mask([5, 5]))


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("", {"rows", "lora", "decoder", "graphs"}),
        ("portable", set()),
        ("rows", {"rows"}),
        ("rows, lora,varlen", {"rows", "lora", "varlen"}),
    ],
)
def test_words_choose_what_runs(said: str, right: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_GPU", said)
    assert gpu.wanted() == right


def test_a_word_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_GPU", "rows,flash")
    with pytest.raises(ConfigError, match=r"TRUEUP_GPU: flash\n  expected: portable, or some of rows, lora, varlen"):
        gpu.wanted()


def test_portable_beside_other_words_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_GPU", "portable,rows")
    with pytest.raises(ConfigError, match="portable alone"):
        gpu.wanted()


@pytest.mark.parametrize(
    ("words", "capability", "said"),
    [
        ("rows,varlen", (8, 0), "sdpa, all rows in one call"),
        ("rows,varlen", (7, 5), "sdpa, row by row, since this GPU is below compute capability 8.0: not varlen"),
        ("varlen", (8, 0), "sdpa, since padding is computed: not varlen"),
        ("lora", (8, 0), "sdpa"),
    ],
)
def test_the_attention_that_is_recorded_is_the_one_that_runs(
    words: str, capability: tuple[int, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_capability", lambda device: capability)
    monkeypatch.setattr(gpu, "_on_gpu", lambda model: True)
    monkeypatch.setenv("TRUEUP_GPU", words)
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **shape)).bfloat16()
    gpu.accelerate(model)
    assert gpu.described(model)["attention"] == said
