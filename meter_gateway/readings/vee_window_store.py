"""SQL that measures stretches of readings for the rules of validation: gaps, flows, standstills, clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import psycopg
from psycopg.rows import class_row

from meter_gateway.readings.estimate import HABIT, HALF_HOURS, Estimate
from meter_gateway.readings.vee import (
    DRIFT_READINGS,
    FLAT_FRESH,
    FLAT_SPAN,
    GAP_TURNS,
    LEAK_SLOT,
    LEAK_SPAN,
    REVERSE_SPAN,
    FlowWindow,
    Found,
    Kind,
    Over,
    ReverseWindow,
    StillCounter,
)

# A meter that has told nothing for this long is a gap, and no case for the other rules.
_FRESH: Final = timedelta(days=3)
# How far back a still counter is followed.
_STILL_BACK: Final = timedelta(days=60)
_MONTH: Final = timedelta(days=28)
# What a measure is held to: garbage stays huge, and still fits into a column.
_MOST: Final = 10**18


@dataclass(frozen=True, slots=True)
class EndedGap:
    """A gap that ended, with the counters on both sides of it; Wh or mL."""

    finding_id: int
    meter_id: int
    from_at: datetime
    from_value: int
    to_at: datetime
    to_value: int
    read_every_s: int


@dataclass(frozen=True, slots=True)
class ClockSample:
    """By how many seconds a meter's newest readings lie ahead of when we heard them."""

    meter_id: int
    heard_at: datetime
    ahead_s: list[int]


async def list_turn(conn: psycopg.AsyncConnection, after_id: int, now: datetime, *, limit: int) -> list[int]:
    """Return the next meters in line that told a counter lately, by number; fewer than `limit` at the end."""
    cursor = await conn.execute(
        "SELECT m.id FROM meter_gateway.meter m JOIN meter_gateway.meter_state st ON st.meter_id = m.id"
        " WHERE m.id > %s AND m.link <> 'keypad' AND st.counter_at > %s ORDER BY m.id LIMIT %s",
        (after_id, now - _FRESH, limit),
    )
    return [row[0] for row in await cursor.fetchall()]


async def list_new_gaps(conn: psycopg.AsyncConnection, now: datetime, *, limit: int) -> list[Found]:
    """Return installed meters with a link whose newest counter is two turns old, without an open finding.

    A counter in doubt is told, and so is no gap. Of a meter that never told us anything the newest reading
    counts that was brought along.
    """
    cursor = await conn.execute(
        "SELECT m.id, n.at, coalesce(st.counter, r.value), m.read_every_s,"
        "       CASE WHEN st.supply_on = false THEN 'no_supply' WHEN NOT coalesce(st.link_up, false)"
        "            THEN 'link_down' ELSE 'silent' END"
        "  FROM meter_gateway.meter m"
        "  JOIN meter_gateway.meter_installation i ON i.meter_id = m.id AND i.removed_at IS NULL"
        "  LEFT JOIN meter_gateway.meter_state st ON st.meter_id = m.id"
        "  LEFT JOIN LATERAL (SELECT occurred_at, value FROM meter_gateway.reading WHERE st.counter_at IS NULL"
        "     AND meter_id = m.id AND channel = 'counter' AND quality <> 'suspect'"
        "     ORDER BY occurred_at DESC LIMIT 1) r ON true"
        "  CROSS JOIN LATERAL (SELECT coalesce(st.counter_at, r.occurred_at, i.installed_at) AS at) n"
        " WHERE m.link <> 'keypad' AND NOT coalesce(st.counter_suspect, false)"
        "   AND greatest(n.at, i.installed_at) < %(now)s - m.read_every_s * %(turns)s * interval '1 s'"
        "   AND NOT EXISTS (SELECT FROM meter_gateway.reading_finding f WHERE f.meter_id = m.id"
        "       AND f.kind = 'gap' AND (f.closed_at IS NULL"
        "            OR f.from_at = n.at)) LIMIT %(limit)s",
        {"now": now, "turns": GAP_TURNS, "limit": limit},
    )
    return [
        Found(meter_id, Kind.GAP, at, {"cause": cause, "read_every_s": every, "counter": counter})
        for meter_id, at, counter, every, cause in await cursor.fetchall()
    ]


