"""The watch on a real database: signals open one outage on the right element, life closes it meter by meter."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from portal.contact_centre import ticket_store
from portal.contact_centre.open_ticket import Caller, NewTicket, open_ticket
from portal.contact_centre.ticket import Channel, TicketKind, TicketState
from portal.outages import handle_outage, outage_store, signal_store, watch
from portal.outages.infer import Rules
from portal.outages.outage import OutageState
from tests.portal.small_town import NOW, build, languages

RULES = Rules()
MINUTE = timedelta(minutes=1)
RESTORED = "3.26.0.216"


@pytest.fixture
async def town(conn):
    return await build(conn)


async def look(conn, at, rules=RULES):
    """One evaluation in its own transaction, as the worker runs it."""
    await conn.commit()
    async with conn.transaction():
        return await watch.evaluate(conn, now=at, rules=rules, languages=languages())


async def only_outage(conn):
    (outage,) = await outage_store.list_outages(conn)
    return outage


async def report(town, meter, at=NOW, key=None):
    return await open_ticket(
        town.conn,
        caller=Caller(town.customers[meter], town.phones[meter], "en"),
        new=NewTicket(
            key or f"key-{meter}-{at}",
            TicketKind.NO_SUPPLY,
            Channel.WEB,
            "Dark",
            "No light",
            town.meters[meter],
        ),
        created_by=None,
        now=at,
        languages=languages(),
    )


async def kinds(conn, outage_id):
    return [entry.kind for entry in await outage_store.list_entries(conn, outage_id)]


async def test_last_gasps_open_one_probable_outage_on_their_transformer(conn, town):
    await town.gasp("a1", at=NOW)
    await town.gasp("a2", at=NOW + timedelta(seconds=3))
    assert (await look(conn, NOW + timedelta(seconds=59))).opened == ()
    assert len((await look(conn, NOW + MINUTE)).opened) == 1
    outage = await only_outage(conn)
    assert (outage.node_code, outage.state, outage.started_at) == ("TX-1", OutageState.PROBABLE, NOW)
    assert outage.start_source == "last_gasp"
    meters = {m.meter_id: m.evidence for m in await outage_store.list_meters(conn, outage.id)}
    assert meters == {
        town.meters["a1"]: "last_gasp",
        town.meters["a2"]: "last_gasp",
        town.meters["a3"]: "inferred",
        town.meters["a4"]: "inferred",
    }
    assert await look(conn, NOW + 2 * MINUTE) == watch.Outcome()
    assert await kinds(conn, outage.id) == ["detected"]


async def test_two_workers_open_it_once(pool, conn, town):
    await town.gasp("a1", "a2", at=NOW)
    await conn.commit()

    async def work():
        async with pool.connection() as own:
            return await watch.evaluate(own, now=NOW + MINUTE, rules=RULES, languages=languages())

    outcomes = await asyncio.gather(*(work() for _ in range(4)))
    assert sum(len(outcome.opened) for outcome in outcomes) == 1
    assert (await only_outage(conn)).node_code == "TX-1"


async def test_it_grows_to_the_feeder_and_takes_its_siblings_in(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    first = (await look(conn, NOW + MINUTE)).opened
    await town.gasp("b1", "b2", at=NOW + MINUTE)
    outcome = await look(conn, NOW + 3 * MINUTE)
    assert (outcome.opened, outcome.grown) == ((), first)
    outage = await only_outage(conn)
    assert (outage.node_code, outage.meters, outage.started_at) == ("FD-1", 6, NOW)
    assert await kinds(conn, outage.id) == ["detected", "grown"]


async def test_two_outages_become_one_of_their_parent(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    await look(conn, NOW + MINUTE)
    await town.reading("b1", NOW + 2 * MINUTE)  # TX-2 lives: the feeder is not to blame
    ticket = (await report(town, "b1", NOW + 3 * MINUTE)).ticket
    await town.gasp("b1", "b2", at=NOW + 4 * MINUTE)
    await conn.execute(
        "INSERT INTO portal.outage (network_node_id, commodity, started_at, start_source)"
        " VALUES (%s, 'electricity', %s, 'crew')",
        (town.nodes["TX-2"], NOW + 4 * MINUTE),
    )
    await look(conn, NOW + 6 * MINUTE)
    merged, survivor = sorted(await outage_store.list_outages(conn), key=lambda o: o.state)
    assert (merged.state, survivor.state) == (OutageState.CANCELLED, OutageState.PROBABLE)
    assert (survivor.node_code, merged.meters) == ("FD-1", 0)
    found = await ticket_store.get_ticket(conn, ticket.id)
    assert found.outage_id == survivor.id


async def test_a_living_neighbour_keeps_the_feeder_out_of_it(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    await town.gasp("b1", at=NOW)
    await town.reading("b2", NOW + timedelta(seconds=30))
    await look(conn, NOW + MINUTE)
    assert (await only_outage(conn)).node_code == "TX-1"


async def test_a_momentary_interruption_opens_nothing(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    await town.event("a1", RESTORED, NOW + timedelta(seconds=20))
    await town.event("a2", RESTORED, NOW + timedelta(seconds=21))
    assert await look(conn, NOW + MINUTE) == watch.Outcome()


async def test_a_meter_guessed_dark_that_speaks_was_never_dark(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    await look(conn, NOW + MINUTE)
    await town.reading("a3", NOW + 2 * MINUTE)
    await look(conn, NOW + 2 * MINUTE)
    outage = await only_outage(conn)
    assert (outage.state, outage.meters, outage.meters_restored) == (OutageState.PROBABLE, 3, 0)


async def test_each_meter_is_restored_at_its_own_time_and_the_last_one_closes_it(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    await town.event("a3", "raseed.link_down", NOW + timedelta(seconds=5))
    await look(conn, NOW + MINUTE)
    await town.event("a1", RESTORED, NOW + 20 * MINUTE)
    await town.reading("a2", NOW + 21 * MINUTE)
    assert (await look(conn, NOW + 22 * MINUTE)).closed == ()
    outage = await only_outage(conn)
    assert (outage.state, outage.meters_restored) == (OutageState.PROBABLE, 2)
    await town.event("a3", "raseed.link_up", NOW + 25 * MINUTE)
    assert (await look(conn, NOW + 25 * MINUTE)).closed == (outage.id,)
    outage = await only_outage(conn)
    assert (outage.state, outage.restored_at) == (OutageState.RESTORED, NOW + 25 * MINUTE)
    times = {m.meter_id: m.restored_at for m in await outage_store.list_meters(conn, outage.id)}
    assert times == {
        town.meters["a1"]: NOW + 20 * MINUTE,
        town.meters["a2"]: NOW + 21 * MINUTE,
        town.meters["a3"]: NOW + 25 * MINUTE,
        town.meters["a4"]: None,  # it has no link: nobody saw it alive
    }
    last = (await outage_store.list_entries(conn, outage.id))[-1]
    assert last.detail["silent"] == [town.drns["a4"]]
    assert last.detail["momentary"] is False
    assert await look(conn, NOW + 26 * MINUTE) == watch.Outcome()


async def test_tickets_follow_and_are_answered_when_their_own_meter_is_back(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    early = (await report(town, "a1", NOW + timedelta(seconds=10))).ticket
    assert early.outage_id is None
    await look(conn, NOW + MINUTE)
    outage = await only_outage(conn)
    assert (await ticket_store.get_ticket(conn, early.id)).outage_id == outage.id
    late = await report(town, "a4", NOW + 2 * MINUTE)
    assert (late.outage_id, late.ticket.outage_id) == (outage.id, outage.id)
    for meter in ("a1", "a2", "a3"):
        await town.event(meter, RESTORED, NOW + 30 * MINUTE)
    assert (await look(conn, NOW + 31 * MINUTE)).closed == (outage.id,)
    assert (await ticket_store.get_ticket(conn, early.id)).state is TicketState.RESOLVED
    asked = await ticket_store.get_ticket(conn, late.ticket.id)
    assert asked.state is TicketState.WAITING_CUSTOMER  # a keypad meter cannot prove it: its owner is asked
    messages = await conn.execute("SELECT reference FROM portal.message WHERE kind = 'ticket' ORDER BY id")
    told = [row[0] for row in await messages.fetchall()]
    assert told.count(early.reference) == told.count(asked.reference) == 2


async def test_calls_alone_open_a_water_outage_and_flow_ends_it(conn, town):
    await report(town, "w1", NOW)
    await report(town, "w2", NOW + MINUTE)
    await town.reading("w1", NOW + 2 * MINUTE)  # a water meter lives on a battery: a reading proves nothing
    await look(conn, NOW + 3 * MINUTE)
    outage = await only_outage(conn)
    assert (outage.node_code, outage.commodity, outage.start_source) == ("WZ-1", "water", "contact")
    await town.reading("w1", NOW + 9 * MINUTE, "load", 12_000)
    assert (await look(conn, NOW + 10 * MINUTE)).closed == (outage.id,)


async def test_a_dead_bus_is_no_outage(conn, town):
    """Power and water meters of one bus fall silent together and nobody says a last word."""
    bus = "SELECT id FROM meter_gateway.bus"
    await conn.execute(
        f"UPDATE meter_gateway.meter SET link = 'modbus', profile = 'x', bus_id = ({bus}), unit_id = 100 + id"
        " WHERE id = ANY(%s)",
        ([town.meters[name] for name in ("a1", "a2", "b1", "w1")],),
    )
    dark = ("a1", "a2", "a3", "b1", "b2")
    for meter in dark:
        await town.event(meter, "raseed.link_down", NOW)
    await look(conn, NOW + MINUTE)
    outages = await outage_store.list_outages(conn)
    assert [outage.node_code for outage in outages] == ["FD-1"]  # the water meter answers: the bus lives
    await conn.execute("DELETE FROM portal.outage_meter")
    await conn.execute("UPDATE portal.outage SET state = 'cancelled'")
    await town.event("w1", "raseed.link_down", NOW)
    assert await look(conn, NOW + MINUTE) == watch.Outcome()


async def test_a_gateway_that_is_down_says_nothing_about_supply(conn, town):
    await conn.execute(
        "INSERT INTO meter_gateway.edge (edge, kind, online) VALUES ('site-1', 'gateway', false)"
    )
    await town.event("a3", "raseed.link_down", NOW)
    await town.gasp("a1", at=NOW)
    assert await look(conn, NOW + MINUTE) == watch.Outcome()
    await conn.execute("UPDATE meter_gateway.edge SET online = true")
    assert len((await look(conn, NOW + MINUTE)).opened) == 1


async def test_a_house_without_credit_is_no_signal(conn, town):
    await town.state("a1", NOW - 30 * MINUTE, relay=0, relay_reason="no_credit", credit=0)
    await report(town, "a1", NOW)
    await report(town, "a4", NOW)
    assert await look(conn, NOW + 2 * MINUTE) == watch.Outcome()


@pytest.mark.parametrize("how", ["cancel", "restore"])
async def test_what_a_person_closed_is_not_opened_again_by_the_same_signals(conn, town, how):
    await town.gasp("a1", "a2", at=NOW)
    await look(conn, NOW + MINUTE)
    outage, agent = await only_outage(conn), await town.staff()
    if how == "cancel":
        await handle_outage.cancel_outage(conn, outage_id=outage.id, actor_id=agent, now=NOW + 2 * MINUTE)
    else:
        await handle_outage.close_outage(
            conn,
            outage_id=outage.id,
            actor_id=agent,
            now=NOW + 2 * MINUTE,
            rules=RULES,
            languages=languages(),
        )
    assert (await look(conn, NOW + 3 * MINUTE)).opened == ()
    await town.event("a1", RESTORED, NOW + 4 * MINUTE)
    await town.event("a2", RESTORED, NOW + 4 * MINUTE)
    await town.gasp("a1", "a2", at=NOW + 10 * MINUTE)
    assert len((await look(conn, NOW + 12 * MINUTE)).opened) == 1  # a new cut is a new outage


async def test_what_was_said_long_ago_is_no_signal(conn, town):
    await town.gasp("a1", "a2", at=NOW)
    late = NOW + signal_store.LOOK_BACK + MINUTE
    assert await signal_store.list_meter_views(conn, late) == []
    assert await look(conn, late) == watch.Outcome()


async def test_the_watch_wakes_by_itself_and_stops_when_told(pool, conn, town):
    await conn.commit()
    task = asyncio.create_task(watch.run(pool, debounce_s=0))
    try:
        await asyncio.sleep(0.2)
        cur = await conn.execute("SELECT clock_timestamp() - interval '2 seconds'")
        cut = (await cur.fetchone())[0]
        await town.gasp("a1", "a2", at=cut)
        await conn.commit()
        for _ in range(100):
            if outages := await outage_store.list_outages(conn):
                break
            await conn.commit()
            await asyncio.sleep(0.05)
        assert [outage.node_code for outage in outages] == ["TX-1"]
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
