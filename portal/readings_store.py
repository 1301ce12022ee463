"""SQL of the page of readings to look at: findings with their meters, counts, points of a chart, conflicts, history."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

Conn = psycopg.AsyncConnection[Any]
PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding with its meter and place; `detail` by kind as docs/validation.md lists it."""

    id: int
    meter_id: int
    drn: str
    commodity: str
    link: str
    address_en: str | None
    address_ar: str | None
    kind: str
    channel: str
    from_at: datetime
    to_at: datetime | None
    detail: dict[str, Any]
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    outcome: str | None
    reason: str
    counter: int | None


@dataclass(frozen=True, slots=True)
class FindingStep:
    """One line of a finding's history."""

    step: str
    occurred_at: datetime
    actor: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """Two values of one reading, and what was decided; Wh or mL, W or mL/h, relay state."""

    id: int
    channel: str
    occurred_at: datetime
    value: int
    kept_value: int
    recorded_at: datetime
    verdict: str | None
    decided_by: str | None
    decided_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Undecided:
    """How many conflicts of a channel wait for a decision, and the newest of them."""

    count: int
    newest_id: int


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a chart, with both its times; quality valid, simulated, suspect or estimated."""

    at: datetime
    value: int
    quality: str
    recorded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rebase:
    """A counter that a person believed again; Wh or mL."""

    cause: str
    from_at: datetime
    base_value: int
    last_value: int
    believed: int


@dataclass(frozen=True, slots=True)
class OpenLeak:
    """A leak whose customer nobody has told yet."""

    finding_id: int
    drn: str
    from_at: datetime
    least_per_hour: int
    customer_id: int
    phone: str
    language: str


_FINDING = """
SELECT f.id, f.meter_id, m.drn, m.commodity, m.link, m.address_en, m.address_ar, f.kind, f.channel, f.from_at,
       f.to_at, f.detail, f.opened_at, f.closed_at, f.closed_by, f.outcome, f.reason, m.counter
  FROM meter_gateway.v_reading_finding f JOIN meter_gateway.v_meter m ON m.meter_id = f.meter_id
"""


async def list_findings(
    conn: Conn, *, is_open: bool, kind: str = "", drn: str = "", before_id: int | None = None
) -> list[FindingRow]:
    """Return a page of findings, newest first."""
    async with conn.cursor(row_factory=class_row(FindingRow)) as cur:
        await cur.execute(
            (
                _FINDING
                + """ WHERE (f.closed_at IS NULL) = %(open)s AND (%(kind)s = '' OR f.kind = %(kind)s)
                  AND (%(drn)s = '' OR starts_with(m.drn, %(drn)s))
                  AND (%(before)s::bigint IS NULL OR f.id < %(before)s)
                ORDER BY f.id DESC LIMIT %(limit)s"""
            ).encode(),
            {"open": is_open, "kind": kind, "drn": drn, "before": before_id, "limit": PAGE_SIZE},
        )
        return await cur.fetchall()


async def count_findings(conn: Conn, *, is_open: bool) -> dict[str, int]:
    """Return how many findings there are of each kind."""
    cur = await conn.execute(
        """SELECT kind, count(*) FROM meter_gateway.v_reading_finding WHERE (closed_at IS NULL) = %s
            GROUP BY kind""",
        (is_open,),
    )
    return dict(await cur.fetchall())


async def find_finding(conn: Conn, finding_id: int) -> FindingRow | None:
    """Return one finding."""
    async with conn.cursor(row_factory=class_row(FindingRow)) as cur:
        await cur.execute((_FINDING + " WHERE f.id = %s").encode(), (finding_id,))
        return await cur.fetchone()


async def list_steps(conn: Conn, finding_id: int) -> list[FindingStep]:
    """Return a finding's history, newest first."""
    async with conn.cursor(row_factory=class_row(FindingStep)) as cur:
        await cur.execute(
            """SELECT step, occurred_at, actor, outcome, reason FROM meter_gateway.v_reading_finding_step
                WHERE finding_id = %s ORDER BY id DESC""",
            (finding_id,),
        )
        return await cur.fetchall()


