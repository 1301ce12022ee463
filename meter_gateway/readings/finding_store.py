"""SQL of one finding under a person's eyes: its row, its conflicts, its doubted counters, and what was decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from meter_gateway.errors import MeterGatewayError
from meter_gateway.readings.rebase import Restart
from meter_gateway.readings.validation import KnownCounter

# A week at one each half minute: older doubt is not looked at, and stays in doubt.
MOST_DOUBTED: Final = 20_000


class FindingNotFound(MeterGatewayError):
    """There is no such finding, or no such conflict in it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding with its meter and the last counter that was believed."""

    id: int
    meter_id: int
    commodity: str
    kind: str
    channel: str
    from_at: datetime
    closed_at: datetime | None
    counter: int | None
    counter_at: datetime | None
    counter_suspect: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two values of one reading: the one that was kept and the one that came later."""

    id: int
    meter_id: int
    channel: str
    occurred_at: datetime
    value: int
    kept_value: int


_FINDING = (
    "SELECT f.id, f.meter_id, m.commodity, f.kind, f.channel, f.from_at, f.closed_at, st.counter, st.counter_at,"
    "       coalesce(st.counter_suspect, false) AS counter_suspect"
    "  FROM meter_gateway.reading_finding f JOIN meter_gateway.meter m ON m.id = f.meter_id"
    "  LEFT JOIN meter_gateway.meter_state st ON st.meter_id = f.meter_id WHERE f.id = %s"
)


async def get_finding(conn: psycopg.AsyncConnection, finding_id: int, *, lock: bool = False) -> Finding:
    """Return a finding, held until the transaction ends with `lock`. Raises FindingNotFound."""
    async with conn.cursor(row_factory=class_row(Finding)) as cursor:
        await cursor.execute(_FINDING + (" FOR UPDATE OF f" if lock else ""), (finding_id,))
        row = await cursor.fetchone()
    if row is None:
        raise FindingNotFound(f"no finding {finding_id}")
    return row


async def mark_closed(
    conn: psycopg.AsyncConnection,
    finding_id: int,
    *,
    to_at: datetime | None,
    by: str,
    outcome: str,
    reason: str,
    now: datetime,
) -> None:
    """Close an open finding with a person's word."""
    await conn.execute(
        "UPDATE meter_gateway.reading_finding SET to_at = coalesce(%s, to_at), closed_at = %s, closed_by = %s,"
        " outcome = %s, reason = %s WHERE id = %s AND closed_at IS NULL",
        (to_at, now, by, outcome, reason, finding_id),
    )


async def get_conflict(conn: psycopg.AsyncConnection, conflict_id: int) -> Conflict:
    """Return one conflict. Raises FindingNotFound."""
    async with conn.cursor(row_factory=class_row(Conflict)) as cursor:
        await cursor.execute(
            "SELECT id, meter_id, channel, occurred_at, value, kept_value FROM meter_gateway.reading_conflict"
            " WHERE id = %s",
            (conflict_id,),
        )
        row = await cursor.fetchone()
    if row is None:
        raise FindingNotFound(f"no conflict {conflict_id}")
    return row


async def find_verdict(conn: psycopg.AsyncConnection, conflict_id: int) -> str | None:
    """Return what was decided about a conflict, if anything was."""
    cursor = await conn.execute(
        "SELECT verdict FROM meter_gateway.reading_decision WHERE conflict_id = %s", (conflict_id,)
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def insert_decision(
    conn: psycopg.AsyncConnection, conflict: Conflict, *, verdict: str, by: str, reason: str, now: datetime
) -> None:
    """Keep which of two values counts."""
    await conn.execute(
        "INSERT INTO meter_gateway.reading_decision (conflict_id, meter_id, channel, occurred_at, verdict, value,"
        " decided_by, decided_at, reason) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            conflict.id,
            conflict.meter_id,
            conflict.channel,
            conflict.occurred_at,
            verdict,
            conflict.value if verdict == "accept" else conflict.kept_value,
            by,
            now,
            reason,
        ),
    )


