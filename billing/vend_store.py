"""Vends and their steps in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row, kwargs_row

from billing.errors import NotFound
from billing.states import VendState


@dataclass(frozen=True, slots=True)
class Vend:
    """One vend; `base_date` is the year that `tid` counts from, both from the moment it is paid."""

    id: UUID
    quote_id: UUID
    payment_id: UUID | None
    meter_id: int
    state: VendState
    base_date: int | None
    tid: int | None
    rnd: int | None
    receipt_number: int
    paid_at: datetime | None
    requested_at: datetime | None
    vended_at: datetime | None
    attempts: int


@dataclass(frozen=True, slots=True)
class VendStep:
    """One line of a vend's history."""

    id: int
    vend_id: UUID
    state: VendState
    occurred_at: datetime
    detail: str


_VEND = (
    "SELECT id, quote_id, payment_id, meter_id, state, base_date, tid, rnd, receipt_number, paid_at, requested_at,"
    " vended_at, attempts FROM billing.vend"
)


def _vend(**row: Any) -> Vend:
    return Vend(**{**row, "state": VendState(row["state"])})


def _step(**row: Any) -> VendStep:
    return VendStep(**{**row, "state": VendState(row["state"])})


async def insert_vend(conn: psycopg.AsyncConnection, *, quote_id: UUID, meter_id: int, now: datetime) -> Vend:
    """Store the vend of a new quote, in state QUOTED."""
    cursor = await conn.execute(
        "INSERT INTO billing.vend (quote_id, meter_id) VALUES (%s, %s) RETURNING id", (quote_id, meter_id)
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("vend_not_found", "the vend was not stored")
    await insert_step(conn, row[0], VendState.QUOTED, now=now)
    return await get_vend(conn, row[0])


async def get_vend(conn: psycopg.AsyncConnection, vend_id: UUID) -> Vend:
    """The vend of this id. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_vend))
    return _found(await (await cursor.execute(f"{_VEND} WHERE id = %s", (vend_id,))).fetchone())


async def lock_vend(conn: psycopg.AsyncConnection, vend_id: UUID) -> Vend:
    """The vend, held until this transaction ends. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_vend))
    await cursor.execute(f"{_VEND} WHERE id = %s FOR UPDATE", (vend_id,))
    return _found(await cursor.fetchone())


async def lock_free_vend(conn: psycopg.AsyncConnection, vend_id: UUID) -> Vend | None:
    """The vend, held until this transaction ends; None when another transaction holds it or it is not there."""
    cursor = conn.cursor(row_factory=kwargs_row(_vend))
    await cursor.execute(f"{_VEND} WHERE id = %s FOR UPDATE SKIP LOCKED", (vend_id,))
    return await cursor.fetchone()


