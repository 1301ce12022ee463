"""Migrations that a running utility can apply: owned by their package, forward only, no table locked for long."""

from __future__ import annotations

import re

import pytest

from raseed.migrate import Migration, list_migrations

MIGRATIONS = list_migrations()


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda m: m.name)
def test_migration_is_safe_to_apply(migration: Migration) -> None:
    package = migration.name.split("/")[0]
    body = re.sub(r"--[^\n]*", "", migration.sql)
    assert f"search_path = {package}" in body, (
        "name the one schema that this file changes, by SET LOCAL search_path"
    )
    for word in ("BEGIN;", "COMMIT", "ROLLBACK", "DROP SCHEMA", "TRUNCATE", "VACUUM", "CONCURRENTLY"):
        assert word not in body.upper(), (
            f"{word} does not belong into a migration: the runner owns the transaction"
        )
    for other in {"meter_gateway", "billing", "portal"} - {package}:
        assert not re.search(
            rf"(CREATE|ALTER|DROP)\s+TABLE\s+(IF\s+(NOT\s+)?EXISTS\s+)?{other}\.", body, re.IGNORECASE
        ), f"{migration.name} changes a table of {other}"
    made = set(re.findall(r"CREATE TABLE (?:meter_gateway\.)?(\w+)", body))
    for table in re.findall(r"CREATE INDEX (?:\w+ )?ON (\w+)", body):
        assert table in made or migration.number > 4, (
            f"an index on {table}: CONCURRENTLY belongs into operations"
        )


async def test_columns_have_exact_types(conn) -> None:
    rows = await (
        await conn.execute(
            "SELECT table_schema || '.' || table_name || '.' || column_name, data_type "
            "FROM information_schema.columns WHERE table_schema IN ('meter_gateway', 'billing', 'portal')"
        )
    ).fetchall()
    for name, kind in rows:
        assert kind not in ("real", "double precision", "money", "timestamp without time zone"), name
        if name.endswith("_at") or name.endswith("_start"):
            assert kind == "timestamp with time zone", name
        if name.endswith("_minor"):
            assert kind in ("bigint", "numeric"), name
