"""Edges of hours, days and months, and the steps of the job."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway.time_series import history
from meter_gateway.time_series.history import FEW_ROWS, MANY_ROWS, MOST_STEP_HOURS

NOW = datetime(2026, 11, 22, 9, 30, 5, tzinfo=UTC)


def test_days_and_months_begin_on_the_clock_of_muscat():
    late = datetime(2026, 10, 31, 20, 0, tzinfo=UTC)  # midnight of 1 November
    assert history.start_of_month(late) == late
    assert history.start_of_month(late - timedelta(seconds=1)) == datetime(2026, 9, 30, 20, tzinfo=UTC)
    assert history.start_of_day(late + timedelta(hours=23, minutes=59)) == late
    assert history.start_of_hour(NOW) == datetime(2026, 11, 22, 9, tzinfo=UTC)


def test_the_last_hours_are_live():
    assert history.live_from(NOW) == datetime(2026, 11, 22, 8, tzinfo=UTC)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2026, 11, 23), timezones=st.just(UTC)),
    st.integers(1, MOST_STEP_HOURS),
)
@settings(max_examples=60)
def test_steps_end_at_the_live_side_and_always_go_on(start, step_hours):
    found = history.next_until(start, step_hours, NOW)
    if found is None:
        assert history.start_of_hour(start) >= history.live_from(NOW)
    else:
        assert start < found <= history.live_from(NOW)
        assert found == history.start_of_hour(found)


@pytest.mark.parametrize(
    ("step_hours", "rows", "expected"),
    [
        (1, 0, 2),
        (500, FEW_ROWS - 1, MOST_STEP_HOURS),
        (8, FEW_ROWS, 8),
        (8, MANY_ROWS, 8),
        (8, MANY_ROWS + 1, 4),
        (1, 10**9, 1),
    ],
)
def test_steps_grow_where_little_is_and_shrink_where_much_is(step_hours, rows, expected):
    assert history.next_step_hours(step_hours, rows) == expected
