"""The test vectors of the SLA clock, and what must hold for any time and any length."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.contact_centre.work_calendar import (
    CalendarVersion,
    CalendarWrong,
    WorkCalendar,
    add_business,
    add_workdays,
    business_between,
    receipt_date,
    workdays_between,
)

MUSCAT = "Asia/Muscat"
ALL_WEEK = range(7)


def calendar(days, pieces, *, zone=MUSCAT, exceptions=None):
    weekly = dict.fromkeys(days, tuple((start, end) for start, end in pieces))
    version = CalendarVersion(date(2020, 1, 1), zone, weekly, exceptions or {})
    return WorkCalendar("test", (version,))


OM = calendar((6, 0, 1, 2, 3), [(450, 870)])  # Sunday to Thursday, 07:30 to 14:30
UK = calendar(range(5), [(480, 1080)], zone="Europe/London")
ALWAYS = calendar(ALL_WEEK, [(0, 1440)])


def local(text, zone=MUSCAT):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


# 2025-10-05 is a Sunday; 2025-10-06 a Monday.
@pytest.mark.parametrize(
    ("cal", "zone", "start", "hours", "due"),
    [
        (OM, MUSCAT, "2025-10-09 14:00", 2, "2025-10-12 09:00"),  # 1
        (OM, MUSCAT, "2025-10-10 10:00", 1, "2025-10-12 08:30"),  # 2
        (UK, "Europe/London", "2025-10-06 16:00", 4, "2025-10-07 10:00"),  # 4
        (UK, "Europe/London", "2025-10-06 17:00", 4, "2025-10-07 11:00"),  # 5
        (UK, "Europe/London", "2025-10-06 17:00", 3, "2025-10-07 10:00"),  # 5, the level at -1 h
        (ALWAYS, MUSCAT, "2025-10-06 23:30", 1, "2025-10-07 00:30"),  # 6
        (OM, MUSCAT, "2025-10-06 07:30", 7, "2025-10-06 14:30"),  # exact fit: due at closing time
        (OM, MUSCAT, "2025-10-09 07:30", 7, "2025-10-09 14:30"),  # the same before a weekend
    ],
)
def test_due_instants_of_the_specification(cal, zone, start, hours, due):
    assert add_business(cal, local(start, zone), timedelta(hours=hours)) == local(due, zone)


def test_vector_8_two_days_closed_by_exception():
    closed = {date(2025, 10, 7): (), date(2025, 10, 8): ()}
    cal = calendar((6, 0, 1, 2, 3), [(450, 870)], exceptions=closed)
    assert add_business(cal, local("2025-10-06 14:00"), timedelta(hours=1)) == local("2025-10-09 08:00")


def test_vector_10_business_between():
    assert business_between(OM, local("2025-10-05 08:00"), local("2025-10-07 10:00")) == timedelta(hours=16)


def test_vector_13_ten_working_days():
    assert add_workdays(OM, date(2025, 10, 5), 10) == local("2025-10-19 14:30")


@pytest.mark.parametrize(
    ("received", "day_zero"),
    [
        ("2025-10-05 06:00", date(2025, 10, 5)),  # before opening counts as that day
        ("2025-10-05 14:29", date(2025, 10, 5)),
        ("2025-10-05 14:30", date(2025, 10, 6)),  # closing time is outside: half-open
        ("2025-10-09 15:00", date(2025, 10, 12)),  # Thursday evening
        ("2025-10-10 10:00", date(2025, 10, 12)),  # Friday
    ],
)
def test_receipt_date(received, day_zero):
    assert receipt_date(OM, local(received)) == day_zero


def test_touching_and_overlapping_pieces_count_once():
    cal = calendar(ALL_WEEK, [(480, 600), (600, 720), (540, 660)])
    assert [span.length for span in cal.spans_on(date(2025, 10, 6))] == [timedelta(hours=4)]


def test_an_exception_may_open_a_closed_day():
    cal = calendar((6, 0, 1, 2, 3), [(450, 870)], exceptions={date(2025, 10, 10): ((540, 720),)})
    assert add_business(cal, local("2025-10-10 10:00"), timedelta(hours=1)) == local("2025-10-10 11:00")


@pytest.mark.parametrize(("day", "hours"), [(date(2025, 3, 30), 23), (date(2025, 10, 26), 25)])
def test_a_day_with_a_change_of_clocks_has_its_true_length(day, hours):
    cal = calendar(ALL_WEEK, [(0, 1440)], zone="Europe/London")
    assert sum((s.length for s in cal.spans_on(day)), timedelta()) == timedelta(hours=hours)


def test_past_time_uses_the_version_of_its_date():
    weekly = dict.fromkeys(ALL_WEEK, ((480, 960),))
    ramadan = dict.fromkeys(ALL_WEEK, ((540, 840),))
    cal = WorkCalendar(
        "test",
        (
            CalendarVersion(date(2020, 1, 1), MUSCAT, weekly),
            CalendarVersion(date(2025, 3, 1), MUSCAT, ramadan),
        ),
    )
    assert business_between(cal, local("2025-02-28 00:00"), local("2025-03-01 00:00")) == timedelta(hours=8)
    assert business_between(cal, local("2025-03-01 00:00"), local("2025-03-02 00:00")) == timedelta(hours=5)


def test_a_calendar_with_no_open_time_is_a_mistake_and_never_a_loop():
    closed = calendar((), [])
    with pytest.raises(CalendarWrong):
        add_business(closed, local("2025-10-05 08:00"), timedelta(hours=1))
    with pytest.raises(CalendarWrong):
        add_workdays(closed, date(2025, 10, 5), 1)


def test_a_date_before_the_first_version_is_a_mistake():
    with pytest.raises(CalendarWrong):
        business_between(OM, local("2019-01-01 08:00"), local("2019-01-02 08:00"))


@pytest.mark.parametrize("piece", [(-1, 60), (60, 60), (120, 60), (0, 1441)])
def test_bounds_that_no_clock_shows_are_refused(piece):
    with pytest.raises(CalendarWrong):
        calendar(ALL_WEEK, [piece])


@pytest.mark.parametrize("amount", [timedelta(0), timedelta(seconds=-1)])
def test_a_target_is_longer_than_nothing(amount):
    with pytest.raises(ValueError, match="longer"):
        add_business(OM, local("2025-10-05 08:00"), amount)
    with pytest.raises(ValueError, match="at least one"):
        add_workdays(OM, date(2025, 10, 5), 0)


def test_naive_times_are_refused():
    with pytest.raises(ValueError, match="aware"):
        add_business(OM, datetime(2025, 10, 5, 8), timedelta(hours=1))


instants = st.datetimes(datetime(2025, 1, 1), datetime(2026, 12, 31)).map(lambda t: t.replace(tzinfo=UTC))
lengths = st.integers(1, 60 * 60 * 40).map(lambda s: timedelta(seconds=s))
calendars = st.sampled_from([OM, UK, ALWAYS])


@settings(max_examples=60, deadline=None)
@given(calendars, instants, lengths)
def test_added_time_is_the_time_between(cal, start, amount):
    assert business_between(cal, start, add_business(cal, start, amount)) == amount


@settings(max_examples=60, deadline=None)
@given(calendars, instants, st.integers(1, 60 * 60 * 24 * 9))
def test_adding_the_time_between_never_passes_the_end(cal, start, seconds):
    end = start + timedelta(seconds=seconds)
    between = business_between(cal, start, end)
    if between:
        assert add_business(cal, start, between) <= end


@settings(max_examples=60, deadline=None)
@given(calendars, instants, lengths, lengths)
def test_a_longer_target_is_due_later(cal, start, one, other):
    short, long = sorted((one, other))
    due = add_business(cal, start, short), add_business(cal, start, long)
    assert due[0] <= due[1]
    assert (due[0] == due[1]) == (short == long)


@settings(max_examples=60, deadline=None)
@given(calendars, instants, st.integers(0, 10**6), st.integers(0, 10**6))
def test_splitting_a_run_leaves_consumed_unchanged(cal, start, one, other):
    middle = start + timedelta(seconds=one)
    end = middle + timedelta(seconds=other)
    whole = business_between(cal, start, end)
    assert business_between(cal, start, middle) + business_between(cal, middle, end) == whole


@settings(max_examples=40, deadline=None)
@given(instants, lengths)
def test_closing_friday_in_a_sunday_to_thursday_calendar_changes_nothing(start, amount):
    fridays = {date(2025, 1, 3) + timedelta(weeks=week): () for week in range(160)}
    cal = calendar((6, 0, 1, 2, 3), [(450, 870)], exceptions=fridays)
    assert add_business(cal, start, amount) == add_business(OM, start, amount)


@settings(max_examples=40, deadline=None)
@given(instants, st.integers(1, 40))
def test_working_days_are_counted_back(start, count):
    day = receipt_date(OM, start)
    due = add_workdays(OM, day, count)
    assert workdays_between(OM, day, OM.local_date(due)) == count
