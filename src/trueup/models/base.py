"""Loading the base: NF4 with double quantization on CPU and GPU alike, and the CPU hazards cured."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.chat import ending
from trueup.errors import ModelError
from trueup.models import device, errors, families, hub, noise, packaged
from trueup.run import base as bases
from trueup.run.run_file import ModelConfig

if TYPE_CHECKING:
    import torch

VERY_LONG = 1_000_000_000  # tokens: the context of a base that does not say how long it is


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
    """The folder or hub id that `model.base` names. Raises ModelError when a folder holds no weights.

    A hub id with a revision, owner/name@revision, becomes the folder of that snapshot.
    """
    if bases.is_package(base):
        return str(packaged.folder(base.removeprefix(bases.PACKAGE)))
    if found := bases.fault(base):
        raise found
    if not bases.is_hub_id(base):
        return base
    name, revision = bases.of_hub(base)
    hub.settle(name, revision)
    if revision is None:
        return base
    from huggingface_hub import snapshot_download

    return str(snapshot_download(name, revision=revision, allow_patterns=[f"*{suffix}" for suffix in bases.READ]))


def load_tokenizer(model: ModelConfig | str) -> Any:
    """The tokenizer of the base: its eos_token is the one that its chat template ends an answer with, and its
    model_max_length the base's context. Padding on the left is set where generation needs it, not here.

    Raises ModelError when it cannot be read, has no usable chat template or end token, or has ids for which the base
    has no embedding.
    """
    from transformers import AutoTokenizer

    config = ModelConfig(base=model) if isinstance(model, str) else model
    where, found = f"model.base: {config.base}", locate(config.base)
    with errors.loading(where, found):
        tokenizer = AutoTokenizer.from_pretrained(found, trust_remote_code=False)
    if config.chat_template is not None:
        try:
            tokenizer.chat_template = config.chat_template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"model.chat_template: {config.chat_template}",
                found=getattr(error, "strerror", None) or "not UTF-8",
                expected="a file with a Jinja template",
            ) from None
    ending.settle(tokenizer, where, config.eos_token)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    num_embedded, context = _shape(found)
    largest = max(tokenizer.get_vocab().values())
    if num_embedded is not None and largest >= num_embedded:
        raise ModelError(
            where,
            found=f"the tokenizer has ids up to {largest}, the model an embedding for {num_embedded} "
            f"(ids up to {num_embedded - 1})",
            expected="an embedding for every id",
            next_step="use the tokenizer that was saved with this model; or, for tokens that were added, call "
            "resize_token_embeddings on the model and save both again",
        )
    tokenizer.model_max_length = context or VERY_LONG
    return tokenizer


def _shape(found: str) -> tuple[int | None, int | None]:
    """(rows of the embedding, context in tokens) by the base's config.json; None where it does not say."""
    from transformers import AutoConfig

    if Path(found).is_dir() and not (Path(found) / "config.json").exists():
        return None, None
    try:
        config = AutoConfig.from_pretrained(found, trust_remote_code=False).get_text_config()
    except Exception as error:  # whatever a torn file makes the library raise
        raise ModelError(
            f"{found}/config.json",
            found=f"it cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:200]})",
            expected="the configuration of a causal language model",
            next_step="copy or download the model again",
        ) from error
    return getattr(config, "vocab_size", None), getattr(config, "max_position_embeddings", None)


