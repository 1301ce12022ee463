"""Steps of a sale for tests: buy, pay, and vaults that misbehave."""

import hashlib
from datetime import datetime
from uuid import UUID, uuid4

from billing.states import PaymentEvent
from billing.take_payment import ProviderEvent
from billing.vend import make_quote
from portal import sell
from tests.billing.world import NOW
from token_engine.errors import VaultRefused, VaultTimeout


async def buy(pool, house, amount_minor=5_000, *, now=NOW, key=None):
    """A quote with its payment PENDING; gives both."""
    async with pool.connection() as conn:
        quote = await make_quote(
            conn, customer_id=house.customer_id, meter_drn=house.drn, amount_minor=amount_minor, now=now
        )
        payment = await sell.start_payment(
            conn,
            quote_id=quote.id,
            customer_id=house.customer_id,
            idempotency_key=key or uuid4().hex,
            language="ar",
            now=now,
        )
    return quote, payment


def event_of(payment, status="confirmed", *, event_id=None, amount_minor=None) -> ProviderEvent:
    return ProviderEvent(
        event_id or f"evt_{payment.id}_{status}",
        payment.id,
        PaymentEvent(status),
        payment.amount_minor if amount_minor is None else amount_minor,
        hashlib.sha256(status.encode()).digest(),
    )


async def settle(pool, event, *, now: datetime = NOW):
    async with pool.connection() as conn:
        return await sell.settle_payment(conn, event, now)


async def one(pool, query, *args):
    async with pool.connection() as conn:
        row = await (await conn.execute(query, args)).fetchone()
    return row[0] if row is not None and len(row) == 1 else row


async def all_rows(pool, query, *args):
    async with pool.connection() as conn:
        return await (await conn.execute(query, args)).fetchall()


class LossyVault:
    """A network module: it may issue and lose the answer, be silent, or refuse."""

    def __init__(self, inner, plan=()):
        self.inner = inner
        self.plan = list(plan)  # one word for each call of issue_credit: ok, lost, silent, refuse
        self.requests = []
        self.fetched = []

    async def issue_credit(self, request):
        self.requests.append(request)
        word = self.plan.pop(0) if self.plan else "ok"
        if word == "silent":
            raise VaultTimeout("nobody answers")
        if word == "refuse":
            raise VaultRefused("unknown_key", "no such key")
        issued = await self.inner.issue_credit(request)
        if word == "lost":
            raise VaultTimeout("the answer was lost")
        return issued

    async def fetch_result(self, request_id: str | UUID):
        self.fetched.append(request_id)
        return await self.inner.fetch_result(request_id)
