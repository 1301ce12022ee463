"""The three transactions of a sale: start a payment, settle it, bring the token.

Every step may run twice, at once or after a kill at any point, and the outcome is the same: row locks put
rivals in line, keys made from the vend's id make repeats harmless, and the TID is reserved once, when paid.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool

from billing import (
    customer_store,
    identity_store,
    ledger,
    ledger_store,
    payment_store,
    quote_store,
    take_payment,
    token_store,
    vend_store,
)
from billing.errors import InvalidVend, NotFound
from billing.identity_store import StsIdentity
from billing.payment_store import Payment, StoredEvent
from billing.quote_store import Quote
from billing.states import (
    PaymentEffect,
    PaymentEvent,
    PaymentState,
    VendEvent,
    VendState,
    next_payment_state,
    next_vend_state,
)
from billing.take_payment import PROVIDER, ProviderEvent
from billing.token_store import Token
from billing.vend_store import Vend
from portal import jobs, message_store, sale_store, sale_text
from portal.hand_token import hand_token
from token_engine.errors import InvalidIdentity, VaultRefused, VaultTimeout
from token_engine.vault import CreditRequest, IssuedToken, VendingKeyVault

log = logging.getLogger(__name__)

# A network module answers in well under a second; after this its answer is unknown and it is asked again.
VAULT_TIMEOUT_S = 5.0
SUBCLASSES = {"electricity": 0, "water": 1}  # sts.md 3, class 0

Pool = AsyncConnectionPool[psycopg.AsyncConnection[Any]]


# -- before: the customer goes to pay -----------------------------------------------------------------------


async def start_payment(
    conn: psycopg.AsyncConnection,
    *,
    quote_id: UUID,
    customer_id: int,
    idempotency_key: str,
    language: str,
    now: datetime,
) -> Payment:
    """Start paying a quote and give the payment, PENDING; a repeat gives the same one, whatever its state.

    Raises NotFound for another customer's quote, InvalidVend (`quote_expired`, `quote_outdated` when another
    sale has taken the debt that it wanted), IdempotencyConflict when the key paid for another quote.
    """
    quote = await quote_store.get_quote_of_customer(conn, quote_id, customer_id=customer_id)
    vend = await vend_store.lock_vend_of_quote(conn, quote.id)
    if vend.payment_id is None:
        await _check_still_true(conn, quote, now)
    payment = await payment_store.insert_payment(
        conn,
        quote_id=quote.id,
        idempotency_key=f"{customer_id}:{idempotency_key}",
        provider=PROVIDER,
        amount_minor=quote.amount_minor,
        language=language,
        now=now,
    )
    if vend.payment_id is None:
        await vend_store.mark_paid_by(conn, vend.id, payment.id)
    state, _effect = next_payment_state(payment.state, PaymentEvent.REDIRECTED)
    if state is not payment.state:
        await payment_store.mark_payment(conn, payment.id, state, settled_at=None)
    return await payment_store.lock_payment(conn, payment.id)


async def _check_still_true(conn: psycopg.AsyncConnection, quote: Quote, now: datetime) -> None:
    if now >= quote.expires_at:
        raise InvalidVend("quote_expired", "this quote is too old: ask for a new one")
    await _check_still_theirs(conn, quote)
    debt = await ledger_store.lock_debt_minor(conn, quote.customer_id)
    if quote.arrears_minor > debt - await quote_store.get_promised_arrears_minor(conn, quote.customer_id):
        raise InvalidVend("quote_outdated", "another purchase changed this one's deductions: ask again")


async def _check_still_theirs(conn: psycopg.AsyncConnection, quote: Quote) -> None:
    """Refuse a sale for a meter that was taken down, or hangs at another customer's. Raises InvalidVend."""
    meter = await sale_store.get_meter_link(conn, quote.meter_id)
    if await customer_store.find_agreement(conn, customer_id=quote.customer_id, meter_drn=meter.drn) is None:
        raise InvalidVend(
            "quote_outdated", "the meter of this quote does not hang at this customer's any more"
        )


