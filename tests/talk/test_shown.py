"""What reaches a terminal commands nothing, and lines break between words as textwrap breaks them."""

from __future__ import annotations

import io
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from trueup.talk.shown import Writer, harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07\x1b[2J", "\\x1b]0;owned\\x07\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),  # an escape sequence of one byte
        ("a\rb\x08", "a\\rb\\x08"),
        ("abc\u202e", "abc\\u202e"),  # what follows would run from right to left
        ("\ud800", "\\ud800"),
        ("a\tb", "a    b"),
        ("a\u2028b", "a\nb"),
        ("5\u00a0€ 数\u3000量 👩\u200d🚀\n", "5\u00a0€ 数\u3000量 👩\u200d🚀\n"),
    ],
)
def test_control_characters_are_written_out_and_writing_is_not(text: str, shown: str) -> None:
    assert harmless(text) == shown


def written(pieces: list[str], width: int | None) -> str:
    out = io.StringIO()
    writer = Writer(out, width)
    for piece in pieces:
        writer.write(piece)
    writer.end()
    return out.getvalue()


WORDS = st.lists(st.text(alphabet="abcdef", min_size=1, max_size=12), min_size=1, max_size=30)


@given(WORDS, st.integers(12, 40), st.integers(1, 7))
def test_words_break_as_textwrap_breaks_them_whatever_the_pieces(words: list[str], width: int, size: int) -> None:
    text = " ".join(words)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert written(pieces, width) == textwrap.fill(text, width, break_on_hyphens=False) + "\n"


@given(st.text(max_size=60), st.integers(4, 30))
def test_no_line_is_wider_than_the_terminal(text: str, width: int) -> None:
    assert all(cell_len(line) <= width for line in written([text], width).split("\n"))


def test_what_has_lines_keeps_them() -> None:
    code = "def f():\n    return 1\n\nx"
    assert written(list(code), 40) == code + "\n"
    assert written(["a" * 25], 10) == "a" * 10 + "\n" + "a" * 10 + "\n" + "a" * 5 + "\n"
    assert written(["数量" * 4], 6) == "数量数\n量数量\n数量\n"
    assert written(["a long line of words", " and more"], None) == "a long line of words and more\n"
