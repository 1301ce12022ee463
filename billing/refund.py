"""Take a sale back: reverse one whose token was proven unused, and return the money of one without a token."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import psycopg

from billing import ledger, ledger_store, quote_store, vend_store
from billing.states import VendEvent, VendState, next_vend_state


async def reverse_vend(
    conn: psycopg.AsyncConnection, vend_id: UUID, *, reversed_by: str, reason: str, now: datetime
) -> VendState:
    """Undo the books of an issued token that can never be used (its meter is gone, its key was changed).

    The money is owed to the customer again; a repeat changes nothing. The caller has the proof. Raises
    NotFound, or BooksBroken for a vend that was not issued.
    """
    vend = await vend_store.lock_vend(conn, vend_id)
    state = next_vend_state(vend.state, VendEvent.REVERSED)
    if state is vend.state:
        return state
    for row in await ledger_store.list_entries_of(conn, str(vend_id)):
        if row.kind not in {"vend", "arrears"}:
            continue
        postings = tuple(await ledger_store.list_postings(conn, row.id))
        entry = ledger.Entry(row.kind, row.idempotency_key, row.reference, postings)
        await ledger_store.insert_entry(conn, ledger.reversal_entry(row.id, entry), now=now)
    await vend_store.mark_state(conn, vend, state, now=now, detail=f"{reversed_by}: {reason}")
    return state


async def refund_vend(
    conn: psycopg.AsyncConnection, vend_id: UUID, *, refunded_by: str, reason: str, now: datetime
) -> VendState:
    """Return what was paid for a refused or reversed vend by the road it came; a repeat changes nothing.

    Raises NotFound, or BooksBroken for a vend that has, or may still get, a token.
    """
    vend = await vend_store.lock_vend(conn, vend_id)
    state = next_vend_state(vend.state, VendEvent.REFUNDED)
    if state is vend.state:
        return state
    quote = await quote_store.get_quote(conn, vend.quote_id)
    entry = ledger.refund_entry(vend.id, quote.customer_id, quote.amount_minor)
    await ledger_store.insert_entry(conn, entry, now=now)
    await vend_store.mark_state(conn, vend, state, now=now, detail=f"{refunded_by}: {reason}")
    return state
