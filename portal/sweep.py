"""Look again at what nobody moved on: silent payments, stuck vends, messages to send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from billing import payment_store, reconcile, vend_store
from billing.errors import BillingError, ProviderUnavailable
from billing.payment_store import Payment
from billing.provider_link import ProviderLink
from portal import late_sale_store, message_store, sale_text, sell
from portal.contact_centre.open_ticket import Caller, NewTicket, open_ticket
from portal.contact_centre.ticket import Channel, TicketKind
from portal.late_sale_store import LateSale
from portal.sell import Pool
from token_engine.vault import VendingKeyVault

log = logging.getLogger(__name__)

# One round looks at this many of each; with a round a second nothing waits long behind them.
BATCH = 50
# Of those that wait, most are not due: so many are looked through for a batch that is (a few hundred bytes each).
LOOK_THROUGH = 2_000
# Suspense that is older had its ticket long ago, or was brought in from elsewhere.
SUSPENSE_WINDOW = timedelta(days=30)
ASK_AT_ONCE = 8  # a provider that is in trouble is not helped by a crowd


@dataclass(slots=True)
class Sweep:
    """What a round needs, and whether the provider was away in the last one."""

    pool: Pool
    vault: VendingKeyVault
    provider: ProviderLink
    now_fn: Callable[[], datetime]
    provider_away: bool = field(default=False)
    ticketless: set[UUID] = field(default_factory=set)

    async def round(self) -> None:
        """One round of everything. Raises psycopg.Error when the database is away."""
        await self.send_messages()
        await self.deliver_stuck()
        await self.ask_about_silent()
        await self.open_late_tickets()

    async def send_messages(self) -> int:
        """Send unsent messages: this outbox is its own phone network, so sending is a mark."""
        async with self.pool.connection() as conn:
            unsent = await message_store.lock_unsent(conn, limit=BATCH)
            if unsent:
                await message_store.mark_sent(conn, [message.id for message in unsent], self.now_fn())
            return len(unsent)

    async def deliver_stuck(self) -> int:
        """Bring the tokens of paid vends that no worker is at."""
        async with self.pool.connection() as conn:
            unfinished = await vend_store.list_unfinished(conn, limit=LOOK_THROUGH)
        stuck = reconcile.stuck_vends(unfinished, self.now_fn())[:BATCH]
        for vend in stuck:
            try:
                await sell.deliver_token(self.pool, self.vault, vend.id, self.now_fn)
            except psycopg.OperationalError:
                raise
            except (
                Exception
            ):  # one vend's fault must not hold up the others; the wait before the next doubles
                log.exception("vend %s could not be delivered", vend.id)
        return len(stuck)

    async def open_late_tickets(self) -> int:
        """Give every sale that needs a person its ticket; its own transaction each, so that one fault is one."""
        now = self.now_fn()
        async with self.pool.connection() as conn:
            late = await late_sale_store.list_late_sales(
                conn, paid_before=now - reconcile.LATE_AFTER, since=now - SUSPENSE_WINDOW, limit=BATCH
            )
        for sale in late:
            try:
                await self._open_late_ticket(sale, now)
            except psycopg.OperationalError:
                raise
            except Exception:  # the others are owed their person all the same
                if sale.vend_id not in self.ticketless:  # it is tried again each round, and told once
                    self.ticketless.add(sale.vend_id)
                    log.exception("vend %s got no ticket", sale.vend_id)
        return len(late)

    async def _open_late_ticket(self, sale: LateSale, now: datetime) -> None:
        subject, story = sale_text.late_ticket(
            sale.language,
            drn=sale.drn,
            amount_minor=sale.amount_minor,
            receipt_number=sale.receipt_number,
            paid_at=sale.paid_at,
        )
        async with self.pool.connection() as conn:
            await open_ticket(
                conn,
                caller=Caller(sale.customer_id, sale.phone, sale.language),
                new=NewTicket(
                    key=f"late-sale:{sale.vend_id}",
                    kind=TicketKind.TOKEN_PROBLEM,
                    channel=Channel.WEB,
                    subject=subject,
                    body=story,
                    meter_id=sale.meter_id,
                    vend_id=str(sale.vend_id),
                ),
                created_by=None,
                now=now,
                languages=sale_text.languages(),
            )

    async def ask_about_silent(self) -> int:
        """Ask the provider about payments without an outcome; gives how many were asked about."""
        now = self.now_fn()
        async with self.pool.connection() as conn:
            waiting = await payment_store.list_open_payments(conn, limit=LOOK_THROUGH)
            silent = reconcile.payments_to_ask(waiting, now)[:BATCH]
            silent += await payment_store.list_expired_payments(
                conn, since=now - reconcile.EXPIRED_ASKED_FOR, now=now, limit=BATCH
            )
            for payment in silent:
                await payment_store.mark_payment_asked(conn, payment.id, now)
        gate = asyncio.Semaphore(ASK_AT_ONCE)

        async def ask(payment: Payment) -> bool:
            async with gate:
                return await self._ask(payment)

        answers = await asyncio.gather(*(ask(payment) for payment in silent))
        if answers and all(answers) == self.provider_away:
            self.provider_away = not all(answers)
            log.warning("payment provider %s", "is silent" if self.provider_away else "answers again")
        return len(silent)

    async def _ask(self, payment: Payment) -> bool:
        """Ask about one payment and take in the answer; False when the provider is away."""
        now = self.now_fn()
        try:
            event = await self.provider.ask(payment.id, now)
        except ProviderUnavailable:
            return False
        try:
            async with self.pool.connection() as conn:
                if event is not None:
                    await sell.settle_payment(conn, event, now)
                elif reconcile.should_give_up(payment, now):
                    await sell.give_up_payment(conn, payment.id, now)
        except BillingError as error:
            log.error("payment %s: %s", payment.id, error.code)  # noqa: TRY400 - the code says it all
        return True
