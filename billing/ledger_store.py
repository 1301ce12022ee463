"""The journal in the database: entries are added, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from billing.errors import IdempotencyConflict, NotFound
from billing.ledger import ARREARS_RECEIVABLE, CUSTOMER_CHANGE, Entry, Posting


@dataclass(frozen=True, slots=True)
class JournalRow:
    """A stored entry's head; its lines come from list_postings."""

    id: int
    kind: str
    idempotency_key: str
    reference: str
    occurred_at: datetime
    reverses: int | None


_JOURNAL = "SELECT id, kind, idempotency_key, reference, occurred_at, reverses FROM billing.journal"


async def insert_entry(conn: psycopg.AsyncConnection, entry: Entry, *, now: datetime) -> int:
    """Store a journal entry once for its key; a repeat gives the stored one's id.

    Raises IdempotencyConflict when the key was used for another entry.
    """
    cursor = await conn.execute(
        "INSERT INTO billing.journal (kind, idempotency_key, reference, occurred_at, reverses)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (idempotency_key) DO NOTHING RETURNING id",
        (entry.kind, entry.idempotency_key, entry.reference, now, entry.reverses),
    )
    row = await cursor.fetchone()
    if row is None:
        return await _repeated(conn, entry)
    async with conn.cursor() as lines:
        await lines.executemany(
            "INSERT INTO billing.posting (journal_id, line, account, customer_id, amount_minor)"
            " VALUES (%s, %s, %s, %s, %s)",
            [
                (row[0], line, posting.account, posting.customer_id, posting.amount_minor)
                for line, posting in enumerate(entry.postings, start=1)
            ],
        )
    return int(row[0])


async def _repeated(conn: psycopg.AsyncConnection, entry: Entry) -> int:
    cursor = conn.cursor(row_factory=class_row(JournalRow))
    await cursor.execute(f"{_JOURNAL} WHERE idempotency_key = %s", (entry.idempotency_key,))
    stored = await cursor.fetchone()
    if stored is None:
        raise NotFound("journal_not_found", "the entry was not stored")
    postings = await list_postings(conn, stored.id)
    if (stored.kind, stored.reference, tuple(postings)) != (entry.kind, entry.reference, entry.postings):
        raise IdempotencyConflict("journal_key_reused", f"{entry.idempotency_key} is another entry already")
    return stored.id


async def list_postings(conn: psycopg.AsyncConnection, journal_id: int) -> list[Posting]:
    """The lines of an entry in their order."""
    cursor = conn.cursor(row_factory=class_row(Posting))
    await cursor.execute(
        "SELECT account, amount_minor, customer_id FROM billing.posting WHERE journal_id = %s ORDER BY line",
        (journal_id,),
    )
    return await cursor.fetchall()


async def list_entries_of(conn: psycopg.AsyncConnection, reference: str) -> list[JournalRow]:
    """Entries about a payment, vend or import, oldest first."""
    cursor = conn.cursor(row_factory=class_row(JournalRow))
    await cursor.execute(f"{_JOURNAL} WHERE reference = %s ORDER BY id", (reference,))
    return await cursor.fetchall()


async def get_balance_minor(
    conn: psycopg.AsyncConnection, account: str, *, customer_id: int | None = None
) -> int:
    """Balance of an account in baisa (debit positive), of one customer or of all."""
    cursor = await conn.execute(
        "SELECT coalesce(sum(amount_minor), 0)::bigint FROM billing.posting"
        " WHERE account = %s AND (%s::bigint IS NULL OR customer_id = %s)",
        (account, customer_id, customer_id),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def get_debt_minor(conn: psycopg.AsyncConnection, customer_id: int) -> int:
    """What a customer still owes from before, in baisa, never below zero."""
    return max(0, await get_balance_minor(conn, ARREARS_RECEIVABLE, customer_id=customer_id))


async def lock_debt_minor(conn: psycopg.AsyncConnection, customer_id: int) -> int:
    """The same, with the customer held so that two sales do not take one debt twice."""
    await conn.execute("SELECT 1 FROM billing.customer WHERE id = %s FOR NO KEY UPDATE", (customer_id,))
    return await get_debt_minor(conn, customer_id)


async def get_change_minor(conn: psycopg.AsyncConnection, customer_id: int) -> int:
    """What a customer has left over from earlier purchases, in baisa."""
    return -await get_balance_minor(conn, CUSTOMER_CHANGE, customer_id=customer_id)
