"""From plain partitions to a hypertable: each reading there once, whoever writes or dies meanwhile."""

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import uuid
from datetime import timedelta

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from meter_gateway import reading_store
from meter_gateway.reading_store import StoredReading
from meter_gateway.time_series import history_store, keep_history, upgrade_history, upgrade_store
from meter_gateway.time_series.upgrade_history import UpgradeRefused
from raseed import migrate as migrate_module
from tests.conftest import with_database
from tests.meter_gateway.places import NOW
from tests.meter_gateway.test_history_store import FIRST, made_up, rows_of, store

needs_timescale = pytest.mark.skipif(
    not os.environ.get("RASEED_EXPECT_TIMESCALE"), reason="this server cannot run a hypertable"
)
EVERYTHING = (
    "SELECT meter_id, channel, occurred_at, value, quality FROM meter_gateway.v_reading ORDER BY 1, 2, 3"
)


@pytest.fixture
async def plain_url(server_url, monkeypatch):
    """A database that was made when its server had no TimescaleDB."""
    real = migrate_module.list_migrations()
    blind = [
        migrate_module.Migration(
            one.number, one.name, one.sql.replace("WHERE name = 'timescaledb'", "WHERE false"), one.checksum
        )
        for one in real
    ]
    monkeypatch.setattr(migrate_module, "list_migrations", lambda: blind)
    name = f"raseed_plain_{uuid.uuid4().hex[:12]}"
    async with await psycopg.AsyncConnection.connect(server_url, autocommit=True) as conn:
        await conn.execute(f"CREATE DATABASE {name}")
        await migrate_module.migrate(with_database(server_url, name))
        yield with_database(server_url, name)
        await conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def plain_pool(plain_url):
    async with AsyncConnectionPool(plain_url, min_size=1, max_size=4, open=False) as opened:
        yield opened


def expected(readings):
    return sorted(
        (one.meter_id, one.channel, one.occurred_at, one.value, one.quality) for one in set(readings)
    )


async def everything(pool):
    async with pool.connection() as conn:
        return await (await conn.execute(EVERYTHING)).fetchall()


async def upgraded(url, say=lambda _line: None):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        return await upgrade_history.upgrade(conn, NOW, say)


@needs_timescale
async def test_a_plain_database_becomes_as_one_made_with_hypertables(plain_pool, plain_url, pool):
    readings = [*made_up(1), *made_up(2, seed=2)]
    await store(plain_pool, readings)
    await keep_history.catch_up(plain_pool, NOW)
    before = await rows_of(plain_pool)
    lines = []
    done = await upgraded(plain_url, lines.append)
    assert done.rows == len(readings)
    assert any(line.startswith("reading_2026_10: ") and "copied" in line for line in lines)
    assert await everything(plain_pool) == expected(readings)
    assert await rows_of(plain_pool) == before
    shape = (
        "SELECT indexname FROM pg_indexes WHERE tablename = 'reading' UNION ALL"
        " SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'meter_gateway.reading'::regclass AND NOT tgisinternal"
        " UNION ALL SELECT conname::text || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'meter_gateway.reading'::regclass UNION ALL"
        " SELECT relname::text FROM pg_class WHERE relnamespace = 'meter_gateway'::regnamespace"
        " AND relkind IN ('r', 'v') AND NOT relispartition ORDER BY 1"
    )
    async with plain_pool.connection() as conn, pool.connection() as fresh:
        assert await history_store.is_hypertable(conn)
        ours, theirs = [
            # 0002 made its table beside the plain one, whose key held the name then.
            sorted(name.replace("reading_pkey1", "reading_pkey") for (name,) in await cursor.fetchall())
            for cursor in (await conn.execute(shape), await fresh.execute(shape))
        ]
    assert ours == theirs
    async with plain_pool.connection() as conn:
        with pytest.raises(psycopg.errors.RestrictViolation):
            await conn.execute("UPDATE meter_gateway.reading SET value = 0")
    later = [StoredReading(1, "counter", NOW + timedelta(minutes=1), 1, "valid")]
    await store(plain_pool, later)
    assert len(await everything(plain_pool)) == len(readings) + 1
    with pytest.raises(UpgradeRefused, match="already"):
        await upgraded(plain_url)


