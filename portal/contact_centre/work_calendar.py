"""Working time: which seconds of which days count, in a calendar's own time zone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

# Longer than any year: a calendar with no open second in it is a mistake, not a long holiday (field.md 4.4).
GUARD_DAYS = 400
MINUTES_A_DAY = 24 * 60
ONE_DAY = timedelta(days=1)

Minutes = tuple[int, int]  # minutes from local midnight, half-open; the end may be 1440


class CalendarWrong(Exception):
    """The calendar as it is set up cannot answer: no version, a bad bound, or no open time in 400 days."""


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open piece of time [start, end), aware UTC."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """Its seconds."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class CalendarVersion:
    """Opening hours from one date on: the weekly pattern (0 = Monday) and single dates that differ."""

    valid_from: date
    time_zone: str
    weekly: Mapping[int, tuple[Minutes, ...]]
    exceptions: Mapping[date, tuple[Minutes, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse bounds that no clock shows. Raises CalendarWrong."""
        for pieces in (*self.weekly.values(), *self.exceptions.values()):
            for start, end in pieces:
                if not 0 <= start < end <= MINUTES_A_DAY:
                    raise CalendarWrong(f"opening hours {start}..{end} are not minutes of a day")

    def minutes_on(self, day: date) -> tuple[Minutes, ...]:
        """The opening hours of `day`: an exception for the date wins over the weekly pattern."""
        pieces = self.exceptions.get(day)
        return self.weekly.get(day.weekday(), ()) if pieces is None else pieces


@dataclass(frozen=True, slots=True)
class WorkCalendar:
    """All versions of one calendar, oldest first; a date uses the last version that began by then."""

    code: str
    versions: tuple[CalendarVersion, ...]

    def version_on(self, day: date) -> CalendarVersion:
        """The version valid on `day`. Raises CalendarWrong before the first one."""
        found = None
        for version in self.versions:
            if version.valid_from <= day:
                found = version
        if found is None:
            raise CalendarWrong(f"calendar {self.code} says nothing about {day.isoformat()}")
        return found

    def is_working_day(self, day: date) -> bool:
        """True when `day` has at least one open minute."""
        return bool(self.version_on(day).minutes_on(day))

    def local_date(self, instant: datetime) -> date:
        """The date on the wall where this calendar applies, at an aware `instant`."""
        near = _aware(instant).astimezone(UTC).date()
        return instant.astimezone(ZoneInfo(self.version_on(near).time_zone)).date()

    def spans_on(self, day: date) -> tuple[Span, ...]:
        """The open spans of `day` in UTC, in order, overlapping and touching ones merged."""
        version = self.version_on(day)
        zone = ZoneInfo(version.time_zone)
        pieces = [
            Span(_utc(day, start, zone), _utc(day, end, zone))
            for start, end in sorted(version.minutes_on(day))
        ]
        return tuple(_merged(piece for piece in pieces if piece.start < piece.end))

    def spans_from(self, instant: datetime) -> Iterator[Span]:
        """Open spans that end after `instant`, for GUARD_DAYS days; 24:00 touches the next day's 00:00."""
        first = self.local_date(instant)
        for offset in range(GUARD_DAYS):
            for span in self.spans_on(first + offset * ONE_DAY):
                if span.end > instant:
                    yield span


def business_between(calendar: WorkCalendar, start: datetime, end: datetime) -> timedelta:
    """Open time in [start, end); zero when `end` is not after `start`."""
    total = timedelta(0)
    if _aware(end) <= _aware(start):
        return total
    day = calendar.local_date(start)
    last = calendar.local_date(end)
    while day <= last:
        for span in calendar.spans_on(day):
            total += max(timedelta(0), min(span.end, end) - max(span.start, start))
        day += ONE_DAY
    return total


def add_business(calendar: WorkCalendar, start: datetime, amount: timedelta) -> datetime:
    """The instant at which `amount` of open time has passed since `start`; an exact fit ends with its span.

    Raises ValueError for an amount that is not positive, CalendarWrong when 400 days do not hold it.
    """
    if amount <= timedelta(0):
        raise ValueError("a clock's target is longer than nothing")
    left = amount
    for span in calendar.spans_from(_aware(start)):
        begin = max(span.start, start)
        if left <= span.end - begin:
            return begin + left
        left -= span.end - begin
    raise CalendarWrong(f"calendar {calendar.code} has not {amount} of open time in {GUARD_DAYS} days")


def receipt_date(calendar: WorkCalendar, instant: datetime) -> date:
    """Day 0 of a working-day clock: the date of receipt, or the next working day after closing time."""
    day = calendar.local_date(_aware(instant))
    spans = calendar.spans_on(day)
    if spans and instant < spans[-1].end:
        return day
    return next_working_day(calendar, day)


def next_working_day(calendar: WorkCalendar, day: date) -> date:
    """The first working day after `day`. Raises CalendarWrong when 400 days have none."""
    for offset in range(1, GUARD_DAYS + 1):
        candidate = day + offset * ONE_DAY
        if calendar.is_working_day(candidate):
            return candidate
    raise CalendarWrong(f"calendar {calendar.code} has no working day in {GUARD_DAYS} days")


def add_workdays(calendar: WorkCalendar, day: date, count: int) -> datetime:
    """Closing time of the `count`th working day after `day` (day 0). Raises ValueError, CalendarWrong."""
    if count < 1:
        raise ValueError("a working-day clock has at least one day")
    for _ in range(count):
        day = next_working_day(calendar, day)
    return calendar.spans_on(day)[-1].end


def workdays_between(calendar: WorkCalendar, first: date, last: date) -> int:
    """How many working days lie after `first` and not after `last`."""
    days = (last - first).days
    return sum(calendar.is_working_day(first + offset * ONE_DAY) for offset in range(1, days + 1))


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    current: Span | None = None
    for span in spans:
        if current is None:
            current = span
        elif span.start <= current.end:
            current = Span(current.start, max(current.end, span.end))
        else:
            yield current
            current = span
    if current is not None:
        yield current


def _utc(day: date, minute: int, zone: ZoneInfo) -> datetime:
    # Each bound is converted on its own, so that a day with a change of clocks has its true length.
    whole_days, rest = divmod(minute, MINUTES_A_DAY)
    local = datetime.combine(day + whole_days * ONE_DAY, time(rest // 60, rest % 60), tzinfo=zone)
    return local.astimezone(UTC)


def _aware(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("a clock runs on aware times")
    return instant
