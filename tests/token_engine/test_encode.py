"""Tokens of every kind at their published points; wrong fields are refused."""

from dataclasses import replace

import pytest

from token_engine.cipher import SAMPLE
from token_engine.decode import decode, decode_clear
from token_engine.encode import (
    ALL_TESTS,
    CLEAR_ALL_REGISTERS,
    KeyChange,
    clear_credit_token,
    clear_tamper_token,
    credit_token,
    currency_token,
    encrypt_block,
    extended_read_token,
    extended_set_token,
    flag_token,
    key_change_payloads,
    key_change_tokens,
    management_token,
    meter_test_token,
    power_limit_token,
    unbalance_limit_token,
)
from token_engine.errors import InvalidAmount, InvalidField, InvalidKey
from token_engine.identifiers import BaseDate, EncryptionAlgorithm
from token_engine.key_material import DecoderKey

STA, MISTY = EncryptionAlgorithm.STA, EncryptionAlgorithm.MISTY1
KEY = DecoderKey.from_hex("87f3ecbb2e46b48f")
MISTY_KEY = DecoderKey.from_hex("929bd3a415c9420a05ec5ee9f3ce91c3")


def test_published_credit():
    wanted = {"subclass": 0, "amount": 1, "tid": 85740, "rnd": 5}
    assert credit_token(KEY, STA, **wanted) == "70630503470028726114"
    assert credit_token(MISTY_KEY, MISTY, **wanted) == "58625789986991357486"


def test_published_currency():
    token = currency_token(KEY, STA, subclass=7, units=16383 * 100_000, tid=7040762)
    assert token == "03246831865756792924"


def test_published_tests_in_both_forms():
    assert meter_test_token(control=ALL_TESTS) == "56493153725450313471"
    assert meter_test_token(control=0x100) == "00000000004429208064"
    assert meter_test_token(control=0x100, four_digit_mfr=True) == "01152922604252694700"
    assert extended_read_token(field=0) == "02305843009347914912"
    everything = decode_clear(meter_test_token(control=ALL_TESTS, four_digit_mfr=True))
    assert everything.payload44 >> 16 == (1 << 28) - 1


def test_published_engineering_tokens():
    assert power_limit_token(KEY, STA, watts=1818623, tid=130050, rnd=5) == "29337964529737101507"
    assert clear_credit_token(KEY, STA, register=7, tid=6441685, rnd=5) == "68665590594316803019"
    assert flag_token(KEY, STA, flag=0, on=True, tid=7890305, rnd=5) == "46916500952836447494"
    assert unbalance_limit_token(MISTY_KEY, MISTY, watts=180223, tid=7338740, rnd=5) == "39525526509425785956"


@pytest.mark.parametrize(
    ("make", "subclass", "value"),
    [
        (lambda: clear_tamper_token(KEY, STA, tid=9, rnd=1), 5, 0),
        (lambda: clear_credit_token(KEY, STA, register=CLEAR_ALL_REGISTERS, tid=9, rnd=1), 1, 0xFFFF),
        (lambda: extended_set_token(KEY, STA, index=3, value=700, tid=9, rnd=1), 10, 3 << 10 | 700),
        (lambda: flag_token(KEY, STA, flag=11, on=False, tid=9, rnd=1), 10, 63 << 10 | 22),
        (lambda: management_token(KEY, STA, subclass=7, value=12, tid=9, rnd=1), 7, 12),
    ],
)
def test_engineering_fields_come_back(make, subclass, value):
    read = decode(make(), KEY, STA)
    assert (read.token_class, read.subclass, read.value, read.tid, read.nibble) == (2, subclass, value, 9, 1)


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (credit_token, {"subclass": 0, "amount": 1, "rnd": 1}),
        (currency_token, {"subclass": 4, "units": 1}),
        (power_limit_token, {"watts": 1, "rnd": 1}),
        (unbalance_limit_token, {"watts": 1, "rnd": 1}),
        (clear_credit_token, {"register": 0, "rnd": 1}),
        (clear_tamper_token, {"rnd": 1}),
        (flag_token, {"flag": 1, "on": True, "rnd": 1}),
    ],
)
def test_every_kind_takes_other_cipher_tables(make, fields):
    sample = make(KEY, STA, tid=9, tables=SAMPLE, **fields)
    assert decode(sample, KEY, STA, SAMPLE) == decode(make(KEY, STA, tid=9, **fields), KEY, STA)
    assert sample != make(KEY, STA, tid=9, **fields)


