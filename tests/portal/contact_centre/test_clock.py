"""Promised times: what each kind of ticket promises, when it is due, and what taking up again does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from portal.contact_centre.clock import (
    ClockKind,
    ClockMode,
    ClockState,
    Promise,
    clock_state,
    due_after_reopening,
    plan_clocks,
    promises_for,
)
from portal.contact_centre.ticket import Channel, TicketKind
from tests.portal.contact_centre.test_work_calendar import ALWAYS, OM

CALENDARS = {"oman": OM, "always": ALWAYS}
SUNDAY = datetime(2025, 10, 5, 8, tzinfo=ZoneInfo("Asia/Muscat"))
FRIDAY = datetime(2025, 10, 10, 10, tzinfo=ZoneInfo("Asia/Muscat"))


def local(text):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Asia/Muscat"))


def planned(kind, channel=Channel.WEB, at=SUNDAY):
    return {clock.promise.kind: clock for clock in plan_clocks(kind, channel, at, CALENDARS)}


@pytest.mark.parametrize(
    ("kind", "at", "due"),
    [
        (TicketKind.NO_SUPPLY, FRIDAY, "2025-10-10 14:00"),  # electricity knows no weekend
        (TicketKind.TOKEN_PROBLEM, FRIDAY, "2025-10-10 14:00"),
        (TicketKind.COMPLAINT, SUNDAY, "2025-10-19 14:30"),  # vector 13
        (TicketKind.ENQUIRY, SUNDAY, "2025-10-06 14:30"),
        (TicketKind.ENQUIRY, FRIDAY, "2025-10-13 14:30"),  # received on Sunday
    ],
)
def test_when_a_ticket_is_to_be_resolved(kind, at, due):
    assert planned(kind, at=at)[ClockKind.RESOLUTION].due_at == local(due)


@pytest.mark.parametrize("kind", TicketKind)
@pytest.mark.parametrize("channel", Channel)
def test_every_ticket_has_its_three_clocks(kind, channel):
    assert [promise.kind for promise in promises_for(kind, channel)] == list(ClockKind)
    clocks = planned(kind, channel)
    assert all(clock.due_at > clock.origin_at for clock in clocks.values())
    assert clocks[ClockKind.RESOLUTION].met_at is None


@pytest.mark.parametrize(
    ("channel", "met"),
    [(Channel.PHONE, True), (Channel.WALK_IN, True), (Channel.WEB, False), (Channel.LETTER, False)],
)
def test_talking_to_a_person_is_the_first_answer_and_an_automatic_reference_is_not(channel, met):
    clocks = planned(TicketKind.COMPLAINT, channel)
    assert (clocks[ClockKind.FIRST_RESPONSE].met_at == SUNDAY) is met
    assert clocks[ClockKind.ACK].met_at == SUNDAY


@pytest.mark.parametrize(
    ("met_after", "now_after", "state"),
    [
        (None, 0, ClockState.RUNNING),  # due at this very instant is not late
        (None, 1, ClockState.BREACHED),
        (0, 9, ClockState.MET),
        (1, 9, ClockState.CLOSED_LATE),
    ],
)
def test_what_a_clock_says(met_after, now_after, state):
    met = None if met_after is None else SUNDAY + timedelta(seconds=met_after)
    assert clock_state(SUNDAY, met, SUNDAY + timedelta(seconds=now_after)) is state


@pytest.mark.parametrize(
    ("mode", "target", "resolved", "now", "due", "expected"),
    [
        # 3 of 4 hours were left when it was resolved, and are left when it takes up again
        (
            ClockMode.REAL,
            14400,
            "2025-10-05 09:00",
            "2025-10-08 20:00",
            "2025-10-05 12:00",
            "2025-10-08 23:00",
        ),
        (
            ClockMode.BUSINESS,
            14400,
            "2025-10-05 09:00",
            "2025-10-10 20:00",
            "2025-10-05 12:00",
            "2025-10-12 10:30",
        ),
        (
            ClockMode.WORKING_DAYS,
            10,
            "2025-10-07 09:00",
            "2025-10-13 09:00",
            "2025-10-19 14:30",
            "2025-10-23 14:30",
        ),
        # late before it was resolved: the breach stands
        (
            ClockMode.REAL,
            3600,
            "2025-10-05 13:00",
            "2025-10-06 08:00",
            "2025-10-05 12:00",
            "2025-10-05 12:00",
        ),
    ],
)
def test_the_resolved_time_is_not_counted(mode, target, resolved, now, due, expected):
    promise = Promise(ClockKind.RESOLUTION, "oman", mode, target)
    assert due_after_reopening(
        promise, OM, due=local(due), resolved_at=local(resolved), now=local(now)
    ) == local(expected)


def test_a_breach_compares_instants_not_wall_clocks():
    assert clock_state(SUNDAY, None, SUNDAY.astimezone(UTC)) is ClockState.RUNNING
