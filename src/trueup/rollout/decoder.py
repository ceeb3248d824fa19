"""Decoding a Llama policy on a CPU without `generate`'s overhead: one KV cache, LoRA in bf16, finished rows leave.

The base stays 4-bit in memory: each layer is dequantized when it is used, once a step for the whole batch. A merged
decoder keeps a bf16 copy of base plus adapter instead, and counts its bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from trueup.rollout.generate import Generated
from trueup.rollout.sampler import draw


def fits(model: Any) -> bool:
    """True where this decoder knows the architecture, the adapter and the device; else `generate` is right."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain = all(not config.use_dora for config in getattr(model, "peft_config", {}).values() if _is_lora(config))
    lora = all(_is_lora(config) for config in getattr(model, "peft_config", {}).values())
    return bool(causal.config.model_type == "llama" and model.device.type == "cpu" and plain and lora)


def _is_lora(config: Any) -> bool:
    return str(config.peft_type).rpartition(".")[2] == "LORA"


def merged_bytes(model: Any) -> int:
    """Bytes of the bf16 copy that a merged decoder of `model` holds beside it."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    linear = [m for m in causal.model.layers.modules() if hasattr(m, "in_features") and not hasattr(m, "base_layer")]
    return sum(m.in_features * m.out_features * causal.dtype.itemsize for m in linear)


class Projection:
    """Linear maps that read the same input: (tokens, in) -> one (tokens, out) each, with their LoRA terms in bf16."""

    def __init__(self, modules: list[Any], adapter: str | None, dtype: Any, merged: bool) -> None:
        self.bases = [getattr(module, "base_layer", module) for module in modules]
        self.loras: list[tuple[Any, Any] | None] = []
        for module in modules:
            if adapter is None or adapter not in getattr(module, "lora_A", {}):
                self.loras.append(None)
            else:
                down, up = module.lora_A[adapter].weight.detach(), module.lora_B[adapter].weight.detach()
                self.loras.append((down.to(dtype), (up * module.scaling[adapter]).to(dtype)))
        self.copies = [self._merged(i, dtype) for i in range(len(modules))] if merged else None

    def _merged(self, i: int, dtype: Any) -> Any:
        weight, lora = self._base(i).float(), self.loras[i]
        if lora is not None:
            down, up = lora
            weight = weight + up.float() @ down.float()
        return weight.to(dtype)

    def _base(self, i: int) -> Any:
        weight = self.bases[i].weight
        state = getattr(weight, "quant_state", None)
        if state is None:
            return weight
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, state)

    def __call__(self, x: Any) -> list[Any]:
        if self.copies is not None:
            return [functional.linear(x, w, base.bias) for w, base in zip(self.copies, self.bases, strict=True)]
        outputs = []
        for i, lora in enumerate(self.loras):
            y = functional.linear(x, self._base(i), self.bases[i].bias)
            if lora is not None:
                down, up = lora
                y = y + functional.linear(functional.linear(x, down), up)
            outputs.append(y)
        return outputs


@dataclass
class Layer:
    """One transformer block, as its parts."""

    norm_in: Any
    qkv: Projection
    out: Projection
    norm_mlp: Any
    gate_up: Projection
    down: Projection


class Decoder:
    """The active adapter of a Llama model, ready to decode."""

    def __init__(self, model: Any, *, merged: bool = False) -> None:
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        adapter = _active(model)
        config = causal.config
        self.trunk, self.head = causal.model, causal.lm_head
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        dtype = self.trunk.embed_tokens.weight.dtype

        def projection(*modules: Any) -> Projection:
            return Projection(list(modules), adapter, dtype, merged)

        self.layers = []
        for block in self.trunk.layers:
            attention, mlp = block.self_attn, block.mlp
            self.layers.append(
                Layer(
                    block.input_layernorm,
                    projection(attention.q_proj, attention.k_proj, attention.v_proj),
                    projection(attention.o_proj),
                    block.post_attention_layernorm,
                    projection(mlp.gate_proj, mlp.up_proj),
                    projection(mlp.down_proj),
                )
            )

    @torch.no_grad()
    def generate(
        self, prompts: list[list[int]], *, max_new_tokens: int, temperature: float, top_p: float, eos_id: int, seed: int
    ) -> list[Generated]:
        """A completion of each prompt, in the order given."""
        random = torch.Generator().manual_seed(seed)
        width, num_rows = max(map(len, prompts)), len(prompts)
        padding = torch.tensor([width - len(prompt) for prompt in prompts])
        ids = torch.tensor([[eos_id] * (width - len(prompt)) + prompt for prompt in prompts])
        rows = torch.arange(num_rows)  # which prompt each row of the shrinking batch belongs to
        cache = self._new_cache(num_rows, width + max_new_tokens)
        logits = self._forward(ids, 0, padding, cache)
        done = [Generated([], []) for _ in prompts]
        for step in range(max_new_tokens):
            uniform = torch.rand(num_rows, generator=random)  # one a prompt, so that leaving rows change nothing
            tokens = draw(logits, uniform[rows], temperature, top_p)
            scaled = logits / (temperature or 1.0)
            logps = scaled.gather(1, tokens[:, None])[:, 0] - scaled.logsumexp(-1)
            for row, token, logp in zip(rows.tolist(), tokens.tolist(), logps.tolist(), strict=True):
                done[row].ids.append(token)
                done[row].logps.append(logp)
            alive = tokens != eos_id
            if not alive.any() or step == max_new_tokens - 1:
                break
            if not alive.all():
                rows, tokens, padding = rows[alive], tokens[alive], padding[alive]
                cache = [[tensor[alive] for tensor in pair] for pair in cache]
            logits = self._forward(tokens[:, None], width + step, padding, cache)
        return done

    def _new_cache(self, num_rows: int, width: int) -> list[list[Any]]:
        shape = (num_rows, self.num_kv_heads, width, self.head_dim)
        dtype = self.trunk.embed_tokens.weight.dtype
        return [[torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)] for _ in self.layers]

    def _forward(self, ids: Any, start: int, padding: Any, cache: list[list[Any]]) -> Any:
        """Logits after the last of `ids` (rows, tokens), which begin at column `start`; (rows, vocabulary) in fp32."""
        num_rows, num_tokens = ids.shape
        end = start + num_tokens
        columns = torch.arange(start, end)
        positions = (columns[None] - padding[:, None]).clamp(min=0)
        x = self.trunk.embed_tokens(ids)
        cos, sin = self.trunk.rotary_emb(x, positions)
        visible = torch.arange(end)[None, None, :] <= columns[None, :, None]
        visible = (visible & (torch.arange(end)[None, None, :] >= padding[:, None, None]))[:, None]
        if num_tokens > 1:  # a padding query sees itself, or its softmax has no finite entry
            visible = visible | torch.eye(num_tokens, dtype=torch.bool)
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            q, k, v = layer.qkv(layer.norm_in(x))
            q = _rotate(q.view(num_rows, num_tokens, self.num_heads, self.head_dim).transpose(1, 2), cos, sin)
            k = _rotate(k.view(num_rows, num_tokens, self.num_kv_heads, self.head_dim).transpose(1, 2), cos, sin)
            keys[:, :, start:end] = k
            values[:, :, start:end] = v.view(num_rows, num_tokens, self.num_kv_heads, self.head_dim).transpose(1, 2)
            seen = functional.scaled_dot_product_attention(
                q, keys[:, :, :end], values[:, :, :end], attn_mask=visible, enable_gqa=True
            )
            x = x + layer.out(seen.transpose(1, 2).reshape(num_rows, num_tokens, -1))[0]
            gate, up = layer.gate_up(layer.norm_mlp(x))
            x = x + layer.down(functional.silu(gate) * up)[0]
        return self.head(self.trunk.norm(x[:, -1])).float()


def _active(model: Any) -> str | None:
    """The active adapter, or None for a bare model or within `disable_adapter`."""
    if not hasattr(model, "peft_config"):
        return None
    tuned = next((module for module in model.modules() if hasattr(module, "lora_A")), None)
    return None if tuned is None or tuned.disable_adapters else str(model.active_adapter)


def _rotate(x: Any, cos: Any, sin: Any) -> Any:
    """Rotary position embedding (Su et al. 2021, eq. 34) in Llama's half-split layout."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]
