"""Block tariffs: worked examples by hand, and what must hold for any tariff and amount."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.errors import BooksBroken, InvalidVend
from billing.tariff import Block, Step, Tariff, month_start, price_amount, price_units, read_blocks
from token_engine.fields import MAX_AMOUNT, decode_amount, encode_amount, largest_not_above

HOME = (Block(10_000, 14_000), Block(None, 20_000))


def make_tariff(blocks=HOME, vat=500, commodity="electricity"):
    return Tariff(1, "t", 1, commodity, "T", "ت", tuple(blocks), vat, 20, 500, 100_000)


def test_one_block_by_hand():
    # 100.0 kWh x 14 baisa = 1.400; VAT 5 % = 0.070
    price = price_units(make_tariff(), month_to_date_tenths=0, units_tenths=1_000)
    assert (price.energy_minor, price.vat_minor, price.total_minor) == (1_400, 70, 1_470)
    assert price.steps == (Step(1_000, 14_000, 1_400),)


def test_a_sale_over_the_edge_of_a_block_by_hand():
    # 950 kWh used: 50.0 at 14 = 0.700, then 20.5 at 20 = 0.410; VAT 5 % of 1.110 = 55.5, half up 56
    price = price_units(make_tariff(), month_to_date_tenths=9_500, units_tenths=705)
    assert price.steps == (Step(500, 14_000, 700), Step(205, 20_000, 410))
    assert (price.energy_minor, price.vat_minor) == (1_110, 56)


def test_rounding_is_half_up_once_and_steps_still_add_up():
    # 0.1 kWh x 14 = 1.4 baisa, then 0.1 at 15 = 1.5: 2.9 in all is 3; shown as 1 and 2
    tariff = make_tariff((Block(1, 14_000), Block(None, 15_000)), vat=0)
    price = price_units(tariff, month_to_date_tenths=0, units_tenths=2)
    assert price.energy_minor == 3
    assert [step.amount_minor for step in price.steps] == [1, 2]
    assert (
        price_units(make_tariff((Block(None, 5_000),)), month_to_date_tenths=0, units_tenths=1).energy_minor
        == 1
    )


def test_an_amount_buys_down_and_leaves_change_by_hand():
    # 5.000 OMR at 14 baisa + 5 %: 14.7 a kWh; 340.1 kWh = 4761.4 -> 4761 + 238 = 4999; 340.2 -> 4763 + 238 = 5001
    price = price_amount(make_tariff(), month_to_date_tenths=0, amount_minor=5_000)
    assert (price.units_tenths, price.energy_minor, price.vat_minor) == (3_401, 4_761, 238)


def test_a_large_amount_buys_only_what_a_token_can_carry():
    tariff = make_tariff((Block(None, 14_000),), vat=0)
    # 24.000 OMR buy 1714.2 kWh; above 1638.3 a token counts in whole kWh: 1714.0 would be 17139.6 tenths
    price = price_amount(tariff, month_to_date_tenths=0, amount_minor=24_000)
    assert price.units_tenths == largest_not_above(17_142)
    assert price.units_tenths < 17_142
    assert decode_amount(encode_amount(price.units_tenths)) == price.units_tenths


def test_too_little_buys_nothing():
    with pytest.raises(InvalidVend) as refused:
        price_amount(make_tariff((Block(None, 1_000_000),)), month_to_date_tenths=0, amount_minor=99)
    assert refused.value.code == "amount_buys_nothing"


@st.composite
def tariffs(draw):
    ends = sorted(draw(st.sets(st.integers(1, 100_000), max_size=4)))
    rates = draw(st.lists(st.integers(1, 2_000_000), min_size=len(ends) + 1, max_size=len(ends) + 1))
    blocks = [Block(end, rate) for end, rate in zip([*ends, None], rates, strict=True)]
    return make_tariff(blocks, vat=draw(st.integers(0, 2_500)))


@settings(max_examples=120, deadline=None)
@given(tariffs(), st.integers(0, 200_000), st.integers(1, 200_000))
def test_what_an_amount_buys(tariff, used, amount):
    try:
        price = price_amount(tariff, month_to_date_tenths=used, amount_minor=amount)
    except InvalidVend:
        one = price_units(tariff, month_to_date_tenths=used, units_tenths=1)
        assert one.total_minor > amount
        return
    assert price.total_minor <= amount
    assert sum(step.amount_minor for step in price.steps) == price.energy_minor
    assert sum(step.units_tenths for step in price.steps) == price.units_tenths
    assert all(step.amount_minor >= 0 for step in price.steps)
    assert decode_amount(encode_amount(price.units_tenths)) == price.units_tenths
    # The next amount that a token can carry would cost too much: nothing was held back.
    if price.units_tenths < MAX_AMOUNT:
        more = decode_amount(encode_amount(price.units_tenths) + 1)
        assert price_units(tariff, month_to_date_tenths=used, units_tenths=more).total_minor > amount
    # The same function makes the quote, the receipt and the dispute page.
    assert price_units(tariff, month_to_date_tenths=used, units_tenths=price.units_tenths) == price


@settings(max_examples=80, deadline=None)
@given(tariffs(), st.integers(0, 50_000), st.integers(0, 50_000), st.integers(0, 50_000))
def test_buying_in_two_goes_costs_the_same_but_for_rounding(tariff, used, first, second):
    together = price_units(tariff, month_to_date_tenths=used, units_tenths=first + second)
    one = price_units(tariff, month_to_date_tenths=used, units_tenths=first)
    two = price_units(tariff, month_to_date_tenths=used + first, units_tenths=second)
    assert abs(together.energy_minor - one.energy_minor - two.energy_minor) <= 1
    assert together.total_minor >= one.total_minor


def test_blocks_are_checked():
    for blocks in (
        (),
        (Block(10, 1),),
        (Block(None, 1), Block(None, 1)),
        (Block(20, 1), Block(10, 1), Block(None, 1)),
        (Block(10, 1), Block(10, 1), Block(None, 1)),
        (Block(None, 0),),
    ):
        with pytest.raises(BooksBroken):
            make_tariff(blocks)
    with pytest.raises(BooksBroken):
        price_units(make_tariff(), month_to_date_tenths=0, units_tenths=-1)


def test_blocks_are_read_in_the_units_of_the_meter():
    rows = [{"up_to": 1_000_000, "rate_micro": 14_000}, {"up_to": None, "rate_micro": 20_000}]
    assert read_blocks("electricity", rows) == (Block(10_000, 14_000), Block(None, 20_000))
    rows[0]["up_to"] = 30_000_000
    assert read_blocks("water", rows)[0] == Block(300, 14_000)
    with pytest.raises(BooksBroken):
        read_blocks("water", [{"up_to": 150, "rate_micro": 1}])


@pytest.mark.parametrize(
    ("now", "start"),
    [
        (datetime(2026, 11, 22, 9, tzinfo=UTC), datetime(2026, 10, 31, 20, tzinfo=UTC)),
        (datetime(2026, 10, 31, 19, 59, tzinfo=UTC), datetime(2026, 9, 30, 20, tzinfo=UTC)),
        (datetime(2026, 10, 31, 20, 0, tzinfo=UTC), datetime(2026, 10, 31, 20, tzinfo=UTC)),
        (datetime(2026, 1, 1, 0, 0, tzinfo=UTC), datetime(2025, 12, 31, 20, tzinfo=UTC)),
    ],
)
def test_months_begin_in_muscat(now, start):
    assert month_start(now) == start
