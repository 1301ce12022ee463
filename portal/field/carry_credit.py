"""Make the token that brings a removed meter's credit to the next one: reserve, ask the vault, register, hand over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from billing import credit_carry_store, free_units_store, identity_store, token_store
from billing.credit_carry import CarryState
from billing.credit_carry_store import CreditCarry
from billing.errors import InvalidVend, NotFound
from billing.token_store import Token
from meter_gateway import meter_store
from portal import message_store, sale_text
from portal.change_keys import VAULT_TIMEOUT_S, Conn, Pool
from portal.field import removal_store
from portal.hand_token import hand_token
from token_engine.errors import InvalidIdentity, VaultRefused, VaultTimeout
from token_engine.vault import CreditRequest, IssuedToken, VendingKeyVault

log = logging.getLogger(__name__)

SUBCLASSES = {"electricity": 0, "water": 1}  # sts.md 3, class 0
ISSUED_BY = "replacement"


async def issue_carry(
    pool: Pool,
    vault: VendingKeyVault,
    carry_id: UUID,
    now_fn: Callable[[], datetime],
    *,
    timeout_s: float = VAULT_TIMEOUT_S,
) -> CarryState:
    """Make one carry's token; gives the state it is left in (RESERVED while the vault is silent: asked again)."""
    async with pool.connection() as conn:
        found = await _reserve(conn, carry_id, now_fn())
    if isinstance(found, CarryState):
        return found
    carry, request = found
    try:
        async with asyncio.timeout(timeout_s):
            # An earlier attempt may have got through.
            issued = await vault.fetch_result(request.request_id) or await vault.issue_credit(request)
    except (VaultTimeout, TimeoutError, OSError) as error:
        log.warning("carried credit %s: the vault does not answer (%s)", carry_id, type(error).__name__)
        return carry.state
    except VaultRefused as error:
        async with pool.connection() as conn:
            return await _refuse(conn, carry_id, error.reason, now_fn())
    async with pool.connection() as conn:
        return await _register(conn, carry, request, issued, now_fn())


async def _reserve(
    conn: Conn, carry_id: UUID, now: datetime
) -> CarryState | tuple[CreditCarry, CreditRequest]:
    seen = await credit_carry_store.get_carry(conn, carry_id)
    if seen.new_meter_id is None or seen.state not in {CarryState.BOUND, CarryState.RESERVED}:
        return seen.state
    # Everywhere the identity is locked before what hangs on it.
    identity = await identity_store.lock_identity(conn, seen.new_meter_id)
    carry = await credit_carry_store.lock_carry(conn, carry_id)
    if carry.new_meter_id != seen.new_meter_id:
        return carry.state  # its meter came down just now
    if carry.state is CarryState.BOUND and not await _is_at_home(conn, carry, seen.new_meter_id):
        await credit_carry_store.mark_unbound(conn, carry, now)
        return CarryState.WAITING
    if carry.state is CarryState.BOUND and identity.issuing.kt in identity_store.STOCK_KEYS:
        return carry.state
    try:
        carry = await credit_carry_store.reserve(conn, carry, now)
        if carry.state is not CarryState.RESERVED or carry.key is None or carry.tid is None:
            return carry.state
        meter = identity.identity_of(carry.key)
    except (InvalidVend, NotFound) as error:
        return await _refuse(conn, carry_id, error.code, now)
    except InvalidIdentity as error:
        return await _refuse(conn, carry_id, error.rule, now)
    return carry, CreditRequest(
        request_id=carry.request_id,
        meter=meter,
        subclass=SUBCLASSES[carry.commodity],
        amount=carry.units_tenths,
        tid=carry.tid,
        rnd=carry.rnd or 0,
    )


async def _is_at_home(conn: Conn, carry: CreditCarry, meter_id: int) -> bool:
    """Whether the meter hangs where the credit was taken, at the customer whose it is."""
    hanging = await removal_store.find_hanging(conn, meter_id)
    return hanging is not None and (hanging.usage_point_id, hanging.customer_id) == (
        carry.usage_point_id,
        carry.customer_id,
    )


async def _refuse(conn: Conn, carry_id: UUID, reason: str, now: datetime) -> CarryState:
    carry = await credit_carry_store.lock_carry(conn, carry_id)
    if carry.state in {CarryState.BOUND, CarryState.RESERVED}:
        log.warning("carried credit %s gets no token: %s", carry_id, reason)
        await credit_carry_store.mark_refused(conn, carry, reason=reason, now=now)
    return (await credit_carry_store.get_carry(conn, carry_id)).state


async def _register(
    conn: Conn, carry: CreditCarry, request: CreditRequest, issued: IssuedToken, now: datetime
) -> CarryState:
    if carry.new_meter_id is None or carry.base_date is None:
        return carry.state
    identity = await identity_store.lock_identity(conn, carry.new_meter_id)
    carry = await credit_carry_store.lock_carry(conn, carry.id)
    if carry.state is not CarryState.RESERVED or carry.new_meter_id is None or carry.base_date is None:
        return carry.state  # a rival was here first
    token = await token_store.insert_service_token(
        conn,
        meter_id=carry.new_meter_id,
        base_date=carry.base_date,
        tid=carry.tid,
        token_class=0,
        subclass=request.subclass,
        units_tenths=issued.carried,
        digits=issued.digits,
        purpose="credit",
        issued_by=ISSUED_BY,
        reason="credit of the meter before",
        now=now,
        request_id=carry.request_id,
        key_change_id=identity.key_change_id,
    )
    await token_store.insert_key_use(
        conn,
        request_id=carry.request_id,
        used_by=ISSUED_BY,
        purpose="credit",
        meter_id=carry.new_meter_id,
        sgc=request.meter.sgc,
        krn=request.meter.krn,
        key_check_value=issued.key_check_value,
        now=now,
    )
    await credit_carry_store.mark_done(conn, carry, now)
    await hand_token(conn, token, command_key=carry.request_id, requested_by=ISSUED_BY, now=now)
    await _tell(conn, carry, token, now)
    return CarryState.DONE


async def _tell(conn: Conn, carry: CreditCarry, token: Token, now: datetime) -> None:
    """The customer hears of it, and can type it in: the new meter may have no link yet."""
    recipient = (await free_units_store.list_recipients(conn, [token.meter_id])).get(token.meter_id)
    if recipient is None or recipient.customer_id != carry.customer_id:
        return
    first = await token_store.list_digits_before(conn, token)
    await message_store.insert_message(
        conn,
        idempotency_key=carry.request_id,
        customer_id=recipient.customer_id,
        phone=recipient.phone,
        kind="token",
        language=recipient.language,
        body=sale_text.carry_body(
            recipient.language,
            old_drn=(await meter_store.get_meter(conn, carry.old_meter_id)).drn,
            drn=recipient.drn,
            commodity=carry.commodity,
            digits=token.digits,
            units_tenths=carry.units_tenths,
            first_tokens=first,
        ),
        reference=carry.request_id,
        now=now,
    )
