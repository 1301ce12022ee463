"""Opening a ticket: once per key, with its clocks, its reference by SMS, and under the outage that explains it."""

from __future__ import annotations

import asyncio

import pytest

from portal.contact_centre import clock_store, ticket_store
from portal.contact_centre.clock import ClockKind
from portal.contact_centre.open_ticket import Caller, NewTicket, TicketKeyReused, open_ticket
from portal.contact_centre.reference import normalise_reference
from portal.contact_centre.ticket import Channel, TicketKind, TicketRefused, TicketState
from tests.portal.small_town import NOW, build, languages


@pytest.fixture
async def town(conn):
    return await build(conn)


def request(**changes):
    values = {
        "key": "form-0001",
        "kind": TicketKind.COMPLAINT,
        "channel": Channel.WEB,
        "subject": "The bill is wrong",
        "body": "Please look at it.",
    }
    return NewTicket(**values | changes)


async def opened(conn, town, meter="a1", language="en", **changes):
    return await open_ticket(
        conn,
        caller=Caller(town.customers[meter], town.phones[meter], language),
        new=request(**changes),
        created_by=None,
        now=NOW,
        languages=languages(),
    )


async def messages(conn):
    cur = await conn.execute("SELECT phone, language, body, reference FROM portal.message ORDER BY id")
    return await cur.fetchall()


async def test_a_ticket_has_a_reference_clocks_a_story_and_an_sms(conn, town):
    ticket = (await opened(conn, town, meter_id=town.meters["a1"])).ticket
    assert normalise_reference(ticket.reference) == ticket.reference
    assert (ticket.state, ticket.drn, ticket.created_at) == (TicketState.OPEN, town.drns["a1"], NOW)
    clocks = {clock.kind: clock for clock in await clock_store.list_clocks(conn, ticket.id)}
    assert list(clocks) == list(ClockKind)
    assert clocks[ClockKind.ACK].met_at == NOW
    assert clocks[ClockKind.FIRST_RESPONSE].met_at is None
    assert ticket.resolution_due_at == clocks[ClockKind.RESOLUTION].due_at
    (entry,) = await ticket_store.list_entries(conn, ticket.id)
    assert (entry.kind, entry.is_public, entry.body) == ("opened", True, "Please look at it.")
    ((phone, language, body, reference),) = await messages(conn)
    assert (phone, language, reference) == (town.phones["a1"], "en", ticket.reference)
    assert ticket.reference in body


async def test_the_same_form_sent_twice_is_one_ticket(conn, town):
    first = await opened(conn, town)
    again = await opened(conn, town)
    assert (first.repeated, again.repeated) == (False, True)
    assert first.ticket.id == again.ticket.id
    assert len(await messages(conn)) == 1


async def test_two_clicks_at_once_are_one_ticket(pool, conn, town):
    await conn.commit()

    async def click():
        async with pool.connection() as own:
            return await opened(own, town)

    results = await asyncio.gather(*(click() for _ in range(5)))
    assert len({result.ticket.id for result in results}) == 1
    assert sum(not result.repeated for result in results) == 1


@pytest.mark.parametrize("change", [{"subject": "Another"}, {"kind": TicketKind.ENQUIRY}])
async def test_the_same_key_with_other_content_is_its_own_error(conn, town, change):
    await opened(conn, town)
    with pytest.raises(TicketKeyReused):
        await opened(conn, town, **change)


async def test_another_customers_key_shows_nothing_of_the_ticket(conn, town):
    await opened(conn, town)
    with pytest.raises(TicketKeyReused):
        await opened(conn, town, meter="b1")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subject": "  "}, "subject_empty"),
        ({"body": "\n"}, "body_empty"),
        ({"subject": "x" * 201}, "too_long"),
        ({"body": "x" * 8001}, "too_long"),
        ({"body": "a\x00b"}, "not_text"),
        ({"key": "short"}, "key_invalid"),
    ],
)
async def test_what_is_refused_changes_nothing(conn, town, change, reason):
    with pytest.raises(TicketRefused, match=reason):
        await opened(conn, town, **change)
    assert await ticket_store.list_tickets(conn) == []
    assert await messages(conn) == []


async def test_no_supply_under_an_open_outage_follows_it_and_says_so(conn, town):
    await conn.execute(
        "INSERT INTO portal.outage (network_node_id, commodity, started_at, start_source)"
        " VALUES (%s, 'electricity', %s, 'crew')",
        (town.nodes["FD-1"], NOW),
    )
    found = await opened(conn, town, kind=TicketKind.NO_SUPPLY, meter_id=town.meters["a1"])
    assert found.outage_id is not None
    assert found.ticket.outage_id == found.outage_id
    entries = await ticket_store.list_entries(conn, found.ticket.id, public_only=True)
    assert [entry.kind for entry in entries] == ["opened", "linked_outage"]
    assert "interruption" in (await messages(conn))[0][2]
    # an enquiry about the same meter is a matter of its own
    other = await opened(conn, town, key="form-0002", kind=TicketKind.ENQUIRY, meter_id=town.meters["a1"])
    assert other.outage_id is None
    # and a house under another feeder is not under this outage
    far = await opened(
        conn, town, "c1", key="form-0003", kind=TicketKind.NO_SUPPLY, meter_id=town.meters["c1"]
    )
    assert far.outage_id is None


async def test_the_sms_is_in_the_customers_language(conn, town):
    ticket = (await opened(conn, town, language="ar")).ticket
    ((_, language, body, _),) = await messages(conn)
    assert language == "ar"
    assert ticket.reference in body
    assert "رصيد" in body
