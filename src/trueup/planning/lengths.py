"""How many rows and tokens the data has, before anything is loaded: the tokenizer's file where it is on this disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.data import read_demonstrations, read_prompts
from trueup.errors import DataError
from trueup.run.data_config import DataConfig

NUM_MEASURED = 500  # rows whose tokens are counted
CHARACTERS_A_TOKEN = 4.0  # without a tokenizer on this disk: English, roughly
TEMPLATE_TOKENS = 12  # what a chat template adds to a turn


@dataclass(frozen=True)
class Lengths:
    """Of the user's files; 0 rows where a file is not there yet. Tokens are means, and the longest of those counted."""

    num_demonstrations: int = 0
    demonstration_tokens: float = 0
    longest_demonstration: int = 0
    num_prompts: int = 0
    prompt_tokens: float = 0
    longest_prompt: int = 0
    num_held_out: int = 0
    shared_tokens: int = 0  # with which every conversation begins: the system message, examples


def measure(data: DataConfig, folder: Path | None) -> tuple[Lengths, list[str]]:
    """(lengths, what could not be read and is left out)."""
    count = _counter(folder)
    missing: list[str] = []

    def read(name: str) -> tuple[int, float, int]:
        try:
            rows = read_demonstrations(data) if name == "demonstrations" else read_prompts(data, name)
        except DataError as error:
            missing.append(f"data.{name}: {error.found.splitlines()[0]}")
            return 0, 0, 0
        tokens = [_tokens(row["messages"], count) for row in rows[:: max(1, len(rows) // NUM_MEASURED)]]
        return len(rows), sum(tokens) / len(tokens), max(tokens)

    demonstrations, prompts, held_out = read("demonstrations"), read("prompts"), read("held_out")
    return Lengths(*demonstrations, *prompts, held_out[0], shared(data, folder)), missing


def shared(data: DataConfig, folder: Path | None) -> int:
    """Tokens with which all conversations of a run begin, under the chat template; 0 without a tokenizer here.

    0 also where there is no template, or one that refuses the system message: preflight says so.
    """
    from jinja2.exceptions import TemplateError
    from transformers import PreTrainedTokenizerFast  # AutoTokenizer would import torch, and take seconds

    from trueup.chat.tokens import common_prefix

    if folder is None or not (folder / "tokenizer.json").exists():
        return 0
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.chat_template is None:
        return 0
    head = [{"role": "system", "content": data.system}] if data.system else []
    for shot in data.few_shot:
        head += [{"role": "user", "content": shot.prompt}, {"role": "assistant", "content": shot.response}]
    try:
        one, other = (
            tokenizer.apply_chat_template([*head, {"role": "user", "content": text}], tokenize=True, return_dict=False)
            for text in ("a", "1")
        )
    except TemplateError:
        return 0
    return common_prefix(one, other)


def _tokens(messages: list[dict[str, str]], count: Any) -> int:
    return sum(count(message["content"]) + TEMPLATE_TOKENS for message in messages)


def _counter(folder: Path | None) -> Any:
    path = folder / "tokenizer.json" if folder is not None else None
    if path is None or not path.exists():
        return lambda text: round(len(text) / CHARACTERS_A_TOKEN)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
