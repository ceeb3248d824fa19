"""The keys that transformers 4 and older versions of peft read, beside those of today."""

import json
from pathlib import Path
from typing import Any

import pytest
from families import CASES, Case, tokenizer
from peft import LoraConfig
from transformers import AutoConfig, AutoTokenizer

from trueup.export import older

# of peft 0.10's LoraConfig, as its source names them
PEFT_0_10 = {
    *("peft_type", "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "r"),
    *("target_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias", "use_rslora", "modules_to_save"),
    *("init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "megatron_config"),
    *("megatron_core", "loftq_config", "use_dora", "layer_replication"),
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # SmolLM2's config.json on the hub has rope_theta 100000 and torch_dtype bfloat16
        (
            {"dtype": "bfloat16", "rope_parameters": {"rope_type": "default", "rope_theta": 100000}},
            {"torch_dtype": "bfloat16", "rope_theta": 100000},
        ),
        # Llama 3.1's has rope_theta beside rope_scaling
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}},
            {"rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        ),
        # Phi 2's
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4}},
            {"rope_theta": 10000.0, "partial_rotary_factor": 0.4},
        ),
        # Gemma 3's
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                }
            },
            {
                "rope_theta": 1000000.0,
                "rope_local_base_freq": 10000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        ),
        # Pythia's
        (
            {
                "model_type": "gpt_neox",
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.25},
            },
            {"rotary_emb_base": 10000, "rotary_pct": 0.25},
        ),
        ({"model_type": "opt"}, {}),
    ],
)
def test_the_keys_are_those_of_the_models_on_the_hub(config: dict[str, Any], expected: dict[str, Any]) -> None:
    assert older.older_keys(config) == expected


@pytest.mark.parametrize("case", [case for case in CASES if not case.refused], ids=lambda case: case.name)
def test_for_todays_readers_nothing_changes(case: Case, tmp_path: Path) -> None:
    case.config().save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    older.settle(tmp_path)
    after = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert {key: after[key] for key in before} == before


def test_a_tokenizer_has_a_class_that_transformers_4_knows(tmp_path: Path) -> None:
    made = tokenizer()
    made.add_special_tokens({"extra_special_tokens": ["w5"]})
    made.save_pretrained(tmp_path)
    older.settle(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == ["w5"] and "extra_special_tokens" not in config
    assert config["chat_template"] == made.chat_template
    assert not {"backend", "is_local", "local_files_only"} & config.keys()
    read = AutoTokenizer.from_pretrained(tmp_path)
    text = read.apply_chat_template([{"role": "user", "content": "w7 w5"}], tokenize=False)
    assert (text, list(read(text)), read(text)["input_ids"]) == (
        "w7 w5 </s> ",
        ["input_ids", "attention_mask"],
        [7, 5, 2],
    )
    assert read.extra_special_tokens == ["w5"]


def test_a_lora_configuration_has_no_key_that_an_old_peft_refuses(tmp_path: Path) -> None:
    LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM").save_pretrained(tmp_path)
    before = LoraConfig.from_pretrained(tmp_path)
    older.settle(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text()).keys() <= PEFT_0_10
    assert LoraConfig.from_pretrained(tmp_path) == before


def test_what_an_adapter_uses_is_never_left_out(tmp_path: Path) -> None:
    LoraConfig(target_modules=["q_proj"], lora_bias=True, use_rslora=True).save_pretrained(tmp_path)
    older.settle(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["lora_bias"] is True and config["use_rslora"] is True
