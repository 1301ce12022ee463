"""Amounts as people type them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import InvalidQuantity
from billing.quantity import MAX_AMOUNT_MINOR, base_units, parse_amount


@pytest.mark.parametrize(
    ("typed", "minor"),
    [
        ("5", 5_000),
        ("5.250", 5_250),
        ("5.25", 5_250),
        ("0.5", 500),
        (".5", 500),
        ("5.", 5_000),
        (" 10 ", 10_000),
        ("٥٫٢٥٠", 5_250),
        ("٥.٢٥", 5_250),
        ("۱۲", 12_000),
        ("\u200e5.000\u200e", 5_000),
        ("000005", 5_000),
        ("1000000", MAX_AMOUNT_MINOR),
    ],
)
def test_amounts_that_are_amounts(typed, minor):
    assert parse_amount(typed) == minor


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("", "quantity_empty"),
        ("  \u200f ", "quantity_empty"),
        ("five", "quantity_not_a_number"),
        (".", "quantity_not_a_number"),
        ("1,234", "quantity_not_a_number"),
        ("1.2.3", "quantity_not_a_number"),
        ("1e3", "quantity_not_a_number"),
        ("+5", "quantity_not_a_number"),
        ("5 OMR", "quantity_not_a_number"),
        ("५", "quantity_not_a_number"),
        ("²", "quantity_not_a_number"),
        ("9" * 5000, "quantity_not_a_number"),
        ("nan", "quantity_not_a_number"),
        ("0", "quantity_not_positive"),
        ("0.000", "quantity_not_positive"),
        ("-5", "quantity_not_positive"),
        ("5.2505", "quantity_too_precise"),
        ("1000000.001", "quantity_too_large"),
    ],
)
def test_amounts_that_are_not(typed, code):
    with pytest.raises(InvalidQuantity) as refused:
        parse_amount(typed)
    assert refused.value.code == code


def test_a_caller_may_set_a_lower_limit():
    with pytest.raises(InvalidQuantity) as refused:
        parse_amount("50.001", maximum_minor=50_000)
    assert (refused.value.code, refused.value.facts) == ("quantity_too_large", {"maximum_minor": 50_000})


@given(st.integers(1, MAX_AMOUNT_MINOR), st.sampled_from(["0123456789", "٠١٢٣٤٥٦٧٨٩", "۰۱۲۳۴۵۶۷۸۹"]))
def test_what_is_written_is_read_back(minor, digits):
    text = f"{minor // 1000}.{minor % 1000:03d}"
    assert parse_amount(text.translate({ord(str(n)): digits[n] for n in range(10)})) == minor


@given(st.text(max_size=60))
def test_any_text_is_an_amount_or_a_coded_refusal(text):
    try:
        assert 0 < parse_amount(text) <= MAX_AMOUNT_MINOR
    except InvalidQuantity as refused:
        assert refused.code.startswith("quantity_")


def test_tenths_in_what_meters_count():
    assert base_units("electricity", 15) == 1_500
    assert base_units("water", 15) == 1_500_000
