"""The job's branch: whatever is written already, the views say the same, and late readings find their hour."""

import random
import re
from datetime import UTC, datetime, timedelta

from meter_gateway import reading_store
from meter_gateway.reading_store import StoredReading
from meter_gateway.time_series import history_store, keep_history
from meter_gateway.time_series.history import Edition
from tests.meter_gateway.places import NOW

UNITS = ("hour", "day", "month")
FIRST = datetime(2026, 9, 20, 19, 0, tzinfo=UTC)  # days and a month begin at 20:00 UTC


def made_up(meter_id, *, until=NOW, seed=1, step=timedelta(minutes=47)):
    """A counter that rises, a load that does not, and some of each quality."""
    chance = random.Random(seed)
    value, at = 1_000, FIRST
    while at < until:
        quality = chance.choice(["valid"] * 20 + ["estimated", "suspect", "simulated"])
        value += chance.randrange(400)
        told = value + 10**9 * (quality == "suspect")
        yield StoredReading(meter_id, "counter", at, told, quality)
        yield StoredReading(meter_id, "load", at, chance.randrange(3_000), quality)
        at += step * chance.choice([1, 1, 1, 1, 30])


async def views(conn):
    return {
        unit: await (
            await conn.execute(
                f"SELECT * FROM meter_gateway.v_history_{unit} ORDER BY meter_id, channel, bucket_start"
            )
        ).fetchall()
        for unit in UNITS
    }


async def rows_of(pool):
    async with pool.connection() as conn:
        return await views(conn)


async def store(pool, readings):
    async with pool.connection() as conn:
        await reading_store.ensure_partitions(conn, FIRST, NOW)
        return await reading_store.insert_readings(conn, list(readings))


async def test_the_views_say_the_same_whatever_is_written(pool):
    await store(pool, [*made_up(1), *made_up(2, seed=2)])
    live = await rows_of(pool)
    assert [len(live[unit]) > least for unit, least in zip(UNITS, (500, 120, 8), strict=True)] == [True] * 3
    async with pool.connection() as conn:
        assert await keep_history.step(conn, NOW)
    assert await rows_of(pool) == live, "after one step of an hour"
    assert await keep_history.catch_up(pool, NOW) > 3
    assert await rows_of(pool) == live
    async with pool.connection() as conn:
        mark = await history_store.get_mark(conn)
        hours = await (await conn.execute("SELECT count(*) FROM meter_gateway.history_hour")).fetchone()
    assert mark.live_hour == NOW - timedelta(hours=1)
    assert mark.live_day == datetime(2026, 11, 21, 20, tzinfo=UTC)
    assert mark.live_month == datetime(2026, 10, 31, 20, tzinfo=UTC)
    assert abs(hours[0] - len(live["hour"])) <= 4, "all but the last hours are written"
    later = NOW + timedelta(days=12)
    await keep_history.catch_up(pool, later)
    assert await rows_of(pool) == live


async def test_what_a_bucket_says(pool):
    at = datetime(2026, 11, 20, 6, 0, tzinfo=UTC)
    minutes = [(0, 100, "valid"), (15, 120, "estimated"), (30, 9_999, "suspect"), (59, 150, "simulated")]
    await store(
        pool,
        [
            StoredReading(7, "counter", at + timedelta(minutes=m), value, quality)
            for m, value, quality in minutes
        ],
    )
    await store(pool, [StoredReading(7, "counter", at + timedelta(hours=1), 1, "suspect")])
    await keep_history.catch_up(pool, NOW)
    found = await rows_of(pool)
    last = at + timedelta(minutes=59)
    assert found["hour"][0] == (7, "counter", at, at, 100, last, 150, 50, 100, 150, 3, 1, 1, 1)
    assert found["hour"][1][3:] == (None,) * 7 + (0, 0, 0, 1), "nothing believed is nothing known"
    assert found["day"][0][2:4] == (datetime(2026, 11, 19, 20, tzinfo=UTC), at)
    assert found["day"][0][7:] == (50, 100, 150, 3, 1, 1, 2)
    assert found["month"][0][2:] == (datetime(2026, 10, 31, 20, tzinfo=UTC), *found["day"][0][3:])


