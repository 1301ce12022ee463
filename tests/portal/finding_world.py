"""The small town with one finding of each kind, made by readings and events and found by the real sweep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from psycopg.types.json import Jsonb

from meter_gateway import topics
from meter_gateway.readings.check_readings import check_readings
from tests.portal.small_town import SmallTown, build

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


async def tell(conn, meter_id, values, *, channel="counter", quality="valid") -> None:
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, recorded_at, quality)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [(meter_id, channel, at, value, at, quality) for at, value in values],
        )


async def know(conn, meter_id, at, **columns) -> None:
    names = ", ".join(columns)
    places = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns)
    await conn.execute(
        f"INSERT INTO meter_gateway.meter_state (meter_id, counter_at, state_at, last_seen_at, link_up, {names})"
        f" VALUES (%s, %s, %s, %s, true, {', '.join(['%s'] * len(columns))}) ON CONFLICT (meter_id) DO UPDATE SET"
        f" counter_at = EXCLUDED.counter_at, state_at = EXCLUDED.state_at, last_seen_at = EXCLUDED.last_seen_at,"
        f" link_up = true, {places}",
        (meter_id, at, at, at, *columns.values()),
    )


async def say(conn, town, name, code, at, **detail) -> None:
    await conn.execute(
        "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (town.meters[name], town.drns[name], code, at, at, Jsonb(detail)),
    )


async def make_findings(pool) -> SmallTown:
    """a1 reset, a2 conflict, a3 stranger, b1 estimated gap, b2 wrong clock, c1 flat, c2 reverse and tamper, w1 leak."""
    now = datetime.now(UTC).replace(microsecond=0)
    async with pool.connection() as conn:
        town = await build(conn)
        ids = town.meters
        for name in ids:
            await know(conn, ids[name], now - MINUTE, counter=7_000_000)
        hours = [now - place * HOUR for place in range(72)]
        await tell(
            conn, ids["a1"], [(at, 9_600_000 - place * 450) for place, at in enumerate(hours) if place > 9]
        )
        await tell(conn, ids["a1"], [(now - 9 * HOUR, 64_000_000)], quality="suspect")
        await tell(
            conn,
            ids["a1"],
            [(now - place * HOUR, 4_000 - place * 480) for place in range(8)],
            quality="suspect",
        )
        await know(conn, ids["a1"], now - 10 * HOUR, counter=9_595_500, counter_suspect=True)
        await say(
            conn, town, "a1", topics.COUNTER_SUSPECT, now - 9 * HOUR, value=64_000_000, believed=9_595_500
        )
        await tell(
            conn, ids["a2"], [(at, 88_000 - place * 300) for place, at in enumerate(hours)], channel="credit"
        )
        for value, place in ((84_000, 3), (87_990, 4)):
            await conn.execute(
                "INSERT INTO meter_gateway.reading_conflict (meter_id, channel, occurred_at, value, kept_value,"
                " recorded_at) VALUES (%s, 'credit', %s, %s, %s, %s)",
                (ids["a2"], hours[place], value, 88_000 - place * 300, now - HOUR),
            )
        await say(conn, town, "a3", topics.UNKNOWN_METER, now - 2 * HOUR, found="04999999994")
        await conn.execute("UPDATE meter_gateway.meter_state SET state_at = %s WHERE meter_id = %s",
                           (now - 3 * HOUR, ids["a3"]))  # fmt: skip
        before = [(at, 4_000_000 - place * 700) for place, at in enumerate(hours) if place > 24]
        await tell(conn, ids["b1"], before)
        await know(conn, ids["b1"], now - 25 * HOUR, counter=before[0][1])
        await say(conn, town, "b2", topics.CLOCK_DRIFT, now - HOUR, seconds=-754, active=True)
        # The small town has a reading of its own: the counter has stood there all the time.
        cursor = await conn.execute(
            "SELECT max(value) FROM meter_gateway.reading WHERE meter_id = %s", (ids["c1"],)
        )
        (still,) = await cursor.fetchone()
        await tell(conn, ids["c1"], [(at, still) for at in [*hours, now - 73 * HOUR, now - 74 * HOUR]])
        await know(conn, ids["c1"], now - MINUTE, counter=still)
        await tell(conn, ids["c1"], [(at, 1_250) for at in hours], channel="load")
        await tell(conn, ids["c2"], [(now - 26 * HOUR, 0), (now - MINUTE, 4_200)], channel="reverse")
        await say(conn, town, "c2", topics.TAMPER, now - 5 * HOUR, active=True)
        await conn.execute(
            "UPDATE meter_gateway.meter_state SET tamper = true WHERE meter_id = %s", (ids["c2"],)
        )
        quarters = [now - MINUTE - place * 15 * MINUTE for place in range(200)]
        await tell(conn, ids["w1"], [(at, 7_000_000 - place * 9_000) for place, at in enumerate(quarters)])
    await check_readings(pool, now - 20 * HOUR)
    async with pool.connection() as conn:
        await tell(conn, town.meters["b1"], [(now - 3 * HOUR, 3_999_000), (now - HOUR, 4_000_000)])
        await know(conn, town.meters["b1"], now - HOUR, counter=4_000_000)
    await check_readings(pool, now)
    return town


async def finding_of(conn, kind: str) -> int:
    cursor = await conn.execute("SELECT id FROM meter_gateway.v_reading_finding WHERE kind = %s", (kind,))
    row = await cursor.fetchone()
    assert row, f"nothing of kind {kind}"
    return int(row[0])
