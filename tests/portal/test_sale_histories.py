"""Any history of a sale: whatever comes in whatever order, there is one token or none, and the books add up."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import reconcile
from billing.errors import BillingError
from billing.states import OWED_STATES, VendState
from portal import sell
from tests.billing.world import Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import LossyVault, all_rows, buy, event_of, one, settle

STEPS = ("confirm", "confirm_again", "decline", "wrong_amount", "give_up", "deliver", "start_again", "wait")
houses = itertools.count(1)


@pytest.mark.anyio
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=3, max_size=12),
    vault_plan=st.lists(st.sampled_from(["ok", "lost", "silent", "refuse"]), max_size=3),
    debt=st.sampled_from([0, 300, 9_000]),
)
async def test_any_history_leaves_one_token_or_none(pool, steps, vault_plan, debt):
    clock = Clock()
    async with pool.connection() as conn:
        if not await one(pool, "SELECT count(*) FROM billing.tariff"):
            await make_tariffs(conn)
        house = await make_house(conn, next(houses), debt_minor=debt)
    vault = LossyVault(make_vault(), vault_plan)
    quote, payment = await buy(pool, house)
    for number, step in enumerate(steps):
        clock.forward(seconds=7)
        await take(step, number, pool, house, vault, quote, payment, clock)
        async with pool.connection() as conn:
            assert await reconcile.list_imbalances(conn) == []
    await check(pool, house, quote, payment, steps)


async def take(step, number, pool, house, vault, quote, payment, clock):
    events = {
        "confirm": event_of(payment),
        "confirm_again": event_of(payment, event_id=f"evt_{payment.id}_{number}"),
        "decline": event_of(payment, "declined"),
        "wrong_amount": event_of(payment, event_id=f"evt_{payment.id}_bad{number}", amount_minor=1),
    }
    try:
        if step in events:
            await settle(pool, events[step], now=clock())
        elif step == "give_up":
            async with pool.connection() as conn:
                await sell.give_up_payment(conn, payment.id, clock())
        elif step == "deliver":
            await sell.deliver_token(pool, vault, quote.vend_id, clock)
        elif step == "start_again":
            async with pool.connection() as conn:
                again = await sell.start_payment(
                    conn,
                    quote_id=quote.id,
                    customer_id=house.customer_id,
                    idempotency_key=f"k{number}",
                    language="en",
                    now=clock(),
                )
                assert again.id == payment.id
        else:
            clock.forward(minutes=40)
    except BillingError:
        assert step == "wrong_amount"


async def check(pool, house, quote, payment, steps):
    state, tid = await one(pool, "SELECT state, tid FROM billing.vend WHERE id = %s", quote.vend_id)
    paid_state = await one(pool, "SELECT state FROM billing.payment WHERE id = %s", payment.id)
    tokens = await all_rows(pool, "SELECT tid FROM billing.token WHERE meter_id = %s", house.meter_id)
    assert tokens == ([(tid,)] if state == VendState.VENDED else [])
    assert (paid_state == "CONFIRMED") == (state in {*OWED_STATES, VendState.VENDED})
    last_tid = await one(
        pool, "SELECT last_tid FROM billing.sts_identity WHERE meter_id = %s", house.meter_id
    )
    assert last_tid == (-1 if tid is None else tid)
    if not {"confirm", "confirm_again"} & set(steps):
        assert state == VendState.QUOTED
