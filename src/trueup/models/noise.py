"""Warnings of libraries: known ones, each with the reason why it does not matter, are left out; others show once."""

from __future__ import annotations

import logging
import re
import sys
import warnings

LIBRARIES = ("transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate", "huggingface_hub")

# what a message begins with or holds (a regular expression), and why nobody needs to read it
KNOWN: dict[str, str] = {
    r"gradient_checkpointing.{0,20} is deprecated": "TRL calls transformers by names of before version 6",
    r"torch\.jit\.script_method. is deprecated": "torch warns of its own modules",
    r"The tokenizer has new PAD/BOS/EOS tokens": "it means the model in memory, whose padding is set on purpose",
    r"LOAD REPORT": "a reward model has a new score head and no output layer; missing weights are refused by `base`",
    r"Note that `r` is not used in AdaLora": "init_r and target_r are set from adapter.r",
    r"mtime may not be reliable": "checkpoints are told apart by their steps",
    r"The modules are dequantized in": "that is what merging does first",
    r"gemm_4bit_forward": "bitsandbytes asks for a package with a kernel that is turned off, see `cure_cpu_repacking`",
}
_known = re.compile("|".join(f"(?:{pattern})" for pattern in KNOWN), re.DOTALL)


class _Once(logging.Filter):
    """Lets through what is not known, the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        if record.levelno < logging.ERROR and (_known.search(said) or said in self.seen):
            return False
        self.seen.add(said)
        return True


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes where stderr is now: a test or a progress bar may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


_handler = _Stderr()
_handler.addFilter(_Once())
_handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))


def sift() -> None:
    """From now on the libraries' warnings are sifted. Call it again after a library has set up its own logging."""
    for library in LIBRARIES:
        logger = logging.getLogger(library)
        logger.handlers[:] = [_handler]
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    for pattern in KNOWN:
        warnings.filterwarnings("ignore", message=rf"(?s).*(?:{pattern})")