async def test_late_readings_change_their_buckets(pool):
    everything = list(made_up(1))
    chance = random.Random(3)
    late = [one for one in everything if chance.random() < 0.05]
    await store(pool, [one for one in everything if one not in late])
    await keep_history.catch_up(pool, NOW)
    before = await rows_of(pool)
    await store(pool, late)
    await keep_history.catch_up(pool, NOW)
    after = await rows_of(pool)
    assert after != before
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE meter_gateway.history_mark SET live_hour = '-infinity', live_day = '-infinity',"
            " live_month = '-infinity'"
        )
    assert await rows_of(pool) == after, "the same as from the readings themselves"


async def test_a_late_reading_of_a_long_transaction_is_not_missed(pool):
    await store(pool, made_up(1))
    await keep_history.catch_up(pool, NOW)
    at = NOW - timedelta(days=3)
    async with pool.connection() as slow:
        await reading_store.insert_readings(slow, [StoredReading(9, "counter", at, 5, "valid")])
        await store(pool, [StoredReading(9, "counter", at - timedelta(days=1), 4, "valid")])
        await keep_history.catch_up(pool, NOW)
    await keep_history.catch_up(pool, NOW)
    hours = [row for row in (await rows_of(pool))["hour"] if row[0] == 9]
    assert [row[4] for row in hours] == [4, 5]


async def test_late_hours_are_written_in_slices(pool, monkeypatch):
    await store(pool, made_up(1))
    await keep_history.catch_up(pool, NOW)
    await store(pool, made_up(2, seed=5, step=timedelta(hours=3)))
    monkeypatch.setattr(keep_history, "LATE_LIMIT", 10)
    assert await keep_history.catch_up(pool, NOW) > 10
    async with pool.connection() as conn:
        lag = await history_store.get_lag(conn)
        assert (lag.late_hours, lag.worked_at, lag.live_hour) == (0, NOW, NOW - timedelta(hours=1))


async def test_two_headends_do_not_collide(pool):
    await store(pool, made_up(1))
    async with pool.connection() as first, pool.connection() as second:
        assert await keep_history.step(first, NOW)
        assert not await keep_history.step(second, NOW), "the mark is held"


async def test_late_readings_are_looked_for_in_few_blocks(pool):
    async with pool.connection() as conn:
        await reading_store.ensure_partitions(conn, NOW, NOW)
        await conn.execute(
            "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, recorded_at)"
            " SELECT m, 'load', %(at)s + n * interval '1 minute', 1, %(at)s + n * interval '1 minute'"
            " FROM generate_series(1, 2000) n, generate_series(1, 20) m ORDER BY n",
            {"at": NOW - timedelta(days=3)},
        )
        assert await history_store.summarize(conn, newest=None) > 3
        assert await history_store.summarize(conn, newest=3) == 0
        await conn.execute("SET LOCAL enable_seqscan = off")
        await conn.execute("SET LOCAL enable_indexscan = off")
        cursor = await conn.execute(
            "EXPLAIN (ANALYZE, COSTS off) SELECT FROM meter_gateway.reading WHERE recorded_at >= %s",
            (NOW - timedelta(days=3) + timedelta(minutes=1_990),),
        )
        plan = " ".join(line for (line,) in await cursor.fetchall())
    removed = re.search(r"Rows Removed by Index Recheck: (\d+)", plan)
    assert "Bitmap Index Scan" in plan
    assert removed is None or int(removed[1]) < 12_000, "of 40,000"


async def test_the_edition_is_what_the_server_says(conn):
    row = await (await conn.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'")).fetchone()
    expected = Edition.PLAIN if row is None else Edition.APACHE
    assert await history_store.ask_edition(conn) is expected
    assert await history_store.is_hypertable(conn) is (expected is Edition.APACHE)


async def test_without_readings_there_is_nothing_to_catch_up_with(pool):
    assert await keep_history.catch_up(pool, NOW) == 2
    assert await rows_of(pool) == {unit: [] for unit in UNITS}
