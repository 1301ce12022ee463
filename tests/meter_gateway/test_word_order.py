"""Which order of words agrees with a display."""

import pytest

from meter_gateway.bus.word_order import judge_display, judge_pick, parse_display, read_orders
from meter_gateway.profile import load_profile

LOW_FIRST = load_profile("carlo-gavazzi-em340").registers["counter"]  # i32 CDAB, 100 Wh
HIGH_FIRST = load_profile("raseed-prepaid-e1").registers["counter"]  # u64 ABCD, Wh
WORDS = LOW_FIRST.encode(1_234_500)


def test_all_four_beside_each_other():
    readings = {one.order: one for one in read_orders(LOW_FIRST, WORDS)}
    assert list(readings) == ["ABCD", "CDAB", "BADC", "DCBA"]
    assert readings["CDAB"].text == "1234.5 kWh" and readings["ABCD"].text != "1234.5 kWh"


@pytest.mark.parametrize(
    ("typed", "confirmed", "order", "reason"),
    [
        ("1234.5", True, "CDAB", "confirmed"),
        ("1,234", False, None, "no_order"),  # a comma is a decimal sign here
        ("1234", True, "CDAB", "confirmed"),  # the display shows whole kWh
        ("1235", True, "CDAB", "confirmed"),  # and counted on meanwhile
        ("777", False, None, "no_order"),
        ("80904192", False, "ABCD", "other_order"),
    ],
)
def test_the_display_decides(typed, confirmed, order, reason):
    verdict = judge_display(LOW_FIRST, WORDS, typed)
    assert (verdict.is_confirmed, verdict.order, verdict.reason) == (confirmed, order, reason)


def test_zero_tells_nothing_wrong():
    assert judge_display(HIGH_FIRST, [0, 0, 0, 0], "0").is_confirmed


@pytest.mark.parametrize(
    ("picked", "reason"), [("CDAB", "confirmed"), ("ABCD", "other_order"), ("BADC", "other_order")]
)
def test_a_person_picks(picked, reason):
    assert judge_pick(LOW_FIRST, WORDS, picked).reason == reason


@pytest.mark.parametrize("typed", ["", "twelve", "NaN", "1e999", "Infinity"])
def test_what_is_no_number(typed):
    with pytest.raises(ValueError):
        parse_display(typed)


def test_arabic_digits():
    assert parse_display("١٢٣٤٫٥") == parse_display("1234.5")
