"""Peak memory of a stage, term by term. Pure functions of shapes; docs/memory.md derives each and shows figures.

N = rows x tokens, the positions in a forward pass with gradients; c = bytes of the compute dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trueup.planning import gpu_step
from trueup.planning.shapes import Shape

FP32 = 4
STORED = 2  # bytes of a weight that is not quantized: bf16, or fp16 on older GPUs
CODE_TABLES = FP32 * (16 + 256)  # bytes per map: the values that 4-bit and 8-bit codes encode
BLOCK, NESTED_BLOCK = 64, 256  # weights per scale; scales per scale of scales (bitsandbytes, Dettmers et al. 2023)
CHUNK_TOKENS, VOCABULARY_BLOCK = 1024, 2048  # logits in memory at once (models/head.py)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the model is held."""

    four_bit: bool
    r: int
    targets: tuple[str, ...]  # linear maps of a layer with an adapter
    dora: bool = False
    compute_bytes: int = FP32
    packed: bool = True  # the forward of trueup.cpu: no padding, blocks that recompute most of what they need
    on_gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a stage holds at its worst moment. Zeros leave a term out."""

    rows: int = 0  # sequences in one forward pass with gradients
    tokens: int = 0  # of each, padding included
    shared: int = 0  # with which all of them begin, such as a system message
    labelled: int = 0  # of each, with logits
    score_head: bool = False
    num_adapters: int = 1
    num_trained: int = 0
    optim: str = "adamw"
    accumulates: bool = False  # gradients of several micro-batches
    checkpointing: bool = False
    offloads: bool = False  # hidden states that checkpointing keeps, to the CPU
    cache_rows: int = 0  # sequences sampled at once
    cache_tokens: int = 0  # of each, prompt and completion
    cache_prompt: int = 0  # of these, in the first forward pass
    copy: Literal["none", "merged", "host"] = "none"  # of the linear maps, in 16 bits; "host": on the CPU, not the GPU


def positions(setup: Setup, load: Load) -> int:
    """N: the packed forward computes once what all rows begin with."""
    return load.rows * load.tokens - (max(load.rows - 1, 0) * load.shared if setup.packed else 0)


def weights(shape: Shape, setup: Setup, load: Load | None = None) -> int:
    """Bytes of the base: 4 bits per weight, a byte per block of 64, 4 bytes per block of blocks (double quantization),
    and the two code tables of each map. The packed forward keeps the blocks' scales unpacked besides, 4 bytes each.
    """
    other = shape.other_parameters * STORED
    if load is not None and load.score_head and not shape.tied:  # a classifier has no output layer
        other -= shape.vocabulary * shape.hidden * STORED
    if not setup.four_bit:
        return other + shape.linear_parameters * STORED
    packed = 0
    for rows, columns in shape.linear.values():
        blocks = math.ceil(rows * columns / BLOCK)
        packed += rows * columns // 2 + blocks + FP32 * math.ceil(blocks / NESTED_BLOCK) + CODE_TABLES
        packed += FP32 * blocks if setup.packed else 0
    return other + shape.num_layers * packed


def adapter_parameters(shape: Shape, setup: Setup) -> int:
    """Parameters of one adapter: r (in + out) for each target of each layer; DoRA adds a magnitude per output."""
    sizes = [shape.linear[name] for name in setup.targets]
    return shape.num_layers * sum(setup.r * (a + b) + (b if setup.dora else 0) for a, b in sizes)


def layer_activations(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes kept of one layer until its backward.

    Packed (trueup.cpu.block): the block's input, queries, keys, values, attention's output, the residual, gate and up,
    and two norms' scales in fp32. Else what autograd keeps: norms their input in fp32, the maps their inputs (shared
    by q, k and v, and by gate and up; peft's copy of each besides), attention q, k, v and its output, the MLP four.
    """
    n, c = positions(setup, load), setup.compute_bytes
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    if setup.packed:
        return n * (c * (2 * shape.hidden + 2 * queries + 2 * keys + 2 * shape.intermediate) + 2 * FP32)
    kept = 2 * FP32 * shape.hidden + c * (2 * shape.hidden + 2 * queries + 2 * keys + 4 * shape.intermediate)
    kept += c * sum(shape.linear[name][0] + setup.r for name in setup.targets)
    return n * kept


