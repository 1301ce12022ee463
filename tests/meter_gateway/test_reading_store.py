from datetime import timedelta

import psycopg
import pytest

from meter_gateway import reading_store
from meter_gateway.reading_store import StoredReading
from tests.meter_gateway.places import NOW, make_mqtt_meter


def reading(meter, seconds=0, value=5, channel="credit"):
    return StoredReading(meter.id, channel, NOW + timedelta(seconds=seconds), value, "valid")


async def test_a_second_delivery_adds_nothing(conn):
    meter = await make_mqtt_meter(conn)
    rows = [reading(meter, second, second) for second in range(100)]
    assert await reading_store.insert_readings(conn, rows) == 100
    assert await reading_store.insert_readings(conn, [*rows, reading(meter, 100)]) == 1
    found = await reading_store.list_readings(
        conn, meter.id, "credit", since=NOW, until=NOW + timedelta(seconds=3)
    )
    assert [one.value for one in found] == [0, 1, 2]
    assert await reading_store.insert_readings(conn, []) == 0


async def test_twice_in_a_batch_with_two_values_keeps_both(conn):
    meter = await make_mqtt_meter(conn)
    await reading_store.insert_readings(conn, [reading(meter, 0, 5), reading(meter, 0, 6)])
    cursor = await conn.execute("SELECT value, kept_value FROM meter_gateway.reading_conflict")
    assert await cursor.fetchall() == [(6, 5)]


async def test_a_contradiction_is_kept_once_and_a_hundred_of_an_instant(conn):
    meter = await make_mqtt_meter(conn)
    for value in (5, 6, 6, 7, 6, 5):
        await reading_store.insert_readings(conn, [reading(meter, 0, value)])
    cursor = await conn.execute("SELECT value, kept_value FROM meter_gateway.reading_conflict ORDER BY id")
    assert await cursor.fetchall() == [(6, 5), (7, 5)]
    await reading_store.insert_readings(conn, [reading(meter, 0, value) for value in range(10, 108)])
    for value in (200, 201):
        await reading_store.insert_readings(conn, [reading(meter, 0, value), reading(meter, value, 1)])
    cursor = await conn.execute("SELECT count(*), max(value) FROM meter_gateway.reading_conflict")
    assert await cursor.fetchone() == (reading_store.MOST_CONFLICTS, 107)
    cursor = await conn.execute("SELECT count(*) FROM meter_gateway.reading")
    assert await cursor.fetchone() == (3,), "what came along with them is stored"


async def test_a_reading_is_a_fact(conn):
    meter = await make_mqtt_meter(conn)
    await reading_store.insert_readings(conn, [reading(meter)])
    with pytest.raises(psycopg.errors.RestrictViolation):
        await conn.execute("UPDATE meter_gateway.reading SET value = 0")


async def test_partitions_are_made_ahead_and_once(conn):
    far = NOW + timedelta(days=700)
    found = await conn.execute("SELECT relkind FROM pg_class WHERE oid = 'meter_gateway.reading'::regclass")
    partitioned = await found.fetchone() == ("p",)  # a hypertable makes its own chunks as readings come
    assert (await reading_store.ensure_partitions(conn, far, far + timedelta(days=40)) >= 1) == partitioned
    assert await reading_store.ensure_partitions(conn, far, far + timedelta(days=40)) == 0
    meter = await make_mqtt_meter(conn)
    await reading_store.insert_readings(conn, [reading(meter, 700 * 86_400)])