@needs_timescale
async def test_killed_and_run_again_while_readings_arrive_each_is_there_once(plain_pool, plain_url):
    readings = list(made_up(1))
    await store(plain_pool, readings)
    stop = asyncio.Event()
    arrived = []

    async def ingest():
        chance = random.Random(4)
        while not stop.is_set():
            at = FIRST + timedelta(seconds=chance.randrange(int((NOW - FIRST).total_seconds())))
            batch = [
                StoredReading(5, "counter", at + timedelta(microseconds=n), n, "valid") for n in range(20)
            ]
            with contextlib.suppress(psycopg.errors.FeatureNotSupported):
                # What stood before the lock during the swap is refused once; ingest says it again, as here.
                await store(plain_pool, batch)
                arrived.extend(batch)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(ingest())
    command = [sys.executable, "-m", "raseed", "history", "upgrade"]
    env = {**os.environ, "DATABASE_URL": plain_url}
    killed = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    for word in ("into both tables", "copied"):
        while word not in await asyncio.to_thread(killed.stdout.readline):
            assert killed.poll() is None, "it ended before it could be killed"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(arrived) > 20
    again = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told, _ = await again.communicate()
    stop.set()
    await task
    assert again.returncode == 0, told.decode()
    assert b"going on with the upgrade" in told
    assert await everything(plain_pool) == expected([*readings, *arrived])


@needs_timescale
async def test_a_difference_stops_it_and_it_can_be_forgotten(plain_pool, plain_url):
    readings = list(made_up(1))
    await store(plain_pool, readings)
    real = upgrade_store.copy_day

    async def loses_one(conn, start, end):
        rows = await real(conn, start, end)
        await conn.execute("SET LOCAL session_replication_role = replica")  # past the guard of facts
        await conn.execute(
            "DELETE FROM meter_gateway.reading_next WHERE occurred_at = %s", (readings[100].occurred_at,)
        )
        return rows

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UpgradeRefused, match="has 280 readings, the hypertable 278"),
    ):
        patch.setattr(upgrade_store, "copy_day", loses_one)
        await upgraded(plain_url)
    assert await everything(plain_pool) == expected(readings)
    async with await psycopg.AsyncConnection.connect(plain_url, autocommit=True) as conn:
        await upgrade_history.cancel(conn, lambda _line: None)
        with pytest.raises(UpgradeRefused, match="no upgrade"):
            await upgrade_history.cancel(conn, lambda _line: None)
    assert (await upgraded(plain_url)).rows == len(readings)


@needs_timescale
async def test_killed_after_the_swap_only_the_old_table_is_left_to_go(plain_pool, plain_url):
    readings = list(made_up(1))
    await store(plain_pool, readings)

    def dies(line):
        if "are in a hypertable" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await upgraded(plain_url, dies)
    async with plain_pool.connection() as conn:
        assert await upgrade_store.is_left_over(conn)
    lines = []
    await upgraded(plain_url, lines.append)
    assert lines == ["the swap was done; the old table is gone now"]
    assert await everything(plain_pool) == expected(readings)
    with pytest.raises(UpgradeRefused, match="already"):
        await upgraded(plain_url)


@needs_timescale
async def test_a_long_reader_does_not_make_ingest_wait(plain_pool, plain_url, monkeypatch):
    await store(plain_pool, made_up(1))
    monkeypatch.setattr(upgrade_store, "LOCK_TIMEOUT", "SET LOCAL lock_timeout = '50ms'")
    monkeypatch.setattr(upgrade_history, "LOCK_PAUSE_S", 0.0)
    monkeypatch.setattr(upgrade_history, "LOCK_TRIES", 2)
    async with plain_pool.connection() as reader:
        await reader.execute("SELECT count(*) FROM meter_gateway.reading")
        with pytest.raises(UpgradeRefused, match="lock did not come"):
            await upgraded(plain_url)
        await store(plain_pool, [StoredReading(1, "counter", NOW, 1, "valid")])
    assert (await upgraded(plain_url)).rows > 0


async def test_a_server_without_timescale_says_what_to_do(plain_url):
    if os.environ.get("RASEED_EXPECT_TIMESCALE"):
        async with await psycopg.AsyncConnection.connect(plain_url, autocommit=True) as conn:
            assert len(await upgrade_history.plan(conn)) >= 14
        return
    with pytest.raises(UpgradeRefused, match="does not offer TimescaleDB"):
        await upgraded(plain_url)


async def test_days_of_a_partition_are_whole_and_leave_no_gap(plain_pool):
    async with plain_pool.connection() as conn:
        await reading_store.ensure_partitions(conn, NOW, NOW)
        part = next(one for one in await upgrade_store.list_parts(conn) if one.name == "reading_2026_11")
    days = list(upgrade_history.days_of(part))
    assert (days[0][0], days[-1][1], len(days)) == (part.starts_at, part.ends_at, 30)
    assert all(one[1] == two[0] for one, two in itertools.pairwise(days))
