"""What is forgotten and what is not."""

from datetime import timedelta

from portal import forget, forget_store
from portal.forget import Forget
from tests.meter_gateway.places import NOW

DAY = timedelta(days=1)


async def message(conn, key, kind, age, *, sent=True):
    at = NOW - age
    await conn.execute(
        "INSERT INTO portal.message (idempotency_key, phone, kind, language, body, created_at, sent_at)"
        " VALUES (%s, '+96890000000', %s, 'en', 'x', %s, %s)",
        (key, kind, at, at if sent else None),
    )


async def keys(pool):
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT idempotency_key FROM portal.message ORDER BY 1")
        return [key for (key,) in await cursor.fetchall()]


async def test_messages_go_by_their_kind_and_age_once_they_were_sent(pool, monkeypatch):
    monkeypatch.setattr(forget, "SLICE", 2)
    async with pool.connection() as conn:
        await message(conn, "code-new", "one_time_code", 29 * DAY)
        await message(conn, "code-unsent", "one_time_code", 90 * DAY, sent=False)
        await message(conn, "token-new", "token", 774 * DAY)
        for place in range(5):
            await message(conn, f"code-{place}", "one_time_code", 31 * DAY)
            await message(conn, f"token-{place}", "token", 776 * DAY)
    assert await Forget(pool, lambda: NOW).round() == 10
    assert await keys(pool) == ["code-new", "code-unsent", "token-new"]


async def test_codes_and_windows_go_after_their_time_and_at_most_hourly(pool):
    now = NOW
    async with pool.connection() as conn:
        for age in (DAY / 2, 2 * DAY):
            await conn.execute(
                "INSERT INTO portal.one_time_code (phone, code_hash, expires_at) VALUES ('+968', '', %s)",
                (NOW - age,),
            )
        for age in (DAY, 3 * DAY):
            await conn.execute(
                "INSERT INTO portal.rate_limit (bucket, window_start) VALUES ('b', %s)", (NOW - age,)
            )
    part = Forget(pool, lambda: now)
    assert await part.round() == 2
    async with pool.connection() as conn:
        await message(conn, "old", "one_time_code", 40 * DAY)
    now = NOW + timedelta(minutes=59)
    assert await part.round() == 0
    now = NOW + timedelta(hours=1)
    assert await part.round() == 1


async def test_a_slice_is_a_slice(conn):
    for place in range(3):
        await message(conn, f"old-{place}", "token", 900 * DAY)
    assert await forget_store.delete_messages(conn, codes_before=NOW, others_before=NOW, limit=2) == 2
