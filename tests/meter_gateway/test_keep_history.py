"""Retention on the real database: partitions or chunks go whole, history stays, letters go in slices."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from meter_gateway import reading_store
from meter_gateway.reading_store import StoredReading
from meter_gateway.time_series import history_store, keep_history, retention_store
from meter_gateway.time_series.retention import Keep
from tests.meter_gateway.places import NOW

OLD = datetime(2024, 3, 10, 6, 0, tzinfo=UTC)  # 32 months before


async def two_ages(pool):
    async with pool.connection() as conn:
        await reading_store.ensure_partitions(conn, OLD, OLD)
        await reading_store.ensure_partitions(conn, NOW, NOW)
        rows = [
            StoredReading(1, "counter", at + timedelta(hours=n), n, "valid")
            for at in (OLD, NOW - timedelta(days=9))
            for n in range(60)
        ]
        await reading_store.insert_readings(conn, rows)


async def count(pool, what):
    async with pool.connection() as conn:
        return (await (await conn.execute(f"SELECT count(*) FROM meter_gateway.{what}")).fetchone())[0]


async def test_old_readings_go_whole_and_their_history_stays(pool):
    await two_ages(pool)
    assert await keep_history.retain(pool, Keep(), NOW) == [], "nothing is downsampled yet"
    assert await count(pool, "reading") == 120
    await keep_history.catch_up(pool, NOW)
    gone = await keep_history.retain(pool, Keep(), NOW)
    assert gone in (["reading_2024_03"], ["1 chunks of reading"])
    assert await count(pool, "reading") == 60
    assert await count(pool, "v_history_hour") == 120
    assert await count(pool, "v_history_month") == 2
    assert await keep_history.retain(pool, Keep(), NOW) == []
    gone = await keep_history.retain(pool, Keep(hour_months=25), NOW)
    assert "history_hour_2024_03" in gone
    assert (await count(pool, "v_history_hour"), await count(pool, "v_history_day")) == (60, 7)
    await keep_history.retain(pool, Keep(raw_months=14, hour_months=14, day_months=14), NOW)
    assert await count(pool, "v_history_day") == 4


async def test_dead_letters_go_in_slices(pool, monkeypatch):
    monkeypatch.setattr(keep_history, "LETTER_SLICE", 4)
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.dead_letter (topic, payload, reason, received_at)"
            " SELECT 't', '', 'r', %s - n * interval '10 days' FROM generate_series(1, 20) n",
            (NOW,),
        )
        assert await retention_store.delete_dead_letters(conn, NOW - timedelta(days=190), limit=4) == 1
    await keep_history.retain(pool, Keep(), NOW)
    assert await count(pool, "dead_letter") == 9


async def test_the_role_goes_on_through_a_fault(pool, monkeypatch):
    rounds = []

    async def falls_once(_pool, _now, *, rest):
        rounds.append(rest)
        if len(rounds) == 1:
            raise RuntimeError("a fault")
        return 0

    monkeypatch.setattr(keep_history, "catch_up", falls_once)
    monkeypatch.setattr(keep_history, "START_S", 0.0)
    monkeypatch.setattr(keep_history, "ROUND_S", 0.0)
    task = asyncio.create_task(keep_history.run(pool, clock=lambda: NOW, keep=Keep()))
    async with asyncio.timeout(10):
        while len(rounds) < 3:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_history_kept_by_policies_is_left_alone(pool):
    await two_ages(pool)
    async with pool.connection() as conn:
        await conn.execute("UPDATE meter_gateway.history_mark SET kept_by = 'policies'")
    assert await keep_history.catch_up(pool, NOW) == 1
    async with pool.connection() as conn:
        assert (await history_store.get_mark(conn)).live_hour is None