# -- transaction 1: the provider has spoken -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settlement:
    """What came of a provider's event; `vend_id` is set when a token is now owed."""

    state: PaymentState
    effect: PaymentEffect
    repeated: bool
    vend_id: UUID | None = None


async def settle_payment(conn: psycopg.AsyncConnection, event: ProviderEvent, now: datetime) -> Settlement:
    """Take in one event of the provider, once: state, books, reserved TID and the worker's job together.

    Raises NotFound (unknown payment), IdempotencyConflict (event id with other content), PaymentMismatch
    (another amount); the caller's transaction must then roll back.
    """
    found = await payment_store.get_payment(conn, event.payment_id)
    # Everywhere the vend is locked before its payment: a customer who presses "pay" again just now must not
    # meet us half way.
    await vend_store.lock_vend_of_quote(conn, found.quote_id)
    payment = await payment_store.lock_payment(conn, found.id)
    stored = StoredEvent(
        event.event_id, event.payment_id, event.status, event.amount_minor, event.body_sha256
    )
    is_new = await payment_store.insert_event(conn, provider=event.provider, event=stored, now=now)
    take_payment.check_amount(event, payment)
    if not is_new:
        return Settlement(payment.state, PaymentEffect.NONE, repeated=True)
    state, effect = next_payment_state(payment.state, event.status)
    if state is not payment.state:
        await payment_store.mark_payment(conn, payment.id, state, settled_at=now)
    vend_id = None
    if effect is PaymentEffect.SETTLE:
        vend_id = await _settle(conn, payment, now)
    elif effect is PaymentEffect.SUSPENSE:
        await _hold_in_suspense(conn, payment, now)
    elif effect is PaymentEffect.CONTRADICTED:
        log.error("payment %s: the provider declines what it had confirmed", payment.id)
    return Settlement(state, effect, repeated=False, vend_id=vend_id)


async def give_up_payment(conn: psycopg.AsyncConnection, payment_id: UUID, now: datetime) -> PaymentState:
    """EXPIRED, for a payment of which the provider says that nothing happened, when time is over."""
    payment = await payment_store.lock_payment(conn, payment_id)
    state, _effect = next_payment_state(payment.state, PaymentEvent.GIVEN_UP)
    if state is not payment.state:
        await payment_store.mark_payment(conn, payment.id, state, settled_at=now)
    return state


