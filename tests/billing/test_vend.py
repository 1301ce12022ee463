"""Quotes on a real database: prices from the month's units, refusals, and warnings before buying twice."""

from datetime import UTC, datetime, timedelta

import pytest

from billing import customer_store, identity_store, quote_store, tariff_store, vend
from billing.errors import InvalidVend, NotFound
from billing.states import VendState
from billing.tariff import Step, price_units
from portal import sell
from tests.billing.world import NOW, Clock, make_house, make_meter, make_tariffs, make_vault
from tests.portal.sales import LossyVault, buy, event_of, settle


@pytest.fixture
async def house(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn)


async def quote_of(conn, house, amount_minor, now=NOW):
    return await vend.make_quote(
        conn, customer_id=house.customer_id, meter_drn=house.drn, amount_minor=amount_minor, now=now
    )


async def test_a_quote_shows_its_arithmetic(pool, house):
    async with pool.connection() as conn:
        quote = await quote_of(conn, house, 5_000)
        assert (quote.units_tenths, quote.energy_minor, quote.vat_minor, quote.change_minor) == (
            3_401,
            4_761,
            238,
            1,
        )
        assert quote.steps == (Step(3_401, 14_000, 4_761),)
        assert quote.arrears_minor == 0
        assert quote.expires_at - quote.created_at == timedelta(minutes=15)
        tariff = await tariff_store.get_tariff(conn, quote.tariff_id)
        price = price_units(tariff, month_to_date_tenths=0, units_tenths=quote.units_tenths)
        assert price.steps == quote.steps
        mine = await quote_store.get_quote_of_customer(conn, quote.id, customer_id=house.customer_id)
        assert mine == quote
        with pytest.raises(NotFound):
            await quote_store.get_quote_of_customer(conn, quote.id, customer_id=house.customer_id + 1)


async def test_arrears_come_off_first(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn, debt_minor=30_000)
        quote = await quote_of(conn, house, 10_000)
        assert quote.arrears_minor == 2_000
        assert quote.energy_minor + quote.vat_minor + quote.change_minor == 8_000


async def test_water_is_priced_by_the_cubic_metre(pool, house):
    async with pool.connection() as conn:
        water = await make_house(conn, 2, commodity="water")
        quote = await quote_of(conn, water, 1_000)
        # 0.055 + 5 % for each 0.1 m3: 17 tenths cost 935 + 47 = 982, 18 cost 990 + 50 = 1040
        assert (quote.commodity, quote.units_tenths, quote.energy_minor, quote.vat_minor) == (
            "water",
            17,
            935,
            47,
        )
        assert quote.change_minor == 18


async def test_units_of_the_month_move_the_block(pool, house):
    clock = Clock()
    first, payment = await buy(pool, house, 14_000, now=clock())
    await settle(pool, event_of(payment), now=clock.forward(seconds=5))
    async with pool.connection() as conn:
        used = await vend.get_month_to_date_tenths(conn, house.meter_id, clock.forward(seconds=1))
        assert used == first.units_tenths
        second = await quote_of(conn, house, 14_000, clock())
        assert [step.rate_micro for step in second.steps] == [14_000, 20_000]
        assert second.steps[0].units_tenths == 10_000 - first.units_tenths
        # In Muscat the month ends four hours earlier than in UTC.
        last_hour = datetime(2026, 11, 30, 19, 59, tzinfo=UTC)
        assert await vend.get_month_to_date_tenths(conn, house.meter_id, last_hour) == first.units_tenths
        next_month = last_hour + timedelta(minutes=1)
        assert await vend.get_month_to_date_tenths(conn, house.meter_id, next_month) == 0


@pytest.mark.parametrize(
    ("amount", "code", "facts"),
    [
        (499, "amount_below_minimum", {"minimum_minor": 500}),
        (100_001, "amount_above_maximum", {"maximum_minor": 100_000}),
    ],
)
async def test_limits_are_the_tariffs(pool, house, amount, code, facts):
    async with pool.connection() as conn:
        with pytest.raises(InvalidVend) as refused:
            await quote_of(conn, house, amount)
        assert (refused.value.code, refused.value.facts) == (code, facts)
        assert (await quote_of(conn, house, 500)).amount_minor == 500
        assert (await quote_of(conn, house, 100_000)).amount_minor == 100_000


