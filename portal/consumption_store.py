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
# The unit of a history, and what no such unit is longer than.
_UNITS: Final = {
    "v_history_month": ("month", "31 days"),
    "v_history_day": ("day", "1 day"),
    "v_history_hour": ("hour", "1 hour"),
}
SPANS: Final = sql.SQL("""
    SELECT bucket_start AS start, first_at, first_value, last_at, last_value, value_count, estimated_count,
           suspect_count
      FROM meter_gateway.{view}
     WHERE meter_id = %s AND channel = 'counter' AND bucket_start >= %s AND bucket_start < %s
     ORDER BY bucket_start""")
_TOLD: Final = sql.SQL("""
           min(occurred_at) FILTER (WHERE quality <> 'suspect') AS first_at,
           (array_agg(value ORDER BY occurred_at) FILTER (WHERE quality <> 'suspect'))[1] AS first_value,
           max(occurred_at) FILTER (WHERE quality <> 'suspect') AS last_at,
           (array_agg(value ORDER BY occurred_at DESC) FILTER (WHERE quality <> 'suspect'))[1] AS last_value,
           count(*) FILTER (WHERE quality <> 'suspect') AS value_count,
           count(*) FILTER (WHERE quality = 'estimated') AS estimated_count,
           count(*) FILTER (WHERE quality = 'suspect') AS suspect_count""")
# Some hours of readings, at most a few hundred: quarters of an hour are not kept.
QUARTERS: Final = sql.SQL("""
    SELECT date_bin('15 minutes', occurred_at, '2020-01-01 00:00Z') AS start, {told}
      FROM meter_gateway.v_reading_best
     WHERE meter_id = %s AND channel = 'counter' AND occurred_at >= %s AND occurred_at < %s
     GROUP BY 1 ORDER BY 1""").format(told=_TOLD)
# History is of readings as they were told. Where persons decided since, or a gap was estimated, the few buckets
# concerned are looked up anew: what counts there, and what nobody measured, marked so.
JUDGED: Final = sql.SQL("""
    WITH touched AS (
      SELECT DISTINCT date_trunc({unit}, at, 'Asia/Muscat') AS start FROM (
        SELECT occurred_at AS at FROM meter_gateway.v_reading_estimate
         WHERE meter_id = %(meter)s AND channel = 'counter' AND occurred_at >= %(since)s AND occurred_at < %(until)s
        UNION ALL
        SELECT occurred_at FROM meter_gateway.v_reading_conflict
         WHERE meter_id = %(meter)s AND channel = 'counter' AND occurred_at >= %(since)s AND occurred_at < %(until)s
           AND verdict IS NOT NULL
        UNION ALL
        SELECT generate_series(greatest(from_at, %(since)s), least(until_at, %(until)s), {step}::interval)
          FROM meter_gateway.v_counter_rebase WHERE meter_id = %(meter)s
        UNION ALL
        SELECT least(until_at, %(until)s) FROM meter_gateway.v_counter_rebase
         WHERE meter_id = %(meter)s AND until_at >= %(since)s AND from_at < %(until)s
      ) t)
    SELECT start, {told}
      FROM touched JOIN meter_gateway.v_reading_best r
        ON r.occurred_at >= start AND r.occurred_at < start + {reach}::interval
       AND date_trunc({unit}, r.occurred_at, 'Asia/Muscat') = start
     WHERE r.meter_id = %(meter)s AND r.channel = 'counter'
     GROUP BY 1""")


def query_of(view: View) -> sql.SQL | sql.Composed:
    """Return the statement whose parameters are (meter id, since, until)."""
    return QUARTERS if view == "hours" else SPANS.format(view=sql.Identifier(_HISTORY[view]))


async def list_spans(
    conn: psycopg.AsyncConnection, meter_id: int, view: View, *, since: datetime, until: datetime
) -> list[Span]:
    """Return the spans of a view between two instants, oldest first.

    What was decided or estimated counts as long as the readings themselves are there. Estimates outlive the
    readings that replaced them, and so a bucket whose readings were dropped stays as history kept it.
    """
    cursor = conn.cursor(row_factory=class_row(Span))
    await cursor.execute(query_of(view), (meter_id, since, until))
    spans = await cursor.fetchall()
    if view == "hours":
        return spans
    unit, longest = _UNITS[_HISTORY[view]]
    await cursor.execute(
        JUDGED.format(
            unit=sql.Literal(unit),
            step=sql.Literal(f"1 {unit}"),
            reach=sql.Literal(longest),
            told=_TOLD,
        ),
        {"meter": meter_id, "since": since, "until": until},
    )
    by_start = {span.start: span for span in spans}
    for judged in await cursor.fetchall():
        kept = by_start.get(judged.start)
        if kept is None or _measured(judged) >= _measured(kept):
            by_start[judged.start] = judged
    return [by_start[start] for start in sorted(by_start)]


def _measured(span: Span) -> int:
    """How many readings a span was made of, those in doubt among them."""
    return span.value_count + span.suspect_count - span.estimated_count
