"""Starting from somebody's LoRA adapter: it must fit the base and be of the kind the run file describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.models import targets
from trueup.models.adapters import saved_tensors
from trueup.run.run_file import AdapterConfig

PREFIX = "base_model.model."  # of every name in a file that peft saved
SHOWN = 3


def refuse_unfit(base: Any, config: AdapterConfig, folder: Path) -> None:
    """Raises ModelError, naming every fault, unless the adapter saved in `folder` can start a run on `base`.

    `base` is the bare model; the saved adapter's rank, scaling, targets and shapes must be those of `config` on it.
    """
    where = f"adapter.start: {folder}"
    saved = _saved_config(where, folder)
    tensors = saved_tensors(folder)
    faults = [
        f"{key} is {saved.get(key)}, adapter.{key} of this run is {wanted}"
        for key, wanted in (("r", config.r), ("lora_alpha", config.lora_alpha))
        if saved.get(key) != wanted
    ]
    for key, wanted in (("use_dora", config.kind == "dora"), ("use_rslora", False)):
        if bool(saved.get(key)) is not wanted:
            faults.append(f"{key} is {bool(saved.get(key))}, with adapter.kind {config.kind} it is {wanted}")
    others = sorted(key for key in tensors if "lora_" not in key)
    if others:
        faults.append(f"it trains more than LoRA does: {_listed(others)}")
    found = {key.removeprefix(PREFIX).rpartition(".lora_A")[0] for key in tensors if ".lora_A." in key}
    expected = targets.names(base, config)
    if found != expected:
        few, many = sorted(expected - found), sorted(found - expected)
        faults += [f"no weights for {_listed(few)}"] if few else []
        faults += [f"weights for {_listed(many)}, which adapter.targets does not name on this base"] if many else []
    faults += _misshapen(base, tensors, found & expected, int(saved.get("r", config.r)))
    if faults:
        raise ModelError(
            where,
            found="\n  ".join(faults),
            expected="a LoRA adapter trained on this base, of this run's adapter section",
            next_step="set adapter.r, lora_alpha, kind and targets as its adapter_config.json has them; or its base",
        )


def _saved_config(where: str, folder: Path) -> dict[str, Any]:
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError(
            where,
            found="no adapter_model.safetensors" if folder.is_dir() else "no such folder",
            expected="a folder saved by peft, as safetensors",
        )
    try:
        saved: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        raise ModelError(where, found="no readable adapter_config.json", expected="a folder saved by peft") from None
    if saved.get("peft_type") != "LORA":
        raise ModelError(where, found=f"an adapter of kind {saved.get('peft_type')}", expected="LORA")
    return saved


def _misshapen(base: Any, tensors: dict[str, Any], names: set[str], rank: int) -> list[str]:
    wrong = []
    for name in sorted(names):
        module = base.get_submodule(name)
        for part, wanted in (("A", (rank, module.in_features)), ("B", (module.out_features, rank))):
            tensor = tensors.get(f"{PREFIX}{name}.lora_{part}.weight")
            shape = None if tensor is None else tuple(tensor.shape)
            if shape != wanted:
                wrong.append(f"{name}.lora_{part} is {shape}, on this base it is {wanted}")
    return [*wrong[:SHOWN], f"and {len(wrong) - SHOWN} more tensors"] if len(wrong) > SHOWN else wrong


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
