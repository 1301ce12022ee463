"""What needs a second look: payments to ask about, vends that are stuck, books that do not balance."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import psycopg

from billing import books_store
from billing.books_store import Imbalance
from billing.payment_store import Payment
from billing.states import UNFINISHED_STATES
from billing.vend_store import Vend

# A customer waits on the page: ask soon at first, then ever more seldom. (age up to, ask each)
ASK_STEPS = (
    (timedelta(minutes=1), timedelta(seconds=5)),
    (timedelta(minutes=10), timedelta(seconds=20)),
    (timedelta(hours=1), timedelta(minutes=2)),
)
ASK_SELDOM = timedelta(minutes=15)
# After the provider's own page has closed and it still says that nothing happened.
PAYMENT_LIFETIME = timedelta(minutes=30)
# A payment that was given up is still asked about, at one, two, four ... hours: money may have come by a page that
# was open then.
EXPIRED_ASKED_FOR = timedelta(hours=24)
# From payment to token a minute is the target (field rule 4.6.8); after five a person is told.
LATE_AFTER = timedelta(minutes=5)
# One answer of the vault takes well under a second; more than this and its worker is gone or hangs.
STUCK_AFTER = timedelta(seconds=3)
STUCK_LONGEST = timedelta(minutes=1)
_DOUBLINGS = 5  # 3 s doubled five times is past STUCK_LONGEST


def should_ask(payment: Payment, now: datetime) -> bool:
    """Whether it is time to ask the provider about a payment without an outcome."""
    age = now - payment.created_at
    interval = next((each for limit, each in ASK_STEPS if age <= limit), ASK_SELDOM)
    return now - (payment.asked_at or payment.created_at) >= interval


def payments_to_ask(payments: Iterable[Payment], now: datetime) -> list[Payment]:
    """Those of the open payments that it is time to ask about."""
    return [payment for payment in payments if should_ask(payment, now)]


def should_give_up(payment: Payment, now: datetime) -> bool:
    """Whether a payment that the provider calls undecided is over."""
    return now - payment.created_at >= PAYMENT_LIFETIME


def is_stuck(vend: Vend, now: datetime) -> bool:
    """Whether a vend waits for an answer that nobody is getting; each attempt doubles the wait, to a minute."""
    if vend.state not in UNFINISHED_STATES:
        return False
    since = vend.requested_at or vend.paid_at
    wait = min(STUCK_AFTER * 2 ** min(max(vend.attempts - 1, 0), _DOUBLINGS), STUCK_LONGEST)
    return since is None or now - since >= wait


def stuck_vends(vends: Iterable[Vend], now: datetime) -> list[Vend]:
    """Those of the unfinished vends that must be delivered again."""
    return [vend for vend in vends if is_stuck(vend, now)]


async def list_imbalances(conn: psycopg.AsyncConnection) -> list[Imbalance]:
    """Everything in the books that does not add up; an empty list is the only good answer."""
    return await books_store.list_imbalances(conn)
