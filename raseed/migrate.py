"""Apply numbered SQL migrations in one global order, once each, forward only."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from meter_gateway.time_series import set_up_history
from raseed.settings import package_dir

PACKAGES = ("meter_gateway", "billing", "portal")
LOCK_ID = 7_206_331  # any fixed number: two migrations at once wait for each other
LOCK_TIMEOUT = "10s"  # a long reader must not hang a deployment in silence


class MigrationRefused(Exception):
    """The database and the migration files disagree; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name, SQL and SHA-256."""

    number: int
    name: str
    sql: str
    checksum: str


def list_migrations() -> list[Migration]:
    """Every migration of every package, by number. Raises MigrationRefused at a gap or a double."""
    found = []
    for package in PACKAGES:
        for path in (package_dir(package) / "schema").glob("*.sql"):
            match = re.fullmatch(r"(\d{4})_[a-z0-9_]+\.sql", path.name)
            if not match:
                raise MigrationRefused(f"{package}/schema/{path.name}: name it 0001_words.sql")
            found.append(_read(int(match.group(1)), package, path))
    found.sort(key=lambda migration: migration.number)
    numbers = [migration.number for migration in found]
    if numbers != list(range(1, len(found) + 1)):
        raise MigrationRefused(f"migration numbers must run 1, 2, 3 … without gap or double: {numbers}")
    return found


def _read(number: int, package: str, path: Path) -> Migration:
    sql = path.read_text(encoding="utf-8")
    return Migration(number, f"{package}/{path.name}", sql, hashlib.sha256(sql.encode()).hexdigest())


async def migrate(database_url: str, say: Callable[[str], None] = lambda _line: None) -> int:
    """Bring the database to the newest schema; return how many files were applied.

    Raises MigrationRefused when an applied file was changed afterwards, psycopg.Error when SQL fails
    (that file is rolled back, the ones before it stay).
    """
    applied = 0
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute("SELECT pg_advisory_lock(%s)", (LOCK_ID,))
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS public.raseed_migration (number integer PRIMARY KEY, name text NOT NULL, "
            "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        cursor = await conn.execute("SELECT number, checksum FROM public.raseed_migration")
        done: dict[int, str] = dict(await cursor.fetchall())
        if await _install_procrastinate(conn):
            say("jobs: procrastinate's tables made")
        for migration in list_migrations():
            if migration.number in done:
                if done[migration.number] != migration.checksum:
                    raise MigrationRefused(
                        f"{migration.name} was changed after it was applied: put it back and write a new migration"
                    )
                continue
            await _apply(conn, migration)
            say(f"{migration.name} applied")
            applied += 1
        await set_up_history.settle(conn, datetime.now(UTC), say)
    return applied


async def _apply(conn: psycopg.AsyncConnection, migration: Migration) -> None:
    async with conn.transaction():
        await conn.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        await conn.execute(migration.sql.encode())
        await conn.execute("SET LOCAL search_path = public")
        await conn.execute(
            "INSERT INTO public.raseed_migration (number, name, checksum) VALUES (%s, %s, %s)",
            (migration.number, migration.name, migration.checksum),
        )


async def _install_procrastinate(conn: psycopg.AsyncConnection) -> bool:
    cursor = await conn.execute("SELECT to_regclass('public.procrastinate_jobs') IS NOT NULL")
    row = await cursor.fetchone()
    if row is not None and row[0]:
        return False
    from procrastinate.schema import SchemaManager

    async with conn.transaction():
        await conn.execute(SchemaManager.get_schema().encode())
    return True
