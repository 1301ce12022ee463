"""SQL of outages: their network element, each meter's own times, and their story."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row, kwargs_row
from psycopg.types.json import Jsonb

from portal.outages.infer import AffectedMeter, Evidence
from portal.outages.outage import OutageState

LIST_LIMIT = 100  # the newest outages that a list shows; older ones are found through their meters
CLOSED_STATES = ("restored", "cancelled")

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class OutageRow:
    """An outage with the names of its network element and its counts of meters."""

    id: int
    network_node_id: int
    node_code: str
    node_kind: str
    node_name_en: str
    node_name_ar: str
    commodity: str
    state: OutageState
    started_at: datetime
    start_source: str
    restored_at: datetime | None
    created_at: datetime
    meters: int
    meters_restored: int


@dataclass(frozen=True, slots=True)
class OutageMeterRow:
    """One meter of an outage with its own times."""

    meter_id: int
    drn: str
    link: str
    network_node: str
    address_en: str | None
    address_ar: str | None
    customer_id: int | None
    out_at: datetime
    evidence: str
    restored_at: datetime | None


@dataclass(frozen=True, slots=True)
class OutageEntryRow:
    """One entry of an outage's story; `actor` is None when the watch wrote it."""

    occurred_at: datetime
    kind: str
    detail: dict[str, Any]
    actor: str | None


@dataclass(frozen=True, slots=True)
class OpenOutage:
    """The open outage that a meter lies under."""

    outage_id: int
    started_at: datetime
    state: str
    node_name_en: str
    node_name_ar: str


def _outage(**columns: Any) -> OutageRow:
    return OutageRow(**columns | {"state": OutageState(columns["state"])})


_SELECT = """
SELECT o.id, o.network_node_id, n.code AS node_code, n.kind AS node_kind, n.name_en AS node_name_en,
       n.name_ar AS node_name_ar, o.commodity, o.state, o.started_at, o.start_source, o.restored_at, o.created_at,
       (SELECT count(*) FROM portal.outage_meter m WHERE m.outage_id = o.id)::int AS meters,
       (SELECT count(m.restored_at) FROM portal.outage_meter m WHERE m.outage_id = o.id)::int AS meters_restored
  FROM portal.outage o
  JOIN meter_gateway.v_network_path n ON n.node_id = o.network_node_id AND n.depth = 0
"""


async def find_outage(conn: Conn, outage_id: int) -> OutageRow | None:
    """The outage of an id."""
    async with conn.cursor(row_factory=kwargs_row(_outage)) as cur:
        await cur.execute(_SELECT + " WHERE o.id = %s", (outage_id,))
        return await cur.fetchone()


async def lock_outage(conn: Conn, outage_id: int) -> OutageRow:
    """The outage under FOR UPDATE. Raises LookupError."""
    await conn.execute("SELECT FROM portal.outage WHERE id = %s FOR UPDATE", (outage_id,))
    row = await find_outage(conn, outage_id)
    if row is None:
        raise LookupError(f"outage {outage_id} is not there")
    return row


async def list_outages(conn: Conn, *, open_only: bool = False) -> list[OutageRow]:
    """Open outages first, then the newest."""
    async with conn.cursor(row_factory=kwargs_row(_outage)) as cur:
        await cur.execute(
            _SELECT
            + """ WHERE NOT (%s AND o.state IN ('restored', 'cancelled'))
                  ORDER BY (o.state IN ('restored', 'cancelled')), o.started_at DESC, o.id DESC LIMIT %s""",
            (open_only, LIST_LIMIT),
        )
        return await cur.fetchall()


async def find_open_for_meter(conn: Conn, meter_id: int) -> OpenOutage | None:
    """The open outage that a meter lies under, unless that very meter was seen alive since."""
    async with conn.cursor(row_factory=class_row(OpenOutage)) as cur:
        await cur.execute(
            """SELECT o.id AS outage_id, o.started_at, o.state, p.name_en AS node_name_en,
                      p.name_ar AS node_name_ar
                 FROM meter_gateway.v_meter m
                 JOIN meter_gateway.v_network_path p ON p.node_id = m.network_node_id
                 JOIN portal.outage o ON o.network_node_id = p.ancestor_id
                  AND o.state IN ('probable', 'confirmed')
                 LEFT JOIN portal.outage_meter x ON x.outage_id = o.id AND x.meter_id = m.meter_id
                WHERE m.meter_id = %s AND x.restored_at IS NULL
                  AND (x.meter_id IS NOT NULL OR m.state_at IS NULL OR m.state_at <= o.started_at)
                ORDER BY p.depth DESC, o.id LIMIT 1""",
            (meter_id,),
        )
        return await cur.fetchone()


async def insert_outage(
    conn: Conn, *, node_id: int, commodity: str, started_at: datetime, source: Evidence, now: datetime
) -> int:
    """Open a probable outage and return its id."""
    cur = await conn.execute(
        """INSERT INTO portal.outage (network_node_id, commodity, started_at, start_source, created_at)
           VALUES (%s, %s, %s, %s, %s) RETURNING id""",
        (node_id, commodity, started_at, source, now),
    )
    row = await cur.fetchone()
    if row is None:
        raise LookupError("the outage was not stored")
    return int(row[0])


