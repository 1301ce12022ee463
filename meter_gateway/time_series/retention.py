"""How long readings and their history are kept, and which partitions have outlived that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from meter_gateway.time_series.history import MUSCAT, start_of_month

# The customer's page shows 13 months and a complaint may reach back as far; fewer would lose its subject.
LEAST_RAW_MONTHS: Final = 14


@dataclass(frozen=True, slots=True)
class Keep:
    """Months of readings, hours, days (and months); days of dead letters. Raises ValueError where too short."""

    raw_months: int = 25
    hour_months: int = 37
    day_months: int = 120
    dead_letter_days: int = 90

    def __post_init__(self) -> None:
        if self.raw_months < LEAST_RAW_MONTHS:
            raise ValueError(f"readings are kept at least {LEAST_RAW_MONTHS} months, not {self.raw_months}")
        if not self.raw_months <= self.hour_months <= self.day_months:
            raise ValueError("hours are kept as long as readings or longer, days as long as hours or longer")
        if self.dead_letter_days < 1:
            raise ValueError("dead letters are kept at least a day")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition by time; all it holds is before `ends_at`."""

    parent: str
    name: str
    ends_at: datetime


def cutoff(now: datetime, months: int) -> datetime:
    """Return the start of the month, on the clock of Muscat, that is `months` months before this one."""
    local = now.astimezone(MUSCAT)
    count = local.year * 12 + local.month - 1 - months
    return start_of_month(local.replace(year=count // 12, month=count % 12 + 1, day=1))


def cutoffs(keep: Keep, now: datetime, written_until: datetime | None) -> dict[str, datetime]:
    """Return for each table the instant before which whole partitions go; nothing that is not downsampled yet.

    `written_until` is the start of the months that history still looks up in the readings.
    """
    found = {
        "history_hour": cutoff(now, keep.hour_months),
        "history_day": cutoff(now, keep.day_months),
        "history_month": cutoff(now, keep.day_months),
    }
    if written_until is not None:
        found["reading"] = min(cutoff(now, keep.raw_months), written_until)
    return found


def outlived(partitions: Iterable[Partition], before: dict[str, datetime]) -> list[Partition]:
    """Return the partitions that lie wholly before their table's instant."""
    return [one for one in partitions if one.parent in before and one.ends_at <= before[one.parent]]
