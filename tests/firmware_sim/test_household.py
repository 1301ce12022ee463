"""Demand is seeded, whole, and its pieces add up."""

import itertools
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.household import daily_use, half_hour_use, history, load_at, use_between
from firmware_sim.town import build_town

TOWN = build_town()
METERS = st.sampled_from(TOWN.installed)
INSTANTS = st.integers(0, 63_072_000).map(lambda s: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=s))


@settings(max_examples=40)
@given(METERS, st.dates(date(2025, 1, 1), date(2027, 1, 1)))
def test_half_hours_add_up_to_the_day(meter, day):
    halves = half_hour_use(TOWN, meter, day)
    assert len(halves) == 48
    assert sum(halves) == daily_use(TOWN, meter, day)
    assert min(halves) >= 0


@settings(max_examples=40)
@given(METERS, INSTANTS, st.integers(0, 200_000), st.integers(0, 200_000))
def test_use_in_pieces_is_use_in_one(meter, start, first_s, second_s):
    middle = start + timedelta(seconds=first_s)
    end = middle + timedelta(seconds=second_s)
    pieces = use_between(TOWN, meter, start, middle) + use_between(TOWN, meter, middle, end)
    assert pieces == use_between(TOWN, meter, start, end) >= 0


def test_a_whole_local_day_is_the_daily_use():
    meter = TOWN.installed[0]
    midnight = datetime(2026, 7, 3, 20, tzinfo=UTC)  # 00:00 on 4 July in Muscat
    used = use_between(TOWN, meter, midnight, midnight + timedelta(days=1))
    assert used == daily_use(TOWN, meter, date(2026, 7, 4))


def test_summer_draws_more_than_winter():
    for meter in TOWN.installed:
        july = sum(daily_use(TOWN, meter, date(2026, 7, d)) for d in range(1, 29))
        january = sum(daily_use(TOWN, meter, date(2026, 1, d)) for d in range(1, 29))
        assert july > january * (2 if meter.commodity == "electricity" else 1)


def test_evenings_draw_more_than_the_hours_before_dawn():
    days = [date(2026, 3, d) for d in range(1, 29)]
    for meter in TOWN.installed:
        halves = [half_hour_use(TOWN, meter, day) for day in days]
        assert sum(sum(h[38:44]) for h in halves) > sum(sum(h[2:8]) for h in halves)


@pytest.mark.parametrize("index", [0, 17, 41, 59])
def test_history_ends_at_the_counter_of_today(index):
    meter = TOWN.installed[index]
    told = history(TOWN, meter, datetime(2026, 11, 22, 11, 44, 5, tzinfo=UTC))
    assert told.half_hourly[-1] == (datetime(2026, 11, 22, 11, 30, tzinfo=UTC), meter.initial_counter)
    assert len(told.half_hourly) == 60 * 48 + 1
    assert len(told.daily) == 397
    assert told.daily[0][1] >= 0
    for series in (told.daily, told.half_hourly):
        assert all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(series))
    fine = dict(told.half_hourly)
    assert all(fine[at] == counter for at, counter in told.daily if at in fine)


def test_every_counter_is_large_enough_for_thirteen_months():
    until = datetime(2026, 10, 1, tzinfo=UTC)  # the window with the most summer in it
    assert all(history(TOWN, m, until, half_hour_days=1).daily[0][1] > 0 for m in TOWN.installed)


def test_load_is_twice_the_half_hour():
    meter = TOWN.installed[0]
    at = datetime(2026, 7, 4, 16, 10, tzinfo=UTC)  # 20:10 in Muscat
    assert load_at(TOWN, meter, at) == 2 * half_hour_use(TOWN, meter, date(2026, 7, 4))[40]
