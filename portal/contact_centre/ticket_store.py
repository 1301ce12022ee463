"""SQL of tickets and of the entries that tell their story."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row, kwargs_row

from portal.contact_centre.ticket import Channel, TicketKind, TicketState

LIST_LIMIT = 200  # what an agent scrolls through; narrower filters find the rest


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A ticket with the names that its pages show; `resolution_due_at` is the promise to resolve."""

    id: int
    reference: str
    kind: TicketKind
    channel: Channel
    customer_id: int
    customer_name_en: str
    customer_name_ar: str
    customer_phone: str
    meter_id: int | None
    drn: str | None
    outage_id: int | None
    vend_id: str | None
    subject: str
    language: str
    state: TicketState
    assigned_to: int | None
    assignee: str | None
    created_by: int | None
    created_at: datetime
    resolved_at: datetime | None
    resolution_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One entry of a ticket's story; `actor` is None when the system wrote it."""

    id: int
    occurred_at: datetime
    kind: str
    is_public: bool
    actor_id: int | None
    actor: str | None
    actor_role: str | None
    body: str


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """What an idempotency key was used for."""

    reference: str
    kind: str
    customer_id: int
    meter_id: int | None
    subject: str


@dataclass(frozen=True, slots=True)
class StaffRow:
    """A person to whom tickets can be given."""

    login_id: int
    display_name: str
    role: str


def _ticket(**columns: Any) -> TicketRow:
    return TicketRow(
        **columns
        | {
            "kind": TicketKind(columns["kind"]),
            "channel": Channel(columns["channel"]),
            "state": TicketState(columns["state"]),
        }
    )


_SELECT = """
SELECT t.id, t.reference, t.kind, t.channel, t.customer_id, c.name_en AS customer_name_en,
       c.name_ar AS customer_name_ar, c.phone AS customer_phone, t.meter_id, m.drn, t.outage_id,
       t.vend_id::text AS vend_id, t.subject, t.language, t.state, t.assigned_to,
       l.display_name AS assignee, t.created_by, t.created_at, t.resolved_at, k.due_at AS resolution_due_at
  FROM portal.ticket t
  JOIN billing.v_customer c ON c.id = t.customer_id
  LEFT JOIN meter_gateway.v_meter m ON m.meter_id = t.meter_id
  LEFT JOIN portal.login l ON l.id = t.assigned_to
  LEFT JOIN portal.clock k ON k.ticket_id = t.id AND k.kind = 'resolution'
"""


async def next_number(conn: psycopg.AsyncConnection[Any]) -> int:
    """The next ticket number; a rolled-back one leaves a gap, never a repeat."""
    cur = await conn.execute("SELECT nextval('portal.ticket_number')")
    row = await cur.fetchone()
    if row is None:
        raise LookupError("the sequence of ticket numbers gave nothing")
    return int(row[0])


async def insert_ticket(
    conn: psycopg.AsyncConnection[Any],
    *,
    reference: str,
    kind: TicketKind,
    channel: Channel,
    customer_id: int,
    meter_id: int | None,
    outage_id: int | None,
    vend_id: str | None,
    subject: str,
    language: str,
    idempotency_key: str,
    created_by: int | None,
    created_at: datetime,
) -> int | None:
    """Insert a ticket and return its id, or None when the key was used before."""
    cur = await conn.execute(
        """INSERT INTO portal.ticket (reference, kind, channel, customer_id, meter_id, outage_id, vend_id,
             subject, language, idempotency_key, created_by, created_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (idempotency_key) DO NOTHING RETURNING id""",
        (
            reference,
            kind,
            channel,
            customer_id,
            meter_id,
            outage_id,
            vend_id,
            subject,
            language,
            idempotency_key,
            created_by,
            created_at,
        ),
    )
    row = await cur.fetchone()
    return None if row is None else int(row[0])


async def find_by_key(conn: psycopg.AsyncConnection[Any], idempotency_key: str) -> StoredRequest | None:
    """The ticket that a caller's key made before."""
    async with conn.cursor(row_factory=class_row(StoredRequest)) as cur:
        await cur.execute(
            """SELECT reference, kind, customer_id, meter_id, subject
                 FROM portal.ticket WHERE idempotency_key = %s""",
            (idempotency_key,),
        )
        return await cur.fetchone()


async def find_ticket(
    conn: psycopg.AsyncConnection[Any], reference: str, *, customer_id: int | None = None
) -> TicketRow | None:
    """The ticket of a reference; with `customer_id` only that customer's own."""
    async with conn.cursor(row_factory=kwargs_row(_ticket)) as cur:
        await cur.execute(
            _SELECT
            + " WHERE t.reference = %(reference)s"
            + " AND (%(customer)s::bigint IS NULL OR t.customer_id = %(customer)s)",
            {"reference": reference, "customer": customer_id},
        )
        return await cur.fetchone()


async def get_ticket(conn: psycopg.AsyncConnection[Any], ticket_id: int) -> TicketRow:
    """The ticket of an id. Raises LookupError."""
    async with conn.cursor(row_factory=kwargs_row(_ticket)) as cur:
        await cur.execute(_SELECT + " WHERE t.id = %s", (ticket_id,))
        row = await cur.fetchone()
    if row is None:
        raise LookupError(f"ticket {ticket_id} is not there")
    return row


