"""Requests for engineering tokens, who decided them, and the TID that each reserved, in the database."""

# ruff: noqa: S608 - the only part formatted in is the constant list of columns

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row, kwargs_row
from psycopg.types.json import Jsonb

from billing.errors import IdempotencyConflict, NotFound
from billing.identity_store import KeyFields


@dataclass(frozen=True, slots=True)
class EngineeringRequest:
    """One request; `state` is REQUESTED, APPROVED, REFUSED (by a person), FAILED (by the vault) or ISSUED."""

    id: UUID
    meter_id: int
    kind: str
    value: int
    needs_approval: bool
    reason: str
    requested_by: str
    requested_at: datetime
    decided_by: str | None
    state: str
    refusal: str | None
    token_id: int | None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The TID and the key that a request's token is made with; no TID for class 1."""

    id: UUID
    meter_id: int
    base_date: int
    tid: int | None
    rnd: int
    key: KeyFields


_REQUEST = (
    "SELECT request_id AS id, meter_id, kind, value, needs_approval, reason, requested_by, requested_at, decided_by,"
    " state, refusal, token_id FROM billing.v_engineering_request"
)


async def insert_request(
    conn: psycopg.AsyncConnection,
    *,
    idempotency_key: str,
    meter_id: int,
    kind: str,
    value: int,
    needs_approval: bool,
    reason: str,
    requested_by: str,
    requested_role: str,
    now: datetime,
) -> EngineeringRequest:
    """Store a request; the same key with the same content gives the stored one. Raises IdempotencyConflict."""
    await conn.execute(
        "INSERT INTO billing.engineering_request (idempotency_key, meter_id, kind, value, needs_approval, reason,"
        " requested_by, requested_role, requested_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (idempotency_key) DO NOTHING",
        (
            idempotency_key,
            meter_id,
            kind,
            value,
            needs_approval,
            reason,
            requested_by,
            requested_role,
            now,
        ),
    )
    cursor = conn.cursor(row_factory=class_row(EngineeringRequest))
    await cursor.execute(
        f"{_REQUEST} WHERE request_id = (SELECT id FROM billing.engineering_request WHERE idempotency_key = %s)",
        (idempotency_key,),
    )
    stored = _found(await cursor.fetchone())
    if (stored.meter_id, stored.kind, stored.value, stored.requested_by) != (
        meter_id,
        kind,
        value,
        requested_by,
    ):
        raise IdempotencyConflict("other_request", "this key belongs to another request")
    return stored


async def get_request(conn: psycopg.AsyncConnection, request_id: UUID) -> EngineeringRequest:
    """The request of this id with its state. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(EngineeringRequest))
    return _found(await (await cursor.execute(f"{_REQUEST} WHERE request_id = %s", (request_id,))).fetchone())


async def find_request(conn: psycopg.AsyncConnection, request_id: UUID) -> EngineeringRequest | None:
    """The request of this id, if it is one."""
    cursor = conn.cursor(row_factory=class_row(EngineeringRequest))
    return await (await cursor.execute(f"{_REQUEST} WHERE request_id = %s", (request_id,))).fetchone()


async def list_requests_of_meter(
    conn: psycopg.AsyncConnection, meter_id: int, *, limit: int
) -> list[EngineeringRequest]:
    """A meter's requests, newest first."""
    cursor = conn.cursor(row_factory=class_row(EngineeringRequest))
    await cursor.execute(
        f"{_REQUEST} WHERE meter_id = %s ORDER BY requested_at DESC LIMIT %s", (meter_id, limit)
    )
    return await cursor.fetchall()


async def list_requests_to_decide(conn: psycopg.AsyncConnection, *, limit: int) -> list[EngineeringRequest]:
    """Requests that wait for a second person, oldest first."""
    cursor = conn.cursor(row_factory=class_row(EngineeringRequest))
    await cursor.execute(f"{_REQUEST} WHERE state = 'REQUESTED' ORDER BY requested_at LIMIT %s", (limit,))
    return await cursor.fetchall()


async def list_requests_to_issue(conn: psycopg.AsyncConnection, *, limit: int) -> list[EngineeringRequest]:
    """Requests that may be issued and were not, oldest first."""
    cursor = conn.cursor(row_factory=class_row(EngineeringRequest))
    await cursor.execute(f"{_REQUEST} WHERE state = 'APPROVED' ORDER BY requested_at LIMIT %s", (limit,))
    return await cursor.fetchall()


async def insert_decision(
    conn: psycopg.AsyncConnection,
    *,
    request_id: UUID,
    verdict: str,
    decided_by: str,
    decided_role: str,
    note: str,
    now: datetime,
) -> bool:
    """Write down a decision, once; False when one is there. The database refuses the requester's own."""
    cursor = await conn.execute(
        "INSERT INTO billing.engineering_decision (id, verdict, decided_by, decided_role, decided_at, note)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
        (request_id, verdict, decided_by, decided_role, now, note),
    )
    return cursor.rowcount == 1


def _reservation(**row: Any) -> Reservation:
    return Reservation(**{**row, "key": KeyFields.of(row["key"])})


async def find_reservation(conn: psycopg.AsyncConnection, request_id: UUID) -> Reservation | None:
    """What a request has reserved."""
    cursor = conn.cursor(row_factory=kwargs_row(_reservation))
    await cursor.execute(
        "SELECT id, meter_id, base_date, tid, rnd, key FROM billing.engineering_reservation WHERE id = %s",
        (request_id,),
    )
    return await cursor.fetchone()


async def insert_reservation(
    conn: psycopg.AsyncConnection, reservation: Reservation, *, now: datetime
) -> None:
    """Reserve, before the vault is asked. The database refuses it for a request that is not approved."""
    await conn.execute(
        "INSERT INTO billing.engineering_reservation (id, meter_id, base_date, tid, rnd, key, reserved_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (
            reservation.id,
            reservation.meter_id,
            reservation.base_date,
            reservation.tid,
            reservation.rnd,
            Jsonb(reservation.key.stored()),
            now,
        ),
    )


async def insert_refusal(
    conn: psycopg.AsyncConnection, request_id: UUID, *, reason: str, now: datetime
) -> None:
    """The vault refused: nothing was issued, and never will be under this request."""
    await conn.execute(
        "INSERT INTO billing.engineering_refusal (id, reason, refused_at) VALUES (%s, %s, %s)"
        " ON CONFLICT (id) DO NOTHING",
        (request_id, reason, now),
    )


def _found(row: EngineeringRequest | None) -> EngineeringRequest:
    if row is None:
        raise NotFound("request_not_found", "no such request")
    return row
