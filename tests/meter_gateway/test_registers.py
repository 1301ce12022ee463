from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway import registers
from meter_gateway.registers import RegisterError

RANGES = {
    "u16": (0, 2**16 - 1),
    "i16": (-(2**15), 2**15 - 1),
    "u32": (0, 2**32 - 1),
    "i32": (-(2**31), 2**31 - 1),
    "u64": (0, 2**64 - 1),
    "i64": (-(2**63), 2**63 - 1),
}
ORDERS = sorted(registers.WORD_ORDERS)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("ABCD", [0x0102, 0x0304]),
        ("CDAB", [0x0304, 0x0102]),
        ("BADC", [0x0201, 0x0403]),
        ("DCBA", [0x0403, 0x0201]),
    ],
)
def test_word_orders(order, words):
    assert registers.encode_integer(0x01020304, "u32", order) == words
    assert registers.decode_integer(words, "u32", order) == 0x01020304


@settings(max_examples=80)
@given(st.data())
def test_integers_come_back(data):
    type_ = data.draw(st.sampled_from(sorted(RANGES)))
    order = data.draw(st.sampled_from(ORDERS))
    value = data.draw(st.integers(*RANGES[type_]))
    assert registers.decode_integer(registers.encode_integer(value, type_, order), type_, order) == value


@pytest.mark.parametrize("type_", sorted(RANGES))
def test_what_does_not_fit_is_refused(type_):
    for value in (RANGES[type_][0] - 1, RANGES[type_][1] + 1):
        with pytest.raises(RegisterError):
            registers.encode_integer(value, type_)
    with pytest.raises(RegisterError):
        registers.decode_integer([0] * (registers.WORDS[type_] + 1), type_)


@pytest.mark.parametrize("word", [-1, 0x10000])
def test_a_word_has_16_bits(word):
    with pytest.raises(RegisterError):
        registers.decode_integer([word], "u16")


@pytest.mark.parametrize(
    ("words", "value"),
    [([0x4366, 0x3334], Decimal("230.2")), ([0x7FC0, 0], None), ([0x7F80, 0], None), ([0, 0], Decimal(0))],
)
def test_floats_become_exact_decimals(words, value):
    assert registers.decode_decimal(words, "f32") == value


def test_scaling_rounds_half_to_even_and_never_by_float():
    assert registers.to_base_units(Decimal(12345678), Decimal("0.1")) == 1234568
    assert registers.to_base_units(Decimal("0.5"), Decimal(1)) == 0
    assert registers.to_base_units(Decimal(2**62), Decimal(1)) == 2**62


@settings(max_examples=50)
@given(st.text("0123456789", min_size=1, max_size=20))
def test_bcd_comes_back(digits):
    assert registers.decode_bcd(registers.encode_bcd(digits, 5)) == digits.rjust(20, "0")


@pytest.mark.parametrize("digits", ["12x", "1" * 21, "١٢"])
def test_bcd_takes_decimal_digits_only(digits):
    with pytest.raises(RegisterError):
        registers.encode_bcd(digits, 5)


def test_bcd_with_a_nibble_above_nine():
    with pytest.raises(RegisterError):
        registers.decode_bcd([0x12A4])


def test_text():
    assert registers.decode_ascii(registers.encode_ascii("06000000011", 7)) == "06000000011"
    for bad in ("too long for one", "é"):
        with pytest.raises(RegisterError):
            registers.encode_ascii(bad, 2)
    for words in ([0xFFFF], [0x0A41]):
        with pytest.raises(RegisterError):
            registers.decode_ascii(words)