async def insert_meters(conn: Conn, outage_id: int, meters: Iterable[AffectedMeter]) -> int:
    """Add meters to an outage and return how many are new; what was only inferred takes its own evidence."""
    added = 0
    for meter in meters:
        cur = await conn.execute(
            """INSERT INTO portal.outage_meter AS known (outage_id, meter_id, out_at, evidence)
               VALUES (%s, %s, %s, %s)
               ON CONFLICT (outage_id, meter_id) DO UPDATE SET evidence = excluded.evidence,
                 out_at = excluded.out_at
                 WHERE known.evidence = 'inferred' AND excluded.evidence <> 'inferred'
                   AND known.restored_at IS NULL
               RETURNING (xmax = 0)""",
            (outage_id, meter.meter_id, meter.out_at, meter.evidence),
        )
        row = await cur.fetchone()
        added += bool(row and row[0])
    return added


async def list_meters(conn: Conn, outage_id: int) -> list[OutageMeterRow]:
    """The meters of an outage: those still out first."""
    async with conn.cursor(row_factory=class_row(OutageMeterRow)) as cur:
        await cur.execute(
            """SELECT x.meter_id, m.drn, m.link, coalesce(m.network_node, '') AS network_node, m.address_en,
                      m.address_ar, a.customer_id, x.out_at, x.evidence, x.restored_at
                 FROM portal.outage_meter x
                 JOIN meter_gateway.v_meter m ON m.meter_id = x.meter_id
                 LEFT JOIN billing.v_agreement a ON a.meter_id = x.meter_id
                WHERE x.outage_id = %s
                ORDER BY (x.restored_at IS NOT NULL), m.network_node, m.drn""",
            (outage_id,),
        )
        return await cur.fetchall()


async def mark_meter_restored(conn: Conn, outage_id: int, meter_id: int, at: datetime) -> None:
    """Note when a meter was seen alive."""
    await conn.execute(
        """UPDATE portal.outage_meter SET restored_at = %s
            WHERE outage_id = %s AND meter_id = %s AND restored_at IS NULL""",
        (at, outage_id, meter_id),
    )


async def delete_inferred_meter(conn: Conn, outage_id: int, meter_id: int) -> None:
    """Take out a meter that was only guessed and was never without supply."""
    await conn.execute(
        """DELETE FROM portal.outage_meter
            WHERE outage_id = %s AND meter_id = %s AND evidence = 'inferred'""",
        (outage_id, meter_id),
    )


async def count_speaking(conn: Conn, outage_id: int) -> tuple[int, int]:
    """How many meters of an outage have a link, and how many of those were seen alive."""
    cur = await conn.execute(
        """SELECT count(*), count(x.restored_at) FROM portal.outage_meter x
             JOIN meter_gateway.v_meter m ON m.meter_id = x.meter_id
            WHERE x.outage_id = %s AND m.link <> 'keypad'""",
        (outage_id,),
    )
    row = await cur.fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


async def mark_node(conn: Conn, outage_id: int, node_id: int, started_at: datetime) -> None:
    """Move an outage up to the element that was found to be its cause."""
    await conn.execute(
        "UPDATE portal.outage SET network_node_id = %s, started_at = least(started_at, %s) WHERE id = %s",
        (node_id, started_at, outage_id),
    )


async def mark_state(
    conn: Conn, outage_id: int, state: OutageState, *, restored_at: datetime | None = None
) -> None:
    """Move an outage to a state; `restored_at` with restored alone."""
    await conn.execute(
        "UPDATE portal.outage SET state = %s, restored_at = greatest(%s, started_at) WHERE id = %s"
        if restored_at is not None
        else "UPDATE portal.outage SET state = %s, restored_at = %s WHERE id = %s",
        (state, restored_at, outage_id),
    )


async def merge_into(conn: Conn, *, survivor_id: int, merged_id: int) -> None:
    """Move meters and tickets of one outage to another."""
    await conn.execute(
        """INSERT INTO portal.outage_meter AS known (outage_id, meter_id, out_at, evidence, restored_at)
           SELECT %s, meter_id, out_at, evidence, restored_at FROM portal.outage_meter WHERE outage_id = %s
           ON CONFLICT (outage_id, meter_id) DO UPDATE SET out_at = least(known.out_at, excluded.out_at)""",
        (survivor_id, merged_id),
    )
    await conn.execute("DELETE FROM portal.outage_meter WHERE outage_id = %s", (merged_id,))
    await conn.execute(
        "UPDATE portal.ticket SET outage_id = %s WHERE outage_id = %s", (survivor_id, merged_id)
    )


async def insert_entry(
    conn: Conn,
    *,
    outage_id: int,
    kind: str,
    detail: dict[str, Any],
    actor_id: int | None,
    at: datetime,
) -> None:
    """Add one entry to an outage's story."""
    await conn.execute(
        """INSERT INTO portal.outage_entry (outage_id, occurred_at, kind, detail, actor_id)
           VALUES (%s, %s, %s, %s, %s)""",
        (outage_id, at, kind, Jsonb(detail), actor_id),
    )


async def list_entries(conn: Conn, outage_id: int) -> list[OutageEntryRow]:
    """The story of an outage, oldest first."""
    async with conn.cursor(row_factory=class_row(OutageEntryRow)) as cur:
        await cur.execute(
            """SELECT e.occurred_at, e.kind, e.detail, l.display_name AS actor
                 FROM portal.outage_entry e LEFT JOIN portal.login l ON l.id = e.actor_id
                WHERE e.outage_id = %s ORDER BY e.id""",
            (outage_id,),
        )
        return await cur.fetchall()
