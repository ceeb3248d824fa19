"""The Modelfile that makes a GGUF file a model of Ollama."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trueup.errors import ConfigError
from trueup.export import gguf_vocab, go_template

NO_TEMPLATE = """\
# No TEMPLATE: the model's chat template has no equal in Ollama's language that could be shown to write the same text.
# Ollama takes the template of the GGUF file where it recognizes it; `ollama show --template` says what it took.
"""
# What a TEMPLATE here does not do, as comments of the Modelfile
NO_SYSTEM = "# The model's chat template takes no system message: this TEMPLATE leaves it out."
THOUGHTS = (
    "# The model's chat template takes the thoughts out of earlier answers; this TEMPLATE keeps what it is given."
)

DATE = "# The model's chat template writes today's date; this TEMPLATE writes the date on which it was made."


def check(system: str | None) -> None:
    """Raises ConfigError for a system message that a Modelfile cannot hold."""
    if system:
        quoted(system, "data.system")


def write(
    out: Path,
    gguf: Path,
    tokenizer: Any,
    end_ids: Sequence[int],
    system: str | None,
    *,
    temperature: float | None = None,
    top_p: float | None = None,
) -> Path:
    """Write `out`/Modelfile, with a path to `gguf` from there, every token of `end_ids` as a stop, and the system
    message; returns its path. Create the model with `ollama create NAME -f Modelfile`.

    `temperature` and `top_p` are those the answers were judged at; Ollama's other samplers, which cut what is rare or
    was said before, are then turned off. Raises ConfigError for a text that a Modelfile cannot hold.
    """
    source = Path(os.path.relpath(gguf, out)).as_posix()
    lines = [f"FROM {source if source.startswith('.') else './' + source}"]
    lines += _template(tokenizer)
    if system:
        lines.append(f"SYSTEM {quoted(system, 'data.system')}")
    for token in tokenizer.convert_ids_to_tokens(list(dict.fromkeys(end_ids))):
        lines.append(f"PARAMETER stop {quoted(token, f'end token {token!r}')}")
    if temperature is not None:
        settings = {"temperature": temperature, "top_p": 1.0 if top_p is None else top_p}
        settings |= {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
        lines += [f"PARAMETER {key} {value}" for key, value in settings.items()]
    out.mkdir(parents=True, exist_ok=True)
    path = out / "Modelfile"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return path


def _template(tokenizer: Any) -> list[str]:
    form = go_template.find(tokenizer, adds_bos=gguf_vocab.read(tokenizer).add_bos)
    if form is None:
        return [NO_TEMPLATE.rstrip()]
    comments = [NO_SYSTEM] if form.system is None else []
    if go_template.drops_thoughts(tokenizer):
        comments.append(THOUGHTS)
    if "strftime_now" in str(tokenizer.chat_template):
        comments.append(DATE)
    return [*comments, f"TEMPLATE {quoted(go_template.go(form), 'chat template')}"]


def quoted(text: str, where: str) -> str:
    """`text` as the value of an instruction, between three quotation marks.

    A value ends at the first line end before which the three closing marks stand, and of characters that are neither
    printed nor white space Ollama keeps none. Raises ConfigError, naming `where`, for a text that this would change.
    """
    lines = text.replace("\r", "\n").split("\n")
    if any(line.rstrip().endswith('"""') for line in lines[:-1]):
        raise ConfigError(
            where,
            found='a line that ends in """',
            expected="a text that a Modelfile can hold: there, such a line ends it",
            next_step="change that line, or take ollama out of export.to",
        )
    if lost := sorted({c for c in text if not (c.isprintable() or c in "\n\r\t")}):
        named = ", ".join(f"U+{ord(c):04X}" for c in lost)
        raise ConfigError(
            where,
            found=f"characters that Ollama leaves out as it reads a Modelfile: {named}",
            expected="letters, marks, numbers, punctuation, symbols, spaces, tabs and line ends",
            next_step="replace them, or take ollama out of export.to",
        )
    return f'"""{text}"""'
