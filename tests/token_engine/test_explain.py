"""Twenty digits told to a person: with the key, without it, and when they do not check."""

from dataclasses import replace

import pytest

from token_engine.encode import (
    ALL_TESTS,
    KeyChange,
    clear_credit_token,
    clear_tamper_token,
    credit_token,
    currency_token,
    data_block,
    extended_read_token,
    extended_set_token,
    flag_token,
    key_change_tokens,
    management_token,
    meter_test_token,
    power_limit_token,
    seal,
)
from token_engine.errors import TokenRejected
from token_engine.explain import explain
from token_engine.fields import to_digits, transpose
from token_engine.identifiers import BaseDate, EncryptionAlgorithm
from token_engine.key_material import DecoderKey

STA, MISTY = EncryptionAlgorithm.STA, EncryptionAlgorithm.MISTY1
KEY = DecoderKey.from_hex("87f3ecbb2e46b48f")


def meanings(digits, key=KEY, ea=STA, base_date=None):
    return {row.name: row.meaning for row in explain(digits, key, ea, base_date)}


def test_credit_is_told_in_full():
    rows = explain("70630503470028726114", KEY, STA, BaseDate.Y2014)
    assert [(row.name, row.bits, row.raw) for row in rows[3:]] == [
        ("subclass", "63..60", 0),
        ("RND", "59..56", 5),
        ("TID", "55..32", 85740),
        ("value", "31..16", 1),
        ("CRC", "15..0", 0x3188),
    ]
    assert [row.meaning for row in rows[1:]] == [
        "credit",
        "d431f4b09e0e9f62 (encrypted)",
        "electricity",
        "",
        "2014-03-01 13:00 UTC",
        "0.1 kWh",
        "3188, checks",
    ]


def test_without_a_key_only_the_class_is_told():
    assert [row.name for row in explain("70630503470028726114")] == ["token", "class", "block"]


@pytest.mark.parametrize(
    ("digits", "name", "meaning"),
    [
        (credit_token(KEY, STA, subclass=1, amount=123, tid=9, rnd=1), "value", "12.3 m3"),
        (credit_token(KEY, STA, subclass=0, amount=5, tid=9, rnd=1), "TID", "minutes from the base date"),
        (currency_token(KEY, STA, subclass=4, units=-250_000, tid=9), "value", "-2.49924 currency units"),
        (currency_token(KEY, STA, subclass=5, units=12_345, tid=9), "value", "0.12345 currency units"),
        (seal(KEY, STA, 0, 9 << 44), "value", "reserved"),
        (seal(KEY, STA, 0, 9 << 44), "subclass", "reserved"),
        (power_limit_token(KEY, STA, watts=5000, tid=9, rnd=1), "value", "5000 W"),
        (clear_credit_token(KEY, STA, register=1, tid=9, rnd=1), "value", "water"),
        (clear_credit_token(KEY, STA, register=0xFFFF, tid=9, rnd=1), "value", "all registers"),
        (management_token(KEY, STA, subclass=1, value=8, tid=9, rnd=1), "value", "unknown register"),
        (clear_tamper_token(KEY, STA, tid=9, rnd=1), "subclass", "clear tamper condition"),
        (clear_tamper_token(KEY, STA, tid=9, rnd=1), "value", "0000"),
        (management_token(KEY, STA, subclass=15, value=1, tid=9, rnd=1), "subclass", "of the manufacturer"),
        (flag_token(KEY, STA, flag=2, on=True, tid=9, rnd=1), "value", "flag 2 (disconnect service) on"),
        (flag_token(KEY, STA, flag=99, on=False, tid=9, rnd=1), "value", "flag 99 (unknown) off"),
        (extended_set_token(KEY, STA, index=3, value=4, tid=9, rnd=1), "value", "item 3 = 4"),
        (meter_test_token(control=ALL_TESTS), "control", "everything"),
        (meter_test_token(control=0b101), "control", "load switch, cumulative kWh"),
        (meter_test_token(control=ALL_TESTS, four_digit_mfr=True), "control", "everything"),
        (meter_test_token(control=8), "subclass", "test, 2-digit manufacturer"),
        (extended_read_token(field=0), "field", "read control"),
        (extended_read_token(field=0xFC0000000), "field", "read flag"),
        (extended_read_token(field=1), "field", ""),
    ],
)
def test_each_kind_says_what_it_means(digits, name, meaning):
    assert meanings(digits)[name] == meaning


def test_clear_tokens_need_no_key():
    digits = meter_test_token(control=1)
    assert explain(digits) == explain(digits, KEY)


def test_key_change_sections_never_show_the_key(meter, misty_meter):
    new_key = DecoderKey.from_hex("c0ffee00c0ffee11")
    tokens = key_change_tokens(
        KeyChange(meter, replace(meter, ti=7, sgc="203557"), KEY, new_key, with_sgc=True)
    )
    told = [meanings(digits) for digits in tokens]
    assert told[0]["KT"] == "DUTK"
    assert told[0]["3KCT"] == "a third token follows"
    assert told[0]["RO"] == "keeps the TID store"
    assert told[1]["TI"] == "tariff index of the new key"
    assert told[2]["SGC"] == "203557"
    misty_key, misty_new = DecoderKey(bytes(16)), DecoderKey.from_hex("c0ffee00c0ffee11c0ffee22c0ffee33")
    changed = replace(misty_meter, base_date=BaseDate.Y2035)
    misty = key_change_tokens(KeyChange(misty_meter, changed, misty_key, misty_new))
    told_misty = [explain(digits, misty_key, MISTY) for digits in misty]
    assert [rows[4].name for rows in told_misty] == ["KEN high", "KEN low", "SGC low", "SGC high"]
    assert meanings(misty[0], misty_key, MISTY)["RO"] == "empties the TID store"
    shown = str([explain(digits, KEY) for digits in tokens]) + str(told_misty)
    payload = shown.replace("(encrypted)", "")
    assert "c0ffee" not in payload
    assert str(0xC0FFEE00) not in payload


def test_a_token_that_does_not_check_says_what_was_expected():
    other = DecoderKey(bytes(8))
    rows = explain("70630503470028726114", other)
    assert rows[-1].name == "CRC"
    assert "does not check" in rows[-1].meaning
    broken = to_digits(transpose(1, 8 << 16))
    assert "does not check" in explain(broken)[-1].meaning


def test_class_three_and_reserved_tests():
    assert [row.meaning for row in explain(to_digits(transpose(3, 5)), KEY)][1] == "reserved"
    reserved = to_digits(transpose(1, data_block(1, 9 << 44)))
    assert meanings(reserved)["subclass"] == "reserved or of the manufacturer"


def test_what_is_no_token_is_refused():
    with pytest.raises(TokenRejected):
        explain("9" * 20)
