"""One self-contained HTML file: text, tables and plots, readable on phone and desktop, in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG_CHARACTERS = 60  # a table with a longer cell becomes cards on a phone


class Page:
    """What `write` will render, in the order it was added; every method returns the page. All text is escaped."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[dict[str, Any]] = []

    def heading(self, text: str) -> Page:
        """A section's title."""
        return self._add("heading", text=text)

    def text(self, text: str) -> Page:
        """A paragraph; line breaks stay."""
        return self._add("text", text=text)

    def link(self, text: str, address: str) -> Page:
        """A link to another page. `address` is relative, and ours: nothing is fetched until somebody follows it."""
        return self._add("link", text=text, address=address)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Page:
        """A table; each row has a cell for each name of `header`. Numbers stand on the right, None is a dash.

        Raises ValueError when a row has another length.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        if any(len(row) != len(header) for row in cells):
            raise ValueError(f"each row needs {len(header)} cells: {', '.join(header)}")
        cards = any(len(cell["text"]) > LONG_CHARACTERS for row in cells for cell in row)
        return self._add("table", header=list(header), rows=cells, cards=cards)

    def plot(self, figure: Figure, caption: str) -> Page:
        """A matplotlib figure as inline SVG, with its words below; `caption` is also what a screen reader says."""
        return self._add("plot", svg=_svg(figure, f"plot{len(self._parts)}"), caption=caption)

    def render(self) -> str:
        """The HTML."""
        from importlib.resources import files

        from jinja2 import Environment

        template = files("trueup").joinpath("page.html.jinja").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
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
    return {"text": str(value), "number": isinstance(value, int) and not isinstance(value, bool)}


def _svg(figure: Figure, name: str) -> Any:
    """The figure's <svg> element; ids are made from `name`, so that figures on one page do not share clip paths."""
    import io
    import warnings

    import matplotlib
    from markupsafe import Markup

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser's fonts draw the text
        figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    text = out.getvalue()
    return Markup(text[text.index("<svg") :])  # noqa: S704 - matplotlib escapes what it writes
