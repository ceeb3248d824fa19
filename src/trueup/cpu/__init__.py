"""What helps only CPUs, behind two doors: `accelerate` and `engine`. All else here is private.

TRUEUP_CPU=portable shuts both: the model then runs as on a GPU, by transformers' own forward, torch's own products and
`generate`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trueup.cpu.decoder import Engine


def accelerate(model: Any, *, in_fp32: bool = False) -> bool:
    """Make a causal model or classifier, just loaded onto a CPU, faster; True where that was done.

    Hidden states become fp32 where the processor has no bf16 arithmetic; Llama-shaped trunks get a forward without
    padding (adapters may be added, switched and turned off afterwards); logits of bf16 states are summed in fp32 where
    the processor multiplies tiles. A second call changes nothing. False on a GPU, and with TRUEUP_CPU=portable.
    `in_fp32`: hidden states become fp32 on any processor, from now on.
    """
    if not _open(model):
        return False
    from trueup.cpu import heap, logits, precision, trunk

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if (in_fp32 or not precision.has_bf16()) and not hasattr(whole, "flows_in_fp32"):
        precision.flow_in_fp32(whole)
        whole.flows_in_fp32 = True
    if not hasattr(whole, "output_products"):
        whole.output_products = logits.products
        trunk.install(whole)
    heap.give_back()
    heap.keep()
    return True


def engine(model: Any, *, merged: bool = False) -> Engine | None:
    """What decodes with the active adapter of `model` as it is now; None where transformers' `generate` is right.

    `merged`: on a bf16 copy of base plus adapter.
    """
    if not _open(model):
        return None
    from trueup.cpu import decoder

    return decoder.Engine(model, merged=merged) if decoder.fits(model) else None


def _open(model: Any) -> bool:
    return os.environ.get("TRUEUP_CPU") != "portable" and model.device.type == "cpu"
