"""Ingest beside ingest: nobody waits crosswise, and one meter's words do not stop the others'."""

from __future__ import annotations

import asyncio
import logging
import secrets

import pytest
from psycopg_pool import AsyncConnectionPool

from meter_gateway import edge_store, state_store
from meter_gateway.ingest import Ingest
from meter_gateway.projection import StatePatch
from meter_gateway.stop_signal import end_tasks
from meter_gateway.store_batch import store_batch
from meter_gateway.topics import Birth, Death, Event, Reading, encode, up_topic
from tests.meter_gateway.places import NOW, make_mqtt_meter
from tests.meter_gateway.roles import until
from tests.meter_gateway.test_ingest import DRN, letters, ms, rows, uplink
from tests.meter_gateway.test_ingest_lanes import Link, incoming

DRNS = [f"06{number:09d}" for number in range(120)]


def births(session):
    return [(up_topic(drn, Birth), encode(Birth(drn, "meter", 1, session, ms()))) for drn in DRNS]


def deaths(session):
    return [(up_topic(drn, Death), encode(Death(drn, 1, session))) for drn in DRNS]


def uplinks(seq):
    return [uplink(Reading(drn, "credit", ms(seq), seq), edge=drn, seq=seq) for drn in DRNS]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (births(2), births(3)[::-1]),
        (births(2), deaths(1)[::-1]),
        (births(2), uplinks(2)[::-1]),
        (births(2) + uplinks(2), uplinks(3)[::-1] + births(3)[::-1]),
    ],
    ids=["births", "wills", "births and readings", "all at once"],
)
async def test_two_at_once_never_wait_crosswise(conn, pool, first, second):
    # Numbered against the order of their names: who goes by the one goes not by the other.
    for drn in reversed(DRNS):
        await make_mqtt_meter(conn, drn)
    await store_batch(conn, births(1) + uplinks(1), NOW)
    await conn.commit()

    async def store(batch):
        async with pool.connection() as mine:
            return len((await store_batch(mine, batch, NOW)).receipts)

    stored = await asyncio.gather(store(first), store(second))
    assert stored == [sum("data" in topic for topic, _ in batch) for batch in (first, second)]


async def one_waits(pool):
    async with pool.connection() as watcher:
        await watcher.set_autocommit(True)

        async def waits():
            return await rows(watcher, "SELECT FROM pg_locks WHERE NOT granted")

        await until(waits)
        await watcher.set_autocommit(False)


async def test_what_is_said_again_to_the_other_ingest_is_entered_in_one_order(conn, pool):
    async def enter():
        async with pool.connection() as mine:
            return await store_batch(mine, uplinks(1)[::-1], NOW)

    await edge_store.insert_messages(conn, [(DRNS[0], 1, 1)], NOW)
    task = asyncio.create_task(enter())
    await one_waits(pool)
    # Whoever came later has nothing yet that the first one could want.
    await edge_store.insert_messages(conn, [(DRNS[-1], 1, 1)], NOW)
    await conn.commit()
    assert len((await task).receipts) == len(DRNS)


async def test_the_meters_of_an_edge_are_held_with_those_of_the_readings(conn, pool):
    low, high = [await make_mqtt_meter(conn, drn) for drn in DRNS[:2]]
    patch = StatePatch(high.id, NOW, state_at=NOW, credit=1)
    await state_store.apply_patches(conn, [patch, StatePatch(low.id, NOW)])
    await conn.commit()
    await state_store.apply_patches(conn, [patch], edges=[low.drn])
    async with pool.connection() as other:
        free = await rows(other, "SELECT FROM meter_gateway.meter_state FOR NO KEY UPDATE SKIP LOCKED")
    assert free == []


async def test_who_is_being_written_is_neither_seen_nor_silent(conn, pool):
    await make_mqtt_meter(conn)
    await store_batch(conn, [(up_topic(DRN, Birth), encode(Birth(DRN, "meter", 1, 1, ms())))], NOW)
    await conn.execute("UPDATE meter_gateway.edge SET last_seen_at = NULL")
    await conn.commit()
    async with pool.connection() as other:
        await other.execute("SET LOCAL lock_timeout = '2s'")
        await edge_store.lock_edges(conn, [DRN])
        await edge_store.mark_seen(other, [DRN], NOW)
        assert await edge_store.mark_silent_gateways(other, NOW) == []
    await conn.commit()
    assert await rows(conn, "SELECT last_seen_at FROM meter_gateway.edge") == [(None,)]


