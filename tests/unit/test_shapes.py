"""The shape that `trueup plan` reads from config.json, against transformers' own model of every family."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trueup.cpu import trunk
from trueup.models import families
from trueup.models import targets as of_models
from trueup.planning import layouts, shapes
from trueup.run.run_file import AdapterConfig

OPTIONS = {"nemotron": {"num_key_value_heads": 8}}  # transformers gives it no default


@pytest.mark.parametrize("family", families.FAMILIES)
def test_maps_targets_and_parameters_are_those_of_transformers(family: str) -> None:
    config = AutoConfig.for_model(family, num_hidden_layers=2, **OPTIONS.get(family, {}))
    written = json.loads(config.to_json_string())
    written.pop("tie_word_embeddings")  # earlier versions of transformers did not write a family's default
    shape = shapes.from_config(written, "config.json")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    output = model.get_output_embeddings()
    linear = {
        name.rpartition(".")[2]: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    }
    assert shape.linear == linear
    attention = of_models.of_base(model, AdapterConfig(targets="attention"))
    assert set(shapes.targets("attention", shape)) == {name.rpartition(".")[2] for name in attention}
    total = sum(parameter.numel() for parameter in model.parameters())
    assert shape.linear_parameters + shape.other_parameters == pytest.approx(total, rel=1e-3)  # biases are left out


def test_a_target_is_a_whole_name() -> None:
    phi = shapes.from_config(json.loads(AutoConfig.for_model("phi3").to_json_string()), "config.json")
    assert shapes.targets(["self_attn.qkv_proj", "up_proj"], phi) == ("qkv_proj",)  # not gate_up_proj


def test_the_planner_knows_which_families_have_the_packed_forward() -> None:
    assert layouts.PACKED == trunk.KNOWN
