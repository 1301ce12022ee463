from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway.readings.estimate import HALF_HOURS, LONGEST, MOST, fill_gap, half_hour_of
from meter_gateway.readings.validation import KnownCounter

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(hours, value):
    return KnownCounter(NOW + hours * HOUR, value)


def test_equal_habits_are_a_straight_line():
    found = fill_gap(at(0, 1000), at(4, 1400), HOUR, [10] * 20 + [90] * 28)
    assert [(one.at - NOW, one.value, one.method) for one in found] == [
        (HOUR, 1200 - 100, "typical"),
        (2 * HOUR, 1200, "typical"),
        (3 * HOUR, 1300, "typical"),
    ]
    assert {one.method for one in fill_gap(at(0, 1000), at(2, 1400), HOUR, [1] * HALF_HOURS)} == {"line"}


def test_a_night_of_sleep_stays_flat_in_a_long_gap():
    asleep_until_noon = [0] * 24 + [100] * 24
    found = fill_gap(at(0, 0), at(24, 24_000), HOUR, asleep_until_noon)
    assert found[10].value < 1500, "eleven in the morning: a twentieth a half-hour at most"
    assert found[17].value > 12_000
    assert len(found) == 23


@pytest.mark.parametrize(
    ("start", "end"),
    [(at(0, 500), at(4, 400)), (at(0, 0), at(24 * 8, 9)), (at(0, 0), at(0.5, 9)), (at(0, 0), at(0, 9))],
)
def test_what_is_not_estimated(start, end):
    assert fill_gap(start, end, HOUR) == []


def test_half_a_day_of_habits_is_a_mistake():
    with pytest.raises(ValueError, match="half-hours"):
        fill_gap(at(0, 0), at(24, 9), HOUR, [1] * 24)


@given(
    value=st.integers(0, 2**50),
    rise=st.integers(0, 2**40),
    span_s=st.integers(1, int(LONGEST.total_seconds())),
    every_s=st.integers(60, 172_800),
    habit=st.none() | st.lists(st.integers(0, 10**9), min_size=48, max_size=48),
    offset_s=st.integers(0, 86_400),
)
@settings(max_examples=60, deadline=None)
def test_estimates_rise_between_what_was_measured(value, rise, span_s, every_s, habit, offset_s):
    begin = NOW + timedelta(seconds=offset_s)
    start = KnownCounter(begin, value)
    end = KnownCounter(begin + timedelta(seconds=span_s), value + rise)
    found = fill_gap(start, end, timedelta(seconds=every_s), habit)
    values = [value, *(one.value for one in found), value + rise]
    assert values == sorted(values)
    assert len(found) <= MOST
    assert all(start.at < one.at < end.at for one in found)


def test_half_hours():
    assert half_hour_of(NOW) == 0
    assert half_hour_of(NOW + timedelta(hours=23, minutes=59)) == 47
