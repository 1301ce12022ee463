from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.chart import BASE, END, START, TOP
from portal.counter_chart import draw_counter, label_times, look_of
from portal.formats import in_muscat
from portal.readings_store import Point

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)


def points(*told):
    return [Point(NOW + DAY * share, value, quality) for share, value, quality in told]


def draw(*told):
    return draw_counter(points(*told), since=NOW, until=NOW + DAY, found=(NOW + DAY / 2, NOW + DAY / 4 * 3))


def test_nothing_to_draw():
    assert draw() is None
    assert draw_counter(points((0, 1, "valid")), since=NOW, until=NOW, found=(NOW, NOW)) is None


def test_what_is_in_doubt_does_not_stretch_the_axis_and_is_joined_to_nothing():
    chart = draw(
        (0.0, 1_000, "valid"),
        (0.04, 1_010, "valid"),
        (0.06, 53_000_000, "suspect"),
        (0.08, 0, "suspect"),
        (0.09, 1_020, "valid"),
    )
    assert [(mark.look, mark.beyond) for mark in chart.marks] == [
        ("measured", 0), ("measured", 0), ("doubt", 1), ("doubt", -1), ("measured", 0),
    ]  # fmt: skip
    assert chart.axis[-1][1] < 2_000
    assert len(chart.lines) == 2
    assert chart.counts == {"measured": 3, "doubt": 2, "estimated": 0}


def test_a_long_silence_is_not_bridged_but_an_estimate_is_dashed():
    chart = draw((0.0, 10, "valid"), (0.5, 20, "estimated"), (0.9, 30, "valid"), (1.0, 40, "valid"))
    assert [line.is_dashed for line in chart.lines] == [True, True]
    assert [draw((0.0, 10, "valid"), (0.9, 30, "valid")).lines] == [()]


def test_only_doubt_is_drawn_to_its_own_measure():
    chart = draw((0.1, 10, "suspect"), (0.2, 900, "suspect"))
    assert [mark.beyond for mark in chart.marks] == [0, 0]


@pytest.mark.parametrize(
    ("hours", "texts"),
    [
        (4, ["04", "05", "06", "07", "08"]),
        (24, ["06", "12", "18", "00", None]),
        (28, ["06", "12", "18", "00", "06"]),
        (40, ["12", "00", "12", None]),
        (24 * 9, ["00", "00", "00", "00", None]),
    ],
)
def test_labels_stand_on_whole_hours_of_the_local_clock(hours, texts):
    found = [in_muscat(at).strftime("%H") for at in label_times(NOW, NOW + timedelta(hours=hours))]
    assert found == [text for text in texts if text]


def test_looks():
    assert [look_of(quality) for quality in ("valid", "simulated", "suspect", "estimated")] == [
        "measured", "measured", "doubt", "estimated",
    ]  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(-(2**53), 2**53), st.sampled_from(["valid", "suspect", "estimated"])
        ),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_everything_stays_inside(told):
    chart = draw(*sorted(told))
    assert all(START <= mark.x <= END and TOP <= mark.y <= BASE for mark in chart.marks)
    assert 2 <= len(chart.axis) <= 12
    assert all(line.x1 <= line.x2 for line in chart.lines)
