"""Exact answers at every edge of cipher and fields: what a changed line must not survive.

Fast and without fixtures: `make mutate` runs this file first, for each of some thousand mutants.
"""

import json
from dataclasses import astuple

import pytest

from tests.token_engine.answers import answer, changed, plain_crc, plain_offset

MASK = 2**64 - 1

# --- EA07 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "block", "tables", "cipher"),
    [
        (0xE653341F9D5BF36F, 0x05599863000119E6, "PRODUCTION", 0x492083C0AE7CE455),
        (0x87F3ECBB2E46B48F, 0x05014EEC00013188, "PRODUCTION", 0xD431F4B09E0E9F62),
        (0x0ABC12DEF3456789, 0x0B19EB230100C207, "SAMPLE", 0xC45ED1618406DF95 & ~(3 << 27) | 2 << 27),
    ],
)
def test_published_blocks(key, block, tables, cipher):
    assert answer(lambda e: e.cipher.sta_encrypt(key, block, getattr(e.cipher, tables))) == cipher
    assert answer(lambda e: e.cipher.sta_decrypt(key, cipher, getattr(e.cipher, tables))) == block


def test_the_largest_key_is_one_and_the_next_is_refused():
    refused = "InvalidKey: EA07 takes a 64-bit key"
    for name in ("sta_encrypt", "sta_decrypt"):
        for key in (0, 1, MASK):
            assert isinstance(answer(lambda e, n=name, k=key: getattr(e.cipher, n)(k, 0)), int)
        for key in (-1, MASK + 1):
            assert answer(lambda e, n=name, k=key: getattr(e.cipher, n)(k, 0)) == refused


@pytest.mark.parametrize("key", [0, MASK, 0x8888888888888888, 0x123456789ABCDEF0])
@pytest.mark.parametrize("block", [0, MASK, 0xFEDCBA9876543210])
def test_both_directions_meet_for_keys_of_any_pattern(key, block):
    assert answer(lambda e: e.cipher.sta_decrypt(key, e.cipher.sta_encrypt(key, block))) == block


def test_tables_must_be_bijective_and_say_so():
    def with_(e, **changes):
        tables = {name: getattr(e.cipher.PRODUCTION, name) for name in ("s1", "s2", "p")}
        return e.cipher.StaTables(**tables | changes)

    nibbles, bits = tuple(range(16)), tuple(range(64))
    assert answer(lambda e: with_(e, s1=nibbles, s2=nibbles[::-1], p=bits).p) == bits
    for name, wrong, size in (
        ("s1", (*nibbles[:15], 0), 16),
        ("s1", tuple(range(1, 17)), 16),
        ("s2", (*nibbles, 16), 16),
        ("s2", nibbles[:15], 16),
        ("p", bits[:63], 64),
        ("p", (*bits, 64), 64),
        ("p", (1, *bits[1:]), 64),
    ):
        refusal = f"InvalidKey: a cipher table must hold each of 0 to {size - 1} once"
        assert answer(lambda e, n=name, w=wrong: with_(e, **{n: w})) == refusal


def test_tables_from_a_resource():
    def text(**lists):
        return json.dumps(
            {"s1": list(range(16)), "s2": list(range(15, -1, -1)), "p": list(range(64))} | lists
        )

    wanted = (tuple(range(16)), tuple(range(15, -1, -1)), tuple(range(64)))
    assert answer(lambda e: astuple(e.cipher.StaTables.from_text(text()))) == wanted
    refused = "InvalidKey: cipher tables are JSON with the lists s1, s2 and p"
    for wrong in ("", "[]", "7", '{"s1": []}', text(p=None), text(s2=["x"]), text(s1=[[0]])):
        assert answer(lambda e, w=wrong: e.cipher.StaTables.from_text(w)) == refused
    assert answer(lambda e: e.cipher.StaTables.from_text(text(s1=[0]))) == (
        "InvalidKey: a cipher table must hold each of 0 to 15 once"
    )


def test_the_number_of_rounds_that_the_batch_runs_too():
    assert answer(lambda e: e.cipher.ROUNDS) == 16


def test_tables_are_frozen_small_values_made_once():
    assert answer(lambda e: hasattr(e.cipher.PRODUCTION, "__dict__")) is False
    assert answer(lambda e: changed(e.cipher.PRODUCTION, "s1")) == "FrozenInstanceError"
    for name in ("round_tables", "inverse_tables"):
        made = answer(lambda e, n=name: [getattr(e.cipher, n)(e.cipher.SAMPLE) for _ in range(2)])
        assert made[0] is made[1]
    made = answer(lambda e: [e.cipher._permutation(e.cipher.SAMPLE.p) for _ in range(2)])
    assert made[0] is made[1]


