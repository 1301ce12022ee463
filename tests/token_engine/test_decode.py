"""Reading tokens back: round trips, wrong keys, and a count of what slips through 16 bits of CRC."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.decode import class_of, decode, decode_clear, decrypt_block
from token_engine.encode import credit_token, currency_token, meter_test_token
from token_engine.errors import InvalidKey, TokenRejected
from token_engine.fields import (
    decode_amount,
    decode_currency,
    encode_amount,
    encode_currency,
    to_digits,
    transpose,
)
from token_engine.identifiers import MAX_TID, EncryptionAlgorithm
from token_engine.key_material import DecoderKey
from token_engine.token_result import TokenResult

STA, MISTY = EncryptionAlgorithm.STA, EncryptionAlgorithm.MISTY1
KEYS = {STA: st.binary(min_size=8, max_size=8), MISTY: st.binary(min_size=16, max_size=16)}


@st.composite
def keys(draw):
    ea = draw(st.sampled_from([STA, MISTY]))
    return DecoderKey(draw(KEYS[ea])), ea


@given(keys(), st.integers(0, 3), st.integers(0, 18201624), st.integers(0, MAX_TID), st.integers(0, 15))
@settings(max_examples=80, deadline=None)
def test_credit_comes_back_as_it_was_rounded(key, subclass, amount, tid, rnd):
    read = decode(credit_token(*key, subclass=subclass, amount=amount, tid=tid, rnd=rnd), *key)
    assert (read.token_class, read.subclass, read.tid, read.nibble) == (0, subclass, tid, rnd)
    assert read.amount == decode_amount(encode_amount(amount)) >= amount


@given(keys(), st.integers(4, 7), st.integers(-(10**12), 10**12), st.integers(0, MAX_TID))
@settings(max_examples=50, deadline=None)
def test_currency_comes_back_as_it_was_rounded(key, subclass, units, tid):
    read = decode(currency_token(*key, subclass=subclass, units=units, tid=tid), *key)
    assert read.is_currency
    assert (read.subclass, read.tid) == (subclass, tid)
    assert read.amount == decode_currency(*encode_currency(units)) >= units


def test_clear_tokens_need_no_key_and_no_other_class_passes_for_one():
    clear = meter_test_token(control=8)
    assert class_of(clear) == 1
    assert decode_clear(clear).payload44 == 8 << 8
    assert decode_clear(clear).tid is None
    credit = credit_token(DecoderKey(bytes(8)), STA, subclass=0, amount=1, tid=1, rnd=1)
    with pytest.raises(TokenRejected) as refusal:
        decode_clear(credit)
    assert refusal.value.result is TokenResult.FUNCTION_ERROR


def test_class_three_is_reserved():
    with pytest.raises(TokenRejected) as refusal:
        decode(to_digits(transpose(3, 12345)), DecoderKey(bytes(8)), STA)
    assert refusal.value.result is TokenResult.FUNCTION_ERROR


def test_a_key_must_fit_its_algorithm():
    with pytest.raises(InvalidKey):
        decrypt_block(DecoderKey(bytes(8)), MISTY, 0)


def neighbours(digits):
    """Every one-digit change and every swap of two neighbours that differ."""
    for place, char in enumerate(digits):
        for other in "0123456789":
            if other != char:
                yield digits[:place] + other + digits[place + 1 :]
    for place in range(len(digits) - 1):
        left, right = digits[place], digits[place + 1]
        if left != right:
            yield digits[:place] + right + left + digits[place + 2 :]


def test_typing_errors_pass_only_where_sixteen_bits_of_crc_hold():
    """Some 30 000 wrong tokens: a CRC of 16 bits lets one in 65536 through, so here at most a handful."""
    seeded = random.Random(62055)
    tried = passed = 0
    for _ in range(150):
        key = DecoderKey(seeded.randbytes(8))
        good = credit_token(
            key,
            STA,
            subclass=0,
            amount=seeded.randrange(1, 20000),
            tid=seeded.randrange(MAX_TID),
            rnd=seeded.randrange(16),
        )
        meant = decode(good, key, STA)
        for wrong in neighbours(good):
            tried += 1
            try:
                read = decode(wrong, key, STA)
            except TokenRejected:
                continue
            passed += 1
            assert read != meant
    assert tried > 28_000
    assert passed <= 5, f"{passed} of {tried} wrong tokens passed; 16 bits allow about {tried / 65536:.1f}"


def test_a_token_for_another_meter_is_a_crc_error():
    token = credit_token(DecoderKey(bytes(8)), STA, subclass=0, amount=100, tid=1000, rnd=5)
    with pytest.raises(TokenRejected) as refusal:
        decode(token, DecoderKey(b"another!"), STA)
    assert refusal.value.result is TokenResult.CRC_ERROR