async def list_ended_gaps(conn: psycopg.AsyncConnection, *, limit: int) -> list[Over]:
    """Return open gaps after which a counter was told, or whose meter was taken down."""
    cursor = await conn.execute(
        "SELECT f.meter_id, coalesce(r.occurred_at, i.removed_at), r.value"
        "  FROM meter_gateway.reading_finding f"
        "  LEFT JOIN meter_gateway.meter_state st ON st.meter_id = f.meter_id"
        "  LEFT JOIN LATERAL (SELECT occurred_at, value FROM meter_gateway.reading"
        "     WHERE meter_id = f.meter_id AND channel = 'counter' AND occurred_at > f.from_at"
        "       AND quality <> 'suspect' ORDER BY occurred_at LIMIT 1) r ON true"
        "  LEFT JOIN LATERAL (SELECT max(removed_at) AS removed_at FROM meter_gateway.meter_installation"
        "     WHERE meter_id = f.meter_id HAVING bool_and(removed_at IS NOT NULL)) i ON true"
        " WHERE f.kind = 'gap' AND f.closed_at IS NULL AND coalesce(r.occurred_at, i.removed_at) > f.from_at"
        "   AND (st.counter_at > f.from_at OR i.removed_at IS NOT NULL) LIMIT %s",
        (limit,),
    )
    return [
        Over(meter_id, Kind.GAP, at, {} if value is None else {"counter_after": value})
        for meter_id, at, value in await cursor.fetchall()
    ]


async def list_gaps_to_estimate(conn: psycopg.AsyncConnection, finding_ids: Sequence[int]) -> list[EndedGap]:
    """Return those of these gaps that have a believed counter on both sides."""
    async with conn.cursor(row_factory=class_row(EndedGap)) as cursor:
        await cursor.execute(
            "SELECT f.id AS finding_id, f.meter_id, f.from_at, (f.detail ->> 'counter')::bigint AS from_value,"
            "       f.to_at, (f.detail ->> 'counter_after')::bigint AS to_value, m.read_every_s"
            "  FROM meter_gateway.reading_finding f JOIN meter_gateway.meter m ON m.id = f.meter_id"
            " WHERE f.id = ANY(%s) AND f.detail ->> 'counter' IS NOT NULL"
            "   AND f.detail ->> 'counter_after' IS NOT NULL ORDER BY f.id",
            (list(finding_ids),),
        )
        return await cursor.fetchall()


async def find_habit(conn: psycopg.AsyncConnection, meter_id: int, before: datetime) -> list[int] | None:
    """Return the usual use of each half-hour of a UTC day over two weeks, Wh or mL; None without a habit."""
    cursor = await conn.execute(
        "WITH half AS (SELECT date_bin('30 min', occurred_at, 'epoch') AS slot, max(value) AS value"
        "     FROM meter_gateway.reading WHERE meter_id = %(meter)s AND channel = 'counter'"
        "      AND quality <> 'suspect' AND occurred_at > %(since)s AND occurred_at <= %(before)s GROUP BY 1),"
        " step AS (SELECT slot, value - lag(value) OVER w AS used, slot - lag(slot) OVER w AS span"
        "     FROM half WINDOW w AS (ORDER BY slot))"
        " SELECT (extract(epoch FROM slot)::bigint / 1800 %% 48)::integer, avg(used)::bigint FROM step"
        "  WHERE span = interval '30 min' AND used >= 0 GROUP BY 1",
        {"meter": meter_id, "since": before - HABIT, "before": before},
    )
    known: dict[int, int] = dict(await cursor.fetchall())
    return [known[half] for half in range(HALF_HOURS)] if len(known) == HALF_HOURS else None


async def insert_estimates(
    conn: psycopg.AsyncConnection, gap: EndedGap, estimates: Sequence[Estimate], now: datetime
) -> int:
    """Keep what was estimated for a gap, apart from what was measured; returns how many were new."""
    if not estimates:
        return 0
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.reading_estimate (finding_id, meter_id, channel, occurred_at, value, slot_s,"
        " method, recorded_at) SELECT %(finding)s, %(meter)s, 'counter', e.at, e.value, %(slot)s, e.method, %(now)s"
        "  FROM unnest(%(at)s::timestamptz[], %(value)s::bigint[], %(method)s::text[]) AS e (at, value, method)"
        " ON CONFLICT DO NOTHING",
        {
            "finding": gap.finding_id,
            "meter": gap.meter_id,
            "slot": gap.read_every_s,
            "now": now,
            "at": [one.at for one in estimates],
            "value": [one.value for one in estimates],
            "method": [one.method for one in estimates],
        },
    )
    return cursor.rowcount