async def lock_ticket(conn: psycopg.AsyncConnection[Any], ticket_id: int) -> TicketRow:
    """The ticket under FOR UPDATE: two people answer one after the other. Raises LookupError."""
    async with conn.cursor(row_factory=kwargs_row(_ticket)) as cur:
        await cur.execute(_SELECT + " WHERE t.id = %s FOR UPDATE OF t", (ticket_id,))
        row = await cur.fetchone()
    if row is None:
        raise LookupError(f"ticket {ticket_id} is not there")
    return row


async def list_tickets(
    conn: psycopg.AsyncConnection[Any],
    *,
    customer_id: int | None = None,
    outage_id: int | None = None,
    assigned_to: int | None = None,
    resolved: bool | None = None,
    kind: TicketKind | None = None,
    limit: int = LIST_LIMIT,
) -> list[TicketRow]:
    """Tickets by the instant they are to be resolved, open ones first; every filter may be left out."""
    async with conn.cursor(row_factory=kwargs_row(_ticket)) as cur:
        await cur.execute(
            _SELECT
            + """ WHERE (%(customer)s::bigint IS NULL OR t.customer_id = %(customer)s)
                    AND (%(outage)s::bigint IS NULL OR t.outage_id = %(outage)s)
                    AND (%(assignee)s::bigint IS NULL OR t.assigned_to = %(assignee)s)
                    AND (%(kind)s::text IS NULL OR t.kind = %(kind)s)
                    AND (%(resolved)s::boolean IS NULL OR (t.state = 'resolved') = %(resolved)s)
                  ORDER BY (t.state = 'resolved'), t.resolved_at DESC NULLS FIRST, k.due_at, t.id
                  LIMIT %(limit)s""",
            {
                "customer": customer_id,
                "outage": outage_id,
                "assignee": assigned_to,
                "kind": kind,
                "resolved": resolved,
                "limit": limit,
            },
        )
        return await cur.fetchall()


async def mark_state(
    conn: psycopg.AsyncConnection[Any], ticket_id: int, state: TicketState, resolved_at: datetime | None
) -> None:
    """Move a ticket; `resolved_at` belongs to the state resolved alone."""
    await conn.execute(
        "UPDATE portal.ticket SET state = %s, resolved_at = %s WHERE id = %s", (state, resolved_at, ticket_id)
    )


async def mark_assigned(conn: psycopg.AsyncConnection[Any], ticket_id: int, login_id: int) -> None:
    """Give a ticket to a person."""
    await conn.execute("UPDATE portal.ticket SET assigned_to = %s WHERE id = %s", (login_id, ticket_id))


async def mark_outage(conn: psycopg.AsyncConnection[Any], ticket_id: int, outage_id: int) -> None:
    """Let a ticket follow an outage."""
    await conn.execute("UPDATE portal.ticket SET outage_id = %s WHERE id = %s", (outage_id, ticket_id))


async def insert_entry(
    conn: psycopg.AsyncConnection[Any],
    *,
    ticket_id: int,
    kind: str,
    is_public: bool,
    actor_id: int | None,
    body: str,
    at: datetime,
) -> int:
    """Add one entry to a ticket's story and return its id."""
    cur = await conn.execute(
        """INSERT INTO portal.ticket_entry (ticket_id, occurred_at, kind, is_public, actor_id, body)
           VALUES (%s, %s, %s, %s, %s, %s) RETURNING id""",
        (ticket_id, at, kind, is_public, actor_id, body),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else 0


async def find_last_entry(conn: psycopg.AsyncConnection[Any], ticket_id: int) -> EntryRow | None:
    """The newest entry of a ticket."""
    async with conn.cursor(row_factory=class_row(EntryRow)) as cur:
        await cur.execute(_ENTRIES + " ORDER BY e.id DESC LIMIT 1", {"ticket": ticket_id, "public": False})
        return await cur.fetchone()


async def list_entries(
    conn: psycopg.AsyncConnection[Any], ticket_id: int, *, public_only: bool = False
) -> list[EntryRow]:
    """The story of a ticket, oldest first; with `public_only` what its customer may read."""
    async with conn.cursor(row_factory=class_row(EntryRow)) as cur:
        await cur.execute(_ENTRIES + " ORDER BY e.id", {"ticket": ticket_id, "public": public_only})
        return await cur.fetchall()


_ENTRIES = """
SELECT e.id, e.occurred_at, e.kind, e.is_public, e.actor_id, l.display_name AS actor, l.role AS actor_role,
       e.body
  FROM portal.ticket_entry e LEFT JOIN portal.login l ON l.id = e.actor_id
 WHERE e.ticket_id = %(ticket)s AND (e.is_public OR NOT %(public)s)
"""


async def notify_supply_signal(conn: psycopg.AsyncConnection[Any], meter_id: int) -> None:
    """Wake the outage watch once this transaction is committed."""
    await conn.execute("SELECT pg_notify('supply_signal', %s)", (str(meter_id),))


async def list_staff(conn: psycopg.AsyncConnection[Any]) -> list[StaffRow]:
    """The people who answer tickets, by name."""
    async with conn.cursor(row_factory=class_row(StaffRow)) as cur:
        await cur.execute(
            """SELECT id AS login_id, display_name, role FROM portal.login
                WHERE role IN ('agent', 'supervisor', 'admin', 'engineer') AND disabled_at IS NULL
                ORDER BY display_name, id"""
        )
        return await cur.fetchall()
