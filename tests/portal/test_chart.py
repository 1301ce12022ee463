import pytest

from portal.chart import BASE, END, MOST_LINES, START, TOP, Bar, draw, nice_step


def bar(value: int | None) -> Bar:
    return Bar("l", "t", "x", value)


@pytest.mark.parametrize(
    ("most", "step"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 5), (21, 10), (38_000, 10_000), (40_001, 20_000)]
)
def test_steps_are_round_and_few(most: int, step: int) -> None:
    assert nice_step(most) == step
    assert -(-most // step) <= MOST_LINES


def test_bars_stand_on_the_base_side_by_side_and_inside() -> None:
    chart = draw([bar(0), bar(10), bar(None), bar(40)], label_every=2)
    xs = [(drawn.x, drawn.x + drawn.width) for drawn in chart.bars]
    assert xs == sorted(xs)
    assert xs[0][0] > START
    assert xs[-1][1] < END
    for drawn in chart.bars:
        assert drawn.y + drawn.height == pytest.approx(BASE, abs=0.02)
        assert drawn.y >= TOP - 0.01
    heights = [drawn.height for drawn in chart.bars]
    assert heights[0] == 0
    assert heights[3] == pytest.approx(4 * heights[1], rel=0.01)
    assert heights[2] == BASE - TOP, "a gap is hatched over the whole height"


def test_the_last_bar_keeps_its_label_and_lines_begin_at_zero() -> None:
    chart = draw([bar(n) for n in range(7)], label_every=3)
    assert [drawn.is_labelled for drawn in chart.bars] == [True, False, False, True, False, False, True]
    assert chart.lines[0] == (BASE, 0)
    assert [value for _y, value in chart.lines] == [0, 2, 4, 6]


def test_a_chart_of_nothing_is_still_a_chart() -> None:
    assert draw([], label_every=1).bars == ()
    assert draw([bar(None), bar(0)], label_every=1).lines[-1] == (TOP, 1)


def test_a_day_keeps_the_places_of_the_hours_to_come() -> None:
    chart = draw([bar(n) for n in range(9)], label_every=6, slots=24)
    assert chart.bars[-1].x < START + (END - START) * 9 / 24
    assert [place for place, drawn in enumerate(chart.bars) if drawn.is_labelled] == [0, 6]


def test_doubt_has_a_mark_over_its_bar_inside_the_drawing() -> None:
    chart = draw(
        [bar(1), Bar("l", "t", "x", 100, suspect_count=2), Bar("l", "t", "x", None, suspect_count=1)],
        label_every=1,
    )
    marks = [drawn.mark for drawn in chart.bars]
    assert marks[0] == ""
    for drawn in chart.bars[1:]:
        x, y = drawn.mark[1:].split("l")[0].split()
        assert TOP <= float(y) <= BASE
        assert drawn.x < float(x) < drawn.x + drawn.width
