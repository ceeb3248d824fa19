"""A base with random weights, in NF4, made on the device map by map and saved: nothing is fetched.

It is saved as bitsandbytes saves a model in 4 bits, so that both sides load it with transformers' own code, in seconds.
What is timed does not depend on the values of weights.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}  # those of the tokenizer in tests/tiny.py
CONTEXT = {"max_position_embeddings": 32768, "sliding_window": 4096}
SHAPES: dict[str, dict[str, int]] = {
    "7b": {  # Mistral 7B, and so Zephyr 7B
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "1b": {  # for what reads 16-bit weights from the disk
        "vocab_size": 32000,
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def build(folder: Path, shape: str, *, four_bit: bool) -> None:
    """Save the base of a shape in `folder`, with the tokenizer of tests/tiny.py, unless it is there already."""
    import torch
    from tiny import make_model
    from transformers import AutoTokenizer, MistralConfig

    if (folder / "complete").exists():
        return
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    scratch = folder.with_name(f"{folder.name}.tokenizer")
    make_model(scratch)  # its weights are not used
    config = MistralConfig(**SHAPES[shape], **CONTEXT, **IDS, tie_word_embeddings=False)
    model = _random(config, device, four_bit=four_bit)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(scratch).save_pretrained(folder)
    (folder / "complete").touch()


def in_fp16(folder: Path) -> Path:
    """The same 4-bit base computing in fp16, as a GPU below compute capability 8.0 needs it: a folder of links."""
    other = folder.with_name(f"{folder.name}-fp16")
    if not other.exists():
        other.mkdir()
        for file in folder.iterdir():
            if file.name != "config.json":
                os.link(file, other / file.name)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["quantization_config"]["bnb_4bit_compute_dtype"] = config["dtype"] = "float16"
        (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return other


def _random(config: Any, device: Any, *, four_bit: bool) -> Any:
    """The causal model of `config` with weights drawn from N(0, 0.02); its linear maps in NF4 but for the head."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.auto import AutoHfQuantizer
    from transformers.utils.quantization_config import QuantizationMethod

    dtype = torch.bfloat16
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head", "score"],
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if four_bit:
            replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=quantized)
    torch.manual_seed(0)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = _drawn(module, parameter, device, dtype)
        if hasattr(module, "inv_freq"):  # of rotary positions: not saved with the weights
            module.inv_freq = module.original_inv_freq = type(module)(config).inv_freq
    if four_bit:
        model.is_loaded_in_4bit = model.is_quantized = True
        model.quantization_method = QuantizationMethod.BITS_AND_BYTES
        model.config.quantization_config = quantized
        model.hf_quantizer = AutoHfQuantizer.from_config(quantized, pre_quantized=False)
    return model


def _drawn(module: Any, parameter: Any, device: Any, dtype: Any) -> Any:
    import bitsandbytes as bnb
    import torch

    four_bit = isinstance(module, bnb.nn.Linear4bit)
    shape = (module.out_features, module.in_features) if four_bit else parameter.shape
    if len(shape) == 1:  # a norm's scale
        return torch.nn.Parameter(torch.ones(shape, device=device, dtype=dtype), requires_grad=False)
    values = 0.02 * torch.randn(shape, device=device, dtype=dtype)
    if not four_bit:
        return torch.nn.Parameter(values, requires_grad=False)
    options = {"quant_type": "nf4", "compress_statistics": True, "module": module}
    return bnb.nn.Params4bit(values, requires_grad=False, **options).to(device)  # which quantizes it
