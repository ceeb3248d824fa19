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
}
PROVEN = frozenset(("rows", "lora"))  # equal to the plain ones, by tests that need no GPU


def wanted() -> frozenset[str]:
    """The words in force; without the variable, what is proven. Raises ConfigError for a word that there is not."""
    said = os.environ.get(VARIABLE, "").replace(",", " ").split()
    if unknown := [word for word in said if word not in WORDS and word != "portable"]:
        raise ConfigError(
            VARIABLE,
            found=f"{', '.join(unknown)}",
            expected=f"portable, or some of {', '.join(WORDS)}, with commas between them",
            next_step=f"unset {VARIABLE}",
        )
    if "portable" in said:
        return frozenset()
    return frozenset(said) if said else PROVEN


def wants(word: str) -> bool:
    """Whether `word` is in force."""
    return word in wanted()