@pytest.mark.parametrize(
    "make",
    [
        lambda: credit_token(KEY, STA, subclass=4, amount=1, tid=1, rnd=1),
        lambda: credit_token(KEY, STA, subclass=0, amount=1, tid=1 << 24, rnd=1),
        lambda: credit_token(KEY, STA, subclass=0, amount=1, tid=1, rnd=16),
        lambda: currency_token(KEY, STA, subclass=3, units=1, tid=1),
        lambda: management_token(KEY, STA, subclass=3, value=0, tid=1, rnd=1),
        lambda: clear_credit_token(KEY, STA, register=8, tid=1, rnd=1),
        lambda: meter_test_token(control=1 << 36),
        lambda: meter_test_token(control=1 << 28, four_digit_mfr=True),
        lambda: meter_test_token(control=1, mfr_code=256),
        lambda: extended_set_token(KEY, STA, index=64, value=0, tid=1, rnd=1),
        lambda: flag_token(KEY, STA, flag=512, on=True, tid=1, rnd=1),
    ],
)
def test_fields_outside_their_bits_are_refused(make):
    with pytest.raises(InvalidField):
        make()


def test_amounts_above_the_largest_are_refused():
    with pytest.raises(InvalidAmount):
        credit_token(KEY, STA, subclass=0, amount=18201625, tid=1, rnd=1)


@pytest.mark.parametrize(("key", "ea"), [(KEY, MISTY), (MISTY_KEY, STA), (KEY, EncryptionAlgorithm.DEA)])
def test_a_key_must_fit_its_algorithm(key, ea):
    with pytest.raises(InvalidKey):
        encrypt_block(key, ea, 0)


def test_key_change_needs_one_meter_and_one_algorithm(meter):
    with pytest.raises(InvalidKey, match="one meter"):
        KeyChange(meter, replace(meter, pan="600727111111111153"), KEY, KEY)
    with pytest.raises(InvalidKey, match="algorithm"):
        KeyChange(meter, replace(meter, ea=MISTY), KEY, MISTY_KEY)
    with pytest.raises(InvalidKey, match="8 bytes"):
        KeyChange(meter, meter, KEY, MISTY_KEY)


def test_published_key_change(meter):
    new_key = DecoderKey.from_hex("7f78cdd220be39b8")
    change = KeyChange(meter, replace(meter, ti=2), KEY, new_key)
    assert [f"{payload:012x}" for payload in key_change_payloads(change)] == ["3f127f78cdd2", "4f0220be39b8"]
    assert key_change_tokens(change) == ("06510894141453018386", "22979178279997208272")
    assert not change.rolls_over


def test_the_third_token_changes_only_the_first(meter):
    new_key = DecoderKey.from_hex("7f78cdd220be39b8")
    new = replace(meter, ti=2, sgc="203557")
    pair = key_change_payloads(KeyChange(meter, new, KEY, new_key))
    triplet = key_change_payloads(KeyChange(meter, new, KEY, new_key, with_sgc=True))
    assert triplet[1] == pair[1]
    assert triplet[0] ^ pair[0] == 1 << 34
    assert triplet[2] == 8 << 44 | 203557 << 20


def test_a_misty_set_has_four_sections_and_carries_key_and_group(misty_meter):
    new_key = DecoderKey.from_hex("207217cb056d8f3d290dbf3a8b46094f")
    new = replace(misty_meter, sgc="203557", krn=6, ti=2, base_date=BaseDate.Y2035)
    payloads = key_change_payloads(KeyChange(misty_meter, new, MISTY_KEY, new_key))
    assert [f"{payload:012x}" for payload in payloads] == [
        "3f6a207217cb",
        "4f028b46094f",
        "8b25056d8f3d",
        "9031290dbf3a",
    ]
    assert KeyChange(misty_meter, new, MISTY_KEY, new_key).rolls_over
