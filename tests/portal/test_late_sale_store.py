"""Which sales wait for a person: the late, the refused, and those whose money stands in suspense."""

from datetime import timedelta

import pytest

from portal import late_sale_store
from tests.billing.world import NOW, make_house, make_tariffs
from tests.portal.sales import buy, event_of, settle


@pytest.fixture
async def house(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn)


async def late(pool, *, minutes=0, since_days=1, limit=9):
    async with pool.connection() as conn:
        return await late_sale_store.list_late_sales(
            conn,
            paid_before=NOW + timedelta(minutes=minutes),
            since=NOW - timedelta(days=since_days),
            limit=limit,
        )


async def test_only_paid_sales_grow_late(pool, house):
    paid, payment = await buy(pool, house)
    await buy(pool, house)  # being paid: nobody waits for a token
    await settle(pool, event_of(payment))
    assert await late(pool, minutes=0) == []
    (found,) = await late(pool, minutes=1)
    assert (found.vend_id, found.drn, found.customer_id, found.amount_minor, found.paid_at) == (
        paid.vend_id,
        house.drn,
        house.customer_id,
        5_000,
        NOW,
    )
    assert await late(pool, minutes=1, limit=0) == []


async def test_suspense_needs_a_person_whatever_the_hour_but_not_for_ever(pool, house):
    declined, payment = await buy(pool, house)
    for status in ("declined", "confirmed"):
        await settle(pool, event_of(payment, status))
    (found,) = await late(pool)
    assert (found.vend_id, found.paid_at) == (declined.vend_id, None)
    assert await late(pool, since_days=-1) == []
