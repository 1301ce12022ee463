"""SQL of retention: whole partitions and chunks are dropped, dead letters go in slices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from meter_gateway.time_series import history_store
from meter_gateway.time_series.retention import Partition


async def list_partitions(conn: psycopg.AsyncConnection) -> list[Partition]:
    """Return every partition by time, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Partition))
    await cursor.execute(
        "SELECT parent, name, ends_at FROM meter_gateway.time_partition"
        " WHERE ends_at IS NOT NULL ORDER BY ends_at, name"
    )
    return await cursor.fetchall()


async def drop_partition(conn: psycopg.AsyncConnection, name: str) -> None:
    """Drop one partition. Raises LockNotAvailable when its readers do not let go within three seconds."""
    # The whole table waits behind a waiting DROP: better to try again than to hold up ingest.
    await conn.execute("SET LOCAL lock_timeout = '3s'")
    await conn.execute(sql.SQL("DROP TABLE meter_gateway.{}").format(sql.Identifier(name)))


async def drop_chunks(conn: psycopg.AsyncConnection, table: str, before: datetime) -> int:
    """Drop the chunks of a hypertable or continuous aggregate that lie wholly before; returns how many."""
    await conn.execute("SET LOCAL lock_timeout = '3s'")
    cursor = await conn.execute(
        "SELECT count(*) FROM public.drop_chunks(%s::regclass, older_than => %s::timestamptz)",
        (f"meter_gateway.{table}", before),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def delete_dead_letters(conn: psycopg.AsyncConnection, before: datetime, *, limit: int) -> int:
    """Forget up to `limit` dead letters received before; returns how many went."""
    cursor = await conn.execute(
        "DELETE FROM meter_gateway.dead_letter WHERE id IN"
        " (SELECT id FROM meter_gateway.dead_letter WHERE received_at < %s ORDER BY id LIMIT %s)",
        (before, limit),
    )
    return cursor.rowcount


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table with what it takes of the disk, its partitions or chunks, and the start of the oldest in use."""

    name: str
    size_bytes: int
    parts: int
    oldest: datetime | None


async def list_sizes(conn: psycopg.AsyncConnection) -> list[TableSize]:
    """Return the sizes of readings and their history, whatever holds them."""
    cursor = conn.cursor(row_factory=class_row(TableSize))
    await cursor.execute(
        "SELECT parent AS name, sum(size_bytes)::bigint AS size_bytes, count(*) AS parts,"
        " min(starts_at) FILTER (WHERE has_rows) AS oldest FROM"
        " (SELECT *, pg_relation_size(to_regclass('meter_gateway.' || name)) > 0 AS has_rows"
        "    FROM meter_gateway.time_partition) p GROUP BY parent ORDER BY parent DESC"
    )
    sizes = await cursor.fetchall()
    if await history_store.is_hypertable(conn):
        await cursor.execute(
            "SELECT c.hypertable_name AS name,"
            " public.hypertable_size(format('%I.%I', c.hypertable_schema, c.hypertable_name)) AS size_bytes,"
            " count(*) AS parts, min(c.range_start) AS oldest FROM timescaledb_information.chunks c"
            " WHERE c.hypertable_schema = 'meter_gateway' AND c.hypertable_name = 'reading'"
            " GROUP BY c.hypertable_schema, c.hypertable_name"
        )
        sizes = [*await cursor.fetchall(), *sizes]
    return sizes
