"""Bring one meter from its key to another: make the tokens, send them, learn from the meter that it took them.

Every step may run twice or after a kill: rows are locked in the order identity, change, held tokens; the
tokens of a change are always the same digits; commands and registered tokens carry keys made from its id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool

from billing import identity_store, key_change_store, token_store
from billing.errors import InvalidVend
from billing.identity_store import STOCK_KEYS, StsIdentity
from billing.key_change import (
    MAX_ROUNDS,
    ChangeEvent,
    ChangeState,
    Verdict,
    new_fields,
    next_change_state,
    typed_set,
    verdict_of,
)
from billing.key_change_store import KeyChange
from meter_gateway import meter_store
from meter_gateway.command import order_command
from portal.hand_token import TOKEN_COMMAND_LIFETIME, release_held
from token_engine.errors import InvalidIdentity, VaultRefused, VaultTimeout
from token_engine.identifiers import KeyType
from token_engine.vault import EngineeringVault, IssuedKeyChange, KeyChangeRequest

log = logging.getLogger(__name__)

VAULT_TIMEOUT_S = 5.0  # as in a sale: an answer that takes longer is unknown and asked for again
# Refusals that pass by themselves: the keypad's lock-out, a bus that was disturbed.
PASSING = frozenset({"LOCKED_OUT", "MODBUS_EXCEPTION"})
# Credit that a customer keeps in a drawer is waited for this long: after a change of key it could not be read.
UNUSED_CREDIT_WAIT = timedelta(days=45)

Pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]]
Conn = psycopg.AsyncConnection[Any]


async def begin_commissioning(conn: Conn, *, meter_id: int, begun_by: str, now: datetime) -> KeyChange | None:
    """Begin the change of a meter from its maker's or its stock key to its own (DUTK); call it at installation.

    None for a meter that has its own key, or whose change is under way. Raises NotFound, InvalidVend.
    """
    identity = await identity_store.lock_identity(conn, meter_id)
    if identity.issuing.kt not in STOCK_KEYS:
        return None
    if await key_change_store.find_open_change(conn, meter_id) is not None:
        return None
    new = new_fields(identity, {"kt": int(KeyType.DUTK)}, now)
    return await key_change_store.insert_change(
        conn, meter_id=meter_id, plan_id=None, old=identity.current, new=new, begun_by=begun_by, now=now
    )


async def list_first_tokens(conn: Conn, meter_id: int) -> list[str]:
    """The key-change tokens to type into a meter before any other, in order; empty when there are none."""
    identity = await identity_store.find_identity(conn, meter_id)
    if identity is None or identity.key_change_id is None:
        return []
    return await token_store.list_key_change_digits(conn, identity.key_change_id)


# -- making the tokens ---------------------------------------------------------------------------------------


async def issue_change(
    pool: Pool,
    vault: EngineeringVault,
    change_id: UUID,
    now_fn: Callable[[], datetime],
    *,
    timeout_s: float = VAULT_TIMEOUT_S,
) -> ChangeState:
    """Have a planned change's tokens made, and make its key the pending one; gives the state it is left in.

    It waits (stays PLANNED) while a sale of the meter is open, while sold credit has not reached the meter, and
    while the vault is silent.
    """
    async with pool.connection() as conn:
        change = await key_change_store.get_change(conn, change_id)
        await key_change_store.mark_looked(conn, change_id, now_fn())
        if change.state is not ChangeState.PLANNED or await _must_wait(conn, change, now_fn()):
            return change.state
        identity = await identity_store.get_identity(conn, change.meter_id)
    try:
        request = KeyChangeRequest(
            request_id=f"key-change:{change.id}",
            old=identity.identity_of(change.old),
            new=identity.identity_of(change.new),
            with_sgc=change.with_sgc,
        )
        async with asyncio.timeout(timeout_s):
            issued = await _ask(vault, request)
    except (VaultTimeout, TimeoutError, OSError) as error:
        log.warning("key change %s: the vault does not answer (%s)", change_id, type(error).__name__)
        return ChangeState.PLANNED
    except (VaultRefused, InvalidIdentity) as error:
        async with pool.connection() as conn:
            return await _fail(conn, change, getattr(error, "reason", "identity_invalid"), now_fn())
    async with pool.connection() as conn:
        return await _register(conn, change, request, issued, now_fn())


async def _must_wait(conn: Conn, change: KeyChange, now: datetime) -> bool:
    return await identity_store.has_open_issue(
        conn, change.meter_id
    ) or await key_change_store.has_unused_credit(conn, change.meter_id, now - UNUSED_CREDIT_WAIT)


async def _ask(vault: EngineeringVault, request: KeyChangeRequest) -> IssuedKeyChange:
    # An earlier attempt may have got through.
    earlier = await vault.fetch_key_change(request.request_id)
    return earlier if earlier is not None else await vault.issue_key_change(request)


async def _fail(conn: Conn, change: KeyChange, reason: str, now: datetime) -> ChangeState:
    await identity_store.lock_identity(conn, change.meter_id)
    change = await key_change_store.lock_change(conn, change.id)
    state = next_change_state(change.state, ChangeEvent.FAILED)
    if state is not change.state:
        log.warning("key change %s failed: %s", change.id, reason)
        await key_change_store.mark_change(conn, change, state, by="worker", now=now, detail=reason)
    return state


async def _register(
    conn: Conn, change: KeyChange, request: KeyChangeRequest, issued: IssuedKeyChange, now: datetime
) -> ChangeState:
    identity = await identity_store.lock_identity(conn, change.meter_id)
    change = await key_change_store.lock_change(conn, change.id)
    if change.state is not ChangeState.PLANNED:  # a rival was here first
        return change.state
    if identity.pending is not None or identity.current != change.old:
        return await _fail(conn, change, "identity_moved", now)
    if await _must_wait(conn, change, now):
        return change.state
    for place, digits in enumerate(issued.digits, 1):
        await token_store.insert_service_token(
            conn,
            meter_id=change.meter_id,
            base_date=change.old.base_date,
            tid=None,
            token_class=2,
            subclass=_SECTIONS[place - 1],
            units_tenths=None,
            digits=digits,
            purpose="key_change",
            issued_by="worker",
            reason="key change",
            now=now,
            request_id=f"{request.request_id}:{place}",
            key_change_id=change.id,
            place=place,
        )
    for key, check_value in (
        (request.old, issued.old_key_check_value),
        (request.new, issued.new_key_check_value),
    ):
        await token_store.insert_key_use(
            conn,
            request_id=request.request_id,
            used_by=change.begun_by,
            purpose="key_change",
            meter_id=change.meter_id,
            sgc=key.sgc,
            krn=key.krn,
            key_check_value=check_value,
            now=now,
        )
    await identity_store.mark_pending(conn, identity, change.new, change.id)
    await key_change_store.mark_change(conn, change, ChangeState.ISSUED, by="worker", now=now)
    await _send_round(conn, change, now)
    return ChangeState.ISSUED


_SECTIONS = (3, 4, 8, 9)  # subclasses of the sections in the order in which the engine gives them (sts.md 3)


async def _send_round(conn: Conn, change: KeyChange, now: datetime) -> None:
    meter = await meter_store.get_meter(conn, change.meter_id)
    if not meter.is_reachable:
        return
    number = change.round + 1
    for place, digits in enumerate(await token_store.list_key_change_digits(conn, change.id), 1):
        await order_command(
            conn,
            meter_id=change.meter_id,
            kind="token",
            argument=digits,
            idempotency_key=key_change_store.command_key(change.id, number, place),
            requested_by="key-change",
            now=now,
            expires_at=now + TOKEN_COMMAND_LIFETIME,
        )
    await key_change_store.mark_round(conn, change.id, number)


# -- learning from the meter ---------------------------------------------------------------------------------


async def follow_change(conn: Conn, change_id: UUID, now: datetime) -> ChangeState:
    """Read what the meter said and go on: proven, refused, or send once more; gives the state it is left in."""
    seen = await key_change_store.get_change(conn, change_id)
    identity = await identity_store.lock_identity(conn, seen.meter_id)
    change = await key_change_store.lock_change(conn, change_id)
    if change.state not in {ChangeState.ISSUED, ChangeState.REFUSED}:
        return change.state
    await key_change_store.mark_looked(conn, change_id, now)
    verdict, word = await _verdict(conn, change)
    if verdict is Verdict.PROVEN:
        return await _prove(conn, identity, change, by="meter", detail=word, now=now)
    if verdict is Verdict.REFUSED:
        return await _stop(conn, change, word, now)
    if verdict is Verdict.AGAIN and change.state is ChangeState.ISSUED and change.round < MAX_ROUNDS:
        await _send_round(conn, change, now)
    return change.state


async def _verdict(conn: Conn, change: KeyChange) -> tuple[Verdict, str]:
    if await key_change_store.has_taken_set(conn, change):
        return Verdict.PROVEN, "key-change tokens accepted"
    if await key_change_store.has_read_new_key(conn, change):
        return Verdict.PROVEN, "a token under the new key was read"
    issued_at = await key_change_store.get_issued_at(conn, change.id)
    sections = len(await token_store.list_key_change_digits(conn, change.id))
    typed = await key_change_store.list_typed(conn, change, issued_at or change.begun_at)
    if typed_set(typed, sections):
        return Verdict.PROVEN, "key-change tokens typed"
    verdict, word = verdict_of(await key_change_store.list_set_answers(conn, change))
    return (Verdict.AGAIN, word) if verdict is Verdict.REFUSED and word in PASSING else (verdict, word)


async def _prove(
    conn: Conn, identity: StsIdentity, change: KeyChange, *, by: str, detail: str, now: datetime
) -> ChangeState:
    state = next_change_state(change.state, ChangeEvent.PROVEN)
    await key_change_store.mark_change(conn, change, state, by=by, now=now, detail=detail)
    await identity_store.mark_proven(conn, identity)
    await release_held(conn, change.id, now)
    return state


async def _stop(conn: Conn, change: KeyChange, word: str, now: datetime) -> ChangeState:
    """The meter refuses: what was made under the new key is not sent, and no more is sold until a person decides."""
    state = next_change_state(change.state, ChangeEvent.REFUSED)
    if state is not change.state:
        log.warning("key change %s: the meter refuses it (%s)", change.id, word)
        await key_change_store.mark_change(conn, change, state, by="meter", now=now, detail=word)
        await identity_store.mark_refused(conn, change.meter_id, refused=True)
    for held in await key_change_store.list_held(conn, change.id, ("HELD",)):
        await key_change_store.mark_held(conn, held.token_id, "STOPPED", reason=word, now=now)
    return state


# -- what a person decides -----------------------------------------------------------------------------------


async def confirm_change(conn: Conn, change_id: UUID, *, by: str, reason: str, now: datetime) -> ChangeState:
    """Take a person's word that the meter has its new key: a keypad meter cannot say it itself.

    Raises InvalidVend (`reason_missing`, `change_not_issued`), NotFound.
    """
    identity, change = await _lock(conn, change_id, reason)
    if change.state is ChangeState.PROVEN:
        return change.state
    if identity.key_change_id != change.id:
        raise InvalidVend("change_not_issued", "this change has no tokens out")
    return await _prove(conn, identity, change, by=by, detail=reason, now=now)


async def retry_change(conn: Conn, change_id: UUID, *, by: str, reason: str, now: datetime) -> ChangeState:
    """Send a refused or silent change's tokens once more. Raises InvalidVend, NotFound."""
    _identity, change = await _lock(conn, change_id, reason)
    state = next_change_state(change.state, ChangeEvent.RETRIED)
    if state is not ChangeState.ISSUED:
        return state
    await key_change_store.mark_change(conn, change, state, by=by, now=now, detail=reason)
    await identity_store.mark_refused(conn, change.meter_id, refused=False)
    for held in await key_change_store.list_held(conn, change.id, ("STOPPED",)):
        await key_change_store.mark_held(conn, held.token_id, "HELD", reason="", now=now)
    await _send_round(conn, change, now)
    return state


