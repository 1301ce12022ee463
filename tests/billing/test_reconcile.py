"""When to ask again, and that the check of the books sees what is wrong in them."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from billing import ledger_store, reconcile
from billing.ledger import Entry, Posting
from billing.payment_store import Payment
from billing.states import PaymentState, VendState
from billing.vend_store import Vend
from portal import sell
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import buy, event_of, settle

PAYMENT = Payment(
    UUID(int=9), UUID(int=1), "k", "sandbox", 5_000, PaymentState.PENDING, "ar", NOW, None, None
)
VEND = Vend(UUID(int=1), UUID(int=2), None, 1, VendState.PAID, 2014, 5, 3, 1, NOW, None, None, 0)


@pytest.mark.parametrize(
    ("age_s", "asked_s_ago", "ask"),
    [(4, None, False), (5, None, True), (50, 4, False), (50, 5, True), (300, 19, False), (300, 20, True),
     (1800, 119, False), (1800, 120, True), (90_000, 600, False), (90_000, 900, True)],
)  # fmt: skip
def test_silent_payments_are_asked_about_ever_more_seldom(age_s, asked_s_ago, ask):
    now = NOW + timedelta(seconds=age_s)
    asked = None if asked_s_ago is None else now - timedelta(seconds=asked_s_ago)
    assert reconcile.should_ask(replace(PAYMENT, asked_at=asked), now) is ask
    assert reconcile.payments_to_ask([replace(PAYMENT, asked_at=asked)], now) == (
        [replace(PAYMENT, asked_at=asked)] if ask else []
    )


def test_giving_up_waits_until_the_providers_page_is_closed():
    assert not reconcile.should_give_up(PAYMENT, NOW + timedelta(minutes=29))
    assert reconcile.should_give_up(PAYMENT, NOW + timedelta(minutes=30))


@pytest.mark.parametrize(
    ("state", "attempts", "idle_s", "stuck"),
    [
        (VendState.PAID, 0, 2, False),
        (VendState.PAID, 0, 3, True),
        (VendState.REQUESTED, 1, 3, True),
        (VendState.UNKNOWN, 2, 5, False),
        (VendState.UNKNOWN, 2, 6, True),
        (VendState.UNKNOWN, 9, 59, False),
        (VendState.UNKNOWN, 9, 60, True),
        (VendState.QUOTED, 0, 999, False),
        (VendState.VENDED, 1, 999, False),
        (VendState.REFUSED, 1, 999, False),
    ],
)
def test_stuck_vends(state, attempts, idle_s, stuck):
    vend = replace(VEND, state=state, attempts=attempts, requested_at=NOW if attempts else None)
    assert reconcile.stuck_vends([vend], NOW + timedelta(seconds=idle_s)) == ([vend] if stuck else [])


@pytest.fixture
async def sold(pool):
    """One sale that is through, and one that is paid."""
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn, debt_minor=300)
    done, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    await sell.deliver_token(pool, make_vault(), done.vend_id, Clock())
    paid, other = await buy(pool, house)
    await settle(pool, event_of(other))
    return house, done, paid


async def kinds(pool):
    async with pool.connection() as conn:
        return sorted({found.kind for found in await reconcile.list_imbalances(conn)})


async def test_good_books_have_nothing_to_say(pool, sold):
    assert await kinds(pool) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE billing.vend SET state = 'VENDED' WHERE state = 'PAID'",
         ["prepaid_liability", "vend_energy_or_vat", "vend_not_posted", "vend_tokens"]),
        ("UPDATE billing.vend SET state = 'UNKNOWN' WHERE state = 'VENDED'",
         ["prepaid_liability", "token_without_vend"]),
        ("UPDATE billing.payment SET state = 'PENDING'", ["payment_posted_unconfirmed"]),
        ("UPDATE billing.quote SET units_tenths = units_tenths + 1", ["vend_tokens"]),
        ("UPDATE billing.quote SET energy_minor = energy_minor + 1, amount_minor = amount_minor + 1",
         ["prepaid_liability", "vend_energy_or_vat", "vend_not_posted"]),
        ("UPDATE billing.payment SET amount_minor = amount_minor - 1", ["payment_not_posted"]),
    ],
)  # fmt: skip
async def test_bad_books_are_seen(pool, sold, statement, found):
    async with pool.connection() as conn:
        await conn.execute(statement)
    assert await kinds(pool) == found


@pytest.mark.parametrize(
    ("account", "amount_minor", "found"),
    [
        ("arrears_receivable", -500, ["arrears_overpaid"]),
        ("customer_change", 9_000, ["change_overdrawn"]),
        ("prepaid_liability", -1, ["prepaid_liability"]),
    ],
)
async def test_an_entry_that_balances_and_is_wrong_is_seen(pool, sold, account, amount_minor, found):
    house, _done, _paid = sold
    postings = (
        Posting(account, amount_minor, house.customer_id),
        Posting("provider_clearing", -amount_minor),
    )
    async with pool.connection() as conn:
        await ledger_store.insert_entry(conn, Entry("payment", "wrong", "wrong", postings), now=NOW)
    assert await kinds(pool) == found


async def test_a_posting_without_its_other_side_never_gets_in(pool, sold):
    with pytest.raises(Exception, match="does not balance"):
        async with pool.connection() as conn:
            await conn.execute(
                "INSERT INTO billing.posting (journal_id, line, account, amount_minor)"
                " SELECT max(id), 9, 'provider_clearing', 5 FROM billing.journal"
            )
    assert await kinds(pool) == []
