"""Merging adds in fp32 and rounds once: to what peft makes of a base in fp32, for LoRA and DoRA, 16 bits and 4."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from test_export_adapter import IDS, tiny, with_adapter
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from trueup.export import merging

HELD = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], "all-linear"], ids=["some", "all"])
@pytest.mark.parametrize("bits", [16, 4])
def test_it_is_the_sum_that_peft_makes_in_fp32(tmp_path: Path, dora: bool, targets: list[str], bits: int) -> None:
    tiny().save_pretrained(tmp_path / "base")
    with_adapter(r=4, target_modules=targets, use_dora=dora).save_pretrained(tmp_path / "adapter")

    def base(dtype: torch.dtype) -> AutoModelForCausalLM:
        options = {"quantization_config": HELD} if bits == 4 else {}
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype, **options)

    dense = base(torch.float32)
    if bits == 4:
        dense = dense.dequantize(dtype=torch.float32)
    expected = PeftModel.from_pretrained(dense, tmp_path / "adapter").merge_and_unload()

    def merged(dtype: torch.dtype) -> AutoModelForCausalLM:
        model = PeftModel.from_pretrained(base(torch.float32), tmp_path / "adapter")
        merging.write(model, tmp_path / str(dtype), saved_in_4_bits=False, dtype=dtype)
        return AutoModelForCausalLM.from_pretrained(tmp_path / str(dtype), dtype=dtype)

    found = merged(torch.float32)
    with torch.no_grad():
        logits, theirs, bare = (m(IDS).logits for m in (found, expected, tiny()))
    assert (logits - theirs).abs().max() < 1e-5 < 0.01 < (theirs - bare).abs().max()
    assert not hasattr(found.config, "quantization_config")

    right, rounded = expected.state_dict(), merged(torch.bfloat16).state_dict()
    assert rounded.keys() == right.keys()
    assert all(torch.equal(rounded[name], right[name].to(torch.bfloat16)) for name in right)


def test_large_weights_go_into_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "SHARD", "20KB")
    model = with_adapter(r=4, target_modules=["q_proj"])
    model.get_base_model().generation_config.update(temperature=0.7, top_p=0.9, do_sample=False, eos_token_id=2)
    merging.write(model, tmp_path, saved_in_4_bits=False, end_ids=[5, 2])
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    read = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (read.generation_config.temperature, read.generation_config.top_p) == (0.7, 0.9)
    assert read.generation_config.eos_token_id == [5, 2]


def test_one_file_of_dense_maps_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "SHARD", "4KB")
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    usual = merging._once

    def counted(*args: Any) -> Any:
        make = usual(*args)

        def one() -> torch.Tensor:
            weight = make()
            made.append(weakref.ref(weight))
            alive.append(sum(w.numel() * w.element_size() for ref in made if (w := ref()) is not None))
            return weight

        return one

    monkeypatch.setattr(merging, "_once", counted)
    model = with_adapter(r=4, target_modules="all-linear")
    total = sum(m.weight.numel() * 2 for m in model.get_base_model().modules() if hasattr(m, "lora_A"))
    merging.write(model, tmp_path, saved_in_4_bits=False)
    assert total > 4 * 4_000
    assert max(alive) <= 4_000 + 2 * 32 * 48  # a file, and the largest map, which begins the next
