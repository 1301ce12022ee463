"""Exact answers of encode and decode, field for field: what a changed line must not survive.

Fast and without fixtures, like test_mutants.py.
"""

import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.token_engine.answers import (
    answer,
    changed,
    data_of,
    identity,
    key_of,
    plain_offset,
    sealed,
    sta,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "sts.json"

# --- making tokens ----------------------------------------------------------------------------------------------


def opened(e: SimpleNamespace, token: str, key: str = "87f3ecbb2e46b48f") -> str:
    """Class and 64-bit data block of a token, undone with nothing of encode or decode."""
    token_class, block = e.fields.untranspose(int(token))
    return f"{token_class} {e.cipher.sta_decrypt(int(key, 16), block):016x}"


@pytest.mark.parametrize(
    ("name", "fields", "token_class", "payload"),
    [
        ("credit_token", {"subclass": 0, "amount": 16385, "tid": 2, "rnd": 3}, 0, 0x03000002_4001),
        ("credit_token", {"subclass": 3, "amount": 1, "tid": 0xFFFFFF, "rnd": 15}, 0, 0x3FFFFFFF_0001),
        ("currency_token", {"subclass": 4, "units": -100_000, "tid": 9}, 0, 0x48000009_60A9),
        ("currency_token", {"subclass": 7, "units": 16384 * 11111, "tid": 9}, 0, 0x71000009_4000),
        ("power_limit_token", {"watts": 16384, "tid": 9, "rnd": 1}, 2, 0x01000009_4000),
        ("unbalance_limit_token", {"watts": 700, "tid": 9, "rnd": 1}, 2, 0x61000009_02BC),
        ("clear_credit_token", {"register": 0, "tid": 9, "rnd": 1}, 2, 0x11000009_0000),
        ("clear_credit_token", {"register": 7, "tid": 9, "rnd": 1}, 2, 0x11000009_0007),
        ("clear_credit_token", {"register": 0xFFFF, "tid": 9, "rnd": 1}, 2, 0x11000009_FFFF),
        ("clear_tamper_token", {"tid": 9, "rnd": 1}, 2, 0x51000009_0000),
        ("management_token", {"subclass": 2, "value": 12, "tid": 9, "rnd": 1}, 2, 0x21000009_000C),
        ("management_token", {"subclass": 7, "value": 12, "tid": 9, "rnd": 1}, 2, 0x71000009_000C),
        ("extended_set_token", {"index": 62, "value": 1023, "tid": 9, "rnd": 1}, 2, 0xA1000009_FBFF),
        ("extended_set_token", {"index": 1, "value": 0, "tid": 9, "rnd": 1}, 2, 0xA1000009_0400),
        ("flag_token", {"flag": 511, "on": False, "tid": 9, "rnd": 1}, 2, 0xA1000009_FFFE),
        ("flag_token", {"flag": 2, "on": True, "tid": 9, "rnd": 1}, 2, 0xA1000009_FC05),
    ],
)
def test_each_kind_of_token_puts_its_fields_in_place(name, fields, token_class, payload):
    made = answer(lambda e: opened(e, getattr(e.encode, name)(key_of(e), sta(e), **fields)))
    assert made == sealed(token_class, payload)


@pytest.mark.parametrize(
    ("name", "fields", "refusal"),
    [
        ("credit_token", {"subclass": -1, "amount": 1, "tid": 1, "rnd": 1}, "credit in units has subclass 0 to 3, not -1"),
        ("credit_token", {"subclass": 4, "amount": 1, "tid": 1, "rnd": 1}, "credit in units has subclass 0 to 3, not 4"),
        ("currency_token", {"subclass": 3, "units": 1, "tid": 1}, "credit in currency has subclass 4 to 7, not 3"),
        ("currency_token", {"subclass": 8, "units": 1, "tid": 1}, "credit in currency has subclass 4 to 7, not 8"),
        ("clear_credit_token", {"register": 8, "tid": 1, "rnd": 1}, "a credit register is 0 to 7 or FFFF, not 8"),
        ("clear_credit_token", {"register": -1, "tid": 1, "rnd": 1}, "a credit register is 0 to 7 or FFFF, not -1"),
        ("clear_credit_token", {"register": 1 << 16, "tid": 1, "rnd": 1}, "a credit register is 0 to 7 or FFFF, not 65536"),
        ("clear_credit_token", {"register": 0xFFFE, "tid": 1, "rnd": 1}, "a credit register is 0 to 7 or FFFF, not 65534"),
        ("extended_set_token", {"index": 64, "value": 0, "tid": 1, "rnd": 1}, "index has 6 bits, not 64"),
        ("extended_set_token", {"index": 1, "value": 1024, "tid": 1, "rnd": 1}, "value has 10 bits, not 1024"),
        ("flag_token", {"flag": 512, "on": True, "tid": 1, "rnd": 1}, "flag has 9 bits, not 512"),
        *[
            ("management_token", {"subclass": n, "value": 0, "tid": 1, "rnd": 1}, "key-change sections have no TID: use key_change_tokens")
            for n in (3, 4, 8, 9)
        ],
    ],
)  # fmt: skip
def test_fields_out_of_bounds_are_named(name, fields, refusal):
    got = answer(lambda e: getattr(e.encode, name)(key_of(e), sta(e), **fields))
    assert got == f"InvalidField: {refusal}"


@pytest.mark.parametrize(
    ("fields", "subclass", "payload44"),
    [
        ({"control": (1 << 36) - 1}, 0, (1 << 36) - 1 << 8),
        ({"control": (1 << 36) - 1, "four_digit_mfr": True}, 1, (1 << 28) - 1 << 16),
        ({"control": 1, "mfr_code": 255}, 0, 0x1FF),
        ({"control": 1, "mfr_code": 0xFFFF, "four_digit_mfr": True}, 1, 0x1FFFF),
        ({"control": (1 << 28) - 1, "four_digit_mfr": True}, 1, (1 << 28) - 1 << 16),
        ({"control": (1 << 36) - 2}, 0, (1 << 36) - 2 << 8),
    ],
)
def test_clear_tokens_of_both_forms(fields, subclass, payload44):
    block = data_of(1, subclass << 44 | payload44)
    assert answer(lambda e: e.encode.meter_test_token(**fields)) == answer(
        lambda e: f"{e.fields.transpose(1, block):020d}"
    )


def test_clear_tokens_refuse_what_does_not_fit():
    for fields, refusal in (
        ({"control": 1 << 36}, f"control has 36 bits, not {1 << 36}"),
        ({"control": 1 << 28, "four_digit_mfr": True}, f"control has 28 bits, not {1 << 28}"),
        ({"control": 1 << 36, "four_digit_mfr": True}, f"control has 28 bits, not {1 << 36}"),
        ({"control": 1, "mfr_code": 256}, "mfr has 8 bits, not 256"),
        ({"control": 1, "mfr_code": 1 << 16, "four_digit_mfr": True}, "mfr has 16 bits, not 65536"),
    ):
        assert answer(lambda e, f=fields: e.encode.meter_test_token(**f)) == f"InvalidField: {refusal}"
    for fields, refusal in (
        ({"field": 1 << 36}, f"field has 36 bits, not {1 << 36}"),
        ({"field": 0, "low": 256}, "low has 8 bits, not 256"),
    ):
        assert answer(lambda e, f=fields: e.encode.extended_read_token(**f)) == f"InvalidField: {refusal}"
    assert answer(lambda e: e.encode.extended_read_token(field=(1 << 36) - 1, low=255)) == answer(
        lambda e: f"{e.fields.transpose(1, data_of(1, 3 * (1 << 44) - 1)):020d}"
    )
    assert answer(lambda e: e.encode.extended_read_token(field=0)) == "02305843009347914912"


def test_a_key_must_fit_its_algorithm():
    long = "929bd3a415c9420a05ec5ee9f3ce91c3"
    for call in ("encrypt_block", "decrypt_block"):

        def got(key, ea, call=call):
            return answer(lambda e: getattr(e.encode if call[0] == "e" else e.decode, call)(
                key_of(e, key), e.identifiers.EncryptionAlgorithm(ea), 5))  # fmt: skip

        assert got("87f3ecbb2e46b48f", 11) == "InvalidKey: EA11 takes a decoder key of 16 bytes"
        assert got(long, 7) == "InvalidKey: EA07 takes a decoder key of 8 bytes"
        assert (
            got("87f3ecbb2e46b48f", 9) == "InvalidKey: EA09 (DEA) was withdrawn in Ed. 3 and is not used here"
        )
        assert isinstance(got(long, 11), int)
    sample = answer(lambda e: e.encode.encrypt_block(key_of(e), sta(e), 5, e.cipher.SAMPLE))
    assert sample == answer(lambda e: e.cipher.sta_encrypt(0x87F3ECBB2E46B48F, 5, e.cipher.SAMPLE))


# --- key change -------------------------------------------------------------------------------------------------

OLD, NEW = "87f3ecbb2e46b48f", "0123456789abcdef"
LONG_OLD, LONG_NEW = "929bd3a415c9420a05ec5ee9f3ce91c3", "00112233445566778899aabbccddeeff"


def change_of(e: SimpleNamespace, old: dict, new: dict, key: str = NEW, **more: Any) -> Any:
    first = identity(e, **old)
    long = first.ea == 11
    keys = (key_of(e, LONG_OLD if long else OLD), key_of(e, LONG_NEW if long and key == NEW else key))
    return e.encode.KeyChange(first, identity(e, **(old | new)), *keys, **more)


@pytest.mark.parametrize(
    ("old", "new", "more", "payloads"),
    [
        ({}, {"ken": 0xA5, "krn": 9, "ti": 99, "kt": 1}, {}, [0x3A91_01234567, 0x4563_89ABCDEF]),
        ({}, {"ken": 0, "krn": 2, "ti": 0, "kt": 0}, {}, [0x3020_01234567, 0x4000_89ABCDEF]),
        ({}, {"base_date": "35", "kt": 3}, {}, [0x3F1B_01234567, 0x4F01_89ABCDEF]),
        ({}, {"sgc": "999999"}, {"with_sgc": True}, [0x3F16_01234567, 0x4F01_89ABCDEF, 8 << 44 | 999999 << 20]),
        ({"ea": 11}, {"sgc": "999999", "krn": 5}, {"with_sgc": True},
         [0x3F52_00112233, 0x4F01_CCDDEEFF, 0x823F_44556677, 0x90F4_8899AABB]),
    ],
)  # fmt: skip
def test_key_change_sections(old, new, more, payloads):
    assert answer(lambda e: list(e.encode.key_change_payloads(change_of(e, old, new, **more)))) == payloads
    if not old:
        made = answer(
            lambda e: [opened(e, one) for one in e.encode.key_change_tokens(change_of(e, old, new, **more))]
        )
        assert made == [sealed(2, payload) for payload in payloads]


def test_key_changes_that_cannot_be():
    for old, new, key, refusal in (
        ({}, {"pan": "600727111111111153"}, NEW, "a key change stays on one meter"),
        (
            {"pan": "600727111111111153"},
            {"pan": "600727000000000009"},
            NEW,
            "a key change stays on one meter",
        ),
        ({}, {"ea": 11}, LONG_NEW, "a key change keeps the encryption algorithm"),
        ({"ea": 11}, {"ea": 7}, NEW, "a key change keeps the encryption algorithm"),
        ({}, {}, LONG_NEW, "EA07 takes a decoder key of 8 bytes"),
    ):
        got = answer(lambda e, o=old, n=new, k=key: change_of(e, o, n, k))
        assert got == f"InvalidKey: {refusal}"
    assert answer(lambda e: change_of(e, {}, {}).rolls_over) is False
    assert answer(lambda e: change_of(e, {}, {"base_date": "35"}).rolls_over) is True
    assert answer(lambda e: change_of(e, {"base_date": "35"}, {"base_date": "14"}).rolls_over) is True
    assert answer(lambda e: change_of(e, {}, {}).with_sgc) is False
    assert answer(lambda e: changed(change_of(e, {}, {}), "with_sgc")) == "FrozenInstanceError"
    assert answer(lambda e: hasattr(change_of(e, {}, {}), "__dict__")) is False


def test_the_numbers_of_classes_and_subclasses():
    wanted = {
        "CREDIT": 0, "TEST": 1, "MANAGEMENT": 2, "SET_POWER_LIMIT": 0, "CLEAR_CREDIT": 1, "SET_TARIFF_RATE": 2,
        "FIRST_SECTION": 3, "SECOND_SECTION": 4, "CLEAR_TAMPER": 5, "SET_UNBALANCE_LIMIT": 6, "SET_WATER_FACTOR": 7,
        "THIRD_SECTION": 8, "FOURTH_SECTION": 9, "EXTENDED_SET": 10, "CLEAR_ALL_REGISTERS": 65535, "FLAG_INDEX": 63,
        "ALL_TESTS": 2**36 - 1,
    }  # fmt: skip
    assert answer(lambda e: {name: getattr(e.encode, name) for name in wanted}) == wanted


# --- reading tokens ---------------------------------------------------------------------------------------------


def token_of(e: SimpleNamespace, token_class: int, payload: int, spoil: int = 0) -> str:
    """A token made with nothing of encode."""
    block = data_of(token_class, payload) ^ spoil
    if token_class != 1:
        block = e.cipher.sta_encrypt(int(OLD, 16), block)
    return f"{e.fields.transpose(token_class, block):020d}"


PARTS = ("token_class", "subclass", "payload44", "nibble", "has_tid", "tid", "value", "is_currency")


@pytest.mark.parametrize(
    ("token_class", "payload", "parts", "amount"),
    [
        (0, 0x0FABCDEF4001, (0, 0, 0xFABCDEF4001, 15, True, 0xABCDEF, 0x4001, False), 16394),
        (0, 0x350000018000, (0, 3, 0x50000018000, 5, True, 1, 0x8000, False), 180224),
        (0, 0x4800000960A9, (0, 4, 0x800000960A9, 8, True, 9, 0x60A9, True), -(16384 + 10 * 0x20A9)),
        (0, 0x710000090001, (0, 7, 0x10000090001, 1, True, 9, 1, True), plain_offset(4) + 10**4),
        (0, 0x810000090001, (0, 8, 0x10000090001, 1, True, 9, 1, False), 1),
        (1, 0x0000000001FF, (1, 0, 0x1FF, 0, False, None, 0x1FF, False), 0x1FF),
        (1, 0x4000000001FF, (1, 4, 0x1FF, 0, False, None, 0x1FF, False), 0x1FF),
        (2, 0x010000094000, (2, 0, 0x10000094000, 1, True, 9, 0x4000, False), 16384),
        (2, 0x510000090002, (2, 5, 0x10000090002, 1, True, 9, 2, False), 2),
        (2, 0x3F127F78CDD2, (2, 3, 0xF127F78CDD2, 15, False, None, 0xCDD2, False), 10**3 * 0xDD2 + 1818624),
        (2, 0x4F0220BE0001, (2, 4, 0xF0220BE0001, 15, False, None, 1, False), 1),
        (2, 0x8F0220BE0001, (2, 8, 0xF0220BE0001, 15, False, None, 1, False), 1),
        (2, 0x9F0220BE0001, (2, 9, 0xF0220BE0001, 15, False, None, 1, False), 1),
        (2, 0xA10000090002, (2, 10, 0x10000090002, 1, True, 9, 2, False), 2),
    ],
)
def test_every_part_of_a_token_that_was_read(token_class, payload, parts, amount):
    def read(e):
        return e.decode.decode(token_of(e, token_class, payload), key_of(e), sta(e))

    assert answer(lambda e: tuple(getattr(read(e), part) for part in PARTS)) == parts
    assert answer(lambda e: read(e).crc) == data_of(token_class, payload) & 0xFFFF
    if payload >> 40 != 0x3F:
        assert answer(lambda e: read(e).amount) == amount
    assert answer(lambda e: e.decode.class_of(token_of(e, token_class, payload))) == token_class
    assert answer(lambda e: changed(read(e), "crc")) == "FrozenInstanceError"
    assert answer(lambda e: hasattr(read(e), "__dict__")) is False


@pytest.mark.parametrize("token_class", [0, 1, 2, 3])
def test_what_is_not_authentic_is_refused_by_name(token_class):
    def got(call, spoil=0):
        return answer(lambda e: call(e, token_of(e, token_class, 0x05000009_0001, spoil)).subclass)

    def with_key(e, token):
        return e.decode.decode(token, key_of(e), sta(e))

    def clear(e, token):
        return e.decode.decode_clear(token)

    crc, function = (f"TokenRejected: token rejected: {name}_error" for name in ("crc", "function"))
    assert got(with_key) == (function if token_class == 3 else 0)
    for bit in (0, 1, 7, 8, 15, 16, 40, 63):
        assert got(with_key, 1 << bit) == (function if token_class == 3 else crc)
        assert got(clear, 1 << bit) == (crc if token_class == 1 else function)
    assert got(clear) == (0 if token_class == 1 else function)
    assert (
        answer(lambda e: e.decode.decode("1", key_of(e), sta(e)))
        == "TokenRejected: token rejected: format_error"
    )
    assert answer(lambda e: e.decode.RESERVED_CLASS) == 3
    assert answer(lambda e: e.decode.DecodedToken(3, 0, 0, 0).has_tid) is False


def test_every_published_vector():
    """Key change, currency, tests, limits and both algorithms: the first difference is the failure's text."""
    entries = json.loads(VECTORS.read_text("utf-8"))

    def run(_):
        report = import_module("token_engine.conformance").run(entries)
        return report.passed, [(one.algorithm, one.step, one.expected, one.got) for one in report.failures]

    assert answer(run) == (len(entries), [])