async def _settle(conn: psycopg.AsyncConnection, payment: Payment, now: datetime) -> UUID | None:
    quote = await quote_store.get_quote(conn, payment.quote_id)
    vend = await vend_store.lock_vend_of_quote(conn, payment.quote_id)
    if next_vend_state(vend.state, VendEvent.PAID) is vend.state:
        return vend.id
    try:
        # A removal waits for this lock, or we for it: what we read next stays true until we have booked.
        await identity_store.lock_identity(conn, vend.meter_id)
        await _check_still_theirs(conn, quote)
        allocated = await identity_store.allocate_tid(conn, vend.meter_id, now)
    except (InvalidVend, NotFound):
        # The meter lost its identity or its place while the customer paid: the money is real all the same.
        log.exception("payment %s: no TID for its meter", payment.id)
        await _hold_in_suspense(conn, payment, now)
        return None
    # RND: the low 4 bits of a clock of milliseconds (sts.md 5).
    rnd = (now.microsecond // 1000) & 0xF
    await vend_store.mark_paid(
        conn, vend.id, base_date=allocated.base_date, tid=allocated.tid, rnd=rnd, now=now
    )
    entry = ledger.payment_entry(payment.id, quote.customer_id, payment.amount_minor)
    await ledger_store.insert_entry(conn, entry, now=now)
    await jobs.defer_delivery(conn, vend.id)
    return vend.id


async def _hold_in_suspense(conn: psycopg.AsyncConnection, payment: Payment, now: datetime) -> None:
    quote = await quote_store.get_quote(conn, payment.quote_id)
    customer = await customer_store.get_customer(conn, quote.customer_id)
    entry = ledger.suspense_entry(payment.id, customer.id, payment.amount_minor)
    await ledger_store.insert_entry(conn, entry, now=now)
    await message_store.insert_message(
        conn,
        idempotency_key=f"suspense:{payment.id}",
        customer_id=customer.id,
        phone=customer.phone,
        kind="payment",
        language=customer.language,
        body=sale_text.suspense_body(customer.language, amount_minor=payment.amount_minor),
        reference=str(quote.vend_id),
        now=now,
    )


# -- transactions 2 and 3: the token ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Errand:
    """What the vault is asked for, read in transaction 2."""

    request: CreditRequest
    is_first: bool


async def deliver_token(
    pool: Pool,
    vault: VendingKeyVault,
    vend_id: UUID,
    now_fn: Callable[[], datetime],
    *,
    timeout_s: float = VAULT_TIMEOUT_S,
) -> VendState:
    """Bring the token of a paid vend: ask the vault outside any transaction, then book and send it.

    A time-out leaves the vend UNKNOWN, to be asked again under the same id and TID; a refusal leaves it
    REFUSED with its money still owed. Gives the state that the vend is left in.
    """
    async with pool.connection() as conn:
        errand = await _claim(conn, vend_id, now_fn())
    if not isinstance(errand, _Errand):
        return errand
    try:
        async with asyncio.timeout(timeout_s):
            issued = await _ask(vault, errand)
        _check_answer(errand.request, issued)
    except (VaultTimeout, TimeoutError, OSError) as error:
        return await _end(pool, vend_id, VendEvent.TIMED_OUT, type(error).__name__, now_fn())
    except VaultRefused as error:
        return await _end(pool, vend_id, VendEvent.REFUSED, error.reason, now_fn())
    async with pool.connection() as conn:
        return await _hand_over(conn, vend_id, errand.request, issued, now_fn())


async def _claim(conn: psycopg.AsyncConnection, vend_id: UUID, now: datetime) -> _Errand | VendState:
    vend = await vend_store.lock_free_vend(conn, vend_id)
    if vend is None:  # another worker has it in hand just now
        return (await vend_store.get_vend(conn, vend_id)).state
    if vend.state not in {VendState.PAID, VendState.REQUESTED, VendState.UNKNOWN}:
        return vend.state
    quote = await quote_store.get_quote(conn, vend.quote_id)
    identity = await identity_store.find_identity(conn, vend.meter_id)
    asked = next_vend_state(vend.state, VendEvent.ASKED)
    await vend_store.mark_asked(conn, vend.id, asked, now)
    try:
        request = _request(vend, quote, identity)
    except InvalidIdentity as error:
        log.error("vend %s: %s", vend.id, error.rule)  # noqa: TRY400 - the rule says it all
        refused = next_vend_state(asked, VendEvent.REFUSED)
        await vend_store.mark_state(conn, vend, refused, now=now, detail=error.rule)
        return refused
    return _Errand(request, is_first=vend.attempts == 0)


def _request(vend: Vend, quote: Quote, identity: StsIdentity | None) -> CreditRequest:
    if identity is None or vend.tid is None or vend.rnd is None:
        raise InvalidIdentity("identity_missing", "the meter has lost its identity")
    return CreditRequest(
        request_id=str(vend.id),
        meter=identity.key_identity(vend.base_date),
        subclass=SUBCLASSES[quote.commodity],
        amount=quote.units_tenths,
        tid=vend.tid,
        rnd=vend.rnd,
    )


async def _ask(vault: VendingKeyVault, errand: _Errand) -> IssuedToken:
    # An earlier attempt may have got through: ask what came of it before asking for it (field rule 4.6.2).
    if not errand.is_first:
        earlier = await vault.fetch_result(errand.request.request_id)
        if earlier is not None:
            return earlier
    return await vault.issue_credit(errand.request)


def _check_answer(request: CreditRequest, issued: IssuedToken) -> None:
    if (issued.request_id, issued.tid, issued.carried) != (request.request_id, request.tid, request.amount):
        log.error("vend %s: the vault answered with another token", request.request_id)
        raise VaultTimeout("the vault's answer is not to our request")


async def _end(pool: Pool, vend_id: UUID, event: VendEvent, detail: str, now: datetime) -> VendState:
    async with pool.connection() as conn:
        vend = await vend_store.lock_vend(conn, vend_id)
        state = next_vend_state(vend.state, event)
        if state is not vend.state:
            log.warning("vend %s is %s: %s", vend_id, state, detail)
        await vend_store.mark_state(conn, vend, state, now=now, detail=detail)
        return state


async def _hand_over(
    conn: psycopg.AsyncConnection, vend_id: UUID, request: CreditRequest, issued: IssuedToken, now: datetime
) -> VendState:
    vend = await vend_store.lock_vend(conn, vend_id)
    state = next_vend_state(vend.state, VendEvent.ISSUED)
    if state is vend.state or vend.base_date is None or vend.tid is None:  # a rival was here first
        return vend.state
    quote = await quote_store.get_quote(conn, vend.quote_id)
    # No change of the key can begin while the vend is open; if one ended meanwhile, its key is the meter's.
    identity = await identity_store.lock_identity(conn, vend.meter_id)
    token = await token_store.insert_credit_token(
        conn,
        vend_id=vend.id,
        meter_id=vend.meter_id,
        base_date=vend.base_date,
        tid=vend.tid,
        subclass=request.subclass,
        units_tenths=issued.carried,
        digits=issued.digits,
        now=now,
        key_change_id=identity.key_change_id,
    )
    await token_store.insert_key_use(
        conn,
        request_id=request.request_id,
        used_by="worker",
        purpose="credit",
        meter_id=vend.meter_id,
        sgc=request.meter.sgc,
        krn=request.meter.krn,
        key_check_value=issued.key_check_value,
        now=now,
    )
    await vend_store.mark_state(conn, vend, state, now=now)
    await _post_sale(conn, vend, quote, now)
    await _send(conn, vend, quote, token, now)
    return state


async def _post_sale(conn: psycopg.AsyncConnection, vend: Vend, quote: Quote, now: datetime) -> None:
    debt = await ledger_store.lock_debt_minor(conn, quote.customer_id)
    sale = ledger.Sale(
        vend.id,
        quote.customer_id,
        quote.commodity,
        quote.amount_minor,
        quote.arrears_minor,
        quote.vat_minor,
        quote.energy_minor,
        quote.change_minor,
    )
    for entry in ledger.vend_entries(sale, debt_minor=debt):
        await ledger_store.insert_entry(conn, entry, now=now)


async def _send(conn: psycopg.AsyncConnection, vend: Vend, quote: Quote, token: Token, now: datetime) -> None:
    await hand_token(conn, token, command_key=command_key(vend.id), requested_by="sale", now=now)
    meter = await sale_store.get_meter_link(conn, vend.meter_id)
    first = await token_store.list_digits_before(conn, token)
    customer = await customer_store.get_customer(conn, quote.customer_id)
    await message_store.insert_message(
        conn,
        idempotency_key=f"token:{vend.id}",
        customer_id=customer.id,
        phone=customer.phone,
        kind="token",
        language=customer.language,
        body=sale_text.token_body(
            customer.language,
            drn=meter.drn,
            commodity=quote.commodity,
            digits=token.digits,
            first_tokens=first,
            units_tenths=quote.units_tenths,
            amount_minor=quote.amount_minor,
            arrears_minor=quote.arrears_minor,
            change_minor=quote.change_minor,
            receipt_number=vend.receipt_number,
        ),
        reference=str(vend.id),
        now=now,
    )


def command_key(vend_id: UUID) -> str:
    """The idempotency key of the command that carries a vend's token to its meter."""
    return f"vend:{vend_id}"
