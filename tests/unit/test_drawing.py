"""What plots hold: the figures they were given, or, where there are many, the means that their words announce."""

import pytest

from trueup import drawing


def test_an_interval_is_where_it_is_said_to_be() -> None:
    figure = drawing.forest(
        [drawing.Interval("a", 0.25, 0.125, 0.5), drawing.Interval("b" * 99, 0.75, 0.5, 1.0, False)]
    )
    (axes,) = figure.axes
    drawn = [line.get_xydata().tolist() for line in axes.lines]
    assert drawn[:4] == [[[0.125, 0], [0.5, 0]], [[0.25, 0]], [[0.5, 1], [1.0, 1]], [[0.75, 1]]]
    assert [text.get_text() for text in axes.texts] == ["a", "b" * 57 + "…"]


@pytest.mark.parametrize(("number", "each"), [(300, 1), (301, 2), (900, 3), (1000, 4)])
def test_a_long_line_is_drawn_as_means_and_says_so(number: int, each: int) -> None:
    points = {"loss": [(float(step), float(step % each)) for step in range(number)]}
    (line,) = drawing.lines(points).axes[0].lines
    drawn = line.get_xydata().tolist()
    assert drawn[0] == [(each - 1) / 2] * 2  # of 0, 1, ..., each - 1
    assert len(drawn) == -(-number // each) <= drawing.MOST_POINTS
    said = drawing.thinned(points)
    assert said == ("" if each == 1 else f" Each point is the mean of up to {each} steps.")