async def withdraw_change(
    conn: Conn, change_id: UUID, *, by: str, reason: str, now: datetime, despite_tokens: bool = False
) -> ChangeState:
    """Leave the meter its current key.

    Tokens that were made under the new key would be lost with it, so with such tokens it is refused unless
    `despite_tokens`. Raises InvalidVend (`reason_missing`, `sale_open`, `tokens_under_new_key`), NotFound.
    """
    _identity, change = await _lock(conn, change_id, reason)
    state = next_change_state(change.state, ChangeEvent.WITHDRAWN)
    if state is change.state or state is not ChangeState.WITHDRAWN:
        return state
    if await identity_store.has_open_issue(conn, change.meter_id):
        raise InvalidVend("sale_open", "a sale of this meter is open: wait until it ends")
    if not despite_tokens and await token_store.has_tokens_under(conn, change.id):
        raise InvalidVend("tokens_under_new_key", "tokens were made under the new key: they would be lost")
    for held in await key_change_store.list_held(conn, change.id, ("HELD",)):
        await key_change_store.mark_held(conn, held.token_id, "STOPPED", reason="withdrawn", now=now)
    await key_change_store.mark_change(conn, change, state, by=by, now=now, detail=reason)
    await identity_store.mark_withdrawn(conn, change.meter_id)
    return state


async def _lock(conn: Conn, change_id: UUID, reason: str) -> tuple[StsIdentity, KeyChange]:
    if not reason.strip():
        raise InvalidVend("reason_missing", "say why")
    seen = await key_change_store.get_change(conn, change_id)
    identity = await identity_store.lock_identity(conn, seen.meter_id)
    return identity, await key_change_store.lock_change(conn, change_id)
