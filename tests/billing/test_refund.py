"""Money that goes back: only from sales without a usable token, once, and the books still add up."""

from uuid import UUID

import pytest

from billing import ledger_store, reconcile
from billing.errors import BooksBroken, NotFound
from billing.ledger import ARREARS_RECEIVABLE, PREPAID_LIABILITY, PROVIDER_CLEARING
from billing.refund import refund_vend, reverse_vend
from billing.states import VendState
from portal import sell
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import LossyVault, buy, event_of, settle


@pytest.fixture
async def house(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn, debt_minor=400)


async def sold(pool, house, plan=()):
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    await sell.deliver_token(pool, LossyVault(make_vault(), plan), quote.vend_id, Clock())
    return quote


async def take_back(pool, step, vend_id):
    async with pool.connection() as conn:
        who = {"reason": "test", "now": NOW}
        if step is refund_vend:
            return await refund_vend(conn, vend_id, refunded_by="huda", **who)
        return await reverse_vend(conn, vend_id, reversed_by="huda", **who)


async def balance(pool, account):
    async with pool.connection() as conn:
        assert await reconcile.list_imbalances(conn) == []
        return await ledger_store.get_balance_minor(conn, account)


async def test_a_refused_vend_is_refunded_once(pool, house):
    quote = await sold(pool, house, ["refuse"])
    for _ in range(2):
        assert await take_back(pool, refund_vend, quote.vend_id) is VendState.REFUNDED
    assert await balance(pool, PREPAID_LIABILITY) == 0
    assert await balance(pool, PROVIDER_CLEARING) == 0


async def test_an_issued_vend_is_reversed_before_it_is_refunded(pool, house):
    quote = await sold(pool, house)
    assert await balance(pool, ARREARS_RECEIVABLE) == 0
    with pytest.raises(BooksBroken):
        await take_back(pool, refund_vend, quote.vend_id)
    for _ in range(2):
        assert await take_back(pool, reverse_vend, quote.vend_id) is VendState.REVERSED
    assert await balance(pool, ARREARS_RECEIVABLE) == 400
    assert await balance(pool, PREPAID_LIABILITY) == -5_000
    assert await take_back(pool, refund_vend, quote.vend_id) is VendState.REFUNDED
    assert await balance(pool, PROVIDER_CLEARING) == 0


@pytest.mark.parametrize("step", [refund_vend, reverse_vend])
async def test_a_vend_whose_outcome_is_open_stays(pool, house, step):
    quote = await sold(pool, house, ["silent"])
    with pytest.raises(BooksBroken):
        await take_back(pool, step, quote.vend_id)
    with pytest.raises(NotFound):
        await take_back(pool, step, UUID(int=1))
    assert await balance(pool, PREPAID_LIABILITY) == -5_000
