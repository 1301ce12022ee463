from datetime import timedelta

import pytest

from portal import my_store
from portal.access import NotFound
from portal.consumption import bounds_of, buckets, pace
from portal.formats import in_muscat
from tests.billing.world import make_house, make_tariffs
from tests.portal.sales import buy, event_of, settle
from tests.portal.small_town import NOW


async def readings(conn, meter_id, pairs, channel="counter", quality="valid"):
    for at, value in pairs:
        await conn.execute(
            "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, quality)"
            " VALUES (%s, %s, %s, %s, %s)",
            (meter_id, channel, at, value, quality),
        )


async def test_a_customer_sees_her_meters_and_no_others(conn) -> None:
    await make_tariffs(conn)
    mine, other = await make_house(conn, 1), await make_house(conn, 2, commodity="water")
    assert [meter.drn for meter in await my_store.list_meters(conn, mine.customer_id)] == [mine.drn]
    meter = await my_store.get_meter(conn, mine.customer_id, mine.drn)
    assert (meter.commodity, meter.credit, meter.link_up) == ("electricity", None, False)
    assert (meter.address("ar"), meter.address("en")) == ("ع", "A")
    for drn in (other.drn, "00000000000", "'; --"):
        with pytest.raises(NotFound):
            await my_store.get_meter(conn, mine.customer_id, drn)


async def test_bars_come_from_the_readings_next_to_their_bounds(conn) -> None:
    await make_tariffs(conn)
    house = await make_house(conn)
    midnight = bounds_of("day", in_muscat(NOW).date())[0]
    await readings(
        conn, house.meter_id, [(midnight + timedelta(minutes=30 * n), 1_000 + 50 * n) for n in range(13)]
    )
    await readings(conn, house.meter_id, [(midnight + timedelta(minutes=45), 999_999)], quality="suspect")
    await readings(conn, house.meter_id, [(midnight, 5)], channel="credit")
    bounds = bounds_of("day", in_muscat(NOW).date())
    found = buckets(await my_store.list_counters_around(conn, house.meter_id, bounds), "day", NOW)
    assert [bar.used for bar in found[:6]] == [100] * 6
    assert {bar.used for bar in found[6:]} == {None}, "after the last reading there are gaps"
    used, span = pace(
        await my_store.list_counters_around(conn, house.meter_id, [midnight - timedelta(days=14), NOW])
    )
    assert (used, span) == (600, timedelta(hours=6))


async def test_sales_are_listed_newest_first_and_only_ones_own(pool) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        mine, other = await make_house(conn, 1), await make_house(conn, 2)
    _quote, first = await buy(pool, mine, 5_000)
    await settle(pool, event_of(first))
    await buy(pool, mine, 6_000, now=NOW + timedelta(minutes=1))
    await buy(pool, other, 7_000)
    async with pool.connection() as conn:
        sales = await my_store.list_sales(conn, mine.customer_id, limit=10)
        assert sorted(sale.amount_minor for sale in sales) == [5_000, 6_000]
        assert len(await my_store.list_sales(conn, mine.customer_id, limit=1)) == 1
        assert await my_store.list_sales(conn, mine.customer_id, meter_id=other.meter_id, limit=10) == []


async def test_a_token_is_known_by_its_digits_to_its_owner_only(pool) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        mine, other = await make_house(conn, 1), await make_house(conn, 2)
    quote, payment = await buy(pool, mine)
    await settle(pool, event_of(payment))
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO billing.token (vend_id, meter_id, base_date, tid, class, subclass, units_tenths, digits,"
            " purpose, issued_by, issued_at) SELECT id, meter_id, base_date, tid, 0, 0, 1, %s, 'credit', 'w', now()"
            " FROM billing.vend WHERE id = %s",
            ("1" * 20, quote.vend_id),
        )
        assert await my_store.find_meter_of_token(conn, mine.customer_id, "1" * 20) == mine.drn
        assert await my_store.find_meter_of_token(conn, other.customer_id, "1" * 20) is None
        assert await my_store.find_meter_of_token(conn, mine.customer_id, "2" * 20) is None
