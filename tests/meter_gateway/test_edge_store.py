from datetime import timedelta

import pytest

from meter_gateway import edge_store
from meter_gateway.topics import Birth, Death
from tests.meter_gateway.places import NOW, make_mqtt_meter

DRN = "06000000011"


def at(seconds):
    return NOW + timedelta(seconds=seconds)


async def born(conn, edge, seconds=0):
    await edge_store.mark_born(conn, [Birth(edge, "meter", 1, 1, 0)], at(seconds))


@pytest.mark.parametrize(("seconds", "seen"), [(0.5, 0), (2, 2), (-5, 0)])
async def test_who_speaks_often_is_seen_once_a_second(conn, seconds, seen):
    await born(conn, DRN)
    await edge_store.mark_seen(conn, [DRN, "stranger"], at(seconds))
    cursor = await conn.execute("SELECT edge, last_seen_at, online FROM meter_gateway.edge")
    assert await cursor.fetchall() == [(DRN, at(seen), True)]


async def test_who_speaks_is_there_at_once(conn):
    await born(conn, DRN)
    assert await edge_store.mark_dead(conn, [Death(DRN, 1, 1)]) == {DRN}
    await edge_store.mark_seen(conn, [DRN], at(0.1))
    cursor = await conn.execute("SELECT online FROM meter_gateway.edge")
    assert await cursor.fetchall() == [(True,)]


@pytest.mark.parametrize("edge", ["NULL", "null", "a_b-9", "06000000011"])
async def test_names_of_the_contracts_letters_stay_what_they_are(conn, edge):
    keys = [(edge, 2**62, 0), (edge, 0, 2**62)]
    assert await edge_store.insert_messages(conn, keys, NOW) == set(keys)
    assert await edge_store.insert_messages(conn, [*keys, (edge, 1, 1)], NOW) == {(edge, 1, 1)}


async def test_a_spoken_meter_tells_whether_it_was_heard_before(conn):
    meter = await make_mqtt_meter(conn, DRN)
    found = (await edge_store.list_spoken_meters(conn, {DRN, "06000000099"}))[DRN]
    assert (found.id, found.edge, found.counter, found.has_state) == (meter.id, DRN, None, False)
    await conn.execute(
        "INSERT INTO meter_gateway.meter_state (meter_id, counter) VALUES (%s, 5)", (meter.id,)
    )
    found = (await edge_store.list_spoken_meters(conn, [DRN]))[DRN]
    assert (found.counter, found.has_state) == (5, True)
