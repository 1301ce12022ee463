"""Counters that nobody read, between two that somebody did: a straight line, or the shape of a typical day. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from meter_gateway.readings.validation import KnownCounter

HALF_HOURS: Final = 48
_HALF_HOUR_S: Final = 1800
# Longer gaps are left as gaps: over a week nobody knows who was at home.
LONGEST: Final = timedelta(days=7)
# What a gap of a week has at one a quarter of an hour.
MOST: Final = 700
# In a shorter gap a typical day says nothing that a line does not.
SHAPED_FROM: Final = timedelta(hours=3)
# Two weekends: fewer days are no habit.
HABIT: Final = timedelta(days=14)
# A half-hour without any habitual use still gets a share, so that time never stands still in an estimate.
_FLAT_SHARE: Final = 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """One counter in Wh or mL that was not measured; `method` line or typical."""

    at: datetime
    value: int
    method: str


def fill_gap(
    start: KnownCounter, end: KnownCounter, every: timedelta, habit: Sequence[int] | None = None
) -> list[Estimate]:
    """Return the counters that are missing between two measured ones, one each `every`, none next to `end`.

    `habit` is the usual use of each half-hour of a UTC day (48 values, Wh or mL). The estimates rise from
    `start` to `end` and never pass it; nothing is returned for a counter that fell or for a gap over a week.
    """
    span = end.at - start.at
    if end.value < start.value or span > LONGEST or every <= timedelta():
        return []
    is_shaped = habit is not None and span >= SHAPED_FROM and sum(habit) > 0
    shares = _shares(habit) if habit is not None and is_shaped else [1] * HALF_HOURS
    whole = _weight(start.at, end.at, shares)
    rise = end.value - start.value
    found: list[Estimate] = []
    at = start.at + every
    while at <= end.at - every / 2 and len(found) < MOST and whole:
        value = start.value + rise * _weight(start.at, at, shares) // whole
        found.append(Estimate(at, value, "typical" if is_shaped else "line"))
        at += every
    return found


def _shares(habit: Sequence[int]) -> list[int]:
    if len(habit) != HALF_HOURS:
        raise ValueError(f"a day has {HALF_HOURS} half-hours, not {len(habit)}")
    floor = max(1, sum(habit) // (HALF_HOURS * _FLAT_SHARE))
    return [max(use, floor) for use in habit]


def _weight(start: datetime, until: datetime, shares: Sequence[int]) -> int:
    """Share-seconds from one instant to a later one; a whole day is taken at once."""
    first, last = int(start.timestamp()), int(until.timestamp())
    days, rest = divmod(max(0, last - first), HALF_HOURS * _HALF_HOUR_S)
    total = days * sum(shares) * _HALF_HOUR_S
    at, end = first, first + rest
    while at < end:
        step = min(end, at - at % _HALF_HOUR_S + _HALF_HOUR_S)
        total += (step - at) * shares[at // _HALF_HOUR_S % HALF_HOURS]
        at = step
    return total


def half_hour_of(at: datetime) -> int:
    """Return which half-hour of its UTC day an instant lies in, 0 to 47."""
    moment = at.astimezone(UTC)
    return moment.hour * 2 + moment.minute // 30
