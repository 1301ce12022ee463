"""A relay is exercised only where it harms nobody; a clock is judged by its distance."""

from datetime import timedelta

import pytest

from meter_gateway import command_store
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


async def exercise(conn, town, meter, step="open"):
    found = await desk_store.find_meter(conn, town.drns[meter])
    return await exercise_relay(conn, meter=found, step=step, key="k-1", actor="salma", now=NOW)


async def test_with_a_consent_of_this_visit_it_opens_and_closes(conn, town):
    await consent(conn, town, "a1")
    opened = await command_store.get_command(conn, await exercise(conn, town, "a1"))
    assert (opened.kind, opened.expires_at) == ("relay_open", NOW + commission.RELAY_LIFETIME)
    assert (await exercise(conn, town, "a1")) == opened.id  # a repeat is the same order
    closed = await command_store.get_command(conn, await exercise(conn, town, "a1", "close"))
    assert closed.kind == "relay_close"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("UPDATE meter_gateway.service_location SET is_critical = true", "critical_customer"),
        ("UPDATE meter_gateway.meter_state SET tamper = true", "tamper"),
        ("UPDATE meter_gateway.meter_state SET link_up = false", "link_down"),
        ("SELECT 1", "no_consent"),
    ],
)
async def test_never_where_it_harms(conn, town, spoil, reason):
    if reason != "no_consent":
        await consent(conn, town, "a1")
    await conn.execute(spoil)
    for step in ("open", "close"):
        with pytest.raises(InstallRefused, match=reason):
            await exercise(conn, town, "a1", step)
