"""The outbox of messages to people: written in the transaction of what they tell, sent later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `kind` is one_time_code, token, payment, ticket, outage or leak."""

    id: int
    idempotency_key: str
    customer_id: int | None
    phone: str
    channel: str
    kind: str
    language: str
    body: str
    reference: str
    created_at: datetime
    sent_at: datetime | None

    def __repr__(self) -> str:
        """Without the phone and the words: both are the receiver's own."""
        return f"<Message {self.id} {self.kind} {self.language} sent={self.sent_at is not None}>"


_MESSAGE = (
    "SELECT id, idempotency_key, customer_id, phone, channel, kind, language, body, reference, created_at, sent_at"
    " FROM portal.message"
)


async def insert_message(
    conn: psycopg.AsyncConnection,
    *,
    idempotency_key: str,
    customer_id: int | None,
    phone: str,
    kind: str,
    language: str,
    body: str,
    reference: str = "",
    now: datetime,
) -> bool:
    """Put a message into the outbox once for its key; False when it was there already."""
    cursor = await conn.execute(
        "INSERT INTO portal.message (idempotency_key, customer_id, phone, kind, language, body, reference,"
        " created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (idempotency_key) DO NOTHING",
        (idempotency_key, customer_id, phone, kind, language, body, reference, now),
    )
    return cursor.rowcount == 1


async def list_messages_to(conn: psycopg.AsyncConnection, phone: str, *, limit: int) -> list[Message]:
    """Messages to a phone, newest first."""
    cursor = conn.cursor(row_factory=class_row(Message))
    await cursor.execute(f"{_MESSAGE} WHERE phone = %s ORDER BY id DESC LIMIT %s", (phone, limit))
    return await cursor.fetchall()


async def list_newest_messages(conn: psycopg.AsyncConnection, *, limit: int) -> list[Message]:
    """Messages to anybody, newest first: for the demo's page of phones."""
    cursor = conn.cursor(row_factory=class_row(Message))
    await cursor.execute(f"{_MESSAGE} ORDER BY id DESC LIMIT %s", (limit,))
    return await cursor.fetchall()


async def find_message(conn: psycopg.AsyncConnection, idempotency_key: str) -> Message | None:
    """The message that was written under a key."""
    cursor = conn.cursor(row_factory=class_row(Message))
    await cursor.execute(f"{_MESSAGE} WHERE idempotency_key = %s", (idempotency_key,))
    return await cursor.fetchone()


async def lock_unsent(conn: psycopg.AsyncConnection, *, limit: int) -> list[Message]:
    """Unsent messages, oldest first, held until this transaction ends; those of other senders are skipped."""
    cursor = conn.cursor(row_factory=class_row(Message))
    await cursor.execute(
        f"{_MESSAGE} WHERE sent_at IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED", (limit,)
    )
    return await cursor.fetchall()


async def mark_sent(conn: psycopg.AsyncConnection, message_ids: list[int], now: datetime) -> None:
    """Note that messages have left the house."""
    await conn.execute(
        "UPDATE portal.message SET sent_at = %s WHERE id = ANY(%s) AND sent_at IS NULL", (now, message_ids)
    )