def activations(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes kept of all layers; with checkpointing one hidden state per layer, and one layer whole."""
    layer = layer_activations(shape, setup, load)
    if load.checkpointing:
        return layer + shape.num_layers * positions(setup, load) * shape.hidden * setup.compute_bytes
    return shape.num_layers * layer


def states(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of the last hidden states: normalized in fp32, padded again, chosen, and their gradient in fp32."""
    padded, labelled = load.rows * load.tokens, load.rows * load.labelled
    return shape.hidden * (padded * (2 * FP32 + 2 * setup.compute_bytes) + labelled * (setup.compute_bytes + FP32))


def backward(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of one layer's gradients while they flow: five as wide as the MLP, eight hidden states."""
    width = 5 * shape.intermediate + 8 * shape.hidden
    return positions(setup, load) * width * setup.compute_bytes


def dequantized(shape: Shape, setup: Setup) -> int:
    """Bytes of the widest map, dense while it is used, and once more where LoRA's terms are added to it."""
    widest = max(a * b for a, b in shape.linear.values()) * setup.compute_bytes
    return 2 * widest if setup.four_bit or setup.compute_bytes != STORED else 0


def logits(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of the head: logits in fp32 and the output layer's rows, a block at a time while the one before is still
    there; and of each position in a chunk the row of its label, the mean row, and what is added to it.
    """
    positions = min(load.rows * load.labelled, CHUNK_TOKENS)
    if not positions:
        return 0
    block = min(VOCABULARY_BLOCK, shape.vocabulary)
    return 2 * block * (FP32 * positions + setup.compute_bytes * shape.hidden) + 3 * FP32 * positions * shape.hidden


def kv_cache(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of keys and values of every sampled sequence."""
    width = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    return load.cache_rows * load.cache_tokens * width * setup.compute_bytes


def sampling(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of the first forward pass over the prompts, a layer at a time, or of one step's logits, three times."""
    prompts = load.cache_rows * load.cache_prompt * (3 * shape.intermediate + 4 * shape.hidden) * setup.compute_bytes
    return max(prompts, 3 * FP32 * load.cache_rows * shape.vocabulary)


def peak(shape: Shape, setup: Setup, load: Load) -> dict[str, int]:
    """Every term in bytes, and their sum as "peak". Training and sampling take turns: the larger one counts.

    Gradients and moments stay from one turn to the next.
    """
    one = adapter_parameters(shape, setup)
    trained = one * load.num_trained + (shape.hidden if load.score_head else 0)
    moments = optimizer(trained, load.optim)
    turns = [
        _step(shape, setup, load, trained) | {"optimizer": moments},
        {
            "kv_cache": kv_cache(shape, setup, load),
            "sampling": sampling(shape, setup, load),
            "copy": shape.linear_parameters
            * {"none": 0, "merged": STORED, "host": 0 if setup.on_gpu else STORED}[load.copy],
            "gradients": FP32 * trained,
            "optimizer": moments,
        },
    ]
    turn = max(turns, key=lambda terms: sum(terms.values()))
    terms = {
        "weights": weights(shape, setup, load),
        "file": mapped_file(shape, setup),
        "adapters": FP32 * one * load.num_adapters,
        **turn,
        "compiler": compiler(setup, load),
    }
    terms["overhead"] = overhead(sum(terms.values()), setup)
    return terms | {"peak": sum(terms.values())}


def _step(shape: Shape, setup: Setup, load: Load, trained: int) -> dict[str, int]:
    if setup.on_gpu:
        return gpu_step.terms(shape, setup, load, FP32 * trained)
    return {
        "activations": activations(shape, setup, load),
        "states": states(shape, setup, load),
        "logits": logits(shape, setup, load),
        "backward": backward(shape, setup, load) + dequantized(shape, setup),
        "gradients": FP32 * trained,
    }


def optimizer(trained: int, optim: str) -> int:
    """Bytes of AdamW's two moments: fp32, or 8 bits and an fp32 scale for each block of 256 (Dettmers et al. 2022)."""
    if "8bit" in optim:
        return 2 * trained + 2 * FP32 * math.ceil(trained / NESTED_BLOCK)
    return 2 * FP32 * trained


def mapped_file(shape: Shape, setup: Setup) -> int:
    """Bytes of the file's pages that stay mapped: the embedding is read from there, and with it go the 16-bit weights
    that became 4-bit. Linux may take them back when memory is short. A GPU holds none.
    """
    return STORED * shape.linear_parameters if setup.four_bit and not setup.on_gpu else 0


def compiler(setup: Setup, load: Load) -> int:
    """Bytes of LLVM and the decoding kernels it made: what Linux maps of its file, 47 or 121 MB on two machines."""
    return 121_000_000 if load.cache_rows and setup.packed and not setup.on_gpu else 0


def overhead(total: int, setup: Setup) -> int:
    """What no tensor explains. On a GPU: the context and kernels, and 5 % lost between blocks (not measured). On a CPU:
    modules imported on the way, and fragments of a heap that is never given back: 0.13 GB and 12 %, or 0.05 GB and 30 %
    where it computes in bf16; fitted to measurements, see docs/memory.md.
    """
    if setup.on_gpu:
        return round(0.6e9 + 0.05 * total)
    if setup.compute_bytes == FP32:
        return round(0.13e9 + 0.12 * total)
    return round(0.05e9 + 0.30 * total)
