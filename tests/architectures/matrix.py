"""The support matrix: `python tests/architectures/matrix.py` writes docs/models.md from the cases the tests hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from families import CASES, Case
from transformers import AutoModelForCausalLM

from trueup.cpu import trunk

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = """# Models

This page is written by `python tests/architectures/matrix.py`, and a test holds it to what the tests check.

A base is known by `model_type` in its config.json. Each row below is a tiny random model that `tests/architectures`
builds. For a row marked "right", these equal plain transformers' own, computed in fp32 on the dequantized weights, row
by row without padding: the loss and log-probabilities that training sees, the gradients of LoRA, the log-probabilities
and KL that the reference proof, `evaluate` and `export` see, greedy completions and the engine's log-probabilities, the
merged weights that `export` writes, and the scores of a reward model on this base. They are compared on prompts of
unequal lengths, two of which begin alike, with the base in 4 bits and in 16, and both with the CPU's own code and
without it (`TRUEUP_CPU=portable`, which is how a GPU computes).

A model of any other `model_type` is refused by name before its weights are loaded. So are models that read images,
and weights that are quantized already by anything but bitsandbytes in 4 bits. When a base is loaded, its
log-probabilities on a few tokens are compared with those of transformers' own forward once more; a difference of more
than 10 % of their spread stops the command.

| family | `model_type` | log-probabilities | on a CPU |
|---|---|---|---|
"""
TAIL = """
On a CPU, "packed" is trueup's own forward and decoder, without padding. "transformers" is the usual forward and
`generate`: as right, and slower. Which of the two a model gets is decided from its configuration (activation, sliding
window, kind of rotation, width of heads), never from its name alone.

A Gemma 2 is loaded with eager attention: SDPA leaves out the soft cap on its attention scores.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(map(_row, CASES)) + TAIL


def _row(case: Case) -> str:
    if case.refused:
        return f"| {case.name} | `{case.model_type}` | refused | |\n"
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(case.config())
    how = "packed" if trunk.knows(model) else "transformers"
    return f"| {case.name} | `{case.model_type}` | right | {how} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
