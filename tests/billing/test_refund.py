"""Money that goes back: only from sales without a usable token, once, and the books still add up."""

from uuid import UUID

import pytest

from billing import held_money_store, ledger_store, reconcile
from billing.errors import BooksBroken, InvalidVend, NotFound
from billing.ledger import ARREARS_RECEIVABLE, PREPAID_LIABILITY, PROVIDER_CLEARING, SUSPENSE
from billing.refund import refund_vend, retry_vend, reverse_vend
from billing.states import VendState
from portal import sell
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import LossyVault, all_rows, buy, event_of, one, settle


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
        if step is retry_vend:
            return await retry_vend(conn, vend_id, retried_by="huda", **who)
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


@pytest.mark.parametrize("step", [refund_vend, reverse_vend, retry_vend])
async def test_a_vend_whose_outcome_is_open_stays(pool, house, step):
    quote = await sold(pool, house, ["silent"])
    if step is retry_vend:  # it is being asked again as it is
        assert await take_back(pool, step, quote.vend_id) is VendState.UNKNOWN
    else:
        with pytest.raises(BooksBroken):
            await take_back(pool, step, quote.vend_id)
    with pytest.raises(NotFound):
        await take_back(pool, step, UUID(int=1))
    assert await balance(pool, PREPAID_LIABILITY) == -5_000


async def late_yes(pool, house):
    """Paid after a no: the money stands in suspense."""
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment, "declined"))
    await settle(pool, event_of(payment))
    return quote


async def held(pool):
    async with pool.connection() as conn:
        return [(row.vend_id, row.state, row.amount_minor) for row in await held_money_store.list_held(conn)]


async def test_money_in_suspense_goes_back_once(pool, house):
    quote = await late_yes(pool, house)
    assert await held(pool) == [(quote.vend_id, "SUSPENSE", 5_000)]
    for _ in range(2):
        assert await take_back(pool, refund_vend, quote.vend_id) is VendState.REFUNDED
    assert await held(pool) == []
    assert await balance(pool, SUSPENSE) == 0
    assert await balance(pool, PROVIDER_CLEARING) == 0


async def test_what_was_never_paid_is_not_returned(pool, house):
    quote, payment = await buy(pool, house)
    for _ in range(2):
        with pytest.raises(BooksBroken):
            await take_back(pool, refund_vend, quote.vend_id)
        await settle(pool, event_of(payment, "declined"))
    assert await held(pool) == []
    assert await balance(pool, PROVIDER_CLEARING) == 0


async def test_what_is_held_is_listed_until_it_is_returned_or_sold(pool, house):
    refused = await sold(pool, house, ["refuse"])
    issued = await sold(pool, house)
    assert await held(pool) == [(refused.vend_id, "REFUSED", 5_000)]
    await take_back(pool, reverse_vend, issued.vend_id)
    assert sorted(state for _, state, _ in await held(pool)) == ["REFUSED", "REVERSED"]
    await take_back(pool, refund_vend, issued.vend_id)
    await take_back(pool, retry_vend, refused.vend_id)
    assert await held(pool) == []


async def test_a_sale_without_a_key_is_asked_again_under_its_id_and_tid(pool, house):
    quote = await sold(pool, house, ["refuse"])
    tid = await one(pool, "SELECT tid FROM billing.vend WHERE id = %s", quote.vend_id)
    for _ in range(2):
        assert await take_back(pool, retry_vend, quote.vend_id) is VendState.REQUESTED
    with pytest.raises(BooksBroken):  # it may get its token now
        await take_back(pool, refund_vend, quote.vend_id)
    vault = LossyVault(make_vault())
    assert await sell.deliver_token(pool, vault, quote.vend_id, Clock()) is VendState.VENDED
    assert [(asked.request_id, asked.tid) for asked in vault.requests] == [(str(quote.vend_id), tid)]
    assert vault.fetched == [str(quote.vend_id)]
    assert await all_rows(pool, "SELECT tid FROM billing.token WHERE meter_id = %s", house.meter_id) == [
        (tid,)
    ]
    assert await take_back(pool, retry_vend, quote.vend_id) is VendState.VENDED
    assert await balance(pool, PREPAID_LIABILITY) == 0
    steps = await all_rows(
        pool, "SELECT state, detail FROM billing.vend_step WHERE vend_id = %s ORDER BY id", quote.vend_id
    )
    assert steps[-3:] == [("REFUSED", "unknown_key"), ("REQUESTED", "huda: test"), ("VENDED", "")]


async def test_a_second_refusal_leaves_it_to_be_refunded(pool, house):
    quote = await sold(pool, house, ["refuse"])
    await take_back(pool, retry_vend, quote.vend_id)
    again = LossyVault(make_vault(), ["refuse"])
    assert await sell.deliver_token(pool, again, quote.vend_id, Clock()) is VendState.REFUSED
    assert await take_back(pool, refund_vend, quote.vend_id) is VendState.REFUNDED
    with pytest.raises(BooksBroken):
        await take_back(pool, retry_vend, quote.vend_id)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE billing.sts_identity SET base_date = 2035, last_tid = -1", "base_date_moved"),
        ("UPDATE billing.sts_identity SET kt = 0", "meter_not_commissioned"),
        (
            (
                "INSERT INTO billing.vend_step (vend_id, state, occurred_at, detail)"
                " SELECT id, 'REFUSED', now(), 'other_content' FROM billing.vend"
            ),
            "not_for_want_of_a_key",
        ),
    ],
)
async def test_a_retry_that_could_lose_the_token_is_refused(pool, house, change, code):
    quote = await sold(pool, house, ["refuse"])
    async with pool.connection() as conn:
        await conn.execute(change)
    with pytest.raises(InvalidVend) as refusal:
        await take_back(pool, retry_vend, quote.vend_id)
    assert refusal.value.code == code
    assert await held(pool) == [(quote.vend_id, "REFUSED", 5_000)]