async def list_flows(
    conn: psycopg.AsyncConnection, meter_ids: Sequence[int], now: datetime
) -> list[FlowWindow]:
    """Return the last 48 hours of those of these meters that count water."""
    async with conn.cursor(row_factory=class_row(FlowWindow)) as cursor:
        # In numeric, and held within what a bigint holds: one garbage value must not stop the others' turn.
        await cursor.execute(
            "WITH slot AS (SELECT r.meter_id, date_bin(%(slot)s, r.occurred_at, 'epoch') AS slot,"
            "       max(r.occurred_at) AS at, max(r.value) AS value"
            "   FROM meter_gateway.reading r JOIN meter_gateway.meter m ON m.id = r.meter_id"
            "  WHERE r.meter_id = ANY(%(meters)s) AND m.commodity = 'water' AND r.channel = 'counter'"
            "    AND r.quality <> 'suspect' AND r.occurred_at >= %(since)s AND r.occurred_at <= %(now)s"
            "  GROUP BY 1, 2),"
            " step AS (SELECT meter_id, at, value::numeric - lag(value) OVER w AS used, at - lag(at) OVER w AS span"
            "   FROM slot WINDOW w AS (PARTITION BY meter_id ORDER BY slot))"
            " SELECT meter_id, min(at - span) AS first_at, max(at) AS last_at, max(span) AS longest,"
            "        count(*)::integer AS intervals,"
            "        least(greatest(sum(used), -%(most)s), %(most)s)::bigint AS used,"
            "        max(at) FILTER (WHERE used <= 0) AS still_at,"
            "        least(greatest(min(used * 3600 / greatest(extract(epoch FROM span), 1)), -%(most)s),"
            "              %(most)s)::bigint AS least_per_hour"
            "   FROM step WHERE used IS NOT NULL GROUP BY 1",
            {
                "meters": list(meter_ids),
                "slot": LEAK_SLOT,
                "since": now - LEAK_SPAN - LEAK_SLOT,
                "now": now,
                "most": _MOST,
            },
        )
        return await cursor.fetchall()


async def list_still_counters(
    conn: psycopg.AsyncConnection, meter_ids: Sequence[int], now: datetime
) -> list[StillCounter]:
    """Return those of these meters whose counter reads what it read three days ago, with what else they say."""
    async with conn.cursor(row_factory=class_row(StillCounter)) as cursor:
        await cursor.execute(
            "WITH still AS (SELECT m.id, m.commodity, st.counter, st.counter_at, st.credit, st.state_at,"
            "       coalesce(st.relay, 1) = 1 AS is_connected"
            "   FROM meter_gateway.meter m JOIN meter_gateway.meter_state st ON st.meter_id = m.id"
            "  CROSS JOIN LATERAL (SELECT value FROM meter_gateway.reading WHERE meter_id = m.id"
            "     AND channel = 'counter' AND quality <> 'suspect' AND occurred_at <= %(then)s"
            "     AND occurred_at > %(back)s ORDER BY occurred_at DESC LIMIT 1) old"
            "  WHERE m.id = ANY(%(meters)s) AND st.counter_at > %(fresh)s AND old.value = st.counter)"
            " SELECT s.id AS meter_id, s.commodity, s.counter, b.since AS still_since, s.counter_at,"
            "   (SELECT avg(value)::bigint FROM meter_gateway.reading WHERE meter_id = s.id AND channel = 'load'"
            "     AND occurred_at > %(then)s) AS mean_load,"
            "   (SELECT value FROM meter_gateway.reading WHERE meter_id = s.id AND channel = 'credit'"
            "     AND occurred_at > %(then)s ORDER BY occurred_at LIMIT 1) - s.credit AS credit_fell,"
            "   (SELECT (max(value) - min(value)) / 28 FROM meter_gateway.reading WHERE meter_id = s.id"
            "     AND channel = 'counter' AND quality <> 'suspect'"
            "     AND occurred_at BETWEEN b.since - %(month)s AND b.since) AS daily_before, s.is_connected"
            "  FROM still s CROSS JOIN LATERAL (SELECT min(r.occurred_at) AS since FROM meter_gateway.reading r"
            "     WHERE r.meter_id = s.id AND r.channel = 'counter' AND r.quality <> 'suspect'"
            "       AND r.occurred_at > coalesce((SELECT max(p.occurred_at) FROM meter_gateway.reading p"
            "            WHERE p.meter_id = s.id AND p.channel = 'counter' AND p.quality <> 'suspect'"
            "              AND p.value < s.counter AND p.occurred_at > %(back)s), %(back)s)) b",
            {
                "meters": list(meter_ids),
                "then": now - FLAT_SPAN,
                "fresh": now - FLAT_FRESH,
                "back": now - _STILL_BACK,
                "month": _MONTH,
            },
        )
        return await cursor.fetchall()


