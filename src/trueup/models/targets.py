"""Which modules of the base get an adapter."""

from __future__ import annotations

from typing import Any

from trueup.errors import ModelError
from trueup.run.run_file import AdapterConfig

SCORE = "score"  # a classifier's own head


def of_base(base: Any, config: AdapterConfig) -> str | list[str]:
    """`adapter.targets` as peft takes it: "all-linear", or ends of the names of modules.

    Raises ModelError naming every target that no linear module of `base` bears, the output layer aside.
    """
    if config.targets == "all-linear":
        return "all-linear"
    linear = _linear(base)
    if config.targets == "attention":
        return _of_attention(linear)
    missing = [target for target in config.targets if not any(_bears(name, target) for name in linear)]
    if missing or not config.targets:
        kind = base.config.model_type
        raise ModelError(
            "adapter.targets",
            found=f"no linear layer of this base ({kind}) is named {', '.join(missing)}"
            if missing
            else "an empty list",
            expected=f"names out of {', '.join(sorted({name.rpartition('.')[2] for name in linear}))}",
            next_step="correct the names, or set adapter.targets: attention or all-linear",
        )
    return list(config.targets)


def names(base: Any, config: AdapterConfig) -> set[str]:
    """The names of the modules of `base` that get an adapter. Raises ModelError as `of_base` does."""
    wanted, linear = of_base(base, config), _linear(base)
    return linear if wanted == "all-linear" else {n for n in linear if any(_bears(n, target) for target in wanted)}


def _bears(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _linear(base: Any) -> set[str]:
    """The names of linear layers without the output layer."""
    output = base.get_output_embeddings()
    return {
        name
        for name, module in base.named_modules()
        if hasattr(module, "in_features") and module is not output and name != SCORE
    }


def _of_attention(linear: set[str]) -> list[str]:
    """The ends of the names of all linear layers inside attention, short where nothing else ends so."""
    inside = {n for n in linear if any("attn" in part or "attention" in part for part in n.split(".")[:-1])}
    others = {name.rpartition(".")[2] for name in linear - inside}
    ends = set()
    for name in inside:
        *_, parent, last = name.split(".")
        ends.add(f"{parent}.{last}" if last in others else last)
    return sorted(ends)
