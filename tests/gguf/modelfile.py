"""A strict parser of Ollama's Modelfile, by its documentation (docs.ollama.com/modelfile) and the behaviour of its own.

Instructions are words of letters at the beginning of a line; a value runs to the first line end at which its quotation
marks, one or three at both ends, are closed; a value that opens with none ends with its line. Of characters that are
not printed, only spaces, tabs and line ends are kept. Instructions and parameters that Ollama does not document are
errors here.
"""

from __future__ import annotations

INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES")
PARAMETERS = {
    "num_ctx": int,
    "repeat_last_n": int,
    "repeat_penalty": float,
    "temperature": float,
    "seed": int,
    "stop": str,
    "num_predict": int,
    "top_k": int,
    "top_p": float,
    "min_p": float,
}


def parse(text: str) -> list[tuple[str, str]]:
    """[(instruction, value)], parameters as `PARAMETER name`. Raises ValueError for what Ollama does not take."""
    found: list[tuple[str, str]] = []
    rest = text
    while rest:
        if rest[0] in " \t\r\n":
            rest = rest[1:]
        elif rest[0] == "#":
            rest = rest.partition("\n")[2]
        else:
            name, _, rest = rest.partition(" ")
            if name not in INSTRUCTIONS:
                raise ValueError(f"instruction {name!r}")
            if name == "PARAMETER":
                key, _, rest = rest.partition(" ")
                if key not in PARAMETERS:
                    raise ValueError(f"parameter {key!r}")
                name = f"PARAMETER {key}"
            value, rest = _value(rest)
            if name.startswith("PARAMETER "):
                PARAMETERS[name.removeprefix("PARAMETER ")](value)
            found.append((name, value))
    if sum(name == "FROM" for name, _ in found) != 1:
        raise ValueError("not one FROM")
    return found


def _value(rest: str) -> tuple[str, str]:
    """(the value that `rest` begins with, what follows its line)."""
    kept = ""
    for index, character in enumerate(rest):
        if character in "\r\n" and (value := _unquoted(kept.strip())) is not None:
            return value, rest[index + 1 :]
        if character.isprintable() or character in "\t\r\n":
            kept += character
    value = _unquoted(kept.strip())
    if value is None:
        raise ValueError("a value whose quotation marks are never closed")
    return value, ""


def _unquoted(kept: str) -> str | None:
    """The text between the quotation marks; None while they are open."""
    for mark in ('"""', '"'):
        if kept.startswith(mark):
            closed = len(kept) >= 2 * len(mark) and kept.endswith(mark)
            return kept[len(mark) : -len(mark)] if closed else None
    return kept
