"""SQL of readings: many at once, each stored once, a contradiction kept beside."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Final

import msgspec
import psycopg
from psycopg.rows import class_row

from meter_gateway.binary_copy import copy_bytes, field, micros

# Number of fields, then three of eight bytes: meter, instant, value. Channel and quality follow.
_ROW: Final = struct.Struct("!hiqiqiq")
# A clock that stands still dates every value to one instant; more of them tell a person nothing new.
MOST_CONFLICTS: Final = 100
_COLUMNS: Final = "(meter_id, occurred_at, value, channel, quality)"


class StoredReading(msgspec.Struct, frozen=True, gc=False):
    """One reading; units by channel: Wh|mL, Wh|mL, W|mL/h, DLMS relay state."""

    meter_id: int
    channel: str
    occurred_at: datetime
    value: int
    quality: str


@cache  # as many as there are channels times qualities
def _words(channel: str, quality: str) -> bytes:
    return field(channel) + field(quality)


def _row(reading: StoredReading) -> bytes:
    numbers = _ROW.pack(5, 8, reading.meter_id, 8, micros(reading.occurred_at), 8, reading.value)
    return numbers + _words(reading.channel, reading.quality)


async def insert_readings(conn: psycopg.AsyncConnection, readings: Sequence[StoredReading]) -> int:
    """Store readings by COPY; a key that is there stays as it is. Returns how many were new.

    The same key with another value goes to reading_conflict, each value once and MOST_CONFLICTS of a key.
    """
    if not readings:
        return 0
    rows = [_row(reading) for reading in readings]
    async with conn.cursor() as cursor:
        try:
            # What the ledger let pass is new, all but always: then there is nothing to compare.
            async with conn.transaction():
                await copy_bytes(
                    cursor, f"COPY meter_gateway.reading {_COLUMNS} FROM STDIN (FORMAT BINARY)", rows
                )
        except psycopg.errors.UniqueViolation:
            return await _insert_by_stage(cursor, rows)
    return len(rows)


async def _insert_by_stage(cursor: psycopg.AsyncCursor, rows: Sequence[bytes]) -> int:
    """Store what is new by way of a temporary table, and put contradictions beside."""
    await cursor.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS reading_in (meter_id bigint, channel text,"
        " occurred_at timestamptz, value bigint, quality text) ON COMMIT DELETE ROWS"
    )
    # A second batch in the same transaction starts empty.
    await cursor.execute("DELETE FROM reading_in")
    await copy_bytes(cursor, f"COPY reading_in {_COLUMNS} FROM STDIN (FORMAT BINARY)", rows)
    await cursor.execute(
        "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, quality)"
        " SELECT meter_id, channel, occurred_at, value, quality FROM reading_in"
        " ON CONFLICT (meter_id, channel, occurred_at) DO NOTHING"
    )
    added = cursor.rowcount
    await cursor.execute(
        "INSERT INTO meter_gateway.reading_conflict (meter_id, channel, occurred_at, value, kept_value)"
        " SELECT DISTINCT i.meter_id, i.channel, i.occurred_at, i.value, r.value FROM reading_in i"
        " JOIN meter_gateway.reading r USING (meter_id, channel, occurred_at)"
        " WHERE i.value <> r.value AND (SELECT count(*) FILTER (WHERE c.value = i.value) = 0 AND count(*) < %s"
        "   FROM meter_gateway.reading_conflict c WHERE c.meter_id = i.meter_id AND c.channel = i.channel"
        "    AND c.occurred_at = i.occurred_at)",
        (MOST_CONFLICTS,),
    )
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
