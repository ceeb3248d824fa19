"""SentencePiece's BPE from a tokenizer.json: scores for llama.cpp, which merges the pair whose piece scores highest."""

from __future__ import annotations

from typing import Any

from trueup.chat.template import Chat, Refused

NORMAL, UNKNOWN, USER_DEFINED, BYTE = 1, 2, 4, 6  # gguf.TokenType
NEVER_MERGED = -1e6  # the score of pieces that are no merge of two others
SPACE = "▁"
# What the rule about spaces before a text is decided on; a space at the beginning of a text is one of the cases.
DIALOGUES: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello there"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name 2 colours,\nplease."}],
    [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": " And  2 + 2?"},
    ],
)


def read(tokenizer: Any, state: dict[str, Any], faults: list[str]) -> tuple[list[float], bool]:
    """(score of each id, whether each text between special tokens gets a space before it); adds to `faults`."""
    vocab: dict[str, int] = state["model"]["vocab"]
    faults += _splitting(state)
    if missing := [byte for byte in range(256) if f"<0x{byte:02X}>" not in vocab]:
        faults.append(f"a SentencePiece tokenizer without pieces for {len(missing)} of the 256 bytes")
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in state["model"]["merges"]]
    scores = [NEVER_MERGED] * (max(tokenizer.get_vocab().values()) + 1)
    last, torn = "", 0
    for rank, (left, right) in enumerate(pairs):
        piece = left + right
        if piece != last and scores[vocab[piece]] != NEVER_MERGED:
            torn += 1
        if piece != last:
            scores[vocab[piece]] = -float(rank)
        last = piece
    unmerged = _unmerged(vocab, set(pairs), state)
    if torn or unmerged:
        faults.append(
            "a tokenizer with byte_fallback whose merges are not those of a SentencePiece model "
            f"({torn} pieces come back at a later rank, {unmerged} pairs make a piece but are no merge)"
        )
    return scores, _space_prefix(tokenizer, state, faults)


def _splitting(state: dict[str, Any]) -> list[str]:
    """What is done to a text before the merges, beyond writing its spaces as pieces."""
    faults = []
    normalizer = state["normalizer"] or {"type": "Sequence", "normalizers": []}
    for step in normalizer.get("normalizers", [normalizer]):
        replaces = step.get("pattern") == {"String": " "} and step.get("content") == SPACE
        if not (step["type"] == "Prepend" or (step["type"] == "Replace" and replaces)):
            faults.append(f"a SentencePiece tokenizer with a normalizer {step['type']}")
    splitter = state["pre_tokenizer"] or {"type": "none"}
    over_spaces = (
        splitter["type"] == "Split" and splitter["pattern"] == {"String": " "} and normalizer["type"] == "Replace"
    )
    whole = splitter["type"] == "Metaspace" and not splitter.get("split", True) and splitter["replacement"] == SPACE
    if not (splitter["type"] == "none" or over_spaces or whole):
        faults.append(f"a SentencePiece tokenizer that splits texts by {splitter['type']} before its merges")
    return faults


def _unmerged(vocab: dict[str, int], pairs: set[tuple[str, ...]], state: dict[str, Any]) -> int:
    """How many pairs of pieces make a piece of the vocabulary and are no merge: llama.cpp would merge them."""
    apart = {added["content"] for added in state["added_tokens"]}
    return sum(
        piece[:cut] in vocab and piece[cut:] in vocab and (piece[:cut], piece[cut:]) not in pairs
        for piece in vocab
        if piece not in apart and not piece.startswith("<0x")
        for cut in range(1, len(piece))
    )


def types(tokenizer: Any, state: dict[str, Any], plain: list[int]) -> list[int]:
    """The types of ids, with bytes and the unknown token told apart.

    An added token with the sign of a space that is looked for in texts as they are written (normalized: false) is
    found in none: it is a piece like others.
    """
    kinds = list(plain)
    for added in state["added_tokens"]:
        if SPACE in added["content"] and not (added["normalized"] or added["special"]):
            kinds[added["id"]] = NORMAL
    vocab: dict[str, int] = state["model"]["vocab"]
    for byte in range(256):
        kinds[vocab[f"<0x{byte:02X}>"]] = BYTE
    if (unknown := vocab.get(state["model"].get("unk_token") or "")) is not None:
        kinds[unknown] = UNKNOWN
    return kinds


def _space_prefix(tokenizer: Any, state: dict[str, Any], faults: list[str]) -> bool:
    """Whether llama.cpp, which knows always and never, makes the tokenizer's ids of dialogues with a space before each
    text between special tokens, or without; both are tried on the tokenizer's own merges."""
    rendered = []
    for dialogue in DIALOGUES:
        try:
            rendered.append(Chat(tokenizer).text(dialogue, generation_prompt=True))
        except Refused:  # no system role, for example
            continue
    added = {entry["content"]: entry for entry in state["added_tokens"]}
    for prefix in (False, True):
        if all(_llama_ids(tokenizer, text, added, prefix) == Chat(tokenizer).tokens(text) for text in rendered):
            return prefix
    faults.append(
        "a tokenizer that puts spaces before texts in a way that llama.cpp does not (it knows always and never)"
    )
    return False


def _llama_ids(tokenizer: Any, text: str, added: dict[str, Any], prefix: bool) -> list[int]:
    """The ids that llama.cpp's rule makes of a templated text."""
    bare = tokenizer.backend_tokenizer.model
    ids: list[int] = []
    for part, token in _parts(text, added):
        if part:
            escaped = (" " * prefix + part).replace(" ", SPACE)
            ids += [piece.id for piece in bare.tokenize(escaped)]
        if token is not None:
            ids.append(tokenizer.convert_tokens_to_ids(token))
    return ids


def _parts(text: str, added: dict[str, Any]) -> list[tuple[str, str | None]]:
    """(text, the added token after it), one after the other; white space is stripped where a token says so."""
    import re

    if not added:
        return [(text, None)]
    tokens = sorted(added, key=len, reverse=True)
    pattern = "|".join(re.escape(token) + (r"\s*" if added[token]["rstrip"] else "") for token in tokens)
    parts: list[tuple[str, str | None]] = []
    start = 0
    for found in re.finditer(pattern, text):
        token = next(one for one in tokens if found[0].startswith(one))
        parts.append((text[start : found.start()], token))
        start = found.end()
    return [*parts, (text[start:], None)]
