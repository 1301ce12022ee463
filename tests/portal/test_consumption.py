from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.consumption import Around, Span, arounds_of, bounds_of, buckets, buckets_of, counter_at, pace
from portal.formats import MUSCAT

START = datetime(2026, 11, 20, 20, 0, tzinfo=UTC)  # midnight of the 21st in Muscat
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def around(at, before=None, after=None) -> Around:
    return Around(at, *(before or (None, None)), *(after or (None, None)))


@pytest.mark.parametrize(
    "day", [date(2026, 11, 22), date(2026, 1, 31), date(2024, 2, 29), date(2026, 12, 31)]
)
@pytest.mark.parametrize(("view", "bars"), [("months", 13), ("days", 60), ("day", 24)])
def test_the_bounds_are_midnights_of_muscat_and_the_day_is_in_the_last_bar(day, view, bars) -> None:
    bounds = bounds_of(view, day)
    assert len(bounds) == bars + 1
    assert all(a < b for a, b in pairwise(bounds))
    assert bounds[0].utcoffset() == timedelta(hours=4)
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=MUSCAT)
    first = bounds[0] if view == "day" else bounds[-2]
    assert first <= noon < bounds[-1]
    if view == "months":
        assert {bound.day for bound in bounds} == {1}


def test_a_bound_between_near_readings_is_interpolated_and_a_far_one_is_not() -> None:
    near = around(START, (START - HOUR, 1_000), (START + HOUR, 1_600))
    assert counter_at(near, 3 * HOUR) == 1_300
    assert counter_at(near, HOUR) is None
    assert counter_at(around(START, (START, 7)), HOUR) == 7
    assert counter_at(around(START, None, (START + HOUR, 9)), 3 * HOUR) is None


def test_a_counter_that_fell_is_a_gap_not_a_negative_bar() -> None:
    fell = around(START, (START - HOUR, 5_000), (START + HOUR, 10))
    assert counter_at(fell, 3 * HOUR) is None
    bounds = [around(START, (START, 5_000), (START, 5_000)), around(START + DAY, (START + DAY, 100), None)]
    assert buckets(bounds, "days", START + 2 * DAY)[0].used is None


def test_the_running_bar_ends_at_its_last_reading() -> None:
    bounds = [
        around(START, (START, 1_000), (START, 1_000)),
        around(START + DAY, (START + 6 * HOUR, 1_250), None),
    ]
    bar = buckets(bounds, "days", START + 7 * HOUR)[0]
    assert (bar.used, bar.is_partial) == (250, True)
    late = buckets(bounds, "days", START + 2 * DAY)[0]
    assert (late.used, late.is_partial) == (None, False)


def test_a_running_bar_without_a_reading_of_its_own_is_a_gap() -> None:
    bounds = [around(START, (START - HOUR, 1_000), None), around(START + DAY, (START - HOUR, 1_000), None)]
    assert buckets(bounds, "days", START + HOUR)[0].used is None


@settings(max_examples=40)
@given(st.lists(st.integers(min_value=0, max_value=5_000), min_size=2, max_size=30))
def test_bars_between_exact_readings_add_up_to_the_counter(uses) -> None:
    counter, bounds = 0, []
    for place, use in enumerate(uses):
        at = START + place * HOUR
        bounds.append(around(at, (at, counter), (at, counter)))
        counter += use
    found = buckets(bounds, "day", START + 100 * HOUR)
    assert [bar.used for bar in found] == uses[:-1]


def test_pace_is_measured_between_what_is_known() -> None:
    first = around(START, None, (START + DAY, 1_000))
    last = around(START + 14 * DAY, (START + 13 * DAY, 13_000), None)
    assert pace([first, last]) == (12_000, 12 * DAY)
    assert pace([first, around(START + 14 * DAY)]) == (None, timedelta())
    assert pace([around(START, (START, 500), (START, 500)), last])[0] == 12_500
    assert pace([around(START, None, (START + DAY, 20_000)), last]) == (None, timedelta())


def span(at, first, last, **counts) -> Span:
    told = {"value_count": 2, "estimated_count": 0, "suspect_count": 0, **counts}
    return Span(at, at + HOUR / 4, first, at + HOUR / 2, last, **told)


def test_a_reading_on_a_bound_is_on_both_of_its_sides() -> None:
    exact = Span(START + HOUR, START + HOUR, 500, START + HOUR, 500, 1, 0, 0)
    found = arounds_of([span(START, 100, 400), exact], [START, START + HOUR, START + 2 * HOUR])
    assert found == [
        around(START, None, (START + HOUR / 4, 100)),
        around(START + HOUR, (START + HOUR, 500), (START + HOUR, 500)),
        around(START + 2 * HOUR, (START + HOUR, 500), None),
    ]


def test_a_span_of_nothing_but_doubt_is_no_neighbour() -> None:
    doubt = Span(START + HOUR, None, None, None, None, 0, 0, 3)
    spans = [span(START, 100, 200), doubt, span(START + 2 * HOUR, 300, 400)]
    bounds = [START + n * HOUR for n in range(4)]
    assert arounds_of(spans, bounds)[1].after_value == 300
    found = buckets_of(spans, bounds, "day", START + DAY)
    assert [one.suspect_count for one in found] == [0, 3, 0]
    assert found[1].used is not None
    assert found[1].is_estimated, "shared out between the readings on both sides"


def test_estimates_are_told() -> None:
    spans = [span(START + n * HOUR, 100 * n, 100 * n + 50, estimated_count=n % 2) for n in range(3)]
    found = buckets_of(spans, [START + n * HOUR for n in range(4)], "day", START + DAY)
    assert [one.is_estimated for one in found] == [False, True, False]
    assert [one.has_estimates for one in found] == [False, True, False]
    few = [replace(one, value_count=11) for one in spans]
    found = buckets_of(few, [START + n * HOUR for n in range(4)], "day", START + DAY)
    assert [(one.is_estimated, one.has_estimates) for one in found][1] == (False, True), "one of eleven"
    assert found[0].used is None, "nothing is known before the first reading"


@pytest.mark.parametrize(("hour", "first"), [(0, 0), (5, 0), (6, 6), (23, 18)])
def test_six_hours_are_a_quarter_of_the_day(hour, first) -> None:
    bounds = bounds_of("hours", date(2026, 11, 22), hour)
    assert (bounds[0].hour, len(bounds), bounds[-1] - bounds[0]) == (first, 25, 6 * HOUR)


def test_a_year_is_53_weeks_from_sunday() -> None:
    bounds = bounds_of("year", date(2026, 11, 25))
    assert {bound.isoweekday() for bound in bounds} == {7}
    assert len(bounds) == 54
    assert bounds[-2].date() == date(2026, 11, 22)
