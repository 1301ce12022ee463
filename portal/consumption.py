"""Consumption between the bounds of a chart, from a cumulative counter; what is not known stays a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Literal

from portal.formats import MUSCAT

View = Literal["months", "days", "day"]
MONTHS_SHOWN = 13  # a whole year and the same month of the year before
DAYS_SHOWN = 60
# Between two readings further apart than this a bound is not interpolated: the shape in between is unknown.
LONGEST_BRIDGE = {"months": timedelta(days=4), "days": timedelta(hours=30), "day": timedelta(hours=3)}


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


def bounds_of(view: View, day: date) -> list[datetime]:
    """Return the bounds of the bars on the clock of Muscat, one more than there are bars; `day` is in the last."""
    midnight = datetime.combine(day, time(), MUSCAT)
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