def make_ingest(pool, link):
    return Ingest(pool, link, clock=lambda: NOW, on_stored=lambda _: None, on_session_lost=lambda: None)


async def all_acked(pool, link, many):
    """Run an ingest until all of the link's messages are acknowledged; returns how often it stored again."""
    ingest = make_ingest(pool, link)
    task = asyncio.create_task(ingest.run())

    async def is_done():
        assert not task.done()
        return len(link.acked) == many

    await until(is_done)
    await end_tasks([task])
    return ingest.counts.retries


async def test_a_deadlock_is_no_lost_database_and_is_tried_again_at_once(conn, database_url, pool, caplog):
    # Who looks for a deadlock finds himself to be its victim: ingest looks after three seconds, we long after it.
    await conn.execute("SET deadlock_timeout = '30s'")
    patient = {"options": "-c deadlock_timeout=3s"}
    await make_mqtt_meter(conn)
    await store_batch(conn, [uplink(Reading(DRN, "credit", ms(), 1))], NOW)
    await conn.commit()
    link = Link([incoming(1, Reading(DRN, "credit", ms(1), 2), edge=DRN, seq=2)])
    await conn.execute("SELECT FROM meter_gateway.meter_state FOR UPDATE")
    async with AsyncConnectionPool(
        database_url, min_size=1, max_size=4, kwargs=patient, open=False
    ) as theirs:
        caplog.set_level(logging.INFO, logger="meter_gateway.ingest")
        task = asyncio.create_task(all_acked(theirs, link, 1))
        await one_waits(pool)
        # It holds what we want and wants what we hold.
        await edge_store.insert_messages(conn, [(DRN, 1, 2)], NOW)
        await conn.rollback()
        assert await task == 1
    assert [record.message for record in caplog.records] == ["deadlock, 1 messages are stored again"]


async def test_a_value_too_long_for_an_index_parks_only_itself(conn, pool):
    good = "06000000086"
    for drn in (DRN, good):
        await make_mqtt_meter(conn, drn)
    await conn.execute("CREATE INDEX ON meter_gateway.meter_event ((detail ->> 'serial'))")
    await conn.commit()
    link = Link(
        [incoming(1, Event(DRN, "x", ms(), {"serial": secrets.token_hex(4000)}), edge=DRN, seq=1)],
        [incoming(2, Reading(good, "credit", ms(), 1), edge=good, seq=1)],
        [incoming(3, Reading(good, "credit", ms(1), 1), edge=good, seq=2)],
    )
    assert await all_acked(pool, link, 3) == 0
    assert await letters(conn) == ["cannot be stored: ProgramLimitExceeded"]
    assert len(link.sent) == 3, "who said it must not say it for ever"
    heard = await rows(conn, "SELECT count(*) FROM meter_gateway.edge_message WHERE edge = %s", DRN)
    assert heard == [(1,)], "it came: it is not missing"
    assert await rows(conn, "SELECT count(*) FROM meter_gateway.reading") == [(2,)]


async def test_however_deep_a_detail_ingest_goes_on(conn, pool):
    await make_mqtt_meter(conn)
    await conn.commit()
    # As much as can be read may be more than can be written: the stack is deeper there.
    topic, payload = uplink(Event(DRN, "x", ms(), {"a": "DEEP"}))
    batch = [
        (topic, payload.replace(b'"DEEP"', b"[" * deep + b"]" * deep).replace(b'"seq":1', b'"seq":%d' % deep))
        for deep in range(820, 1000, 4)
    ]
    found = incoming(1, edge=DRN, seq=1)
    link = Link([type(found)(topic, payload, 1, mid, 1) for mid, (topic, payload) in enumerate(batch)])
    assert await all_acked(pool, link, len(batch)) == 0
    assert await rows(conn, "SELECT count(*) FROM meter_gateway.dead_letter") != [(0,)]
