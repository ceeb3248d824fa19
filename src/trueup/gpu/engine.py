"""The door to decoding on a GPU: what fits is chosen here, and what ran is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trueup.decoding.batching import Completion, complete
from trueup.gpu import llama
from trueup.gpu.decoder import Decoder, in_order
from trueup.gpu.maps import Frozen

LEFT_FREE = 0.1  # share of the GPU's memory that a merged copy leaves to what is not counted here
LOGITS = 4  # tensors of logits in fp32 at once while a token is drawn

Output = Callable[[Tensor], Tensor]  # normed hidden states, (N, H) -> logits, (N, V) in fp32


class Engine:
    """A decoder that is made when it is first asked to generate, with the adapter as it is then."""

    def __init__(self, whole: Any, output: Output, *, merged: bool | None) -> None:
        self.whole, self.output, self.asked = whole, output, merged
        self.merged = False  # whether the decoder has a merged copy
        self.decoder: Decoder | None = None

    def generate(
        self, prompts: list[list[int]], *, max_new_tokens: int, batch_size: int, **options: Any
    ) -> list[Completion]:
        """`batching.complete`, by the decoder.

        Raises RuntimeError where a copy that was asked for has no room, or the GPU or one of its kernels fails.
        """
        options |= {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "order": in_order(prompts)}
        if self.decoder is None and self.asked is not False:
            rows, longest = min(batch_size, len(prompts)), max(map(len, prompts)) + max_new_tokens
            self.merged = room_for_copy(self.whole, rows, longest)
            if self.asked and not self.merged:
                raise RuntimeError(f"no room on the GPU for a copy of {copy_bytes(self.whole) / 1e9:.1f} GB")
        try:
            return self._generate(prompts, options)
        except torch.OutOfMemoryError:
            if self.asked or not self.merged:
                raise
        self.decoder, self.merged = None, False  # the room that was there is not: without the copy, then
        torch.cuda.empty_cache()
        return self._generate(prompts, options)

    def _generate(self, prompts: list[list[int]], options: dict[str, Any]) -> list[Completion]:
        if self.decoder is None:
            self.decoder = Decoder(self.whole, self.output, merged=self.merged)
        return complete(self.decoder, prompts, **options)

    @property
    def ran(self) -> str:
        """What generated, in words for the record."""
        if self.decoder is None:
            return ""
        width = str(self.decoder.dtype).removeprefix("torch.")
        weights = f"a merged copy in {width}" if self.merged else f"the stored weights, LoRA in {width}"
        why = self.decoder.no_graphs
        return f"our decoder on a GPU, {weights}, {'without CUDA graphs: ' + why if why else 'CUDA graphs'}"


def engine(whole: Any, output: Output, *, merged: bool | None) -> Engine | str:
    """What decodes on a GPU with the active adapter of the causal model `whole`; or why `generate` is right instead.

    `merged`: on a copy of base plus adapter in 16 bits, or not; None: where the copy fits.
    """
    return llama.unknown(whole) or Engine(whole, output, merged=merged)


def copy_bytes(whole: Any) -> int:
    """Bytes of the copy that a merged decoder holds beside the model."""
    sizes = []
    for layer in whole.base_model.layers:
        a, m = layer.self_attn, layer.mlp
        for module in (a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj):
            base = getattr(module, "base_layer", module)
            rows, columns = Frozen(base.weight, base.bias).shape
            sizes.append(rows * columns)
    return sum(sizes) * int(whole.base_model.embed_tokens.weight.element_size())


def room_for_copy(whole: Any, rows: int, width: int) -> bool:
    """True where the GPU's free memory holds the copy beside the cache and the logits of `rows` completions."""
    config, size = whole.config, int(whole.base_model.embed_tokens.weight.element_size())
    head_dim = whole.base_model.layers[0].self_attn.head_dim
    cache = 2 * config.num_hidden_layers * rows * width * config.num_key_value_heads * head_dim * size
    logits = LOGITS * 4 * rows * config.vocab_size
    free, total = torch.cuda.mem_get_info()
    free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # torch keeps blocks it can use again
    return bool(copy_bytes(whole) + cache + logits + LEFT_FREE * total <= free)
