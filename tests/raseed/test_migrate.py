"""Migrations run once, in order, and refuse a file that was changed afterwards."""

import os

import psycopg
import pytest

from raseed import migrate as module


async def test_migrating_twice_applies_nothing_more(database_url):
    assert await module.migrate(database_url) == 0


async def test_a_changed_file_is_refused(database_url, monkeypatch):
    real = module.list_migrations()
    changed = [module.Migration(m.number, m.name, m.sql, "0" * 64) for m in real]
    monkeypatch.setattr(module, "list_migrations", lambda: changed)
    with pytest.raises(module.MigrationRefused, match="was changed after"):
        await module.migrate(database_url)


async def test_facts_refuse_update_and_delete(conn):
    await conn.execute(
        "INSERT INTO meter_gateway.meter_event (edge, code, occurred_at) VALUES ('e', 'c', now())"
    )
    for statement in (
        "UPDATE meter_gateway.meter_event SET code = 'x'",
        "DELETE FROM meter_gateway.meter_event",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            async with conn.transaction():
                await conn.execute(statement)


async def test_an_unbalanced_journal_entry_is_refused_at_commit(pool):
    with pytest.raises(psycopg.errors.CheckViolation, match="does not balance"):
        async with pool.connection() as conn:
            await conn.execute(
                "WITH j AS (INSERT INTO billing.journal (kind, idempotency_key, reference, occurred_at) "
                "VALUES ('payment', 'k', 'r', now()) RETURNING id) "
                "INSERT INTO billing.posting SELECT j.id, line, 'suspense', NULL, amount "
                "FROM j, (VALUES (1, 5), (2, -4)) AS v (line, amount)"
            )


async def test_readings_are_facts_whatever_holds_them(conn):
    await conn.execute(
        "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value) VALUES (1, 'counter', now(), 1)"
    )
    with pytest.raises(psycopg.errors.RestrictViolation):
        await conn.execute("UPDATE meter_gateway.reading SET value = 2")


async def test_the_holder_of_readings_is_what_the_server_offers(conn):
    kind = await (
        await conn.execute("SELECT relkind FROM pg_class WHERE oid = 'meter_gateway.reading'::regclass")
    ).fetchone()
    has = await (
        await conn.execute("SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'")
    ).fetchone()
    if os.environ.get("RASEED_EXPECT_TIMESCALE"):
        assert has == (1,)
        chunked = await (
            await conn.execute(
                "SELECT count(*) FROM timescaledb_information.hypertables WHERE hypertable_name = 'reading'"
            )
        ).fetchone()
        assert chunked == (1,)
    else:
        assert kind == (("r" if has == (1,) else "p"),)
