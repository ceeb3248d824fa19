"""What a GGUF file says of tokens: by llama.cpp where the extra `gguf` is installed, else as transformers reads it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def reader() -> str:
    """The program that `logps` reads with: `llama.cpp` or `transformers`."""
    try:
        import llama_cpp  # noqa: F401
    except (ImportError, OSError, RuntimeError):  # absent, or a library that it was compiled with is
        return "transformers"
    return "llama.cpp"


def logps(path: Path, ids: Sequence[Sequence[int]], lora: Path | None = None) -> Iterator[Tensor]:
    """(tokens, vocabulary) float32 log-probabilities of the next token after each of a row's, row by row.

    `lora` is a LoRA as GGUF to add; only llama.cpp reads it. Raises ModelError for a file that llama.cpp does not load.
    """
    if reader() == "transformers":
        if lora is not None:
            raise ValueError("transformers reads no LoRA from GGUF")
        yield from _by_transformers(path, ids)
    else:
        yield from _by_llama_cpp(path, ids, lora)


def _by_transformers(path: Path, ids: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    with redirect_stderr(io.StringIO()):  # a progress bar that nothing else turns off
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
    for row in ids:
        with torch.no_grad():
            yield torch.log_softmax(model(torch.tensor([list(row)])).logits[0].float(), -1)


def _by_llama_cpp(path: Path, ids: Sequence[Sequence[int]], lora: Path | None) -> Iterator[Tensor]:
    import torch
    from llama_cpp import Llama

    length, threads = max(map(len, ids)), torch.get_num_threads()
    options = {"n_ctx": length, "n_batch": length, "n_threads": threads, "n_threads_batch": threads}
    try:
        model = Llama(
            str(path), logits_all=True, verbose=False, lora_path=None if lora is None else str(lora), **options
        )
    except (ValueError, RuntimeError) as error:
        raise ModelError(str(path), found=f"llama.cpp does not load it ({error})", expected="a GGUF file") from error
    try:
        for row in ids:
            model.reset()
            model.eval(list(row))
            yield torch.log_softmax(torch.from_numpy(model.scores[: len(row)].copy()), -1)
    finally:
        model.close()
