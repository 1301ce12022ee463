"""Take a sale back: reverse one whose token was proven unused, return the money of one without, or ask again."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import psycopg

from billing import identity_store, ledger, ledger_store, quote_store, vend_store
from billing.errors import InvalidVend
from billing.states import VendEvent, VendState, next_vend_state
from billing.vend_store import Vend

# The one refusal whose reason a person can remove: the vault had no key for the meter, so it made nothing.
KEY_UNAVAILABLE = "unknown_key"


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
    """Return what was paid for a refused or reversed vend, or what came for it and stands in suspense.

    A repeat changes nothing. Raises NotFound, or BooksBroken for a vend that was not paid, has a token, or may
    still get one.
    """
    vend = await vend_store.lock_vend(conn, vend_id)
    in_suspense = await _is_in_suspense(conn, vend)
    state = next_vend_state(vend.state, VendEvent.RETURNED if in_suspense else VendEvent.REFUNDED)
    if state is vend.state:
        return state
    quote = await quote_store.get_quote(conn, vend.quote_id)
    if in_suspense and vend.payment_id is not None:
        entry = ledger.suspense_refund_entry(vend.payment_id, quote.customer_id, quote.amount_minor)
    else:
        entry = ledger.refund_entry(vend.id, quote.customer_id, quote.amount_minor)
    await ledger_store.insert_entry(conn, entry, now=now)
    await vend_store.mark_state(conn, vend, state, now=now, detail=f"{refunded_by}: {reason}")
    return state


async def _is_in_suspense(conn: psycopg.AsyncConnection, vend: Vend) -> bool:
    if vend.payment_id is None:
        return False
    entries = await ledger_store.list_entries_of(conn, str(vend.payment_id))
    return any(entry.kind == "suspense" for entry in entries)


async def retry_vend(
    conn: psycopg.AsyncConnection, vend_id: UUID, *, retried_by: str, reason: str, now: datetime
) -> VendState:
    """Have the worker ask again for a vend that was refused for want of a key: same request id, same TID.

    A repeat changes nothing. Raises NotFound, BooksBroken for a vend that was never refused or is refunded,
    InvalidVend (`not_for_want_of_a_key`, `base_date_moved`, and what `check_can_vend` says of the meter).
    """
    vend = await vend_store.lock_vend(conn, vend_id)
    state = next_vend_state(vend.state, VendEvent.RETRIED)
    if state is vend.state:
        return state
    refusal = (await vend_store.list_steps(conn, vend_id))[-1].detail
    if refusal != KEY_UNAVAILABLE:
        raise InvalidVend(
            "not_for_want_of_a_key", f"it was refused for another reason ({refusal}): refund it"
        )
    # Held as by who begins a change of key, which waits for open vends: it cannot slip in between.
    identity = await identity_store.lock_identity(conn, vend.meter_id)
    if identity.issuing.base_date != vend.base_date:
        raise InvalidVend(
            "base_date_moved", "its TID counts from another base date than the meter's key: refund it"
        )
    identity_store.check_can_vend(identity, now)
    await vend_store.mark_state(conn, vend, state, now=now, detail=f"{retried_by}: {reason}")
    return state