def load_base(base: str, *, four_bit: bool, num_labels: int | None = None, dtype: str = "auto") -> Any:
    """The base model, frozen. With `num_labels`, a sequence classifier with a score head of that many outputs.

    `dtype` is `model.dtype` of the run file: what a GPU computes in. Raises DeviceError where a GPU is there and cannot
    be used, and ModelError as `checked_config` does.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from trueup import cpu, gpu
    from trueup.models import causal

    device.refuse_unusable()
    quiet()
    gpu.wanted()  # what it refuses is refused before weights are loaded
    config = checked_config(base, four_bit=four_bit)
    compute = compute_dtype(dtype)
    on_gpu = torch.cuda.is_available()
    options: dict[str, Any] = {"dtype": compute, "trust_remote_code": False, "use_safetensors": True}
    if (attention := families.attention_implementation(config)) is not None:
        options["attn_implementation"] = attention
    if on_gpu:
        options["device_map"] = {"": torch.cuda.current_device()}
    if four_bit and not families.quantization(config):
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=["lm_head", "score"],
        )
    kind: Any = AutoModelForCausalLM
    if num_labels is not None:
        kind, options["num_labels"] = families.classifier(config), num_labels
    where, found = f"model.base: {base}", locate(base)
    with errors.loading(where, found):
        model, loaded = kind.from_pretrained(found, output_loading_info=True, **options)
    errors.refuse_missing(where, (key for key in loaded["missing_keys"] if not key.startswith("score.")))
    cure_cpu_repacking(model)
    model.requires_grad_(False)
    plain = causal.plain_outputs(model)
    cpu.accelerate(model)
    gpu.accelerate(model)
    causal.refuse_another_forward(model, plain, f"model.base: {base}")
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


def checked_config(base: str, *, four_bit: bool) -> Any:
    """The transformers configuration of the base, config.json alone.

    Raises ModelError for a model whose log-probabilities are not known to be right, and for weights that are saved in
    4 bits where 16 are asked for.
    """
    from transformers import AutoConfig

    where = f"model.base: {base}"
    found = locate(base)
    with errors.loading(where, found):
        config = AutoConfig.from_pretrained(found, trust_remote_code=False)
    families.refuse_unknown(config, where)
    if families.quantization(config) and not four_bit:
        raise ModelError(
            where,
            found="weights that are saved in 4 bits by bitsandbytes",
            expected="16-bit weights, since adapter.kind is lora",
            next_step="set adapter.kind: qlora, or model.base to the 16-bit model that this one was made from",
        )
    return config


def skeleton(base: str, *, four_bit: bool) -> Any:
    """The base without weights: its modules and their names, made in a moment. Raises ModelError as the above does."""
    import torch
    from transformers import AutoModelForCausalLM

    config = checked_config(base, four_bit=four_bit)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def compute_dtype(chosen: str = "auto") -> torch.dtype:
    """What the weights of a base that is about to be loaded are computed in, by `model.dtype` of the run file.

    For `auto`, fp16 on GPUs below compute capability 8.0, such as a T4; else bf16. A CPU chooses for itself: without
    bf16 arithmetic `cpu.accelerate` makes it fp32 once the model is loaded.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.bfloat16
    if chosen != "auto":
        named: torch.dtype = getattr(torch, chosen)
        return named
    return torch.float16 if torch.cuda.get_device_capability()[0] < 8 else torch.bfloat16


def warnings(model: ModelConfig) -> list[str]:
    """What is known against computing this base in the dtype that a GPU of this machine would use, for a preflight."""
    import torch

    if not torch.cuda.is_available():
        unused = f"model.dtype: {model.dtype} is not used: it is for GPUs, and a CPU chooses for itself"
        return [unused] if model.dtype != "auto" else []
    if compute_dtype(model.dtype) != torch.float16:
        return []
    kind = checked_config(model.base, four_bit=True).model_type
    if kind not in families.BEYOND_FP16:
        return []
    why = "model.dtype says so" if model.dtype != "auto" else "this GPU has no bf16"
    return [
        f"models of architecture {kind} are known to leave the range of fp16, which this run computes in ({why}); "
        "model.dtype: float32 is slower and safe"
    ]


def dtype_of(model: Any) -> torch.dtype:
    """What a loaded model computes in on a GPU: the dtype of its embedding, which is never quantized."""
    found: torch.dtype = model.get_input_embeddings().weight.dtype
    return found


def computed_in(model: Any) -> dict[str, str]:
    """For a record, the dtype in which a model on a GPU computes; nothing on a CPU, which chooses for itself."""
    return {"computed_in": str(dtype_of(model)).removeprefix("torch.")} if model.device.type == "cuda" else {}


def arithmetic(model: Any) -> AbstractContextManager[Any]:
    """The context in which a model's forward computes what it computes while it trains.

    On a GPU, autocast to the compute dtype: without it LoRA's products are made in fp32, and log-probabilities are
    other ones than those that are trained. In fp32, and on a CPU, there is nothing to switch.
    """
    import torch

    half = dtype_of(model)
    if model.device.type != "cuda" or half == torch.float32:
        return nullcontext()
    return torch.autocast("cuda", half)


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
