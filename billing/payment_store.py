"""Payments and what providers said about them in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row, kwargs_row

from billing.errors import IdempotencyConflict, NotFound
from billing.states import PaymentState


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment of one quote, in baisa; `language` is what the provider's page speaks."""

    id: UUID
    quote_id: UUID
    idempotency_key: str
    provider: str
    amount_minor: int
    state: PaymentState
    language: str
    created_at: datetime
    settled_at: datetime | None
    asked_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """What a provider said once: status word, baisa, and the digest of its body."""

    event_id: str
    payment_id: UUID
    status: str
    amount_minor: int
    body_sha256: bytes


_PAYMENT = (
    "SELECT id, quote_id, idempotency_key, provider, amount_minor, state, language, created_at, settled_at,"
    " asked_at FROM billing.payment"
)


def _payment(**row: Any) -> Payment:
    return Payment(**{**row, "state": PaymentState(row["state"])})


async def find_payment(conn: psycopg.AsyncConnection, payment_id: UUID) -> Payment | None:
    """The payment of this id."""
    cursor = conn.cursor(row_factory=kwargs_row(_payment))
    await cursor.execute(f"{_PAYMENT} WHERE id = %s", (payment_id,))
    return await cursor.fetchone()


async def get_payment(conn: psycopg.AsyncConnection, payment_id: UUID) -> Payment:
    """The payment of this id. Raises NotFound."""
    found = await find_payment(conn, payment_id)
    if found is None:
        raise NotFound("payment_not_found", "no such payment")
    return found


async def lock_payment(conn: psycopg.AsyncConnection, payment_id: UUID) -> Payment:
    """The payment, held until this transaction ends. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_payment))
    await cursor.execute(f"{_PAYMENT} WHERE id = %s FOR UPDATE", (payment_id,))
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("payment_not_found", "no such payment")
    return row


async def insert_payment(
    conn: psycopg.AsyncConnection,
    *,
    quote_id: UUID,
    idempotency_key: str,
    provider: str,
    amount_minor: int,
    language: str,
    now: datetime,
) -> Payment:
    """Store a payment once for a key and once for a quote; a repeat gives the stored one.

    Two tabs with two keys on one quote meet in the same payment. Raises IdempotencyConflict when the key was
    used for another quote.
    """
    await conn.execute(
        "INSERT INTO billing.payment (quote_id, idempotency_key, provider, amount_minor, language,"
        " created_at) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (quote_id, idempotency_key, provider, amount_minor, language, now),
    )
    cursor = conn.cursor(row_factory=kwargs_row(_payment))
    await cursor.execute(
        f"{_PAYMENT} WHERE idempotency_key = %s OR quote_id = %s ORDER BY idempotency_key = %s DESC",
        (idempotency_key, quote_id, idempotency_key),
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("payment_not_found", "the payment was not stored")
    if row.quote_id != quote_id:
        raise IdempotencyConflict("payment_key_reused", "this key already paid for another quote")
    return row


async def mark_payment(
    conn: psycopg.AsyncConnection, payment_id: UUID, state: PaymentState, *, settled_at: datetime | None
) -> None:
    """Move a locked payment to `state`; `settled_at` is kept once set."""
    await conn.execute(
        "UPDATE billing.payment SET state = %s, settled_at = coalesce(settled_at, %s) WHERE id = %s",
        (state, settled_at, payment_id),
    )


async def mark_payment_asked(conn: psycopg.AsyncConnection, payment_id: UUID, now: datetime) -> None:
    """Note when the provider was last asked about a silent payment."""
    await conn.execute("UPDATE billing.payment SET asked_at = %s WHERE id = %s", (now, payment_id))


async def list_open_payments(conn: psycopg.AsyncConnection, *, limit: int) -> list[Payment]:
    """Payments without an outcome, those not asked about for the longest time first."""
    cursor = conn.cursor(row_factory=kwargs_row(_payment))
    await cursor.execute(
        f"{_PAYMENT} WHERE state IN ('CREATED', 'PENDING') ORDER BY coalesce(asked_at, created_at) LIMIT %s",
        (limit,),
    )
    return await cursor.fetchall()


async def list_expired_payments(
    conn: psycopg.AsyncConnection, *, since: datetime, now: datetime, limit: int
) -> list[Payment]:
    """Payments begun since `since` that were given up, each time that their age has doubled since the last ask.

    A page that was open when we gave up may still take the money, and its webhook may be lost.
    """
    cursor = conn.cursor(row_factory=kwargs_row(_payment))
    await cursor.execute(
        f"{_PAYMENT} WHERE state = 'EXPIRED' AND created_at >= %(since)s"
        " AND %(now)s - coalesce(asked_at, created_at) >= (%(now)s - created_at) / 2"
        " ORDER BY coalesce(asked_at, created_at) LIMIT %(limit)s",
        {"since": since, "now": now, "limit": limit},
    )
    return await cursor.fetchall()


async def insert_event(
    conn: psycopg.AsyncConnection, *, provider: str, event: StoredEvent, now: datetime
) -> bool:
    """Store what a provider said; False when the very same was stored before.

    Waits for another transaction that stores the same event. Raises IdempotencyConflict when the id came with
    other content.
    """
    cursor = await conn.execute(
        "INSERT INTO billing.payment_event (provider, event_id, payment_id, status, amount_minor,"
        " body_sha256, recorded_at) VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (provider, event_id) DO NOTHING",
        (
            provider,
            event.event_id,
            event.payment_id,
            event.status,
            event.amount_minor,
            event.body_sha256,
            now,
        ),
    )
    if cursor.rowcount == 1:
        return True
    found = conn.cursor(row_factory=class_row(StoredEvent))
    await found.execute(
        "SELECT event_id, payment_id, status, amount_minor, body_sha256 FROM billing.payment_event"
        " WHERE provider = %s AND event_id = %s",
        (provider, event.event_id),
    )
    stored = await found.fetchone()
    # The digest is of the words; the meaning decides, since a poll's answer says the same in another body.
    if stored is None or (stored.payment_id, stored.status, stored.amount_minor) != (
        event.payment_id,
        event.status,
        event.amount_minor,
    ):
        raise IdempotencyConflict("event_id_reused", "this event id came before with other content")
    return False
