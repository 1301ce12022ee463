"""Consumption between the bounds of a chart, from a cumulative counter; what is not known stays a gap."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Literal

from portal.formats import MUSCAT

View = Literal["months", "year", "days", "day", "hours"]
MONTHS_SHOWN = 13  # a whole year and the same month of the year before
WEEKS_SHOWN = 53
DAYS_SHOWN = 60
HOURS_SHOWN = 6  # cut into quarters, as many bars as a day has hours
QUARTER = timedelta(minutes=15)
ESTIMATED_SHARE = 10  # a bar of a month is not drawn as an estimate for one value of thousands
# Between two readings further apart than this a bound is not interpolated: the shape in between is unknown.
LONGEST_BRIDGE: dict[View, timedelta] = {
    "months": timedelta(days=4),
    "year": timedelta(days=4),
    "days": timedelta(hours=30),
    "day": timedelta(hours=3),
    "hours": timedelta(hours=1),
}


@dataclass(frozen=True, slots=True)
class Around:
    """The readings nearest to a bound: the last at or before it, the first at or after it (Wh or mL)."""

    at: datetime
    before_at: datetime | None
    before_value: int | None
    after_at: datetime | None
    after_value: int | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Use in [start, end); None where readings are missing; partial where the end is still to come."""

    start: datetime
    end: datetime
    used: int | None
    is_partial: bool
    is_estimated: bool = (
        False  # a tenth or more of what nobody measured, or shared out between readings outside
    )
    has_estimates: bool = False
    suspect_count: int = 0  # readings that contradict the others and were left out


@dataclass(frozen=True, slots=True)
class Span:
    """What the readings of one counter say together, from `start` to the next span; believed values in Wh or mL."""

    start: datetime
    first_at: datetime | None
    first_value: int | None
    last_at: datetime | None
    last_value: int | None
    value_count: int
    estimated_count: int
    suspect_count: int


def part_of_day(hour: int) -> int:
    """Return the hour at which the shown part of a day begins: 0, 6, 12 or 18."""
    return hour // HOURS_SHOWN * HOURS_SHOWN


def bounds_of(view: View, day: date, hour: int = 0) -> list[datetime]:
    """Return the bounds of the bars on the clock of Muscat, one more than there are bars.

    `day` is in the last bar, or is the day that is shown; `hour` is in the shown part of it.
    """
    midnight = datetime.combine(day, time(), MUSCAT)
    if view == "hours":
        first = midnight + timedelta(hours=part_of_day(hour))
        return [first + count * QUARTER for count in range(4 * HOURS_SHOWN + 1)]
    if view == "year":
        sunday = midnight - timedelta(days=midnight.isoweekday() % 7)  # the week of Oman begins on Sunday
        return [sunday + timedelta(weeks=count) for count in range(1 - WEEKS_SHOWN, 2)]
    if view == "day":
        return [midnight + timedelta(hours=hour) for hour in range(25)]
    if view == "days":
        first = midnight - timedelta(days=DAYS_SHOWN - 1)
        return [first + timedelta(days=count) for count in range(DAYS_SHOWN + 1)]
    last = day.year * 12 + day.month  # months since year 0; the bound after the month of `day`
    return [
        datetime(month // 12, month % 12 + 1, 1, tzinfo=MUSCAT)
        for month in range(last - MONTHS_SHOWN, last + 1)
    ]


def reach(view: View) -> timedelta:
    """Return how far before the first and after the last bound spans are looked for."""
    # The span that holds the last reading before a bound begins up to a span's length earlier.
    length = {"months": timedelta(days=31), "day": timedelta(hours=1), "hours": QUARTER}
    return LONGEST_BRIDGE[view] + length.get(view, timedelta(days=1))


def arounds_of(spans: Sequence[Span], bounds: Sequence[datetime]) -> list[Around]:
    """Return for each bound the readings next to it. `spans` are in order, and a span begins at each bound."""
    told = [span for span in spans if span.value_count]
    starts = [span.start for span in told]
    found = []
    for at in bounds:
        place = bisect_left(starts, at)
        before = told[place - 1] if place else None
        after = told[place] if place < len(told) else None
        first_at, first = (after.first_at, after.first_value) if after else (None, None)
        if first_at == at:
            found.append(Around(at, at, first, at, first))
        else:
            last_at, last = (before.last_at, before.last_value) if before else (None, None)
            found.append(Around(at, last_at, last, first_at, first))
    return found


def buckets_of(spans: Sequence[Span], bounds: Sequence[datetime], view: View, now: datetime) -> list[Bucket]:
    """Return the use between each pair of bounds, with what is to be said of its readings."""
    starts = [span.start for span in spans]
    places = [bisect_left(starts, at) for at in bounds]
    found = []
    for bucket, (begin, end) in zip(
        buckets(arounds_of(spans, bounds), view, now), pairwise(places), strict=True
    ):
        inside = spans[begin:end]
        told = sum(span.value_count for span in inside)
        estimated = sum(span.estimated_count for span in inside)
        found.append(
            replace(
                bucket,
                is_estimated=bucket.used is not None and ESTIMATED_SHARE * estimated >= told,
                has_estimates=bucket.used is not None and (estimated > 0 or told == 0),
                suspect_count=sum(span.suspect_count for span in inside),
            )
        )
    return found


def counter_at(around: Around, longest_bridge: timedelta) -> int | None:
    """Return the counter at the bound, interpolated between two readings near enough; None when unknown."""
    if around.before_at is None or around.before_value is None:
        return None
    if around.before_at == around.at:
        return around.before_value
    if around.after_at is None or around.after_value is None:
        return None
    span = around.after_at - around.before_at
    if span > longest_bridge or around.after_value < around.before_value:
        return None
    passed = around.at - around.before_at
    grown = around.after_value - around.before_value
    return around.before_value + grown * (passed // timedelta(seconds=1)) // (
        span // timedelta(seconds=1) or 1
    )


def buckets(arounds: Sequence[Around], view: View, now: datetime) -> list[Bucket]:
    """Return the use between each pair of bounds; the bucket of `now` is measured up to the last reading."""
    bridge = LONGEST_BRIDGE[view]
    found = []
    for opening, closing in pairwise(arounds):
        start_value = counter_at(opening, bridge)
        is_partial = closing.at > now
        end_value = counter_at(closing, bridge)
        if (
            is_partial
            and end_value is None
            and closing.before_at is not None
            and closing.before_at > opening.at
        ):
            end_value = closing.before_value
        used = None
        if start_value is not None and end_value is not None and end_value >= start_value:
            used = end_value - start_value
        found.append(Bucket(opening.at, closing.at, used, is_partial))
    return found


def pace(arounds: Sequence[Around]) -> tuple[int | None, timedelta]:
    """Return the use and the span between the first reading at or after the first bound and the last one known.

    `arounds` are two bounds: some days ago, and now.
    """
    first, last = arounds[0], arounds[-1]
    start_at, start = (
        (first.before_at, first.before_value)
        if first.before_at == first.at
        else (first.after_at, first.after_value)
    )
    if start_at is None or start is None or last.before_at is None or last.before_value is None:
        return None, timedelta()
    if last.before_value < start or last.before_at <= start_at:
        return None, timedelta()
    return last.before_value - start, last.before_at - start_at
