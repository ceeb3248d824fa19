"""One self-contained HTML file: text, tables and plots, readable on phone, desktop and paper, in light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trueup.errors import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG_CHARACTERS = 60  # a table with a longer cell becomes cards on a phone
PHONE_CHARACTERS = 34  # so does one whose columns together are wider, at `COLUMN_CHARACTERS` more for each column
COLUMN_CHARACTERS = 3
FOLDED_CHARACTERS = 700  # of an answer; what is longer is folded

NUMBER = r"[+-]?[0-9][0-9.,]*(%| (s|min|h|GB))?"  # text that stands on the right as numbers do

Tone = Literal["good", "bad", "open"]
Tile = tuple[str, str, str]  # a figure, what it is, and a note


class Page:
    """What `write` will render, in the order it was added; methods return the page. All text is escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[dict[str, Any]] = []

    def heading(self, text: str, level: Literal[2, 3] = 2) -> Page:
        """A section's title, or, of level 3, that of a part of it."""
        return self._add("heading", text=text, level=level, id=f"part-{len(self._parts)}")

    def contents(self) -> Page:
        """Links to the sections of the page, wherever they are added."""
        return self._add("contents")

    def text(self, text: str) -> Page:
        """A paragraph; line breaks stay."""
        return self._add("text", text=text)

    def bullets(self, lines: Sequence[str]) -> Page:
        """Sentences below one another; nothing where there are none."""
        return self._add("bullets", lines=list(lines)) if lines else self

    def verdict(self, text: str, tone: Tone) -> Page:
        """What a reader in a hurry should know; the tone is a colour beside the words, which say it all."""
        return self._add("verdict", text=text, tone=tone)

    def tiles(self, tiles: Sequence[Tile]) -> Page:
        """A few figures in large type."""
        return self._add("tiles", tiles=[{"figure": f, "what": w, "note": n} for f, w, n in tiles])

    def code(self, text: str) -> Page:
        """What is typed, one command a line."""
        return self._add("code", text=text)

    def quote(self, text: str) -> Page:
        """What a person or a model wrote, in whatever script."""
        return self._add("quote", text=text)

    def answers(self, prompt: str, note: str, answers: Sequence[tuple[str, str]]) -> Page:
        """A prompt and (who answered, what) side by side; long ones are folded."""
        rows = [{"name": name, "text": text, "fold": len(text) > FOLDED_CHARACTERS} for name, text in answers]
        return self._add("answers", prompt=prompt, note=note, answers=rows)

    @contextmanager
    def folded(self, title: str) -> Iterator[Page]:
        """What is added within is shown once the reader asks for it, and on paper."""
        self._add("open", text=title)
        yield self
        self._add("close")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> Page:
        """A table; each row has a cell for each name of `header`. Columns of numbers stand on the right; None is "–".

        Raises ValueError when a row has another length.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        if any(len(row) != len(header) for row in cells):
            raise ValueError(f"each row needs {len(header)} cells: {', '.join(header)}")
        for column in zip(*cells, strict=True):
            right = all(cell["number"] for cell in column)
            for cell in column:
                cell["number"] = right
        return self._add("table", header=list(header), rows=cells, cards=_is_wide(header, cells), caption=caption)

    def plot(self, figure: Figure, caption: str) -> Page:
        """A matplotlib figure as inline SVG, with its words below; `caption` is also what a screen reader says."""
        return self.plots([(figure, caption)])

    def plots(self, figures: Sequence[tuple[Figure, str]]) -> Page:
        """Several figures, beside one another where there is room."""
        name = f"plot{len(self._parts)}"
        drawn = [{"svg": _svg(one, f"{name}-{i}"), "caption": words} for i, (one, words) in enumerate(figures)]
        return self._add("plots", plots=drawn)

    def length(self) -> int:
        """How many parts there are, for `cut`."""
        return len(self._parts)

    def cut(self, length: int) -> Page:
        """Take back what was added after the first `length` parts."""
        del self._parts[length:]
        return self

    def render(self) -> str:
        """The HTML."""
        from importlib.resources import files

        from jinja2 import Environment

        template = files("trueup").joinpath("page.html.jinja").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_shown)
        environment.filters["tidy"] = _tidy
        return environment.from_string(template).render(title=self._title, parts=self._parts)

    def write(self, path: Path) -> Path:
        """Write the file aside, then rename it; return `path`."""
        aside = path.with_name(path.name + ".tmp")
        try:
            aside.write_text(self.render(), encoding="utf-8", errors="replace")
        except OSError:
            aside.unlink(missing_ok=True)  # on a full disk it takes space and is of no use
            raise
        aside.replace(path)
        return path

    def _add(self, kind: str, **values: Any) -> Page:
        self._parts.append({"kind": kind, **values})
        return self


def _cell(value: object) -> dict[str, Any]:
    if value is None:
        return {"text": "–", "number": True}
    if isinstance(value, float):
        return {"text": f"{value:.4g}", "number": True}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"text": f"{value:,}", "number": True}
    return {"text": str(value), "number": re.fullmatch(NUMBER, str(value)) is not None}


def _is_wide(header: Sequence[str], rows: Sequence[Sequence[dict[str, Any]]]) -> bool:
    """Whether a phone has no room for the table as it is."""
    if any(len(cell["text"]) > LONG_CHARACTERS for row in rows for cell in row):
        return True
    widths = [
        max([len(word) for word in name.split()] + [len(row[column]["text"]) for row in rows], default=0)
        for column, name in enumerate(header)
    ]
    return sum(widths) + COLUMN_CHARACTERS * len(widths) > PHONE_CHARACTERS


def _tidy(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=%|GB|MB|nats)", "\u00a0", text)


def _shown(value: Any) -> Any:
    """Control characters, which no HTML file may hold, are written out; tabs and line breaks stay."""
    if type(value) is not str or value.isprintable():  # markup is ours
        return value
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]", lambda found: visible(found[0]), value)


def _svg(figure: Figure, name: str) -> Any:
    """The figure's <svg> element; ids are made from `name`, so that figures on one page do not share clip paths."""
    import io
    import warnings

    import matplotlib
    from markupsafe import Markup

    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser's fonts draw the text
        figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    used = set(re.findall(r"#([\w.-]+)", text))  # the other ids are the same in each figure
    text = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", text)
    return Markup(text)  # noqa: S704 - matplotlib escapes what it writes
