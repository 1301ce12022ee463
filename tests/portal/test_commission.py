"""A relay is exercised only where it harms nobody; a clock is judged by its distance."""

from datetime import timedelta

import pytest

from meter_gateway import command_store
from meter_gateway.command import apply_event, cancel, order_command
from meter_gateway.command_state import CommandEvent
from portal.contact_centre import desk_store
from portal.field import commission, commissioning_store
from portal.field.commission import clock_drift, exercise_relay, is_clock_right
from portal.field.install import InstallRefused
from portal.field.take_draft import RELAY_PURPOSE
from tests.portal.small_town import NOW, build


@pytest.mark.parametrize(("seconds", "right"), [(0, True), (119, True), (-121, False), (31_536_000, False)])
def test_clocks(seconds, right):
    drift = clock_drift({"clock": int(NOW.timestamp()) + seconds}, NOW)
    assert drift == timedelta(seconds=seconds) and is_clock_right(drift) is right


@pytest.mark.parametrize("registers", [{}, {"clock": None}, {"clock": 0}, {"clock": "noon"}])
def test_a_meter_that_shows_no_clock(registers):
    assert is_clock_right(clock_drift(registers, NOW))


@pytest.fixture
async def town(conn):
    return await build(conn)


async def consent(conn, town, meter, at=NOW):
    place = await commissioning_store.find_place(conn, town.meters[meter])
    await commissioning_store.insert_consent(
        conn,
        meter_id=town.meters[meter],
        usage_point_id=place.usage_point_id,
        purpose=RELAY_PURPOSE,
        given_by="Salim",
        method="in_person",
        given_at=at,
        recorded_by=await town.staff("noor", "engineer"),
        now=at,
    )


async def exercise(conn, town, meter, step="open", key="k-1"):
    found = await desk_store.find_meter(conn, town.drns[meter])
    return await exercise_relay(conn, meter=found, step=step, key=key, actor="salma", now=NOW)


async def test_with_a_consent_of_this_visit_it_opens_and_closes(conn, town):
    await consent(conn, town, "a1")
    opened = await command_store.get_command(conn, await exercise(conn, town, "a1"))
    assert (opened.kind, opened.expires_at) == ("relay_open", NOW + commission.RELAY_LIFETIME)
    assert (await exercise(conn, town, "a1")) == opened.id  # a repeat is the same order
    with pytest.raises(InstallRefused, match="not_closed"):
        await exercise(conn, town, "a1", key="k-2")
    closed = await command_store.get_command(conn, await exercise(conn, town, "a1", "close"))
    assert closed.kind == "relay_close"


HARM = {
    "critical_customer": "UPDATE meter_gateway.service_location SET is_critical = true",
    "tamper": "UPDATE meter_gateway.meter_state SET tamper = true",
    "link_down": "UPDATE meter_gateway.meter_state SET link_up = false",
    "not_closed": "UPDATE meter_gateway.meter_state SET relay = 0, relay_reason = 'order'",
}


@pytest.mark.parametrize("reason", [*HARM, "no_consent"])
async def test_it_is_never_opened_where_it_harms(conn, town, reason):
    if reason != "no_consent":
        await consent(conn, town, "a1")
        await conn.execute(HARM[reason])
    with pytest.raises(InstallRefused, match=reason):
        await exercise(conn, town, "a1")


@pytest.mark.parametrize("spoil", ["critical_customer", "link_down", "not_closed"])
async def test_what_it_opened_is_closed_whatever_came_up_since(conn, town, spoil):
    await consent(conn, town, "a1")
    await exercise(conn, town, "a1")
    await conn.execute(HARM[spoil])
    closed = await command_store.get_command(conn, await exercise(conn, town, "a1", "close"))
    assert closed.kind == "relay_close"


async def test_after_tamper_it_is_not_even_closed(conn, town):
    await consent(conn, town, "a1")
    await exercise(conn, town, "a1")
    await conn.execute(HARM["tamper"])
    with pytest.raises(InstallRefused, match="tamper"):
        await exercise(conn, town, "a1", "close")


async def closes_nothing(conn, town):
    with pytest.raises(InstallRefused, match="not_opened"):
        await exercise(conn, town, "a1", "close", key="k-9")


async def test_a_house_that_was_cut_off_by_order_is_not_connected_by_an_exercise(conn, town):
    await consent(conn, town, "a1")
    await conn.execute(HARM["not_closed"])
    await closes_nothing(conn, town)


@pytest.mark.parametrize("event", [CommandEvent.DEADLINE, CommandEvent.CANCEL])
async def test_an_order_to_open_that_never_left_gives_nothing_to_close(conn, town, event):
    await consent(conn, town, "a1")
    opened = await exercise(conn, town, "a1")
    await apply_event(conn, opened, event, at=NOW, detail={})
    await closes_nothing(conn, town)


async def test_what_was_closed_again_or_opened_by_another_is_not_closed_from_here(conn, town):
    await consent(conn, town, "a1")
    await exercise(conn, town, "a1")
    theirs = await order_command(
        conn, meter_id=town.meters["a1"], kind="relay_open", idempotency_key="office-1",
        requested_by="office", now=NOW, expires_at=NOW + timedelta(minutes=5),
    )  # fmt: skip
    await closes_nothing(conn, town)
    await cancel(conn, theirs.id, cancelled_by="office", now=NOW)
    closed = await exercise(conn, town, "a1", "close")
    for event in (CommandEvent.SEND, CommandEvent.EDGE_ACCEPTED, CommandEvent.EDGE_VERIFIED):
        await apply_event(conn, closed, event, at=NOW, detail={})
    await closes_nothing(conn, town)
