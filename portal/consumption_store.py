"""SQL of consumption: what the readings of one counter say, by month, day, hour or quarter of an hour."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from portal.consumption import Span, View

_HISTORY: Final[dict[View, str]] = {
    "months": "v_history_month",
    "year": "v_history_day",
    "days": "v_history_day",
    "day": "v_history_hour",
}
SPANS: Final = sql.SQL("""
    SELECT bucket_start AS start, first_at, first_value, last_at, last_value, value_count, estimated_count,
           suspect_count
      FROM meter_gateway.{view}
     WHERE meter_id = %s AND channel = 'counter' AND bucket_start >= %s AND bucket_start < %s
     ORDER BY bucket_start""")
# Some hours of readings, at most a few hundred: quarters of an hour are not kept.
QUARTERS: Final = sql.SQL("""
    SELECT date_bin('15 minutes', occurred_at, '2020-01-01 00:00Z') AS start,
           min(occurred_at) FILTER (WHERE quality <> 'suspect') AS first_at,
           (array_agg(value ORDER BY occurred_at) FILTER (WHERE quality <> 'suspect'))[1] AS first_value,
           max(occurred_at) FILTER (WHERE quality <> 'suspect') AS last_at,
           (array_agg(value ORDER BY occurred_at DESC) FILTER (WHERE quality <> 'suspect'))[1] AS last_value,
           count(*) FILTER (WHERE quality <> 'suspect') AS value_count,
           count(*) FILTER (WHERE quality = 'estimated') AS estimated_count,
           count(*) FILTER (WHERE quality = 'suspect') AS suspect_count
      FROM meter_gateway.v_reading
     WHERE meter_id = %s AND channel = 'counter' AND occurred_at >= %s AND occurred_at < %s
     GROUP BY 1 ORDER BY 1""")


def query_of(view: View) -> sql.SQL | sql.Composed:
    """Return the statement whose parameters are (meter id, since, until)."""
    return QUARTERS if view == "hours" else SPANS.format(view=sql.Identifier(_HISTORY[view]))


async def list_spans(
    conn: psycopg.AsyncConnection, meter_id: int, view: View, *, since: datetime, until: datetime
) -> list[Span]:
    """Return the spans of a view between two instants, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Span))
    await cursor.execute(query_of(view), (meter_id, since, until))
    return await cursor.fetchall()