async def list_conflicts(
    conn: Conn, meter_id: int, channel: str, *, since: datetime, until: datetime
) -> list[ConflictRow]:
    """Return what waits for a decision, and what was decided in this stretch of time, oldest reading first."""
    async with conn.cursor(row_factory=class_row(ConflictRow)) as cur:
        await cur.execute(
            """SELECT id, channel, occurred_at, value, kept_value, recorded_at, verdict, decided_by, decided_at,
                      reason
                 FROM meter_gateway.v_reading_conflict
                WHERE meter_id = %s AND channel = %s AND recorded_at >= %s AND recorded_at <= %s
                ORDER BY (verdict IS NOT NULL), occurred_at, id LIMIT %s""",
            (meter_id, channel, since, until, PAGE_SIZE),
        )
        return await cur.fetchall()


async def find_undecided(conn: Conn, meter_id: int, channel: str) -> Undecided | None:
    """Return what waits for a decision, or None."""
    cur = await conn.execute(
        """SELECT count(*), max(id) FROM meter_gateway.v_reading_conflict
            WHERE meter_id = %s AND channel = %s AND verdict IS NULL""",
        (meter_id, channel),
    )
    row = await cur.fetchone()
    return Undecided(*row) if row and row[0] else None


async def list_points(
    conn: Conn, meter_id: int, channel: str, *, since: datetime, until: datetime, slots: int
) -> list[Point]:
    """Return the readings of a stretch of time thinned to `slots` of each quality, oldest first."""
    step = max((until - since) / slots, timedelta(seconds=1))
    async with conn.cursor(row_factory=class_row(Point)) as cur:
        await cur.execute(
            """SELECT at, value, quality, recorded_at FROM (
                 SELECT DISTINCT ON (date_bin(%(step)s, occurred_at, %(since)s), quality)
                        occurred_at AS at, value, quality, recorded_at FROM meter_gateway.v_reading_best
                  WHERE meter_id = %(meter)s AND channel = %(channel)s
                    AND occurred_at >= %(since)s AND occurred_at <= %(until)s
                  ORDER BY date_bin(%(step)s, occurred_at, %(since)s), quality, occurred_at DESC) p
                ORDER BY at""",
            {"step": step, "since": since, "until": until, "meter": meter_id, "channel": channel},
        )
        return await cur.fetchall()


async def find_rebase(conn: Conn, finding_id: int) -> Rebase | None:
    """Return what a person believed of this finding's counter."""
    async with conn.cursor(row_factory=class_row(Rebase)) as cur:
        await cur.execute(
            """SELECT cause, from_at, base_value, last_value, believed FROM meter_gateway.v_counter_rebase
                WHERE finding_id = %s""",
            (finding_id,),
        )
        return await cur.fetchone()


async def list_leaks_of_customer(conn: Conn, customer_id: int) -> list[FindingRow]:
    """Return the leaks that run now behind a customer's meters."""
    async with conn.cursor(row_factory=class_row(FindingRow)) as cur:
        await cur.execute(
            (
                _FINDING
                + """ JOIN billing.v_agreement a ON a.meter_id = f.meter_id
                WHERE a.customer_id = %s AND f.kind = 'leak' AND f.closed_at IS NULL
                ORDER BY f.id"""
            ).encode(),
            (customer_id,),
        )
        return await cur.fetchall()


async def list_untold_leaks(conn: Conn, *, limit: int) -> list[OpenLeak]:
    """Return open leaks whose present customer has had no message about them."""
    async with conn.cursor(row_factory=class_row(OpenLeak)) as cur:
        await cur.execute(
            """SELECT f.id AS finding_id, m.drn, f.from_at,
                      coalesce((f.detail ->> 'least_per_hour')::bigint, 0) AS least_per_hour,
                      c.id AS customer_id, c.phone, c.language
                 FROM meter_gateway.v_reading_finding f
                 JOIN meter_gateway.v_meter m ON m.meter_id = f.meter_id
                 JOIN billing.v_agreement a ON a.meter_id = f.meter_id
                 JOIN billing.v_customer c ON c.id = a.customer_id
                WHERE f.kind = 'leak' AND f.closed_at IS NULL
                  AND NOT EXISTS (SELECT FROM portal.message x WHERE x.idempotency_key = 'leak:' || f.id)
                ORDER BY f.id LIMIT %s""",
            (limit,),
        )
        return await cur.fetchall()
