"""Promised times of a ticket: which clocks run, when each is due, and whether it was kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from portal.contact_centre.ticket import Channel, TicketKind
from portal.contact_centre.work_calendar import (
    WorkCalendar,
    add_business,
    add_workdays,
    business_between,
    receipt_date,
    workdays_between,
)

OFFICE: Final = "oman"
ROUND_THE_CLOCK: Final = "always"
_MINUTE: Final = 60
_HOUR: Final = 3600


class ClockKind(StrEnum):
    """What is promised."""

    ACK = "ack"
    FIRST_RESPONSE = "first_response"
    RESOLUTION = "resolution"


class ClockMode(StrEnum):
    """In what time the target is counted; days are never turned into hours."""

    BUSINESS = "business"
    REAL = "real"
    WORKING_DAYS = "working_days"


class ClockState(StrEnum):
    """What a clock says at an instant."""

    RUNNING = "running"
    BREACHED = "breached"
    MET = "met"
    CLOSED_LATE = "closed_late"


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the policy: `target` is seconds, or days with working_days."""

    kind: ClockKind
    calendar_code: str
    mode: ClockMode
    target: int


@dataclass(frozen=True, slots=True)
class PlannedClock:
    """A clock to be started: the promise with its instants."""

    promise: Promise
    origin_at: datetime
    due_at: datetime
    met_at: datetime | None


# The reference is given at once on every channel that we answer ourselves; a letter waits one working day
# (field.md D, Nama Dhofar practice). Complaints: 10 working days (field.md D, APSR stage 1).
_ACK_AT_ONCE: Final = Promise(ClockKind.ACK, ROUND_THE_CLOCK, ClockMode.REAL, 5 * _MINUTE)
_ACK_LETTER: Final = Promise(ClockKind.ACK, OFFICE, ClockMode.WORKING_DAYS, 1)
POLICY: Final[Mapping[TicketKind, tuple[Promise, ...]]] = {
    TicketKind.NO_SUPPLY: (
        Promise(ClockKind.FIRST_RESPONSE, ROUND_THE_CLOCK, ClockMode.REAL, 30 * _MINUTE),
        Promise(ClockKind.RESOLUTION, ROUND_THE_CLOCK, ClockMode.REAL, 4 * _HOUR),
    ),
    TicketKind.TOKEN_PROBLEM: (
        Promise(ClockKind.FIRST_RESPONSE, ROUND_THE_CLOCK, ClockMode.REAL, 30 * _MINUTE),
        Promise(ClockKind.RESOLUTION, ROUND_THE_CLOCK, ClockMode.REAL, 4 * _HOUR),
    ),
    TicketKind.ENQUIRY: (
        Promise(ClockKind.FIRST_RESPONSE, OFFICE, ClockMode.BUSINESS, 4 * _HOUR),
        Promise(ClockKind.RESOLUTION, OFFICE, ClockMode.WORKING_DAYS, 1),
    ),
    TicketKind.COMPLAINT: (
        Promise(ClockKind.FIRST_RESPONSE, OFFICE, ClockMode.WORKING_DAYS, 1),
        Promise(ClockKind.RESOLUTION, OFFICE, ClockMode.WORKING_DAYS, 10),
    ),
    TicketKind.SUGGESTION: (
        Promise(ClockKind.FIRST_RESPONSE, OFFICE, ClockMode.WORKING_DAYS, 3),
        Promise(ClockKind.RESOLUTION, OFFICE, ClockMode.WORKING_DAYS, 20),
    ),
}


def promises_for(kind: TicketKind, channel: Channel) -> tuple[Promise, ...]:
    """The clocks that a new ticket of `kind` over `channel` starts."""
    ack = _ACK_LETTER if channel is Channel.LETTER else _ACK_AT_ONCE
    return (ack, *POLICY[kind])


def due_at(promise: Promise, calendar: WorkCalendar, origin: datetime) -> datetime:
    """When `promise` falls due if it starts at `origin`. Raises CalendarWrong."""
    if promise.mode is ClockMode.REAL:
        return origin + timedelta(seconds=promise.target)
    if promise.mode is ClockMode.BUSINESS:
        return add_business(calendar, origin, timedelta(seconds=promise.target))
    return add_workdays(calendar, receipt_date(calendar, origin), promise.target)


def plan_clocks(
    kind: TicketKind, channel: Channel, opened_at: datetime, calendars: Mapping[str, WorkCalendar]
) -> tuple[PlannedClock, ...]:
    """The clocks of a new ticket: giving the reference meets `ack`, talking to a person the first answer.

    Raises CalendarWrong, and KeyError when a calendar of the policy is missing.
    """
    planned = []
    for promise in promises_for(kind, channel):
        talked = promise.kind is ClockKind.FIRST_RESPONSE and channel in {Channel.PHONE, Channel.WALK_IN}
        met = opened_at if promise.kind is ClockKind.ACK or talked else None
        due = due_at(promise, calendars[promise.calendar_code], opened_at)
        planned.append(PlannedClock(promise, opened_at, due, met))
    return tuple(planned)


def clock_state(due: datetime, met: datetime | None, now: datetime) -> ClockState:
    """Met iff met by the due instant; breached iff still running after it."""
    if met is None:
        return ClockState.BREACHED if now > due else ClockState.RUNNING
    return ClockState.MET if met <= due else ClockState.CLOSED_LATE


def due_after_reopening(
    promise: Promise, calendar: WorkCalendar, *, due: datetime, resolved_at: datetime, now: datetime
) -> datetime:
    """The new due instant when a ticket takes up again: the time that it was resolved is not counted.

    A breach stays one: a clock that was late already keeps its due instant.
    """
    if resolved_at >= due:
        return due
    if promise.mode is ClockMode.REAL:
        return due + (now - resolved_at)
    if promise.mode is ClockMode.BUSINESS:
        left = business_between(calendar, resolved_at, due)
        return add_business(calendar, now, left) if left > timedelta(0) else due
    left_days = workdays_between(calendar, calendar.local_date(resolved_at), calendar.local_date(due))
    return add_workdays(calendar, receipt_date(calendar, now), max(1, left_days))
