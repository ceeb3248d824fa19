"""The arguments of TRL's trainers by name, read from the sources: importing trl takes seconds."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

BASES = ("trl.trainer.base_config", "transformers.training_args")  # what every trainer's arguments inherit from
RUN_ARGUMENTS = (
    *("output_dir", "use_cpu", "bf16", "fp16", "full_determinism", "logging_steps", "logging_strategy", "do_train"),
    *("save_strategy", "save_total_limit", "save_only_model", "eval_strategy", "eval_steps", "do_eval", "do_predict"),
    *("load_best_model_at_end", "metric_for_best_model", "greater_is_better", "resume_from_checkpoint", "deepspeed"),
    *("ignore_data_skip", "disable_tqdm", "dataloader_pin_memory", "remove_unused_columns", "label_names", "fsdp"),
    *("train_sampling_strategy", "precompute_ref_log_probs", "gradient_checkpointing_kwargs", "use_liger_kernel"),
    *("torch_compile", "auto_find_batch_size", "logging_nan_inf_filter"),
)
TOKEN_ARGUMENTS = (
    *("dataset_text_field", "dataset_kwargs", "dataset_num_proc", "eos_token", "pad_token", "chat_template_path"),
    *("packing", "packing_strategy", "padding_free", "truncation_mode", "pad_to_multiple_of", "eval_packing"),
    *("completion_only_loss", "assistant_only_loss"),
)
SET_BY_US = {
    "seed": "set `seed` of the run file",
    "data_seed": "set `seed` of the run file",
    "model_init_kwargs": "see the sections model and adapter",
    **dict.fromkeys(RUN_ARGUMENTS, "trueup sets it, from the device and the run"),
    **dict.fromkeys(TOKEN_ARGUMENTS, "trueup makes the tokens: see model, data and max_length"),
}


@functools.cache
def _fields_of_module(module: str) -> frozenset[str]:
    """The annotated names of all classes in the source of a module."""
    package, *rest = module.split(".")
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ModuleNotFoundError(package)
    path = Path(folders[0]).joinpath(*rest).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return frozenset(
        item.target.id
        for node in classes
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_")
    )


def names(arguments_of: str) -> frozenset[str]:
    """The arguments of a trainer's dataclass, given as `module.Class`."""
    module = arguments_of.rpartition(".")[0]
    return _fields_of_module(module).union(*map(_fields_of_module, BASES))


def faults(given: Mapping[str, object], arguments_of: str, instead: Mapping[str, str]) -> list[str]:
    """A sentence for each argument that there is not, with the nearest; and for each that is set in another place."""
    from rapidfuzz import process

    known, refused = names(arguments_of), {**SET_BY_US, **instead}
    found = []
    for name in given:
        if name in refused:
            found.append(f"no {name} here: {refused[name]}")
        elif name not in known:
            near = process.extractOne(name, known | refused.keys(), score_cutoff=60)
            of = arguments_of.rpartition(".")[2]
            meant = f"; did you mean {near[0]}?" if near else ""
            if near and near[0] in refused:
                meant += f" That is not set here: {refused[near[0]]}"
            found.append(f"{name} is no argument of trl.{of}{meant}")
    return found