async def lock_vend_of_quote(conn: psycopg.AsyncConnection, quote_id: UUID) -> Vend:
    """The vend of this quote, held until this transaction ends. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_vend))
    await cursor.execute(f"{_VEND} WHERE quote_id = %s FOR UPDATE", (quote_id,))
    return _found(await cursor.fetchone())


async def mark_paid_by(conn: psycopg.AsyncConnection, vend_id: UUID, payment_id: UUID) -> None:
    """Tie a quoted vend to the payment that was started for it."""
    await conn.execute("UPDATE billing.vend SET payment_id = %s WHERE id = %s", (payment_id, vend_id))


async def mark_paid(
    conn: psycopg.AsyncConnection, vend_id: UUID, *, base_date: int, tid: int, rnd: int, now: datetime
) -> None:
    """PAID, with the TID that is reserved for this vend for good."""
    await conn.execute(
        "UPDATE billing.vend SET state = 'PAID', base_date = %s, tid = %s, rnd = %s, paid_at = %s WHERE id = %s",
        (base_date, tid, rnd, now, vend_id),
    )
    await insert_step(conn, vend_id, VendState.PAID, now=now)


async def mark_asked(conn: psycopg.AsyncConnection, vend_id: UUID, state: VendState, now: datetime) -> None:
    """The vault is about to be asked: one attempt more, `state` is REQUESTED or stays UNKNOWN."""
    cursor = await conn.execute(
        "UPDATE billing.vend SET state = %s, requested_at = %s, attempts = attempts + 1 WHERE id = %s"
        " RETURNING attempts",
        (state, now, vend_id),
    )
    row = await cursor.fetchone()
    if row is not None and row[0] == 1:
        await insert_step(conn, vend_id, state, now=now)


async def mark_state(
    conn: psycopg.AsyncConnection, vend: Vend, state: VendState, *, now: datetime, detail: str = ""
) -> None:
    """Move a locked vend to `state`, with a step unless it stands there already."""
    if vend.state is state:
        return
    await conn.execute(
        "UPDATE billing.vend SET state = %(state)s, vended_at = CASE WHEN %(state)s = 'VENDED' THEN %(now)s"
        " ELSE vended_at END WHERE id = %(id)s",
        {"state": state, "now": now, "id": vend.id},
    )
    await insert_step(conn, vend.id, state, now=now, detail=detail)


async def insert_step(
    conn: psycopg.AsyncConnection, vend_id: UUID, state: VendState, *, now: datetime, detail: str = ""
) -> None:
    """Add a line to a vend's history."""
    await conn.execute(
        "INSERT INTO billing.vend_step (vend_id, state, occurred_at, detail) VALUES (%s, %s, %s, %s)",
        (vend_id, state, now, detail),
    )


async def list_steps(conn: psycopg.AsyncConnection, vend_id: UUID) -> list[VendStep]:
    """A vend's history, oldest first."""
    cursor = conn.cursor(row_factory=kwargs_row(_step))
    await cursor.execute(
        "SELECT id, vend_id, state, occurred_at, detail FROM billing.vend_step WHERE vend_id = %s ORDER BY id",
        (vend_id,),
    )
    return await cursor.fetchall()


async def list_unfinished(conn: psycopg.AsyncConnection, *, limit: int) -> list[Vend]:
    """Vends that are paid and have no answer yet, those that nobody touched for the longest time first."""
    cursor = conn.cursor(row_factory=kwargs_row(_vend))
    await cursor.execute(
        f"{_VEND} WHERE state IN ('PAID', 'REQUESTED', 'UNKNOWN')"
        " ORDER BY coalesce(requested_at, paid_at) LIMIT %s",
        (limit,),
    )
    return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class OpenVend:
    """A sale on a meter that has not ended: shown before a second purchase."""

    vend_id: UUID
    state: VendState
    payment_state: str
    amount_minor: int
    started_at: datetime


async def list_open_of_meter(
    conn: psycopg.AsyncConnection, meter_id: int, *, since: datetime
) -> list[OpenVend]:
    """Sales of a meter that are paid for or being paid since `since`, and have no token yet; newest first."""
    cursor = conn.cursor(row_factory=class_row(OpenVend))
    await cursor.execute(
        "SELECT v.id AS vend_id, v.state, p.state AS payment_state, p.amount_minor, p.created_at AS started_at"
        " FROM billing.vend v JOIN billing.payment p ON p.id = v.payment_id"
        " WHERE v.meter_id = %s AND (v.state IN ('PAID', 'REQUESTED', 'UNKNOWN')"
        " OR (v.state = 'QUOTED' AND p.state IN ('CREATED', 'PENDING') AND p.created_at >= %s))"
        " ORDER BY p.created_at DESC",
        (meter_id, since),
    )
    return [
        OpenVend(row.vend_id, VendState(row.state), row.payment_state, row.amount_minor, row.started_at)
        for row in await cursor.fetchall()
    ]


def _found(row: Vend | None) -> Vend:
    if row is None:
        raise NotFound("vend_not_found", "no such vend")
    return row
