"""SQL of findings in readings: opened once, ended once, and the marks of how far each check has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from meter_gateway import topics
from meter_gateway.readings.vee import (
    CHANNEL,
    FROZEN_VALUES,
    QUIET_AFTER_DECISION,
    QUIET_KINDS,
    SAID_AS,
    Found,
    HeardEvent,
    Kind,
    Over,
)

# Any whole number that no other advisory lock of this package uses.
CHECK_LOCK: Final = 7_206_377
PLATFORM: Final = "platform"
# Rows that are younger may have a neighbour that commits after them: they are looked at again next time.
SETTLED: Final = timedelta(minutes=2)
_HEARD: Final = (
    topics.COUNTER_SUSPECT,
    topics.COUNTER_BELIEVED,
    topics.UNKNOWN_METER,
    topics.TAMPER,
    topics.CLOCK_DRIFT,
)


@dataclass(frozen=True, slots=True)
class ClosedFinding:
    """A finding that was closed just now."""

    id: int
    meter_id: int
    kind: str
    from_at: datetime
    to_at: datetime


async def lock_checks(conn: psycopg.AsyncConnection) -> bool:
    """Take the turn of checking until this transaction ends; False while another headend has it."""
    cursor = await conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (CHECK_LOCK,))
    row = await cursor.fetchone()
    return bool(row and row[0])


async def find_mark(conn: psycopg.AsyncConnection, name: str) -> int:
    """Return how far a check has come, 0 at first."""
    cursor = await conn.execute("SELECT value FROM meter_gateway.validation_mark WHERE name = %s", (name,))
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def mark_mark(conn: psycopg.AsyncConnection, name: str, value: int) -> None:
    """Note how far a check has come."""
    await conn.execute(
        "INSERT INTO meter_gateway.validation_mark (name, value) VALUES (%s, %s)"
        " ON CONFLICT (name) DO UPDATE SET value = EXCLUDED.value",
        (name, value),
    )


async def insert_findings(
    conn: psycopg.AsyncConnection, found: Sequence[Found], now: datetime, *, is_said: bool
) -> int:
    """Open what is not open, was not found before, and was not explained by a person lately; returns how many.

    With `is_said`, the platform says on the meter's timeline what began.
    """
    if not found:
        return 0
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.reading_finding (meter_id, kind, channel, from_at, to_at, detail, opened_at)"
        " SELECT n.meter_id, n.kind, n.channel, n.from_at, n.to_at, n.detail, %(now)s"
        "   FROM unnest(%(meter)s::bigint[], %(kind)s::text[], %(channel)s::text[], %(from)s::timestamptz[],"
        "     %(to)s::timestamptz[], %(detail)s::jsonb[]) AS n (meter_id, kind, channel, from_at, to_at, detail)"
        "  WHERE NOT EXISTS (SELECT FROM meter_gateway.reading_finding q WHERE q.meter_id = n.meter_id"
        "     AND q.kind = n.kind AND q.kind = ANY(%(quiet_kinds)s) AND q.closed_by <> 'platform'"
        "     AND q.closed_at > %(quiet)s)"
        "  ORDER BY n.meter_id, n.kind, n.from_at"
        " ON CONFLICT DO NOTHING RETURNING meter_id, kind, from_at, detail",
        {
            "now": now,
            "quiet": now - QUIET_AFTER_DECISION,
            "quiet_kinds": [kind.value for kind in QUIET_KINDS],
            "meter": [one.meter_id for one in found],
            "kind": [one.kind.value for one in found],
            "channel": [one.channel or CHANNEL[one.kind] for one in found],
            "from": [one.from_at for one in found],
            "to": [one.to_at for one in found],
            "detail": [Jsonb(dict(one.detail)) for one in found],
        },
    )
    opened = await cursor.fetchall()
    if is_said:
        await _say(conn, [(row[0], row[1], now, {"active": True} | row[3]) for row in opened])
    return len(opened)


async def mark_over(
    conn: psycopg.AsyncConnection, over: Sequence[Over], now: datetime, *, is_said: bool
) -> list[ClosedFinding]:
    """Close the open findings that began before what ended them."""
    if not over:
        return []
    cursor = await conn.execute(
        "UPDATE meter_gateway.reading_finding f SET to_at = o.to_at, closed_at = %(now)s,"
        "   closed_by = 'platform', outcome = 'over', detail = f.detail || o.detail"
        "  FROM unnest(%(meter)s::bigint[], %(kind)s::text[], %(to)s::timestamptz[], %(detail)s::jsonb[])"
        "       AS o (meter_id, kind, to_at, detail)"
        " WHERE f.closed_at IS NULL AND f.meter_id = o.meter_id AND f.kind = o.kind AND f.from_at < o.to_at"
        " RETURNING f.id, f.meter_id, f.kind, f.from_at, f.to_at",
        {
            "now": now,
            "meter": [one.meter_id for one in over],
            "kind": [one.kind.value for one in over],
            "to": [one.to_at for one in over],
            "detail": [Jsonb(dict(one.detail)) for one in over],
        },
    )
    closed = [ClosedFinding(*row) for row in await cursor.fetchall()]
    if is_said:
        details = {(one.meter_id, one.kind.value): dict(one.detail) for one in over}
        await _say(
            conn,
            [
                (one.meter_id, one.kind, now, details[one.meter_id, one.kind] | {"active": False})
                for one in closed
            ],
        )
    return closed


async def _say(
    conn: psycopg.AsyncConnection, told: Sequence[tuple[int, str, datetime, dict[str, Any]]]
) -> None:
    rows = [
        (meter_id, PLATFORM, SAID_AS[Kind(kind)], at, Jsonb(detail))
        for meter_id, kind, at, detail in told
        if Kind(kind) in SAID_AS
    ]
    if rows:
        async with conn.cursor() as cursor:
            await cursor.executemany(
                "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, detail)"
                " VALUES (%s, %s, %s, %s, %s)",
                rows,
            )


async def list_heard(
    conn: psycopg.AsyncConnection, after_id: int, now: datetime, *, limit: int
) -> tuple[list[HeardEvent], int]:
    """Return what edges told after a mark, oldest first, and the next mark.

    The mark stays behind the newest two minutes: a row with a smaller number may still be on its way.
    """
    cursor = await conn.execute(
        "SELECT id, meter_id, code, occurred_at, detail, recorded_at FROM meter_gateway.meter_event"
        " WHERE id > %s AND code = ANY(%s) AND edge <> 'platform' AND meter_id IS NOT NULL ORDER BY id LIMIT %s",
        (after_id, list(_HEARD), limit),
    )
    rows = await cursor.fetchall()
    if len(rows) == limit:
        settled = [row[0] for row in rows if row[5] < now - SETTLED]
        mark = settled[-1] if settled else after_id
    else:
        cursor = await conn.execute(
            "SELECT coalesce(max(id), %(mark)s) FROM meter_gateway.meter_event"
            " WHERE id > %(mark)s AND recorded_at < %(before)s",
            {"mark": after_id, "before": now - SETTLED},
        )
        newest = await cursor.fetchone()
        mark = int(newest[0]) if newest else after_id
    return [HeardEvent(row[1], row[2], row[3], row[4]) for row in rows], mark


@dataclass(frozen=True, slots=True)
class RefusedTime:
    """A reading whose own time could not be believed."""

    id: int
    meter_id: int
    payload: bytes
    received_at: datetime


async def list_refused_times(
    conn: psycopg.AsyncConnection, after_id: int, *, limit: int
) -> list[RefusedTime]:
    """Return readings that were parked for their time, by number, of MQTT meters.

    A gateway dates what it polls: a wrong time there says nothing about the meter's own clock.
    """
    async with conn.cursor(row_factory=class_row(RefusedTime)) as cursor:
        await cursor.execute(
            "SELECT d.id, m.id AS meter_id, d.payload, d.received_at FROM meter_gateway.dead_letter d"
            " JOIN meter_gateway.meter m ON m.drn = split_part(d.topic, '/', 4) AND m.link = 'mqtt'"
            " WHERE d.id > %s AND d.reason IN ('older than 30 days', 'from the future') ORDER BY d.id LIMIT %s",
            (after_id, limit),
        )
        return await cursor.fetchall()


async def list_counter_doubts(conn: psycopg.AsyncConnection, *, limit: int) -> list[Found | Over]:
    """Return counters in doubt without a finding, and findings whose counter is believed again.

    The events say the same; this is for what was told before anybody looked.
    """
    cursor = await conn.execute(
        "SELECT st.meter_id, st.counter_suspect, coalesce(f.from_at, (SELECT max(e.occurred_at)"
        "         FROM meter_gateway.meter_event e WHERE e.meter_id = st.meter_id AND e.code = %(code)s),"
        "         st.counter_at, st.last_seen_at), st.counter_at, st.counter"
        "  FROM meter_gateway.meter_state st LEFT JOIN meter_gateway.reading_finding f"
        "    ON f.meter_id = st.meter_id AND f.kind = 'counter' AND f.closed_at IS NULL"
        " WHERE st.counter_suspect <> (f.id IS NOT NULL) LIMIT %(limit)s",
        {"code": topics.COUNTER_SUSPECT, "limit": limit},
    )
    found: list[Found | Over] = []
    for meter_id, is_suspect, begun_at, counter_at, counter in await cursor.fetchall():
        if is_suspect and begun_at is not None:
            found.append(Found(meter_id, Kind.COUNTER, begun_at, {"believed": counter}))
        elif not is_suspect and counter_at is not None:
            found.append(Over(meter_id, Kind.COUNTER, counter_at))
    return found


async def list_tampered(conn: psycopg.AsyncConnection, now: datetime, *, limit: int) -> list[Found | Over]:
    """Return meters that stand in tamper without a finding, and findings of meters that do not."""
    cursor = await conn.execute(
        "SELECT st.meter_id, st.tamper, (SELECT max(e.occurred_at) FROM meter_gateway.meter_event e"
        "         WHERE e.meter_id = st.meter_id AND e.code = %(code)s)"
        "  FROM meter_gateway.meter_state st LEFT JOIN meter_gateway.reading_finding f"
        "    ON f.meter_id = st.meter_id AND f.kind = 'tamper' AND f.closed_at IS NULL"
        " WHERE (st.tamper AND f.id IS NULL) OR (NOT st.tamper AND f.id IS NOT NULL) LIMIT %(limit)s",
        {"code": topics.TAMPER, "limit": limit},
    )
    return [
        Found(meter_id, Kind.TAMPER, at or now) if tamper else Over(meter_id, Kind.TAMPER, now)
        for meter_id, tamper, at in await cursor.fetchall()
    ]


async def list_strangers_gone(conn: psycopg.AsyncConnection) -> list[Over]:
    """Return meters that speak for themselves again: a gateway books nothing of a stranger."""
    cursor = await conn.execute(
        "SELECT f.meter_id, st.state_at FROM meter_gateway.reading_finding f"
        "  JOIN meter_gateway.meter_state st USING (meter_id)"
        " WHERE f.kind = 'stranger' AND f.closed_at IS NULL AND st.state_at > f.from_at"
    )
    return [Over(meter_id, Kind.STRANGER, at) for meter_id, at in await cursor.fetchall()]


async def list_conflicts(conn: psycopg.AsyncConnection, *, limit: int) -> list[Found]:
    """Return channels with conflicts that nobody decided and nobody is shown."""
    cursor = await conn.execute(
        "SELECT c.meter_id, c.channel, min(c.recorded_at), count(*), min(c.occurred_at)"
        "  FROM meter_gateway.v_reading_conflict c"
        " WHERE c.verdict IS NULL AND NOT EXISTS (SELECT FROM meter_gateway.reading_finding f"
        "   WHERE f.meter_id = c.meter_id AND f.kind = 'conflict' AND f.channel = c.channel"
        "     AND f.closed_at IS NULL) GROUP BY 1, 2 LIMIT %s",
        (limit,),
    )
    return [
        Found(
            meter_id,
            Kind.CONFLICT,
            at,
            {"conflicts": count, "first_at": first_at.isoformat()},
            channel=channel,
        )
        for meter_id, channel, at, count, first_at in await cursor.fetchall()
    ]


async def list_frozen_clocks(
    conn: psycopg.AsyncConnection, after_id: int, *, limit: int
) -> tuple[list[Found], int]:
    """Return meters that date many values to one instant, by conflicts after a number; and the newest looked at.

    It begins with the first contradiction, so that one standstill is found once. Only meters that date their own
    readings.
    """
    cursor = await conn.execute(
        "SELECT coalesce(max(id), %(after)s) FROM (SELECT id FROM meter_gateway.reading_conflict"
        "  WHERE id > %(after)s ORDER BY id LIMIT %(limit)s) c",
        {"after": after_id, "limit": limit},
    )
    newest = await cursor.fetchone()
    mark = int(newest[0]) if newest else after_id
    if mark == after_id:
        return [], mark
    cursor = await conn.execute(
        "SELECT c.meter_id, min(c.recorded_at), count(*),"
        "       round(extract(epoch FROM c.occurred_at - max(c.recorded_at)))::bigint"
        "  FROM (SELECT DISTINCT meter_id, channel, occurred_at FROM meter_gateway.reading_conflict"
        "         WHERE id > %(after)s AND id <= %(mark)s) k"
        "  JOIN meter_gateway.reading_conflict c USING (meter_id, channel, occurred_at)"
        "  JOIN meter_gateway.meter m ON m.id = c.meter_id AND m.link = 'mqtt'"
        " GROUP BY c.meter_id, c.channel, c.occurred_at HAVING count(*) >= %(many)s",
        {"after": after_id, "mark": mark, "many": FROZEN_VALUES},
    )
    found = [
        Found(meter_id, Kind.CLOCK, at, {"seconds": seconds, "values": count, "active": True})
        for meter_id, at, count, seconds in await cursor.fetchall()
    ]
    return found, mark