async def list_flats_over(conn: psycopg.AsyncConnection) -> list[Over]:
    """Return counters that were found to stand still and read something else since: more, or less after a repair."""
    cursor = await conn.execute(
        "SELECT f.meter_id, st.counter_at, st.counter FROM meter_gateway.reading_finding f"
        "  JOIN meter_gateway.meter_state st USING (meter_id)"
        " WHERE f.kind = 'flat' AND f.closed_at IS NULL AND st.counter <> (f.detail ->> 'counter')::bigint"
        "   AND st.counter_at > f.from_at"
    )
    return [
        Over(meter_id, Kind.FLAT, at, {"counter_after": counter})
        for meter_id, at, counter in await cursor.fetchall()
    ]


async def list_reverses(
    conn: psycopg.AsyncConnection, meter_ids: Sequence[int], now: datetime
) -> list[ReverseWindow]:
    """Return what ran back at those of these meters that ever told of it."""
    async with conn.cursor(row_factory=class_row(ReverseWindow)) as cursor:
        await cursor.execute(
            "SELECT m.id AS meter_id, m.commodity, o.occurred_at AS old_at, o.value AS old_value,"
            "       n.occurred_at AS new_at, n.value AS new_value FROM meter_gateway.meter m"
            "  CROSS JOIN LATERAL (SELECT occurred_at, value FROM meter_gateway.reading WHERE meter_id = m.id"
            "     AND channel = 'reverse' AND quality <> 'suspect' AND occurred_at > %(month)s"
            "     ORDER BY occurred_at DESC LIMIT 1) n"
            "  CROSS JOIN LATERAL (SELECT occurred_at, value FROM ("
            "     (SELECT occurred_at, value FROM meter_gateway.reading WHERE meter_id = m.id"
            "        AND channel = 'reverse' AND quality <> 'suspect' AND occurred_at <= %(day)s"
            "        AND occurred_at > %(month)s ORDER BY occurred_at DESC LIMIT 1)"
            "     UNION ALL"
            "     (SELECT occurred_at, value FROM meter_gateway.reading WHERE meter_id = m.id"
            "        AND channel = 'reverse' AND quality <> 'suspect' AND occurred_at > %(day)s"
            "        ORDER BY occurred_at LIMIT 1)) b ORDER BY occurred_at LIMIT 1) o"
            " WHERE m.id = ANY(%(meters)s)",
            {"meters": list(meter_ids), "day": now - REVERSE_SPAN, "month": now - _MONTH},
        )
        return await cursor.fetchall()


async def list_clock_samples(
    conn: psycopg.AsyncConnection, meter_ids: Sequence[int], now: datetime
) -> list[ClockSample]:
    """Return how the newest counters of those of these meters that date themselves lie against our clock."""
    async with conn.cursor(row_factory=class_row(ClockSample)) as cursor:
        await cursor.execute(
            "SELECT m.id AS meter_id, max(r.recorded_at) AS heard_at,"
            "       array_agg(round(extract(epoch FROM r.occurred_at - r.recorded_at))::integer) AS ahead_s"
            "  FROM meter_gateway.meter m CROSS JOIN LATERAL (SELECT occurred_at, recorded_at"
            "     FROM meter_gateway.reading WHERE meter_id = m.id AND channel = 'counter'"
            "      AND occurred_at > %(since)s AND quality IN ('valid', 'suspect')"
            "     ORDER BY occurred_at DESC LIMIT %(count)s) r"
            " WHERE m.id = ANY(%(meters)s) AND m.link = 'mqtt' GROUP BY 1",
            {"meters": list(meter_ids), "since": now - _FRESH, "count": DRIFT_READINGS},
        )
        return await cursor.fetchall()
