"""What is torn or missing in a saved model or adapter, seen without loading it: JSON files and safetensors headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HEADER_LIMIT = 100_000_000  # bytes: what safetensors itself reads at most
QUICK_BYTES = 500_000  # of JSON that is read in a few milliseconds
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json", "vocab.txt")


def torn(folder: Path, *, quick: bool = False) -> list[str]:
    """A line for each file of `folder` that cannot be whole; empty when nothing is seen.

    `quick`: large JSON files, such as tokenizer.json, are not read.
    """
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == ".json" and not (quick and path.stat().st_size > QUICK_BYTES):
            found += _of_json(path)
        elif path.suffix == ".safetensors":
            found += _of_safetensors(path)
    return found


def without_tokenizer(folder: Path) -> bool:
    """True when a model's folder holds no file that a tokenizer is read from."""
    return folder.is_dir() and not any((folder / name).exists() for name in TOKENIZERS)


def _of_json(path: Path) -> list[str]:
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return [f"{path.name} cannot be read ({error.strerror})"]
    except (ValueError, RecursionError):
        return [f"{path.name} is empty" if not path.stat().st_size else f"{path.name} is torn: it is no whole JSON"]
    if not isinstance(value, dict):
        return [f"{path.name} holds no JSON object"]
    if not path.name.endswith(".safetensors.index.json"):
        return []
    shards = value.get("weight_map")
    names = sorted({str(name) for name in shards.values()}) if isinstance(shards, dict) else []
    return [f"{name} is missing, which {path.name} names" for name in names if not (path.parent / name).exists()]


def _of_safetensors(path: Path) -> list[str]:
    """The format: 8 bytes with the length of a JSON header, the header, and the tensors it describes."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 8 + length <= size and length <= HEADER_LIMIT else None
        if header is None:
            return [f"{path.name} is empty" if not size else f"{path.name} is torn: its header is cut"]
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except OSError as error:
        return [f"{path.name} cannot be read ({error.strerror})"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return [f"{path.name} is torn: its header is no safetensors header"]
    whole = 8 + length + end
    return [] if whole == size else [f"{path.name} is torn: {size:,} of {whole:,} bytes are there"]
