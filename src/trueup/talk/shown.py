"""Text of models and people on a terminal: without what would command the terminal, in lines between words."""

from __future__ import annotations

import unicodedata
from typing import TextIO

from rich.cells import cell_len

JOINERS = "\u200c\u200d"  # between the parts of an emoji, and between letters of some scripts


def harmless(text: str) -> str:
    """`text` with control characters, direction marks and lone surrogates written out; a tab becomes four spaces."""
    return "".join(map(_harmless, text))


def _harmless(character: str) -> str:
    if character == "\n" or character.isprintable() or character in JOINERS:
        return character
    if character == "\t":
        return "    "
    kind = unicodedata.category(character)
    if kind in ("Zl", "Zp"):
        return "\n"
    return character if kind == "Zs" else character.encode("unicode_escape").decode()


class Writer:
    """Writes a text that comes in pieces, made harmless; with a `width` in cells, broken between words."""

    def __init__(self, out: TextIO, width: int | None = None) -> None:
        self.out, self.width = out, width
        self._column = self._spaces = 0  # cells written on this line; spaces that wait for the next word
        self._word = ""

    def write(self, text: str) -> None:
        """Show the next piece; of a text in lines, its last word waits for its end."""
        text = harmless(text)
        if self.width is None:
            self.out.write(text)
        else:
            for character in text:
                self._take(character, self.width)
        self.out.flush()

    def end(self) -> None:
        """Show what waits, and end the line."""
        if self.width is not None:
            self._place(self.width)
        self.out.write("\n")
        self.out.flush()
        self._column = self._spaces = 0

    def _take(self, character: str, width: int) -> None:
        if character == "\n":
            self._place(width)
            self.out.write("\n")
            self._column = self._spaces = 0
        elif character == " ":
            self._place(width)
            self._spaces += 1
        else:
            wide = cell_len(character) > 1
            if wide or cell_len(self._word + character) > width:  # scripts without spaces break anywhere
                self._place(width)
            self._word += character
            if wide:
                self._place(width)

    def _place(self, width: int) -> None:
        """Write the word that waits, on the next line where this one has no room for it."""
        if not self._word:
            return
        cells = cell_len(self._word)
        if self._column and self._column + self._spaces + cells > width:
            self.out.write("\n")
            self._column = self._spaces = 0
        spaces = min(self._spaces, max(width - cells, 0)) if self._column == 0 else self._spaces
        self.out.write(" " * spaces + self._word)
        self._column += spaces + cells
        self._word, self._spaces = "", 0
