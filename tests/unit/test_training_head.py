"""Logits at labelled positions alone: the model is asked, by name, for what its own forward takes."""

import inspect
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from trueup.models import families
from trueup.training import head

SHAPE = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tiny(family: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE, **HEADS)).eval()


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_forward_keeps_its_signature(family: str) -> None:
    """`generate` and TRL read it, and leave out the arguments that it does not name."""
    with torch.device("meta"):
        model = tiny(family)
    usual = inspect.signature(model.forward)
    assert {"input_ids", "logits_to_keep"} <= set(usual.parameters)
    head.install(model)
    assert inspect.signature(model.forward) == usual


def test_generate_goes_on_as_before() -> None:
    model: LlamaForCausalLM = tiny("llama")
    ids = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
    asked = {"attention_mask": (ids != 0).long(), "max_new_tokens": 6, "do_sample": False}
    usual = model.generate(ids, **asked)
    head.install(model)
    assert torch.equal(model.generate(ids, **asked), usual)
