"""Batches overlap in the database and are acknowledged in their order; who owns a meter is asked each time."""

from __future__ import annotations

import asyncio

import pytest

from meter_gateway import edge_store
from meter_gateway.broker.mqtt_link import Connected, Incoming
from meter_gateway.ingest import LANES, Ingest, lane_of
from meter_gateway.stop_signal import end_tasks
from meter_gateway.store_batch import store_batch
from meter_gateway.topics import Birth, Reading, encode, up_topic
from tests.meter_gateway.places import NOW, make_modbus_meter, make_mqtt_meter, make_site
from tests.meter_gateway.roles import until
from tests.meter_gateway.test_ingest import letters, ms, rows, uplink


class Link:
    """Hands out batches, and notes what is acknowledged."""

    def __init__(self, *batches):
        self.batches = asyncio.Queue()
        for batch in batches:
            self.batches.put_nowait(batch)
        self.acked = []
        self.sent = []

    async def next_batch(self, _limit, _linger_s):
        return await self.batches.get()

    def ack_all(self, messages):
        self.acked += [message.mid for message in messages]

    def send_all(self, messages, *, expiry_s):
        assert expiry_s > 0
        self.sent += [topic for topic, _ in messages]


def incoming(mid, *records, edge, seq):
    topic, payload = uplink(*records, edge=edge, seq=seq)
    return Incoming(topic, payload, 1, mid, 1)


def two_drns_of_two_lanes():
    drns = [f"060000000{number:02d}" for number in range(10, 60)]
    first = drns[0]
    return first, next(
        drn for drn in drns if lane_of(f"rsd/1/up/{drn}/data") != lane_of(f"rsd/1/up/{first}/data")
    )


def test_all_that_an_edge_says_goes_through_one_lane():
    edges = [f"e{number}" for number in range(200)]
    assert all(lane_of(up_topic(edge, Birth)) == lane_of(f"rsd/1/up/{edge}/data") for edge in edges)
    assert [lane_of(up_topic(edge, Birth)) for edge in edges[:4]] in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert {lane_of(up_topic(edge, Birth)) for edge in edges} == set(range(LANES))


async def test_a_batch_that_waits_lets_the_next_one_be_stored_but_not_acknowledged(conn, pool):
    slow, quick = two_drns_of_two_lanes()
    for drn in (slow, quick):
        await make_mqtt_meter(conn, drn)
        await store_batch(conn, [uplink(Reading(drn, "credit", ms(), 1), edge=drn)], NOW)
    await conn.commit()
    link = Link(
        [incoming(1, Reading(slow, "credit", ms(1), 2), edge=slow, seq=2)],
        [incoming(2, Reading(quick, "credit", ms(1), 2), edge=quick, seq=2)],
        [incoming(3, Reading(slow, "credit", ms(2), 3), edge=slow, seq=3)],
    )
    stored = []
    ingest = Ingest(pool, link, clock=lambda: NOW, on_stored=stored.append, on_session_lost=lambda: None)
    async with pool.connection() as holder:
        await holder.execute(
            "SELECT FROM meter_gateway.meter_state JOIN meter_gateway.meter ON id = meter_id WHERE drn = %s"
            " FOR UPDATE OF meter_state",
            (slow,),
        )
        task = asyncio.create_task(ingest.run())

        async def quick_one_is_stored():
            found = await rows(conn, "SELECT count(*) FROM meter_gateway.edge_message WHERE edge = %s", quick)
            await conn.commit()
            return found == [(2,)]

        await until(quick_one_is_stored)
        assert (link.acked, link.sent, stored) == ([], [], [])

    async def all_acked():
        return len(link.acked) == 3

    await until(all_acked)
    assert link.acked == [1, 2, 3]
    assert len(link.sent) == 3
    await end_tasks([task])
    assert await rows(conn, "SELECT count(*) FROM meter_gateway.reading") == [(5,)]


@pytest.mark.parametrize("batches", [1, 2])
async def test_who_is_there_is_asked_only_when_what_was_said_before_is_stored(conn, pool, batches):
    """A birth of the old session that is stored late would count as one of the new session."""
    await make_site(conn)

    def birth(session):
        return up_topic("site-1", Birth), encode(Birth("site-1", "gateway", 1, session, ms()))

    await store_batch(conn, [birth(1)], NOW)
    await conn.commit()
    events = [Incoming(*birth(2), 1, 1, 1), Connected(2, session_present=False)]
    link = Link(events) if batches == 1 else Link(events[:1], events[1:])
    order = []
    ingest = Ingest(
        pool,
        link,
        clock=lambda: NOW,
        on_stored=lambda stored: order.extend(one.session for one in stored.births),
        on_session_lost=lambda: order.append("lost"),
    )
    async with pool.connection() as holder:
        await edge_store.lock_edges(holder, ["site-1"])
        task = asyncio.create_task(ingest.run())

        async def all_taken():
            return link.batches.empty()

        await until(all_taken)
        await asyncio.sleep(0.05)
        assert order == []

    async def asked():
        return "lost" in order

    await until(asked)
    assert order == [2, "lost"]
    await end_tasks([task])


async def test_a_meter_that_moved_is_heard_from_its_new_gateway_at_once_and_not_from_the_old(conn):
    _, first_bus = await make_site(conn)
    _, second_bus = await make_site(conn, "site-2")
    meter = await make_modbus_meter(conn, first_bus)

    async def say(edge, seq):
        message = uplink(Reading(meter.drn, "credit", ms(seq), seq), edge=edge, seq=seq)
        await store_batch(conn, [message], NOW)
        return await letters(conn)

    assert await say("site-1", 1) == []
    assert await say("site-2", 2) == ["not a meter of site-2"]
    await conn.execute("UPDATE meter_gateway.meter SET bus_id = %s WHERE id = %s", (second_bus, meter.id))
    assert await say("site-2", 3) == ["not a meter of site-2"]
    assert await say("site-1", 4) == ["not a meter of site-2", "not a meter of site-1"]