# --- amounts, money, CRC, packing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tenths", "value"),
    [
        (0, 0x0000), (1, 0x0001), (256, 0x0100), (16382, 0x3FFE), (16383, 0x3FFF), (16384, 0x4000), (16385, 0x4001),
        (16394, 0x4001), (16395, 0x4002), (180204, 0x7FFE), (180205, 0x7FFF), (180214, 0x7FFF), (180215, 0x8000),
        (180224, 0x8000), (180225, 0x8001), (180324, 0x8001), (1818424, 0xBFFE), (1818425, 0xBFFF),
        (1818524, 0xBFFF), (1818525, 0xC000), (1818624, 0xC000), (1818625, 0xC001), (1819624, 0xC001),
        (18200624, 0xFFFE), (18200625, 0xFFFF), (18201624, 0xFFFF), (1235460, 0xA939),
    ],
)  # fmt: skip
def test_amounts_at_every_edge(tenths, value):
    assert answer(lambda e: e.fields.encode_amount(tenths)) == value


@pytest.mark.parametrize(
    "value", [0, 1, 0x3FFF, 0x4000, 0x4001, 0x7FFF, 0x8000, 0x8001, 0xBFFF, 0xC000, 0xFFFF]
)
def test_values_mean_what_the_rule_says(value):
    exponent, mantissa = value >> 14, value & 0x3FFF
    tenths = 10**exponent * mantissa + (0, 16384, 180224, 1818624)[exponent]
    assert answer(lambda e: e.fields.decode_amount(value)) == tenths


@pytest.mark.parametrize(
    ("tenths", "carried"),
    [(0, 0), (1, 1), (16384, 16384), (16393, 16384), (16394, 16394), (180223, 180214), (180224, 180224),
     (180323, 180224), (1818623, 1818524), (1819623, 1818624), (18201624, 18201624), (18201623, 18200624)],
)  # fmt: skip
def test_the_largest_amount_not_above(tenths, carried):
    assert answer(lambda e: e.fields.largest_not_above(tenths)) == carried


def test_amounts_outside_name_the_bound():
    for tenths in (-1, 18201625):
        refusal = f"InvalidAmount: an amount is 0 to 18201624, not {tenths}"
        assert answer(lambda e, t=tenths: e.fields.encode_amount(t)) == refusal
    assert answer(lambda e: (e.fields.MAX_AMOUNT, e.fields.MAX_TOKEN)) == (18201624, 2**66 - 1)
    assert answer(lambda e: e.fields.decode_amount(1 << 16)) == "InvalidField: value has 16 bits, not 65536"


def test_money_at_every_edge_of_every_exponent():
    """Positive sizes are rounded up, negative ones down, and an exact one comes back as it was."""
    for exponent in range(32):
        step, offset = 10**exponent, plain_offset(exponent)
        for mantissa in (0, 1, 2, 16382, 16383):
            size = step * mantissa + offset
            coded = (exponent >> 2, (exponent & 3) << 14 | mantissa)
            assert answer(lambda e, s=size: e.fields.encode_currency(s)) == coded
            assert answer(lambda e, c=coded: e.fields.decode_currency(*c)) == size
            minus = (coded[0] | 8, coded[1])
            assert answer(lambda e, c=minus: e.fields.decode_currency(*c)) == -size
            if size == 0:
                continue
            assert answer(lambda e, s=-size: e.fields.encode_currency(s)) == minus
            if mantissa and step > 1:
                assert answer(lambda e, s=size - 1: e.fields.encode_currency(s)) == coded
                less = (minus[0], minus[1] - 1)
                assert answer(lambda e, s=1 - size: e.fields.encode_currency(s)) == less


@pytest.mark.parametrize(
    ("units", "coded"),
    [
        (100_000, (0, 24746)), (-100_000, (8, 24745)), (18022400000, (1, 48970)), (-18022400000, (9, 48969)),
        (180215, (0, 2 << 14)), (180223, (0, 2 << 14)), (-180215, (8, 1 << 14 | 16383)),
        (-180223, (8, 1 << 14 | 16383)), (-1, (8, 1)), (-16383, (8, 16383)), (-16384, (8, 16384)), (0, (0, 0)),
    ],
)  # fmt: skip
def test_money_in_the_gaps_and_near_nothing(units, coded):
    assert answer(lambda e: e.fields.encode_currency(units)) == coded


