"""What the environment variable TRUEUP_GPU asks for: a list of words, or `portable` for none of them."""

from __future__ import annotations

import os

from trueup.errors import ConfigError

VARIABLE = "TRUEUP_GPU"
WORDS = {
    "rows": "rows follow each other in one sequence, without padding",
    "lora": "the products of LoRA layers that read the same input, together",
    "varlen": "attention of all rows by one call of torch's flash attention (compute capability 8.0 or above)",
    "compile": "norms and MLPs by torch.compile",
    "decoder": "sampling by our own decoder where it knows the model, after its first answers were proven",
    "graphs": "a step of that decoder as a CUDA graph, after its first results were compared",
}
PROVEN = frozenset(("rows", "lora", "decoder", "graphs"))  # by tests that need no GPU, or each time they are used


def wanted() -> frozenset[str]:
    """The words in force; without the variable, what is proven. Raises ConfigError for a word that there is not,
    and for `portable` beside others."""
    said = os.environ.get(VARIABLE, "").replace(",", " ").split()
    if unknown := [word for word in said if word not in WORDS and word != "portable"]:
        raise ConfigError(
            VARIABLE,
            found=f"{', '.join(unknown)}",
            expected=f"portable, or some of {', '.join(WORDS)}, with commas between them",
            next_step=f"unset {VARIABLE}",
        )
    if "portable" in said and len(set(said)) > 1:
        raise ConfigError(
            VARIABLE,
            found=" ".join(said),
            expected="portable alone, which is none of the others",
            next_step=f"unset {VARIABLE}",
        )
    if "portable" in said:
        return frozenset()
    return frozenset(said) if said else PROVEN


def wants(word: str) -> bool:
    """Whether `word` is in force."""
    return word in wanted()
