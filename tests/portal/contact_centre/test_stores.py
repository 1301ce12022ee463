"""Stores of the contact centre: the order of lists, scopes in the WHERE, calendars as data."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from portal.contact_centre import calendar_store, ticket_store
from portal.contact_centre.ticket import TicketKind
from portal.contact_centre.work_calendar import CalendarWrong, business_between
from tests.portal.contact_centre.test_open_ticket import opened
from tests.portal.small_town import build


async def test_the_calendars_that_come_with_the_schema(conn):
    calendars = await calendar_store.list_calendars(conn)
    week = datetime(2025, 10, 5, tzinfo=UTC), datetime(2025, 10, 12, tzinfo=UTC)
    assert business_between(calendars["oman"], *week) == timedelta(hours=35)
    assert business_between(calendars["always"], *week) == timedelta(days=7)


async def test_a_new_version_and_a_closed_day_are_data(conn):
    await conn.execute(
        "INSERT INTO portal.work_calendar (code, valid_from, time_zone, weekly, exceptions) VALUES"
        " ('oman', '2026-02-18', 'Asia/Muscat', '{\"sun\": [[\"09:00\", \"14:00\"]]}', '{\"2026-03-01\": []}')"
    )
    calendar = (await calendar_store.list_calendars(conn))["oman"]
    assert len(calendar.versions) == 2
    assert calendar.is_working_day(date(2026, 2, 17))
    assert not calendar.is_working_day(date(2026, 2, 18))
    assert calendar.is_working_day(date(2026, 2, 22))
    assert not calendar.is_working_day(date(2026, 3, 1))


async def test_a_bad_bound_is_told(conn):
    await conn.execute(
        "INSERT INTO portal.work_calendar VALUES ('bad', '2026-01-01', 'Asia/Muscat', '{\"sun\": [[\"x\", \"14:00\"]]}')"
    )
    with pytest.raises(CalendarWrong):
        await calendar_store.list_calendars(conn)


async def test_lists_are_by_due_time_and_scoped(conn):
    town = await build(conn)
    slow = (await opened(conn, town, key="form-0001", kind=TicketKind.COMPLAINT)).ticket
    fast = (await opened(conn, town, key="form-0002", kind=TicketKind.NO_SUPPLY)).ticket
    other = (await opened(conn, town, "b1", key="form-0003", kind=TicketKind.ENQUIRY)).ticket
    assert [t.id for t in await ticket_store.list_tickets(conn)] == [fast.id, other.id, slow.id]
    own = await ticket_store.list_tickets(conn, customer_id=town.customers["b1"])
    assert [t.id for t in own] == [other.id]
    assert await ticket_store.find_ticket(conn, slow.reference, customer_id=town.customers["b1"]) is None
    assert await ticket_store.find_ticket(conn, slow.reference, customer_id=town.customers["a1"]) == slow
    assert [t.id for t in await ticket_store.list_tickets(conn, kind=TicketKind.COMPLAINT)] == [slow.id]


@pytest.mark.parametrize(
    "statement", ["UPDATE portal.ticket_entry SET body = 'x'", "DELETE FROM portal.ticket_entry"]
)
async def test_a_story_is_never_rewritten(conn, statement):
    town = await build(conn)
    await opened(conn, town)
    with pytest.raises(psycopg.errors.RestrictViolation):
        await conn.execute(statement)


async def test_numbers_do_not_repeat(conn):
    numbers = [await ticket_store.next_number(conn) for _ in range(3)]
    assert len(set(numbers)) == 3