def test_money_outside_is_refused_and_its_fields_are_checked():
    largest = 10**31 * 16383 + plain_offset(31)
    assert answer(lambda e: e.fields.MAX_CURRENCY) == largest
    assert answer(lambda e: e.fields.encode_currency(largest)) == (7, 0xFFFF)
    assert answer(lambda e: e.fields.encode_currency(-largest)) == (15, 0xFFFF)
    for units in (largest + 1, -largest - 1):
        refusal = f"InvalidAmount: a currency amount is at most {largest} hundred-thousandths"
        assert answer(lambda e, u=units: e.fields.encode_currency(u)) == refusal
    assert answer(lambda e: e.fields.decode_currency(16, 0)) == (
        "InvalidField: sign and exponent has 4 bits, not 16"
    )
    assert (
        answer(lambda e: e.fields.decode_currency(0, 65536)) == "InvalidField: value has 16 bits, not 65536"
    )


def test_the_crc_of_every_byte_and_of_the_published_blocks():
    for byte in range(256):
        data = bytes((byte, 255 - byte))
        assert answer(lambda e, d=data: e.fields.crc16(d)) == plain_crc(data)
    assert answer(lambda e: e.fields.crc16(b"")) == 0xFFFF
    assert answer(lambda e: e.fields.crc_of(0, 0x0B19EB230100)) == 0xC207
    assert answer(lambda e: e.fields.crc_of(0, 0x4A2D900FF2)) == 0x0FFA


def test_the_crc_covers_class_and_payload_and_money_takes_one_byte_more():
    for token_class in range(4):
        for subclass in range(16):
            payload = subclass << 44 | 0x5_14EEC0_0003
            seven = (token_class << 48 | payload).to_bytes(7, "big")
            money = token_class == 0 and subclass in {4, 5, 6, 7}
            wanted = plain_crc(seven + b"\x01" if money else seven)
            assert answer(lambda e, c=token_class, p=payload: e.fields.token_crc(c, p)) == wanted
    assert answer(lambda e: e.fields.crc_c_of(3, 1)) == plain_crc(b"\x03\0\0\0\0\0\x01\x01")


def test_payloads_put_each_field_in_its_place():
    assert answer(lambda e: e.fields.pack_payload(0xA, 0xB, 0xCDEF01, 0x2345)) == 0xABCDEF012345
    assert answer(lambda e: e.fields.pack_payload(15, 15, 0xFFFFFF, 0xFFFF)) == (1 << 48) - 1
    assert answer(lambda e: e.fields.pack_payload(0, 0, 0, 0)) == 0
    for place, (name, bits) in enumerate((("subclass", 4), ("nibble", 4), ("TID", 24), ("value", 16))):
        for wrong in (-1, 1 << bits, (1 << bits) + 1):
            fields = [0, 0, 0, 0]
            fields[place] = wrong
            refusal = f"InvalidField: {name} has {bits} bits, not {wrong}"
            assert answer(lambda e, f=tuple(fields): e.fields.pack_payload(*f)) == refusal
    assert answer(lambda e: e.fields.check_bits("x", 7, 3)) == 7


@pytest.mark.parametrize("block", [0, MASK, 0x492083C0AE7CE455, 1 << 27, 1 << 28, 3 << 27, ~(3 << 27) & MASK])
def test_the_class_changes_place_with_two_bits(block):
    for token_class in range(4):
        bits = list(f"{block:064b}")
        front, bits[35:37] = "".join(bits[35:37]), f"{token_class:02b}"
        token = int(front + "".join(bits), 2)
        assert answer(lambda e, c=token_class: e.fields.transpose(c, block)) == token
        assert answer(lambda e, t=token: e.fields.untranspose(t)) == (token_class, block)


def test_twenty_digits_and_nothing_else():
    assert answer(lambda e: e.fields.to_digits(7)) == "00000000000000000007"
    assert answer(lambda e: e.fields.from_digits("73786976294838206463")) == 2**66 - 1
    assert answer(lambda e: e.fields.from_digits("0" * 20)) == 0
    for text in (
        "0" * 21,
        "0" * 19,
        "73786976294838206464",
        "1" * 19,
        "1" * 21,
        "",
        "1234567890123456789x",
        "١" * 20,
        "²" * 20,
    ):
        wanted = "TokenRejected: token rejected: format_error"
        assert answer(lambda e, t=text: e.fields.from_digits(t)) == wanted
