"""Saved files that older readers read rightly too: transformers 4 and peft of its time read some keys by other names.

Newer readers take the keys of today first, so that the older ones beside them change nothing for these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.run.files import read_json, write_json

TOKENIZER_CLASSES = {  # classes that transformers 4 has no name for -> what reads the same tokenizer.json there
    "TokenizersBackend": "PreTrainedTokenizerFast",
}
OF_THIS_MACHINE = ("backend", "is_local", "local_files_only")  # how the tokenizer was loaded here, nothing of itself
OF_ROPE = ("rope_theta", "partial_rotary_factor")
LORA = {  # of adapter_config.json: what every version of peft knows
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping"),
    *("r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "bias"),
    *("fan_in_fan_out", "init_lora_weights", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "use_rslora", "use_dora"),
}


def settle(folder: Path) -> None:
    """Add the older keys to config.json, tokenizer_config.json and adapter_config.json, those of them that are there.

    Raises ModelError when the installed transformers would then read another configuration than before.
    """
    if (folder / "config.json").exists():
        _model(folder)
    if (folder / "tokenizer_config.json").exists():
        _tokenizer(folder)
    if (folder / "adapter_config.json").exists():
        _adapter(folder / "adapter_config.json")


def _model(folder: Path) -> None:
    from transformers import AutoConfig

    path = folder / "config.json"
    written = read_json(path) or {}
    before = AutoConfig.from_pretrained(folder).to_dict()
    write_json(path, written | older_keys(written))
    after = AutoConfig.from_pretrained(folder).to_dict()
    if changed := sorted(key for key, value in before.items() if after.get(key) != value):
        write_json(path, written)
        raise ModelError(
            str(path),
            found=f"with the names of transformers 4 beside them, {', '.join(changed)} are read otherwise",
            expected="one configuration for every reader",
            next_step="report this with the model's name: trueup doctor RUN.yaml",
        )


def older_keys(config: dict[str, Any]) -> dict[str, Any]:
    """What transformers 4 calls the rotary embedding and the type of the weights, from the names of transformers 5."""
    found: dict[str, Any] = {}
    if "dtype" in config:
        found["torch_dtype"] = config["dtype"]
    rope = config.get("rope_parameters") or {}
    if "full_attention" in rope:  # Gemma 3: one for each kind of layer
        found["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    if "rope_theta" not in rope:
        return found
    theta, share = ("rotary_emb_base", "rotary_pct") if config.get("model_type") == "gpt_neox" else OF_ROPE
    found[theta] = rope["rope_theta"]
    if rope.get("partial_rotary_factor") is not None:
        found[share] = rope["partial_rotary_factor"]
    scaling = {k: v for k, v in rope.items() if k not in OF_ROPE and v is not None}
    if scaling.get("rope_type", "default") != "default":
        found["rope_scaling"] = scaling
    return found


def _tokenizer(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    written = {key: value for key, value in (read_json(path) or {}).items() if key not in OF_THIS_MACHINE}
    name = str(written.get("tokenizer_class"))
    written["tokenizer_class"] = TOKENIZER_CLASSES.get(name, name)
    if written["tokenizer_class"] == "PreTrainedTokenizerFast":  # it would make token types, which no decoder takes
        written["model_input_names"] = ["input_ids", "attention_mask"]
    if isinstance(more := written.get("extra_special_tokens"), list):
        written["additional_special_tokens"] = more
        del written["extra_special_tokens"]
    template = folder / "chat_template.jinja"
    if template.exists():  # read there by transformers 4.48 and later alone
        written["chat_template"] = template.read_text(encoding="utf-8")
    write_json(path, written)


def _adapter(path: Path) -> None:
    """Leave out what is at its default and younger than peft 0.10: an older peft refuses keys that it does not know."""
    from peft import PeftConfig

    written = read_json(path) or {}
    defaults = type(PeftConfig.from_pretrained(str(path.parent)))().to_dict()
    kept = {k: v for k, v in written.items() if k in LORA or (k != "peft_version" and v != defaults.get(k))}
    write_json(path, kept)
