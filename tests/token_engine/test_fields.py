"""Amounts, money, CRCs and the packing of a block, at their published points and as round trips."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.errors import InvalidAmount, InvalidField, TokenRejected
from token_engine.fields import (
    MAX_AMOUNT,
    MAX_CURRENCY,
    MAX_TOKEN,
    check_bits,
    crc16,
    crc_c_of,
    crc_of,
    decode_amount,
    decode_currency,
    encode_amount,
    encode_currency,
    from_digits,
    largest_not_above,
    pack_payload,
    to_digits,
    token_crc,
    transpose,
    untranspose,
)
from token_engine.token_result import TokenResult


@pytest.mark.parametrize(
    ("tenths", "value"),
    [
        (0, 0x0000),
        (1, 0x0001),
        (256, 0x0100),
        (16383, 0x3FFF),
        (16384, 0x4000),
        (16385, 0x4001),
        (180214, 0x7FFF),
        (180215, 0x8000),  # the gap between two exponents
        (180223, 0x8000),
        (180224, 0x8000),
        (1818524, 0xBFFF),
        (1818525, 0xC000),
        (1818623, 0xC000),
        (1818624, 0xC000),
        (18201624, 0xFFFF),
        (1235460, 0xA939),
    ],
)
def test_published_amounts(tenths, value):
    assert encode_amount(tenths) == value


@given(st.integers(0, 0xFFFF))
@settings(max_examples=200)
def test_every_value_comes_back(value):
    assert encode_amount(decode_amount(value)) == value


@given(st.integers(0, MAX_AMOUNT))
@settings(max_examples=200)
def test_rounding_is_up_and_smaller_than_a_step(tenths):
    carried = decode_amount(encode_amount(tenths))
    step = 1 if tenths <= 16383 else 10 if tenths <= 180224 else 100 if tenths <= 1818624 else 1000
    assert 0 <= carried - tenths < step


@given(st.integers(0, MAX_AMOUNT))
@settings(max_examples=200)
def test_largest_not_above_is_exact_and_the_next_code_is_above(tenths):
    carried = largest_not_above(tenths)
    assert carried <= tenths
    value = encode_amount(carried)
    assert decode_amount(value) == carried
    assert value == 0xFFFF or decode_amount(value + 1) > tenths


@pytest.mark.parametrize(
    ("tenths", "carried"), [(180223, 180214), (1818623, 1818524), (16393, 16384), (16394, 16394), (0, 0)]
)
def test_largest_not_above_at_the_gaps(tenths, carried):
    assert largest_not_above(tenths) == carried


@pytest.mark.parametrize("tenths", [-1, MAX_AMOUNT + 1])
def test_amounts_outside_are_refused(tenths):
    for function in (encode_amount, largest_not_above):
        with pytest.raises(InvalidAmount):
            function(tenths)


@pytest.mark.parametrize(
    ("base_units", "coded"),
    [(1, (0, 24746)), (-1, (8, 24745)), (180224, (1, 48970)), (-180224, (9, 48969))],
)
def test_published_currency(base_units, coded):
    assert encode_currency(base_units * 100_000) == coded


@given(st.integers(-MAX_CURRENCY, MAX_CURRENCY) | st.integers(-(10**9), 10**9))
@settings(max_examples=200)
def test_currency_is_rounded_toward_plus_infinity(units):
    sign_exponent, value = encode_currency(units)
    back = decode_currency(sign_exponent, value)
    assert back >= units
    assert (back < 0) <= (units < 0)
    assert encode_currency(back)[1] == value


@pytest.mark.parametrize("units", [-16384, -16385, -16393, -180224, -180230, -180323, -1818624, -1818700])
def test_negative_currency_near_the_exponents(units):
    back = decode_currency(*encode_currency(units))
    assert units <= back < units + 1000
    assert back == 0 or encode_currency(back) == encode_currency(units)


@pytest.mark.parametrize("units", [MAX_CURRENCY + 1, -MAX_CURRENCY - 1])
def test_currency_outside_is_refused(units):
    with pytest.raises(InvalidAmount):
        encode_currency(units)


def test_published_crcs():
    assert crc16(bytes.fromhex("00004A2D900FF2")) == 0x0FFA
    assert crc16(bytes.fromhex("000B19EB230100")) == 0xC207
    assert crc_of(0, 0x0B19EB230100) == 0xC207


def test_only_credit_in_currency_takes_the_longer_crc():
    for subclass in range(16):
        payload = pack_payload(subclass, 5, 85740, 1)
        wanted = crc_c_of if 4 <= subclass <= 7 else crc_of
        assert token_crc(0, payload) == wanted(0, payload)
        assert token_crc(2, payload) == crc_of(2, payload)
    assert crc_of(0, 1) != crc_c_of(0, 1)


def test_transposition_of_the_published_example():
    assert transpose(0, 0x492083C0AE7CE455) == 0x1492083C0A67CE455
    assert to_digits(0x1492083C0A67CE455) == "23716100501183194197"


@given(st.integers(0, 3), st.integers(0, 2**64 - 1))
@settings(max_examples=100)
def test_transposition_comes_back(token_class, block):
    token = transpose(token_class, block)
    assert untranspose(token) == (token_class, block)
    assert from_digits(to_digits(token)) == token


@pytest.mark.parametrize(
    "text", [str(MAX_TOKEN + 1), "9" * 20, "1" * 19, "1" * 21, "1234567890123456789x", "١" * 20]
)
def test_what_is_no_token_is_a_format_error(text):
    with pytest.raises(TokenRejected) as refusal:
        from_digits(text)
    assert refusal.value.result is TokenResult.FORMAT_ERROR


def test_the_largest_token_is_one():
    assert from_digits("73786976294838206463") == MAX_TOKEN


@pytest.mark.parametrize(
    "fields", [(16, 0, 0, 0), (0, 16, 0, 0), (0, 0, 1 << 24, 0), (0, 0, 0, 1 << 16), (0, -1, 0, 0)]
)
def test_fields_must_fit_their_bits(fields):
    with pytest.raises(InvalidField):
        pack_payload(*fields)


def test_check_bits_gives_the_value():
    assert check_bits("x", 7, 3) == 7
