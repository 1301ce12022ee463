from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal import formats

MOMENT = datetime(2026, 11, 22, 20, 5, 9, tzinfo=UTC)  # already the 23rd in Muscat


@pytest.mark.parametrize(
    ("minor", "text"),
    [
        (0, "0.000"),
        (5, "0.005"),
        (12_345, "12.345"),
        (-1_500, "-1.500"),
        (1_234_567_890, "1,234,567.890"),
    ],
)
def test_money_has_three_decimals(minor: int, text: str) -> None:
    assert formats.money_number(minor) == text


@settings(max_examples=50)
@given(st.integers(min_value=-(10**12), max_value=10**12))
def test_money_reads_back_to_the_same_baisa(minor: int) -> None:
    assert int(formats.money_plain(minor).replace(".", "")) == minor


def test_money_names_its_currency_and_isolates_its_number() -> None:
    assert formats.money_text(12_345, "en") == "12.345\u00a0OMR"
    assert formats.money_text(12_345, "ar") == "12.345\u00a0ر.ع."
    assert '<bdi dir="ltr">12.345</bdi>' in formats.money(12_345, "ar")


@pytest.mark.parametrize(
    ("value", "commodity", "text"),
    [
        (4_250, "electricity", "4.2"),
        (999, "electricity", "0.9"),
        (-950, "electricity", "-0.9"),
        (1_800_000, "water", "1.800"),
        (999, "water", "0.000"),
    ],
)
def test_quantities_are_cut_not_rounded_up(value: int, commodity: str, text: str) -> None:
    assert formats.quantity_number(value, commodity) == text


def test_axis_numbers_are_as_short_as_exact() -> None:
    assert formats.axis_number(1_500, "electricity") == "1.5"
    assert formats.axis_number(20_000, "electricity") == "20"
    assert formats.axis_number(50_000, "water") == "0.05"
    assert formats.axis_number(0, "water") == "0"


def test_units_and_rates_are_exact() -> None:
    assert formats.units_text(3_319, "electricity", "en") == "331.9\u00a0kWh"
    assert ">22.68</bdi>" in formats.rate(22_680, "electricity", "en")
    assert ">14</bdi>" in formats.rate(14_000, "electricity", "ar")
    assert ">550</bdi>" in formats.rate(550_000, "water", "en")
    assert (formats.percent_text(500), formats.percent_text(550), formats.percent_text(0)) == (
        "5%",
        "5.5%",
        "0%",
    )


def test_a_token_keeps_its_groups_in_order_by_two_belts() -> None:
    text = formats.token_text("12345678901234567890")
    assert text.split("\u00a0") == ["1234", "5678", "9012", "3456", "7890"]
    assert formats.token("12345678901234567890") == f'<bdi dir="ltr" class="token">{text}</bdi>'


def test_phones_are_grouped_or_left_alone() -> None:
    assert formats.phone_text("+96891234567") == "+968\u00a09123\u00a04567"
    assert formats.phone_text("+97144000000") == "+97144000000"
    assert "567" in formats.masked_phone("+96891234567")
    assert "9123" not in formats.masked_phone("+96891234567")


def test_times_are_of_muscat_with_latin_digits_in_both_languages() -> None:
    assert formats.when_text(MOMENT, "en") == "23 November 2026, 00:05"
    assert formats.when_text(MOMENT, "ar") == "23 نوفمبر 2026، 00:05"
    assert formats.date_text(date(2026, 2, 1), "en") == "1 February 2026"
    assert formats.clock_text(MOMENT) == "00:05:09"
    assert 'datetime="2026-11-22T20:05:09+00:00"' in formats.when(MOMENT, "ar")
    assert formats.month_text(MOMENT, "en", short=True) == "Nov"
    assert formats.day_month_text(MOMENT, "en") == "23 Nov"


def test_relative_time_says_which_way() -> None:
    assert formats.ago_text(MOMENT - timedelta(minutes=5), MOMENT, "en") == "5 minutes ago"
    assert formats.ago_text(MOMENT + timedelta(hours=2), MOMENT, "en") == "in 2 hours"
    assert formats.ago_text(MOMENT - timedelta(minutes=5), MOMENT, "ar") == "قبل 5 دقائق"
    assert formats.duration_text(125, "en") == "2 minutes"


def test_markup_escapes_what_it_is_given() -> None:
    assert "<script>" not in formats.ltr("<script>")
    assert "<script>" not in formats.token("<script>")


def test_arabic_and_persian_digits_become_latin() -> None:
    assert formats.latin_digits("٠١٢٣٤٥٦٧٨٩ ۰۱۲۳۴۵۶۷۸۹ abc") == "0123456789 0123456789 abc"


@pytest.mark.parametrize("typed", ["x", " x\n", "\x00x", "\x00 x \x00"])
def test_what_a_person_wrote_fits_the_database(typed):
    assert formats.plain(typed) == "x"
