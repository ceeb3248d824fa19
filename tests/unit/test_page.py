"""A page: one file that fetches nothing, text escaped, plots that do not share ids."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from trueup.page import Page

EVIL = '<img src=x onerror="alert(1)"> & "quotes"'


def figure(limit: float) -> Figure:
    made = Figure()
    axes = made.subplots()
    axes.plot([0, 1], [0, limit])
    axes.set_title(EVIL)
    return made


class Tags(HTMLParser):
    """The names of all elements, and every attribute that would fetch something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.fetched += [f"{k}={v}" for k, v in attrs if k in ("src", "href") or k.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_text_from_anywhere_is_escaped_and_read_back_as_written(tmp_path: Path) -> None:
    page = Page(EVIL).heading(EVIL).text(EVIL).table([EVIL], [[EVIL]]).plot(figure(1), EVIL)
    tags = Tags(page.write(tmp_path / "report.html").read_text())
    assert {"img", "script"}.isdisjoint(tags.names)
    assert tags.words.count(EVIL) == 8  # <title>, <h1>, <h2>, <p>, <th>, <td>, the plot's, <figcaption>
    assert tags.fetched == []
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_contents_lead_to_the_sections() -> None:
    html = Page("t").contents().heading("one").heading("part of it", 3).heading("two").render()
    assert re.findall(r'<a href="#([\w-]+)">(\w+)</a>', html) == re.findall(r'<h2 id="([\w-]+)">(\w+)</h2>', html)
    assert Tags(html).fetched == [f"href=#{place}" for place in re.findall(r'<h2 id="([\w-]+)"', html)]


def test_a_long_answer_is_folded_and_a_short_one_is_not() -> None:
    html = Page("t").answers("p", "n", [("a", "x" * 701), ("b", "x" * 700)]).render()
    assert (html.count("<details>"), html.count("x" * 701)) == (1, 1)


def test_numbers_stand_on_the_right_and_none_is_a_dash() -> None:
    html = Page("t").table(["a", "b", "c", "d"], [[1 / 3, 7, None, "x"]]).render()
    found = re.findall(r'<td data-name="(\w)"( class="number")?>([^<]*)</td>', html)
    assert [(name, bool(number), text) for name, number, text in found] == [
        ("a", True, "0.3333"),
        ("b", True, "7"),
        ("c", True, "–"),
        ("d", False, "x"),
    ]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells: a, b"):
        Page("t").table(["a", "b"], [[1, 2], [1]])


def test_long_cells_become_cards_on_a_phone() -> None:
    assert 'class="cards"' in Page("t").table(["a"], [["word " * 20]]).render()
    assert 'class="cards"' not in Page("t").table(["a"], [["word"]]).render()


def test_two_plots_share_no_clip_path_and_render_the_same_twice() -> None:
    def clips(html: str) -> list[str]:
        return re.findall(r'<clipPath id="(\w+)"', html)

    page = Page("t").plot(figure(1), "one").plot(figure(1), "two")
    html = page.render()
    assert len(set(clips(html))) == len(clips(html)) == 2
    assert Page("t").plot(figure(1), "one").plot(figure(1), "two").render() == html


@pytest.mark.filterwarnings("error")
def test_a_letter_that_no_font_has_is_drawn_without_a_warning(tmp_path: Path) -> None:
    drawn = Figure()
    drawn.subplots().set_title("\u8bc4\x1b")
    Page("t").plot(drawn, "p").write(tmp_path / "p.html")
