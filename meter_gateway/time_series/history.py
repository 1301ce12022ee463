"""How far downsampled history may be written, and in which steps: the rules of the job that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

MUSCAT: Final = ZoneInfo("Asia/Muscat")  # days and months are those of the customers' clocks
# Readings of the last hour still arrive in their order: they are looked up live, and written once.
LIVE: Final = timedelta(hours=1)
# A step reads at least an hour and at most a month, about this many bucket rows: a second or two of work.
MOST_STEP_HOURS: Final = 744
FEW_ROWS: Final = 20_000
MANY_ROWS: Final = 100_000


class Edition(StrEnum):
    """What the server can do, as it says itself."""

    PLAIN = "plain"
    APACHE = "apache"
    COMMUNITY = "community"


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where hours, days and months are written; None: nothing yet. `seen_until`: late ones looked for."""

    kept_by: str
    live_hour: datetime | None
    live_day: datetime | None
    live_month: datetime | None
    seen_until: datetime
    step_hours: int


def start_of_hour(at: datetime) -> datetime:
    """Return the start of the hour of an instant."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def start_of_day(at: datetime) -> datetime:
    """Return the start of the day of an instant, on the clock of Muscat."""
    return at.astimezone(MUSCAT).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def start_of_month(at: datetime) -> datetime:
    """Return the start of the month of an instant, on the clock of Muscat."""
    return at.astimezone(MUSCAT).replace(day=1, hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def live_from(now: datetime) -> datetime:
    """Return the start of the hours that are looked up live."""
    return start_of_hour(now - LIVE)


def next_until(start: datetime, step_hours: int, now: datetime) -> datetime | None:
    """Return where the step that begins at `start` ends; None when all is written."""
    until = min(start_of_hour(start) + timedelta(hours=step_hours), live_from(now))
    return until if until > start else None


def next_step_hours(step_hours: int, rows: int) -> int:
    """Return the length of the next step after one that wrote `rows` hours' rows."""
    if rows < FEW_ROWS:
        return min(2 * step_hours, MOST_STEP_HOURS)
    return max(1, step_hours // 2) if rows > MANY_ROWS else step_hours
