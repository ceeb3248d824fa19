"""A tokenizer as llama.cpp reads it from a GGUF file: decided by what the tokenizer does, not by the model's name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from trueup.export import gguf_pieces

# How llama.cpp names the ways of splitting a text before the merges of byte-level BPE. The regular expressions are
# those of tokenizer.json files; each is held to llama.cpp's own splitting by a test.
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SYMBOLS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_THREE_DIGITS = _CONTRACTION + r"\p{N}{1,3}" + _SYMBOLS
_ONE_DIGIT = _CONTRACTION + r"\p{N}" + _SYMBOLS


def _by_regex(regex: str) -> list[dict[str, Any]]:
    return [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ]


_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
# (name, the pre-tokenizer's steps, ignore_merges of the model)
SPLITS: tuple[tuple[str, list[dict[str, Any]], bool], ...] = (
    ("gpt-2", [_GPT2], False),
    ("smollm", [{"type": "Digits", "individual_digits": True}, _GPT2], False),
    ("llama-bpe", _by_regex(_THREE_DIGITS), True),
    ("dbrx", _by_regex(_THREE_DIGITS), False),
    ("qwen2", _by_regex(_ONE_DIGIT), False),
)


@dataclass(frozen=True)
class Vocabulary:
    """What the keys `tokenizer.ggml.*` hold. Lists have an entry for each id of the tokenizer."""

    model: str  # "gpt2": byte-level BPE; "llama": SentencePiece's BPE
    pre: str
    tokens: list[str]
    types: list[int]  # gguf.TokenType
    add_bos: bool
    add_eos: bool
    merges: list[str] | None = None  # of "gpt2"
    scores: list[float] | None = None  # of "llama"
    space_prefix: bool | None = None  # of "llama": a space before each text between special tokens
    strips_right: bool = False  # special tokens take the white space after them, as Phi-3's do


class Unknown(Exception):
    """A tokenizer that llama.cpp is not known to reproduce; each argument is a fault."""


def read(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a transformers tokenizer. Raises Unknown, with all faults at once."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Unknown(f"a tokenizer of class {type(tokenizer).__name__}, which has no tokenizer.json")
    state = json.loads(backend.to_str())
    model, faults = state["model"], []
    if model["type"] != "BPE":
        raise Unknown(
            f"a tokenizer of type {model['type']}; llama.cpp is compared for byte-level and SentencePiece BPE"
        )
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            faults.append(f"a tokenizer with {key}")
    bos_eos = _added(tokenizer, faults)
    tokens, types = _tokens(tokenizer, state)
    strips = _strips_right(state["added_tokens"], faults)
    if model.get("byte_fallback"):
        scores, space = gguf_pieces.read(tokenizer, state, faults)
        _raise(faults)
        kinds = gguf_pieces.types(tokenizer, state, types)
        tokens = [
            t.replace("▁", " ") if k == gguf_pieces.USER_DEFINED else t for t, k in zip(tokens, kinds, strict=True)
        ]
        return Vocabulary("llama", "default", tokens, kinds, *bos_eos, None, scores, space, strips)
    if strips:
        faults.append("special tokens that take the white space after them (rstrip) in byte-level BPE")
    pre = _pre_tokenizer(state, faults)
    _raise(faults)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return Vocabulary("gpt2", pre, tokens, types, *bos_eos, merges)


def _raise(faults: list[str]) -> None:
    if faults:
        raise Unknown(*faults)


def _pre_tokenizer(state: dict[str, Any], faults: list[str]) -> str:
    """llama.cpp's name of the way texts are split."""
    normalizer = state["normalizer"]
    if normalizer is not None and normalizer["type"] != "NFC":  # text is in NFC nearly always; llama.cpp takes it as is
        faults.append(f"a tokenizer with a normalizer {normalizer['type']}")
    steps = state["pre_tokenizer"] or {"type": "none"}
    steps = steps["pretokenizers"] if steps["type"] == "Sequence" else [steps]
    bare = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    ignore_merges = bool(state["model"].get("ignore_merges"))
    for name, known, ignores in SPLITS:
        if bare == known and ignores == ignore_merges:
            return name
    faults.append(
        f"a tokenizer that splits texts by {', '.join(step['type'] for step in bare)}"
        f"{' with ignore_merges' if ignore_merges else ''} in a way that was never compared with llama.cpp"
    )
    return ""


def _added(tokenizer: Any, faults: list[str]) -> tuple[bool, bool]:
    """Whether the tokenizer puts its beginning and end tokens around a text."""
    bare = tokenizer("a", add_special_tokens=False).input_ids
    whole = tokenizer("a", add_special_tokens=True).input_ids
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    for add_bos in (False, True):
        for add_eos in (False, True):
            if whole == [bos] * add_bos + bare + [eos] * add_eos:
                return add_bos, add_eos
    faults.append(f"a tokenizer that makes {whole} of a text whose ids are {bare}")
    return False, False


def _tokens(tokenizer: Any, state: dict[str, Any]) -> tuple[list[str], list[int]]:
    """(token, type) of each id up to the largest; ids that no token has are called [PAD<id>]."""
    from gguf import TokenType

    by_id = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids) | {added["id"] for added in state["added_tokens"] if added["special"]}
    added = {entry["id"] for entry in state["added_tokens"]}
    tokens, types = [], []
    for token_id in range(max(by_id) + 1):
        tokens.append(by_id.get(token_id, f"[PAD{token_id}]"))
        if token_id not in by_id:
            types.append(int(TokenType.UNUSED))
        elif token_id in special:
            types.append(int(TokenType.CONTROL))
        else:
            types.append(int(TokenType.USER_DEFINED if token_id in added else TokenType.NORMAL))
    return tokens, types


# llama.cpp never strips after these, and always after the other special tokens, in a model whose name holds "phi-3".
PHI3_KEEPS = ("<unk>", "<s>", "<|endoftext|>")


def _strips_right(added: list[dict[str, Any]], faults: list[str]) -> bool:
    for flag in ("lstrip", "single_word"):
        if named := [token["content"] for token in added if token[flag]]:
            faults.append(f"added tokens with {flag}: {', '.join(named[:3])}")
    named = [token["content"] for token in added if token["rstrip"]]
    if not named:
        return False
    if wrong := [t["content"] for t in added if t["special"] and t["rstrip"] == (t["content"] in PHI3_KEEPS)]:
        faults.append(f"added tokens with rstrip beside others without: {', '.join(wrong[:3])}")
    return True
