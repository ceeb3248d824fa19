"""GGUF files of the merged model, for llama.cpp and what is built on it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import ModelError
from trueup.export import gguf_models, gguf_vocab
from trueup.export.gguf_logps import logps, reader

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["check", "logps", "reader", "write"]
MOST_ENDS = 3  # GGUF has keys for three end tokens: of a text (eos), of a turn (eot), of a message (eom)


def check(config: Any, tokenizer: Any, types: Sequence[str], end_ids: Sequence[int] = ()) -> None:
    """Raises ModelError, with all faults at once, for what `write` cannot write of this model.

    `config` is the transformers configuration of the model, `types` are of gguf_models.FILE_TYPES, and `end_ids` are
    all ids that end an answer.
    """
    faults = gguf_models.faults(config, types)
    try:
        gguf_vocab.read(tokenizer)
    except gguf_vocab.Unknown as unknown:
        faults += list(unknown.args)
    if len(set(end_ids)) > MOST_ENDS:
        faults.append(f"{len(set(end_ids))} end tokens, for which GGUF has {MOST_ENDS} keys")
    if faults:
        raise ModelError(
            "export.to: gguf",
            found="\n  ".join(faults),
            expected="a model whose GGUF was compared with llama.cpp's logits and tokens",
            next_step="take gguf and ollama out of export.to (docs/serving.md lists what can be written)",
        )


def write(merged: Path, out: Path, types: Sequence[str], name: str) -> dict[str, Path]:
    """Write a GGUF file of each type into `out`, from a saved model; one tensor is in memory at a time.

    `merged` holds config.json, safetensors, the tokenizer and generation_config.json. The keys of what is returned are
    the types. Norms and biases are float32 in every type; below 8 bits the output layer is q8_0. Raises ModelError.
    """
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(merged, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(merged, trust_remote_code=False)
    ends = _ends(merged, tokenizer)
    check(config, tokenizer, types, ends)
    out.mkdir(parents=True, exist_ok=True)
    made = {}
    for kind in types:
        made[kind] = out / f"{gguf_models.file_name(name)}-{kind.upper()}.gguf"
        _write(merged, made[kind], kind, name, config, tokenizer, ends)
    return made


def _ends(merged: Path, tokenizer: Any) -> list[int]:
    """Every id that ends an answer, the tokenizer's first."""
    from transformers import GenerationConfig

    named = None
    if (merged / "generation_config.json").exists():
        named = GenerationConfig.from_pretrained(merged).eos_token_id
    more = named if isinstance(named, list) else [named]
    return [end for end in dict.fromkeys([tokenizer.eos_token_id, *more]) if end is not None]


def _write(merged: Path, path: Path, kind: str, name: str, config: Any, tokenizer: Any, ends: list[int]) -> None:
    import gguf
    import numpy as np

    names = gguf_models.Names(config)
    shapes = dict(_shapes(merged))
    try:
        titles = {key: names.gguf(key) for key in shapes}
    except KeyError as unknown:
        raise ModelError(
            str(merged), found=f"a tensor {unknown.args[0]}", expected=f"the tensors of {config.model_type}"
        ) from None
    writer = gguf.GGUFWriter(path, gguf_models.ARCHITECTURES[config.model_type].name)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    gguf_models.add_keys(writer, config)
    _add_vocabulary(writer, name, config, tokenizer, ends)
    factors = gguf_models.rope_factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.numpy().dtype, factors.numpy().nbytes)
    storage = {key: _storage(kind, title, shapes[key], config) for key, title in titles.items() if title is not None}
    for key, stored in storage.items():
        block, size = gguf.GGML_QUANT_SIZES[stored]
        shape = shapes[key]
        nbytes = size * (shape[-1] // block) * (shape[0] if len(shape) == 2 else 1)
        writer.add_tensor_info(titles[key], shape, None, nbytes, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors.numpy())
    for key, tensor in _tensors(merged, list(storage)):
        laid_out = names.laid_out(key, tensor).float().numpy()
        with np.errstate(over="ignore"):  # refused below, by name
            data = gguf.quants.quantize(laid_out, storage[key])
        _refuse_infinite(data, laid_out, key, merged)
        writer.write_tensor_data(data)
    writer.close()


def _storage(kind: str, title: str, shape: tuple[int, ...], config: Any) -> Any:
    """The gguf.GGMLQuantizationType of a tensor in a file of type `kind`."""
    from gguf import GGMLQuantizationType

    if len(shape) == 1:
        return GGMLQuantizationType.F32
    output = "token_embd.weight" if config.tie_word_embeddings else "output.weight"
    if kind.startswith("q") and title == output:
        return GGMLQuantizationType.Q8_0  # its errors go into the logits as they are; llama.cpp keeps more bits as well
    return GGMLQuantizationType[kind.upper()]


def _refuse_infinite(data: Any, before: Any, key: str, merged: Path) -> None:
    import numpy as np

    finite = np.isfinite(data).all() if data.dtype != np.uint8 else np.isfinite(before).all()
    if not finite:
        raise ModelError(
            str(merged),
            found=f"{key} holds {np.abs(before).max():.3g}, which {data.dtype} cannot hold",
            expected="finite weights, up to 65,504 for f16",
            next_step="leave out f16, or take gguf out of export.to",
        )


def _shapes(merged: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    from safetensors import safe_open

    for shard in sorted(merged.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (a safetensors file is no dictionary)
                yield key, tuple(file.get_slice(key).get_shape())


def _tensors(merged: Path, keys: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors named, in that order."""
    from safetensors import safe_open

    wanted = set(keys)
    for shard in sorted(merged.glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                if key in wanted:
                    yield key, file.get_tensor(key)


def _add_vocabulary(writer: Any, name: str, config: Any, tokenizer: Any, ends: list[int]) -> None:
    import gguf

    vocabulary = gguf_vocab.read(tokenizer)
    # llama.cpp tells by the name whether special tokens take the white space after them
    writer.add_name(f"{name} (phi-3)" if vocabulary.strips_right else re.sub(r"(?i)phi-?3", "phi 3", name))
    padding = range(len(vocabulary.tokens), config.vocab_size)
    types = [gguf.TokenType.CONTROL if i in ends else kind for i, kind in enumerate(vocabulary.types)]
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list([*vocabulary.tokens, *(f"[PAD{i}]" for i in padding)])
    writer.add_token_types([*types, *(gguf.TokenType.UNUSED for _ in padding)])
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores is not None:
        writer.add_token_scores([*vocabulary.scores, *(0.0 for _ in padding)])
        writer.add_add_space_prefix(bool(vocabulary.space_prefix))
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(vocabulary.add_eos)
    for add, token_id in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        *zip((writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), ends, strict=False),
    ):
        if token_id is not None:
            add(token_id)
    template = tokenizer.chat_template
    writer.add_chat_template(template["default"] if isinstance(template, dict) else template)