async def insert_kept(
    conn: psycopg.AsyncConnection,
    finding: Finding,
    *,
    upto_id: int,
    by: str,
    reason: str,
    now: datetime,
) -> int:
    """Keep what counts now at every undecided conflict of a finding, up to one number; returns how many."""
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.reading_decision (conflict_id, meter_id, channel, occurred_at, verdict, value,"
        " decided_by, decided_at, reason)"
        " SELECT c.id, c.meter_id, c.channel, c.occurred_at, 'keep',"
        # Another value of the same instant may have been accepted before: that one counts.
        "   coalesce((SELECT d.value FROM meter_gateway.reading_decision d WHERE d.meter_id = c.meter_id"
        "     AND d.channel = c.channel AND d.occurred_at = c.occurred_at ORDER BY d.id DESC LIMIT 1),"
        "     c.kept_value), %(by)s, %(now)s, %(reason)s"
        "  FROM meter_gateway.reading_conflict c WHERE c.meter_id = %(meter)s AND c.channel = %(channel)s"
        "   AND c.id <= %(upto)s AND NOT EXISTS (SELECT FROM meter_gateway.reading_decision d"
        "     WHERE d.conflict_id = c.id) ORDER BY c.id",
        {
            "meter": finding.meter_id,
            "channel": finding.channel,
            "upto": upto_id,
            "by": by,
            "now": now,
            "reason": reason,
        },
    )
    return cursor.rowcount


async def count_undecided(conn: psycopg.AsyncConnection, meter_id: int, channel: str) -> int:
    """Return how many conflicts of a channel still wait for a person."""
    cursor = await conn.execute(
        "SELECT count(*) FROM meter_gateway.v_reading_conflict"
        " WHERE meter_id = %s AND channel = %s AND verdict IS NULL",
        (meter_id, channel),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def list_doubted(conn: psycopg.AsyncConnection, meter_id: int, since: datetime) -> list[KnownCounter]:
    """Return the counters in doubt since an instant, oldest first; the newest ones where there are too many."""
    cursor = await conn.execute(
        "SELECT occurred_at, value FROM meter_gateway.reading WHERE meter_id = %s AND channel = 'counter'"
        " AND quality = 'suspect' AND occurred_at > %s ORDER BY occurred_at DESC LIMIT %s",
        (meter_id, since, MOST_DOUBTED),
    )
    return [KnownCounter(at, value) for at, value in reversed(await cursor.fetchall())]


async def lock_state(conn: psycopg.AsyncConnection, meter_id: int) -> None:
    """Hold what is known of a meter until the transaction ends: ingest waits."""
    await conn.execute("SELECT 1 FROM meter_gateway.meter_state WHERE meter_id = %s FOR UPDATE", (meter_id,))


async def insert_rebase(
    conn: psycopg.AsyncConnection,
    finding: Finding,
    restart: Restart,
    *,
    cause: str,
    by: str,
    reason: str,
    now: datetime,
) -> None:
    """Keep that a counter began again, and believe it from here."""
    await conn.execute(
        "INSERT INTO meter_gateway.counter_rebase (finding_id, meter_id, cause, from_at, base_value, until_at,"
        " top_value, last_at, last_value, believed, decided_by, decided_at, reason)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            finding.id,
            finding.meter_id,
            cause,
            restart.from_at,
            restart.base_value,
            restart.until_at,
            restart.top_value,
            finding.counter_at,
            finding.counter,
            restart.believed,
            by,
            now,
            reason,
        ),
    )
    await conn.execute(
        "UPDATE meter_gateway.meter_state SET counter = %s, counter_at = %s, counter_suspect = false"
        " WHERE meter_id = %s",
        (restart.top_value, restart.until_at, finding.meter_id),
    )


async def insert_platform_event(
    conn: psycopg.AsyncConnection, meter_id: int, code: str, at: datetime, detail: dict[str, Any]
) -> None:
    """Say something on the meter's timeline in the platform's own name."""
    await conn.execute(
        "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, detail)"
        " VALUES (%s, 'platform', %s, %s, %s)",
        (meter_id, code, at, Jsonb(detail)),
    )
