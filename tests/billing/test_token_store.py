"""The token register and the audit of key use: one token a vend, facts that nobody changes."""

import psycopg
import pytest

from billing import token_store
from billing.errors import IdempotencyConflict
from portal import sell
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import buy, event_of, one, settle


@pytest.fixture
async def sold(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    await sell.deliver_token(pool, make_vault(), quote.vend_id, Clock())
    return house, quote


def again(token, **change):
    return {
        "vend_id": token.vend_id,
        "meter_id": token.meter_id,
        "base_date": token.base_date,
        "tid": token.tid,
        "subclass": token.subclass,
        "units_tenths": token.units_tenths,
        "digits": token.digits,
        "now": NOW,
    } | change


async def test_a_vend_has_one_token(pool, sold):
    _house, quote = sold
    async with pool.connection() as conn:
        token = await token_store.find_token_of_vend(conn, quote.vend_id)
        assert token.digits not in repr(token)
        assert await token_store.insert_credit_token(conn, **again(token)) == token
        with pytest.raises(IdempotencyConflict):
            await token_store.insert_credit_token(conn, **again(token, digits="9" * 20))
    assert await one(pool, "SELECT count(*) FROM billing.token") == 1


async def test_no_two_tokens_of_a_meter_share_a_tid(pool, sold):
    house, quote = sold
    other, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    async with pool.connection() as conn:
        token = await token_store.find_token_of_vend(conn, quote.vend_id)
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with pool.connection() as conn:
            await token_store.insert_credit_token(conn, **again(token, vend_id=other.vend_id))


async def test_service_tokens_stand_beside_sold_ones(pool, sold):
    house, _quote = sold
    async with pool.connection() as conn:
        test = await token_store.insert_service_token(
            conn,
            meter_id=house.meter_id,
            base_date=2014,
            tid=None,
            token_class=1,
            subclass=0,
            units_tenths=None,
            digits="0" * 20,
            purpose="test",
            issued_by="engineer",
            reason="lamp",
            now=NOW,
        )
        assert (test.vend_id, test.tid, test.purpose) == (None, None, "test")
        newest = await token_store.list_tokens_of_meter(conn, house.meter_id, limit=5)
        assert [token.purpose for token in newest] == ["test", "credit"]
        assert len(await token_store.list_tokens_of_meter(conn, house.meter_id, limit=1)) == 1


@pytest.mark.parametrize("table", ["token", "key_use", "vend_step", "journal", "posting", "payment_event"])
@pytest.mark.parametrize("change", ["DELETE FROM", "UPDATE"])
async def test_facts_are_never_changed(pool, sold, table, change):
    column = {"key_use": "used_by", "vend_step": "detail", "journal": "reference", "posting": "account"}.get(
        table, "status" if table == "payment_event" else "reason"
    )
    statement = (
        f"DELETE FROM billing.{table}" if change != "UPDATE" else f"UPDATE billing.{table} SET {column} = ''"
    )
    with pytest.raises(psycopg.errors.RestrictViolation):
        async with pool.connection() as conn:
            await conn.execute(statement)
