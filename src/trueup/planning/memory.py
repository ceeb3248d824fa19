"""Peak memory of a stage, term by term. Pure functions of shapes; docs/memory.md derives each and shows figures.

N = rows x tokens, the positions in a forward pass with gradients; c = bytes of the compute dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trueup.planning.shapes import Shape

FP32 = 4
CODE_TABLES = FP32 * (16 + 256)  # bytes a map: what 4 bits and 8 bits stand for
BLOCK, NESTED_BLOCK = 64, 256  # weights a scale; scales a scale of scales (bitsandbytes, Dettmers et al. 2023)
CHUNK_TOKENS = 256  # positions whose logits are in memory at once


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the model is held."""

    four_bit: bool
    r: int
    targets: tuple[str, ...]  # linear maps of a layer with an adapter
    dora: bool = False
    compute_bytes: int = FP32
    on_gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a stage holds at its worst moment. Zeros leave a term out."""

    rows: int = 0  # sequences in one forward pass with gradients
    tokens: int = 0  # of each, padding included
    labelled: int = 0  # of each, with logits
    score_head: bool = False
    num_adapters: int = 1
    num_trained: int = 0
    checkpointing: bool = False
    cache_rows: int = 0  # sequences sampled at once
    cache_tokens: int = 0  # of each, prompt and completion
    cache_prompt: int = 0  # of these, in the first forward pass
    copy: Literal["none", "merged", "dequantized"] = "none"  # of the linear maps, in the compute dtype


def weights(shape: Shape, setup: Setup) -> int:
    """Bytes of the base: 4 bits a weight, a byte a block of 64, 4 bytes a block of blocks (double quantization), and
    the two code tables of each map.
    """
    other = shape.other_parameters * setup.compute_bytes
    if not setup.four_bit:
        return other + shape.linear_parameters * setup.compute_bytes
    packed = 0
    for rows, columns in shape.linear.values():
        blocks = math.ceil(rows * columns / BLOCK)
        packed += rows * columns // 2 + blocks + FP32 * math.ceil(blocks / NESTED_BLOCK) + CODE_TABLES
    return other + shape.num_layers * packed


def adapter_parameters(shape: Shape, setup: Setup) -> int:
    """Parameters of one adapter: r (in + out) for each target of each layer; DoRA adds a magnitude an output."""
    sizes = [shape.linear[name] for name in setup.targets]
    return shape.num_layers * sum(setup.r * (a + b) + (b if setup.dora else 0) for a, b in sizes)


def layer_activations(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes that autograd keeps of one layer until its backward.

    Norms keep their input in fp32, twice. The maps keep their inputs (shared by q, k and v, and by gate and up), and r
    numbers a target. Attention keeps q, and k and v as wide as q; on a CPU the probabilities too, rows x heads x
    tokens^2. The MLP keeps gate, its SiLU, up and their product. On GPUs peft keeps an input a target besides.
    """
    positions, c = load.rows * load.tokens, setup.compute_bytes
    queries = shape.num_heads * shape.head_dim
    kept = 2 * FP32 * shape.hidden + c * (2 * shape.hidden + 3 * queries + queries + 4 * shape.intermediate)
    kept += c * setup.r * len(setup.targets)
    if setup.on_gpu:
        kept += c * sum(shape.linear[name][0] for name in setup.targets)
    return positions * kept + attention_probabilities(shape, setup, load)


def attention_probabilities(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of one layer's softmax, fp32, and its copy where the compute dtype is narrower; none in a GPU kernel."""
    if setup.on_gpu:
        return 0
    narrow = setup.compute_bytes if setup.compute_bytes < FP32 else 0
    return load.rows * shape.num_heads * load.tokens**2 * (FP32 + narrow)


def activations(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes kept of all layers; with checkpointing one hidden state a layer, and one layer whole."""
    if not load.rows:
        return 0
    layer = layer_activations(shape, setup, load)
    if load.checkpointing:
        return layer + shape.num_layers * load.rows * load.tokens * shape.hidden * setup.compute_bytes
    return shape.num_layers * layer


def backward(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of one layer's gradients while they flow: of the MLP's four tensors, or of scores and probabilities."""
    mlp = 4 * load.rows * load.tokens * shape.intermediate * setup.compute_bytes
    return max(mlp, 3 * attention_probabilities(shape, setup, load)) if load.rows else 0


def dequantized(shape: Shape, setup: Setup) -> int:
    """Bytes of the widest map, dequantized while it is used."""
    return max(a * b for a, b in shape.linear.values()) * setup.compute_bytes if setup.four_bit else 0


def logits(shape: Shape, load: Load) -> int:
    """Bytes of the logits: labelled positions only, a chunk at a time: logits, their softmax and one more, fp32."""
    chunk = min(CHUNK_TOKENS, load.rows * load.labelled)
    sampled = 3 * load.cache_rows
    return FP32 * shape.vocabulary * max(3 * chunk, sampled)


def kv_cache(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of keys and values of every sampled sequence."""
    width = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    return load.cache_rows * load.cache_tokens * width * setup.compute_bytes


def prefill(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of the first forward pass over the prompts, one layer at a time, no gradients."""
    positions = load.cache_rows * load.cache_prompt
    return positions * (3 * shape.intermediate + 4 * shape.hidden) * setup.compute_bytes


def peak(shape: Shape, setup: Setup, load: Load) -> dict[str, int]:
    """Every term in bytes, and their sum as "peak". Training and sampling take turns: the larger one counts."""
    one = adapter_parameters(shape, setup)
    trained = one * load.num_trained + (shape.hidden if load.score_head else 0)
    training = {
        "activations": activations(shape, setup, load),
        "backward": backward(shape, setup, load),
    }
    sampling = {
        "kv_cache": kv_cache(shape, setup, load),
        "prefill": prefill(shape, setup, load),
    }
    turn = training if sum(training.values()) >= sum(sampling.values()) else sampling
    terms = {
        "weights": weights(shape, setup),
        "adapters": FP32 * one * load.num_adapters,
        "gradients": FP32 * trained,
        "optimizer": 2 * FP32 * trained,  # AdamW's two moments
        "dequantized": dequantized(shape, setup),
        "logits": logits(shape, load),
        "copy": 0 if load.copy == "none" else shape.linear_parameters * setup.compute_bytes,
        **dict.fromkeys((*training, *sampling), 0),
        **turn,
    }
    terms["overhead"] = overhead(sum(terms.values()), setup)
    return terms | {"peak": sum(terms.values())}


def overhead(total: int, setup: Setup) -> int:
    """What no tensor explains. On a GPU: the context and kernels, and 5 % lost between blocks; on a CPU: threads' heaps
    and scratch buffers of the libraries.
    """
    if setup.on_gpu:
        return round(0.6e9 + 0.05 * total)
    return round(0.1e9)
