"""SQL of downsampled history: its mark, the hours, days and months behind it, and late readings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from meter_gateway.time_series.history import Edition, Mark, start_of_day, start_of_month

_VALUES: Final = sql.SQL(
    "first_at, first_value, last_at, last_value, min_value, max_value,"
    " value_count, estimated_count, simulated_count, suspect_count"
)
_OF_READINGS: Final = sql.SQL("""
    min(occurred_at) FILTER (WHERE quality <> 'suspect'),
    (array_agg(value ORDER BY occurred_at) FILTER (WHERE quality <> 'suspect'))[1],
    max(occurred_at) FILTER (WHERE quality <> 'suspect'),
    (array_agg(value ORDER BY occurred_at DESC) FILTER (WHERE quality <> 'suspect'))[1],
    min(value) FILTER (WHERE quality <> 'suspect'), max(value) FILTER (WHERE quality <> 'suspect'),
    count(*) FILTER (WHERE quality <> 'suspect'), count(*) FILTER (WHERE quality = 'estimated'),
    count(*) FILTER (WHERE quality = 'simulated'), count(*) FILTER (WHERE quality = 'suspect')""")
_OF_BUCKETS: Final = sql.SQL("""
    min(first_at), (array_agg(first_value ORDER BY first_at) FILTER (WHERE first_at IS NOT NULL))[1],
    max(last_at), (array_agg(last_value ORDER BY last_at DESC) FILTER (WHERE last_at IS NOT NULL))[1],
    min(min_value), max(max_value), sum(value_count), sum(estimated_count), sum(simulated_count),
    sum(suspect_count)""")
_OVERWRITE: Final = sql.SQL("""
    ON CONFLICT (meter_id, channel, bucket_start) DO UPDATE SET
      first_at = EXCLUDED.first_at, first_value = EXCLUDED.first_value,
      last_at = EXCLUDED.last_at, last_value = EXCLUDED.last_value,
      min_value = EXCLUDED.min_value, max_value = EXCLUDED.max_value, value_count = EXCLUDED.value_count,
      estimated_count = EXCLUDED.estimated_count, simulated_count = EXCLUDED.simulated_count,
      suspect_count = EXCLUDED.suspect_count""")
# (table, unit, table it is made of): a day of hours, a month of days.
_COARSER: Final = (("history_day", "day", "history_hour"), ("history_month", "month", "history_day"))
_HOURS: Final = sql.SQL("""
    INSERT INTO meter_gateway.history_hour (meter_id, channel, bucket_start, {values})
    SELECT meter_id, channel, date_trunc('hour', occurred_at, 'UTC'), {aggregates}
      FROM meter_gateway.reading WHERE occurred_at >= %s AND occurred_at < %s GROUP BY 1, 2, 3
    {overwrite}""").format(values=_VALUES, aggregates=_OF_READINGS, overwrite=_OVERWRITE)
_HOURS_AGAIN: Final = sql.SQL("""
    INSERT INTO meter_gateway.history_hour (meter_id, channel, bucket_start, {values})
    SELECT meter_id, channel, bucket_start, {aggregates}
      FROM history_again JOIN meter_gateway.reading USING (meter_id, channel)
     WHERE occurred_at >= bucket_start AND occurred_at < bucket_start + interval '1 hour' GROUP BY 1, 2, 3
    {overwrite}""").format(values=_VALUES, aggregates=_OF_READINGS, overwrite=_OVERWRITE)
_COARSER_OF: Final = sql.SQL("""
    INSERT INTO meter_gateway.{table} (meter_id, channel, bucket_start, {values})
    SELECT meter_id, channel, date_trunc({unit}, bucket_start, 'Asia/Muscat'), {aggregates}
      FROM meter_gateway.{source}
     WHERE bucket_start >= coalesce(%s, '-infinity'::timestamptz) AND bucket_start < %s GROUP BY 1, 2, 3
    {overwrite}""")
# The 32 days bound the search; a month's true end is told by the clock of Muscat alone.
_COARSER_AGAIN: Final = sql.SQL("""
    INSERT INTO meter_gateway.{table} (meter_id, channel, bucket_start, {values})
    SELECT meter_id, channel, start_at, {aggregates}
      FROM (SELECT DISTINCT meter_id, channel, date_trunc({unit}, bucket_start, 'Asia/Muscat') AS start_at
              FROM history_again) again
      JOIN meter_gateway.{source} USING (meter_id, channel)
     WHERE start_at < %s AND bucket_start >= start_at AND bucket_start < start_at + interval '32 days'
       AND date_trunc({unit}, bucket_start, 'Asia/Muscat') = start_at GROUP BY 1, 2, 3
    {overwrite}""")


def _coarser(statement: sql.SQL, table: str, unit: str, source: str) -> sql.Composed:
    return statement.format(
        table=sql.Identifier(table),
        unit=sql.Literal(unit),
        source=sql.Identifier(source),
        values=_VALUES,
        aggregates=_OF_BUCKETS,
        overwrite=_OVERWRITE,
    )


async def ask_edition(conn: psycopg.AsyncConnection) -> Edition:
    """Ask the server what it can do."""
    cursor = await conn.execute("SELECT meter_gateway.history_edition()")
    row = await cursor.fetchone()
    return Edition(row[0] if row else "plain")


async def is_hypertable(conn: psycopg.AsyncConnection) -> bool:
    """Whether readings lie in a hypertable."""
    if await ask_edition(conn) is Edition.PLAIN:
        return False
    cursor = await conn.execute(
        "SELECT FROM timescaledb_information.hypertables"
        " WHERE hypertable_schema = 'meter_gateway' AND hypertable_name = 'reading'"
    )
    return await cursor.fetchone() is not None


_MARK: Final = (
    "SELECT kept_by, nullif(live_hour, '-infinity') AS live_hour, nullif(live_day, '-infinity') AS live_day,"
    " nullif(live_month, '-infinity') AS live_month, seen_until, step_hours FROM meter_gateway.history_mark"
)


async def get_mark(conn: psycopg.AsyncConnection) -> Mark:
    """Return how far history is written."""
    cursor = conn.cursor(row_factory=class_row(Mark))
    row = await (await cursor.execute(_MARK)).fetchone()
    if row is None:
        raise psycopg.DataError("meter_gateway.history_mark has lost its row")
    return row


async def lock_mark(conn: psycopg.AsyncConnection) -> Mark | None:
    """Hold the mark until the transaction ends; None while another process holds it."""
    cursor = conn.cursor(row_factory=class_row(Mark))
    await cursor.execute(_MARK + " FOR UPDATE SKIP LOCKED")
    return await cursor.fetchone()


async def wait_for_mark(conn: psycopg.AsyncConnection) -> None:
    """Hold the mark until the transaction ends, waiting for whoever holds it."""
    await conn.execute("SELECT FROM meter_gateway.history_mark FOR UPDATE")


async def mark_kept_from(conn: psycopg.AsyncConnection, edge: datetime | None) -> None:
    """Put the mark to the start of a month for good: buckets before it stay as they are written."""
    await conn.execute(
        "UPDATE meter_gateway.history_mark SET live_hour = e, live_day = e, live_month = e"
        " FROM (SELECT coalesce(%s::timestamptz, '-infinity') AS e) edge",
        (edge,),
    )


async def has_hours_before(conn: psycopg.AsyncConnection, at: datetime | None) -> bool:
    """Whether hours before an instant are written, or any at all for None."""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM meter_gateway.history_hour"
        " WHERE bucket_start < coalesce(%s::timestamptz, 'infinity'))",
        (at,),
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def find_oldest_hour(conn: psycopg.AsyncConnection) -> datetime | None:
    """Return an hour at or before the first reading, near it; None without readings."""
    if await is_hypertable(conn):  # its index by time makes this a look-up
        cursor = await conn.execute(
            "SELECT date_trunc('hour', min(occurred_at), 'UTC') FROM meter_gateway.reading"
        )
    else:
        # The first partition that holds something: its own readings are not searched.
        cursor = await conn.execute(
            "SELECT (SELECT date_trunc('month', r.occurred_at, 'UTC') FROM meter_gateway.reading r"
            "         WHERE r.occurred_at >= p.starts_at AND r.occurred_at < p.ends_at LIMIT 1) AS found"
            "  FROM meter_gateway.time_partition p WHERE p.parent = 'reading' ORDER BY found NULLS LAST LIMIT 1"
        )
    row = await cursor.fetchone()
    return row[0] if row else None


async def insert_hours(conn: psycopg.AsyncConnection, start: datetime, until: datetime) -> int:
    """Write the hours of all meters in [start, until); returns how many rows that were."""
    await conn.execute("SELECT meter_gateway.ensure_history_partitions(%s, %s)", (start, until))
    cursor = await conn.execute(_HOURS, (start, until))
    return cursor.rowcount


async def move_mark(
    conn: psycopg.AsyncConnection, mark: Mark, until: datetime, *, step_hours: int, now: datetime
) -> None:
    """Write the days and months that `until` (an hour) completes, and move the mark to it."""
    edges = (start_of_day(until), start_of_month(until))
    for (table, unit, source), before, edge in zip(
        _COARSER, (mark.live_day, mark.live_month), edges, strict=True
    ):
        if before is None or edge > before:
            await conn.execute(_coarser(_COARSER_OF, table, unit, source), (before, edge))
    await conn.execute(
        "UPDATE meter_gateway.history_mark SET live_hour = %s, live_day = %s, live_month = %s,"
        " step_hours = %s, worked_at = %s",
        (until, *edges, step_hours, now),
    )


async def summarize(conn: psycopg.AsyncConnection, *, newest: int | None) -> int:
    """Let the block range indexes of the newest partitions (None: of all) know their newest blocks.

    What they do not know is read whole at each look. Vacuum would tell them, but only when much has
    changed. Returns how many ranges were new. Raises LockNotAvailable while a vacuum is at it.
    """
    await conn.execute("SET LOCAL lock_timeout = '200ms'")
    cursor = await conn.execute(
        "SELECT coalesce(sum(brin_summarize_new_values(indexrelid)), 0) FROM"
        " (SELECT i.indexrelid FROM pg_inherits h JOIN pg_index i ON i.indrelid = h.inhrelid"
        "    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam"
        "   WHERE h.inhparent = 'meter_gateway.reading'::regclass AND a.amname = 'brin'"
        "   ORDER BY h.inhrelid DESC LIMIT %s) newest",
        (newest,),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def note_late_readings(conn: psycopg.AsyncConnection, mark: Mark, now: datetime) -> int:
    """Note the written hours into which readings fell that were recorded since the last look.

    A reading carries the time at which its transaction began, so the look ends before the oldest
    transaction that still runs: what it will commit is found by a later look.
    """
    cursor = await conn.execute(
        "SELECT least(now(), min(xact_start)) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    row = await cursor.fetchone()
    until = max(mark.seen_until, row[0] if row else mark.seen_until)
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.history_late (meter_id, channel, bucket_start)"
        " SELECT DISTINCT meter_id, channel, date_trunc('hour', occurred_at, 'UTC')"
        "   FROM meter_gateway.reading WHERE recorded_at >= %s AND occurred_at < %s"
        " ON CONFLICT DO NOTHING",
        (mark.seen_until, mark.live_hour),
    )
    await conn.execute("UPDATE meter_gateway.history_mark SET seen_until = %s, worked_at = %s", (until, now))
    return cursor.rowcount


async def write_late_hours(conn: psycopg.AsyncConnection, mark: Mark, *, limit: int) -> int:
    """Write again up to `limit` noted hours, with their days and months; returns how many there were."""
    await conn.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS history_again (LIKE meter_gateway.history_late)"
        " ON COMMIT DELETE ROWS"
    )
    await conn.execute("DELETE FROM history_again")
    cursor = await conn.execute(
        "WITH taken AS (DELETE FROM meter_gateway.history_late WHERE (meter_id, channel, bucket_start) IN"
        " (SELECT meter_id, channel, bucket_start FROM meter_gateway.history_late LIMIT %s) RETURNING *)"
        " INSERT INTO history_again SELECT * FROM taken",
        (limit,),
    )
    taken = cursor.rowcount
    if not taken:
        return 0
    await conn.execute(
        "SELECT meter_gateway.ensure_history_partitions(min(bucket_start), max(bucket_start))"
        " FROM history_again"
    )
    await conn.execute(_HOURS_AGAIN)
    for (table, unit, source), edge in zip(_COARSER, (mark.live_day, mark.live_month), strict=True):
        await conn.execute(_coarser(_COARSER_AGAIN, table, unit, source), (edge,))
    return taken


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the job is behind: written up to, hours still to write again, last round."""

    live_hour: datetime | None
    seen_until: datetime
    late_hours: int
    worked_at: datetime | None


async def get_lag(conn: psycopg.AsyncConnection) -> Lag:
    """Return how far the job is behind."""
    cursor = conn.cursor(row_factory=class_row(Lag))
    await cursor.execute(
        "SELECT nullif(live_hour, '-infinity') AS live_hour, seen_until, worked_at,"
        " (SELECT count(*) FROM meter_gateway.history_late) AS late_hours FROM meter_gateway.history_mark"
    )
    row = await cursor.fetchone()
    if row is None:
        raise psycopg.DataError("meter_gateway.history_mark has lost its row")
    return row