async def test_a_meter_that_is_not_mine_is_not_there(pool, house):
    async with pool.connection() as conn:
        other = await make_house(conn, 2)
        _shelf, shelf_drn = await make_meter(conn, 3)
        for drn in (other.drn, shelf_drn, "nonsense"):
            with pytest.raises(NotFound):
                await vend.make_quote(
                    conn, customer_id=house.customer_id, meter_drn=drn, amount_minor=5_000, now=NOW
                )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE billing.sts_identity SET kt = 1", "meter_not_commissioned"),
        ("UPDATE billing.sts_identity SET ken = 0", "meter_key_expired"),
        ("UPDATE billing.sts_identity SET base_date = 1993", "meter_cannot_take_tokens"),
        ("DELETE FROM billing.sts_identity", "meter_cannot_take_tokens"),
    ],
)
async def test_a_meter_that_takes_no_token_takes_no_money(pool, house, change, code):
    async with pool.connection() as conn:
        await conn.execute(change)
        with pytest.raises(InvalidVend) as refused:
            await quote_of(conn, house, 5_000)
        assert refused.value.code == code


async def test_an_open_sale_warns_before_the_next(pool, house):
    clock = Clock()
    async with pool.connection() as conn:
        await quote_of(conn, house, 5_000)
        assert await vend.list_open_vends(conn, house.meter_id, clock()) == []
    quote, payment = await buy(pool, house)
    async with pool.connection() as conn:
        (paying,) = await vend.list_open_vends(conn, house.meter_id, clock())
        assert (paying.vend_id, paying.state, paying.payment_state) == (
            quote.vend_id,
            VendState.QUOTED,
            "PENDING",
        )
        assert await vend.list_open_vends(conn, house.meter_id, clock.forward(hours=1)) == []
    await settle(pool, event_of(payment))
    vault = LossyVault(make_vault(), ["silent"])
    await sell.deliver_token(pool, vault, quote.vend_id, clock)
    async with pool.connection() as conn:
        (unknown,) = await vend.list_open_vends(conn, house.meter_id, clock.forward(days=3))
        assert unknown.state is VendState.UNKNOWN
    await sell.deliver_token(pool, vault, quote.vend_id, clock)
    async with pool.connection() as conn:
        assert await vend.list_open_vends(conn, house.meter_id, clock()) == []


async def test_customers_and_their_meters(pool, house):
    async with pool.connection() as conn:
        customer = await customer_store.get_customer(conn, house.customer_id)
        assert await customer_store.find_customer_by_phone(conn, customer.phone) == customer
        assert await customer_store.find_customer_by_phone(conn, "+96899999999") is None
        (agreement,) = await customer_store.list_agreements(conn, house.customer_id)
        assert (agreement.drn, agreement.meter_id, agreement.tariff_code) == (
            house.drn,
            house.meter_id,
            "home-electricity",
        )
        with pytest.raises(NotFound):
            await customer_store.get_customer(conn, 999_999)


async def test_tariffs_have_versions(pool, house):
    async with pool.connection() as conn:
        (electricity, _water) = await tariff_store.list_tariffs(conn)
        later = NOW + timedelta(days=30)
        await tariff_store.insert_tariff(
            conn,
            code=electricity.code,
            version=2,
            commodity="electricity",
            valid_from=later,
            name_en="Home",
            name_ar="سكني",
            blocks=electricity.blocks[-1:],
            vat_basis_points=0,
            arrears_cap_percent=10,
            minimum_minor=100,
            maximum_minor=200_000,
        )
        now = await tariff_store.get_tariff_at(conn, electricity.code, NOW)
        then = await tariff_store.get_tariff_at(conn, electricity.code, later)
        assert (now.version, then.version, then.blocks) == (1, 2, electricity.blocks[-1:])
        with pytest.raises(NotFound):
            await tariff_store.get_tariff_at(conn, "no-such", NOW)


async def test_tids_are_given_out_in_turn_and_given_back_by_a_rollback(pool, house):
    async with pool.connection() as conn:
        first = await identity_store.allocate_tid(conn, house.meter_id, NOW)
    with pytest.raises(RuntimeError):
        async with pool.connection() as conn:
            await identity_store.allocate_tid(conn, house.meter_id, NOW)
            raise RuntimeError
    async with pool.connection() as conn:
        second = await identity_store.allocate_tid(conn, house.meter_id, NOW)
        back_in_time = await identity_store.allocate_tid(conn, house.meter_id, NOW - timedelta(days=1))
    assert (first.base_date, second.tid, back_in_time.tid) == (2014, first.tid + 1, first.tid + 2)
    # 00:01 of a day is kept for special tokens.
    async with pool.connection() as conn:
        reserved = datetime(2026, 12, 1, 0, 1, tzinfo=UTC)
        assert (await identity_store.allocate_tid(conn, house.meter_id, reserved)).tid % 1440 == 2
        await conn.execute("UPDATE billing.sts_identity SET last_tid = 16777215")
        with pytest.raises(InvalidVend) as refused:
            await identity_store.allocate_tid(conn, house.meter_id, NOW)
        assert refused.value.code == "no_tid_left"
