"""The support matrix: `python tests/architectures/matrix.py` writes docs/models.md from the cases the tests hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from families import CASES, Case
from transformers import AutoModelForCausalLM

from trueup.cpu import trunk
from trueup.gpu import llama

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = """# Models

This page is written by `python tests/architectures/matrix.py`, and a test holds it to what the tests check.

A base is recognized by `model_type` in its config.json. Each row below is a tiny random model that the tests in
`tests/architectures` build. For a row marked "right", these results equal those of plain transformers, computed in fp32
on the dequantized weights, row by row without padding:
- the loss and log-probabilities in training, and the gradients of LoRA
- the log-probabilities and KL in the reference proof, `evaluate` and `export`
- greedy completions, and the engine's log-probabilities
- the merged weights that `export` writes
- the scores of a reward model on this base

They are compared on prompts of unequal lengths, two of which begin alike, with the base in 4 bits and in 16 bits, and
both with trueup's own CPU code and without it (`TRUEUP_CPU=portable`, which is how a GPU computes).

A model of any other `model_type` is refused by name before its weights are loaded. So are models that read images, and
weights that are already quantized by anything other than bitsandbytes in 4 bits. Whenever a base is loaded, its
log-probabilities on a few tokens are compared again with those of transformers' own forward; a difference of more than
10 % of their spread stops the command.

| family | `model_type` | log-probabilities | on a CPU | sampling on a GPU |
|---|---|---|---|---|
"""
TAIL = """
On a CPU, "packed" is trueup's own forward and decoder, without padding. "transformers" is the forward and `generate` of
transformers, which are equally right, but slower. The choice depends on the model's configuration (activation, sliding
window, kind of rotation, width of heads), never on its name alone.

In the last column, "decoder" is trueup's own decoder for GPUs, which was compared with `generate` by computing it on a
CPU, and "generate" is that of transformers ([sampling.md](sampling.md)).

Gemma 2 is loaded with eager attention, because SDPA leaves out the soft cap on its attention scores.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(map(_row, CASES)) + TAIL


def _row(case: Case) -> str:
    if case.refused:
        return f"| {case.name} | `{case.model_type}` | refused | | |\n"
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(case.config())
    how = "packed" if trunk.knows(model) else "transformers"
    on_gpu = "generate" if llama.unknown(model) else "decoder"
    return f"| {case.name} | `{case.model_type}` | right | {how} | {on_gpu} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
