"""What a training step holds on a GPU besides weights, adapters and moments, by the forward of transformers and peft.

Counted on an emulated device, tensor by tensor; docs/memory.md has the comparison. N = rows x tokens, c = bytes of the
compute dtype, H the hidden width, Q that of all queries, K that of keys, M that of the MLP, r the rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trueup.planning.shapes import Shape

if TYPE_CHECKING:
    from trueup.planning.memory import Load, Setup

FP32 = 4
CHUNK_TOKENS, VOCABULARY_BLOCK = 1024, 8192  # logits in memory at once (models/head.py)
BLOCK = 64  # weights per scale of NF4


def terms(shape: Shape, setup: Setup, load: Load, gradients: int) -> dict[str, int]:
    """Bytes of activations, of the layer or the output layer that is worked on, and of gradients.

    `gradients`: those of all that is trained. They grow while the saved hidden states are used up, unless earlier
    micro-batches of the step have left theirs.
    """
    positions = load.rows * load.tokens
    if not positions:
        return {"activations": 0, "logits": 0, "backward": 0, "gradients": gradients}
    saved = shape.num_layers * (
        shape.hidden * setup.compute_bytes if load.checkpointing else kept_of_layer(shape, setup)
    )
    activations = 0 if load.offloads else positions * saved
    layer, head = of_layer(shape, setup, load), output_layer(shape, setup, load)
    return {
        "activations": activations,
        "logits": head if head > layer else 0,
        "backward": layer if layer >= head else 0,
        "gradients": gradients if load.accumulates else max(gradients - activations, 0),
    }


def kept_of_layer(shape: Shape, setup: Setup) -> int:
    """Bytes a position that autograd keeps of one layer.

    Two norms keep their inputs in fp32; the linear maps theirs, which q, k and v share, and gate and up; attention its
    q, its output, and k and v repeated for all queries; the MLP four of its width; each LoRA its r.
    """
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    wide = 4 * shape.intermediate + 2 * shape.hidden + 4 * queries + keys
    lora = sum(setup.r + (sum(shape.linear[name]) if setup.dora else 0) for name in setup.targets)
    return setup.compute_bytes * (wide + lora) + 2 * FP32 * shape.hidden


def of_layer(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of the layer that is worked on.

    With checkpointing it is computed again, and either the last product's dense weight is there as well, or twice as
    many activations of the MLP's width, in its backward. Without, only the dense weight and three hidden states are
    new: each layer's backward frees more than it takes.
    """
    n, c = load.rows * load.tokens, setup.compute_bytes
    dense = dense_weight(shape, setup)
    if not load.checkpointing:
        return dense + 3 * n * shape.hidden * c
    queries = shape.num_heads * shape.head_dim
    lora = c * sum(sum(shape.linear[name]) for name in setup.targets) if setup.dora else 0
    forward = c * (4 * shape.intermediate + 5 * shape.hidden + 4 * queries) + 2 * FP32 * shape.hidden
    backward = forward + c * (4 * shape.intermediate - shape.hidden)
    return max(n * (forward + lora) + dense, n * (backward + lora))


def dense_weight(shape: Shape, setup: Setup) -> int:
    """Bytes of the widest map while it is dense, and of its scales in fp32."""
    widest = max(a * b for a, b in shape.linear.values())
    return widest * setup.compute_bytes + FP32 * widest // BLOCK if setup.four_bit else 0


def output_layer(shape: Shape, setup: Setup, load: Load) -> int:
    """Bytes of a block of logits in fp32 and once more in the compute dtype, of its rows, and of the fp32 gradients."""
    labelled = load.rows * load.labelled
    if not labelled:
        return 0
    positions, block = min(labelled, CHUNK_TOKENS), min(VOCABULARY_BLOCK, shape.vocabulary)
    logits = positions * block * (2 * FP32 + setup.compute_bytes)
    return logits + shape.hidden * (FP32 * (labelled + 3 * positions) + setup.compute_bytes * labelled)
