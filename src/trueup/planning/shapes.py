"""The shape of a base from its config.json: no weights, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.models import base as bases
from trueup.models import errors, hub, packaged
from trueup.planning.layouts import Layout, of_family
from trueup.run.base import of_hub


@dataclass(frozen=True)
class Shape:
    """A decoder of one of the families that trueup trains. Sizes are in elements."""

    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool  # the output layer is the embedding
    positions: int = 0  # rows of a learned embedding of positions
    family: str = "llama"  # `model_type` of config.json

    @property
    def layout(self) -> Layout:
        """What is particular to the family."""
        return of_family(self.family)

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each linear map of one layer."""
        queries, keys = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        sizes = {
            "hidden": self.hidden,
            "intermediate": self.intermediate,
            "gate and up": 2 * self.intermediate,
            "queries": queries,
            "keys": keys,
            "queries, keys and values": queries + 2 * keys,
        }
        return {name: (sizes[a], sizes[b]) for name, (a, b) in self.layout.maps.items()}

    @property
    def linear_parameters(self) -> int:
        """Parameters of all linear maps of all layers: what is 4-bit in memory."""
        return self.num_layers * sum(a * b for a, b in self.linear.values())

    @property
    def other_parameters(self) -> int:
        """Embeddings, the output layer where it is not tied, norms: never quantized. Biases are not counted."""
        rows = self.vocabulary * (1 if self.tied else 2) + self.positions
        return (rows + 2 * self.num_layers + 1) * self.hidden


def from_config(config: dict[str, Any], where: str) -> Shape:
    """The shape that a config.json describes. Raises ModelError when it is no decoder of this kind."""
    family = str(config.get("model_type"))
    layout = of_family(family)
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return Shape(
            hidden=hidden,
            intermediate=int(config[layout.intermediate]),
            num_layers=int(config["num_hidden_layers"]),
            num_heads=heads,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", layout.tied)),
            positions=int(config["max_position_embeddings"]) + layout.offset if layout.offset else 0,
            family=family,
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"config.json has no {error.args[0]}" if isinstance(error, KeyError) else f"config.json: {error}"
        raise ModelError(
            where,
            found=f"{what} (model_type {family})",
            expected="the configuration of a decoder that trueup trains",
            next_step="set model.base to a model of a family in docs/models.md",
        ) from None


def of_base(base: str) -> tuple[Shape, str, Path | None]:
    """(shape, where it was found, the model's folder or None) of `model.base`.

    Raises ModelError when there is no such folder, and when a hub id can neither be reached nor is in our table.
    """
    package = base.removeprefix("package:")
    folder = packaged.folder(package) if package != base else Path(base).expanduser()
    if folder.is_dir() or base.startswith((".", "/", "~")):
        if not folder.is_dir():
            bases.locate(base)  # refuses it in the words of every other command
        return _of_folder(folder, base)
    try:
        return from_config(_from_hub(base), base), "the hub's config.json", None
    except (OSError, ValueError, ModelError) as error:
        table = _table()
        name, _ = of_hub(base)
        if name not in table:
            why = error.found if isinstance(error, ModelError) else f"the hub did not answer ({type(error).__name__})"
            raise ModelError(
                f"model.base: {base}",
                found=f"{why}, and its shape is not in our table",
                expected=f"a reachable hub, a folder, or one of {', '.join(table)}",
                next_step="download the model's config.json into a folder, and plan with --set model.base=FOLDER",
            ) from None
        return from_config(table[name], base), "our table, the hub did not answer", None


def of_table(name: str) -> Shape:
    """The shape of a hub id that is in our table; nothing is asked."""
    return from_config(_table()[name], name)


def _table() -> dict[str, dict[str, Any]]:
    text = files("trueup.planning").joinpath("model_shapes.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = json.loads(text)
    return table


def _of_folder(folder: Path, base: str) -> tuple[Shape, str, Path | None]:
    where = f"model.base: {base}"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            where, found="no config.json", expected="a folder of a model", next_step=errors.AGAIN
        ) from None
    except ValueError as error:
        raise ModelError(where, found="config.json is torn: it is no whole JSON", next_step=errors.AGAIN) from error
    return from_config(config, base), "its config.json", folder


def _from_hub(base: str) -> dict[str, Any]:
    """The config.json of a hub id, from the local cache or the hub. Raises OSError, ValueError or ModelError."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    name, revision = of_hub(base)
    path = try_to_load_from_cache(name, "config.json", revision=revision)
    if not isinstance(path, str):
        hub.settle(name)  # the download below would retry for half a minute
        path = hf_hub_download(name, "config.json", revision=revision)
    config: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return config


def targets(chosen: str | list[str], shape: Shape) -> tuple[str, ...]:
    """The linear maps of a layer that `adapter.targets` names."""
    if chosen == "all-linear":
        return tuple(shape.linear)
    if chosen == "attention":
        return tuple(shape.layout.attention)
    wanted = {name.rpartition(".")[2] for name in chosen}
    return tuple(name for name in shape.linear if name in wanted)
