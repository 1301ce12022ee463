"""SQL of readings: many at once, each stored once, a contradiction kept beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class StoredReading:
    """One reading; units by channel: Wh|mL, Wh|mL, W|mL/h, DLMS relay state."""

    meter_id: int
    channel: str
    occurred_at: datetime
    value: int
    quality: str


async def insert_readings(conn: psycopg.AsyncConnection, readings: Sequence[StoredReading]) -> int:
    """Store readings by COPY through a temporary table; a key that is there stays as it is.

    The same key with another value goes to reading_conflict. Returns how many were new.
    """
    if not readings:
        return 0
    await conn.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS reading_in (meter_id bigint, channel text,"
        " occurred_at timestamptz, value bigint, quality text) ON COMMIT DELETE ROWS"
    )
    async with conn.cursor() as cursor:
        async with cursor.copy(
            "COPY reading_in (meter_id, channel, occurred_at, value, quality) FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.set_types(["int8", "text", "timestamptz", "int8", "text"])
            for row in readings:
                await copy.write_row((row.meter_id, row.channel, row.occurred_at, row.value, row.quality))
        await cursor.execute(
            "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, quality)"
            " SELECT meter_id, channel, occurred_at, value, quality FROM reading_in"
            " ON CONFLICT (meter_id, channel, occurred_at) DO NOTHING"
        )
        added = cursor.rowcount
        if added < len(readings):
            await cursor.execute(
                "INSERT INTO meter_gateway.reading_conflict (meter_id, channel, occurred_at, value, kept_value)"
                " SELECT i.meter_id, i.channel, i.occurred_at, i.value, r.value FROM reading_in i"
                " JOIN meter_gateway.reading r USING (meter_id, channel, occurred_at)"
                " WHERE i.value <> r.value"
            )
        # Before the commit, so that a second batch in the same transaction starts empty.
        await cursor.execute("DELETE FROM reading_in")
    return added


async def list_readings(
    conn: psycopg.AsyncConnection, meter_id: int, channel: str, *, since: datetime, until: datetime
) -> list[StoredReading]:
    """Return the readings of one channel, oldest first; `until` is not included."""
    async with conn.cursor(row_factory=class_row(StoredReading)) as cursor:
        await cursor.execute(
            "SELECT meter_id, channel, occurred_at, value, quality FROM meter_gateway.reading"
            " WHERE meter_id = %s AND channel = %s AND occurred_at >= %s AND occurred_at < %s"
            " ORDER BY occurred_at",
            (meter_id, channel, since, until),
        )
        return await cursor.fetchall()


async def ensure_partitions(conn: psycopg.AsyncConnection, first: datetime, last: datetime) -> int:
    """Make the monthly partitions between two instants; returns how many were missing."""
    cursor = await conn.execute(
        "SELECT meter_gateway.ensure_reading_partitions(%s, %s)", (first.date(), last.date())
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
