"""Sales read back from the database: scope in the WHERE, progress from what the meters' rooms wrote."""

from datetime import timedelta
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from billing.errors import NotFound
from portal import message_store, sale_store, sell
from portal.sale import Outcome, Stage
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import all_rows, buy, event_of, one, settle


@pytest.fixture
async def sold(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    await sell.deliver_token(pool, make_vault(), quote.vend_id, Clock(NOW + timedelta(seconds=2)))
    return house, quote, payment


async def add_event(conn, meter_id, code, at, **detail):
    await conn.execute(
        "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, detail) VALUES (%s, 'e', %s, %s, %s)",
        (meter_id, code, at, Jsonb(detail)),
    )


async def add_reading(conn, meter_id, channel, at, value):
    await conn.execute(
        "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value) VALUES (%s, %s, %s, %s)",
        (meter_id, channel, at, value),
    )


async def test_a_sale_is_its_owners_and_the_staffs(pool, sold):
    house, quote, payment = sold
    async with pool.connection() as conn:
        for scope in (house.customer_id, None):
            sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=scope)
            assert (sale.row.vend_id, sale.row.drn, sale.row.steps) == (quote.vend_id, house.drn, quote.steps)
            assert len(sale.row.digits) == 20
            same = await sale_store.get_sale_of_payment(conn, payment_id=payment.id, customer_id=scope)
            assert same == sale
        stranger = house.customer_id + 1
        for read in (
            sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=stranger),
            sale_store.get_sale(conn, vend_id=UUID(int=1), customer_id=None),
            sale_store.get_sale_of_payment(conn, payment_id=payment.id, customer_id=stranger),
        ):
            with pytest.raises(NotFound):
                await read


async def test_lists_leave_out_what_nobody_began_to_pay(pool, sold):
    house, quote, _payment = sold
    async with pool.connection() as conn:
        from billing.vend import make_quote

        await make_quote(conn, customer_id=house.customer_id, meter_drn=house.drn, amount_minor=900, now=NOW)
        other = await make_house(conn, 2)
    later, _pending = await buy(pool, house, 6_000, now=NOW + timedelta(minutes=1))
    async with pool.connection() as conn:
        mine = await sale_store.list_sales(conn, customer_id=house.customer_id)
        assert [sale.row.vend_id for sale in mine] == [later.vend_id, quote.vend_id]
        assert [sale.progress.outcome for sale in mine] == [Outcome.PAYING, Outcome.ISSUED]
        assert await sale_store.list_sales(conn, customer_id=other.customer_id) == []
        assert await sale_store.list_sales(conn, customer_id=other.customer_id, meter_id=house.meter_id) == []
        last = await sale_store.find_last_sale(conn, meter_id=house.meter_id)
        assert last.row.vend_id == later.vend_id
        assert await sale_store.find_last_sale(conn, meter_id=other.meter_id) is None
        with pytest.raises(ValueError, match="customer or of a meter"):
            await sale_store.list_sales(conn)


async def test_progress_grows_with_what_the_command_tells(pool, sold):
    house, quote, _payment = sold

    async def progress():
        async with pool.connection() as conn:
            return (await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=None)).progress

    async def step(state, seconds, **detail):
        async with pool.connection() as conn:
            await conn.execute(
                "INSERT INTO meter_gateway.meter_command_step (command_id, state, occurred_at, detail)"
                " SELECT id, %s, %s, %s FROM meter_gateway.meter_command",
                (state, NOW + timedelta(seconds=seconds), Jsonb(detail)),
            )

    assert (await progress()).reached is Stage.SENT  # the SMS is in the outbox
    await step("SENT", 3)
    await step("ACCEPTED", 4)
    assert (await progress()).reached is Stage.DELIVERED
    await step("VERIFIED", 6, result="ACCEPT", relay=0, credit=1, load=0)
    assert (await progress()).outcome is Outcome.APPLIED
    async with pool.connection() as conn:
        await add_event(
            conn, house.meter_id, "raseed.relay", NOW + timedelta(seconds=8), relay=1, reason="none"
        )
    powered = await progress()
    assert (powered.outcome, powered.paid_to_applied_s, powered.paid_to_power_s) == (Outcome.POWERED, 6, 8)


async def test_a_token_typed_at_the_meter_is_seen_by_its_tid(pool, sold):
    house, quote, _payment = sold
    async with pool.connection() as conn:
        row = (await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=None)).row
        at = NOW + timedelta(seconds=40)
        await add_event(
            conn, house.meter_id, "raseed.token", at, tid=row.tid - 1, result="ACCEPT", carrier="keypad"
        )
        sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=None)
        assert sale.progress.outcome is Outcome.ISSUED
        await add_event(
            conn, house.meter_id, "raseed.token", at, tid=row.tid, result="ACCEPT", carrier="keypad"
        )
        sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=None)
        assert (sale.progress.outcome, sale.progress.evidence) == (Outcome.APPLIED, "report")


async def test_readings_alone_can_prove_it(pool, sold):
    house, quote, _payment = sold
    async with pool.connection() as conn:
        for at, credit, counter, relay in (
            (NOW - timedelta(minutes=5), 0, 1_000, 0),
            (NOW + timedelta(minutes=5), quote.units_tenths * 100 - 250, 1_250, 1),
        ):
            await add_reading(conn, house.meter_id, "credit", at, credit)
            await add_reading(conn, house.meter_id, "counter", at, counter)
            await add_reading(conn, house.meter_id, "relay", at, relay)
        progress = (await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=None)).progress
    assert (progress.outcome, progress.evidence, progress.paid_to_power_s) == (
        Outcome.POWERED,
        "balance",
        300,
    )


async def test_messages_go_out_once_and_are_found_again(pool, sold):
    house, quote, _payment = sold
    async with pool.connection() as conn:
        message = await message_store.find_message(conn, f"token:{quote.vend_id}")
        assert message.phone not in repr(message)
        for _ in range(2):
            stored = await message_store.insert_message(
                conn,
                idempotency_key="again",
                customer_id=house.customer_id,
                phone=message.phone,
                kind="payment",
                language="en",
                body="b",
                now=NOW,
            )
        assert stored is False
        assert len(await message_store.list_messages_to(conn, message.phone, limit=9)) == 2
        assert len(await message_store.list_newest_messages(conn, limit=1)) == 1
    async with pool.connection() as one_sender, pool.connection() as other_sender:
        mine = await message_store.lock_unsent(one_sender, limit=1)
        theirs = await message_store.lock_unsent(other_sender, limit=9)
        assert {m.id for m in mine} & {m.id for m in theirs} == set()
        await message_store.mark_sent(one_sender, [m.id for m in mine], NOW)
        await message_store.mark_sent(other_sender, [m.id for m in theirs], NOW)
    assert await all_rows(pool, "SELECT 1 FROM portal.message WHERE sent_at IS NULL") == []
    async with pool.connection() as conn:
        await message_store.mark_sent(conn, [mine[0].id], NOW + timedelta(hours=1))
    assert await one(pool, "SELECT max(sent_at) FROM portal.message") == NOW
    async with pool.connection() as conn:
        sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=None)
        assert sale.progress.reached is Stage.DELIVERED


async def test_a_meters_link(pool, sold):
    house, _quote, _payment = sold
    async with pool.connection() as conn:
        assert (await sale_store.get_meter_link(conn, house.meter_id)).link == "mqtt"
        with pytest.raises(NotFound):
            await sale_store.get_meter_link(conn, 10**9)
