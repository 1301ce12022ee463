"""OpenPAYGO tokens: what a device takes, what it refuses, and what it remembers."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.errors import InvalidAmount, InvalidField, InvalidTokenText
from token_engine.openpaygo import (
    MAX_COUNT,
    WINDOW_JUMP,
    WINDOW_OLDER,
    WINDOW_SYNC,
    PaygoAccepted,
    PaygoDevice,
    PaygoKey,
    PaygoRejection,
    PaygoType,
    accept,
    issue,
    next_count,
    siphash24,
    starting_code_of,
)

KEY = PaygoKey.from_hex("dac86b1a29ab82edc5fbbc41ec9530f6")
DEVICE = PaygoDevice(KEY, 432435255)
ADD, SET, DISABLE, SYNC = PaygoType.ADD_TIME, PaygoType.SET_TIME, PaygoType.DISABLE, PaygoType.SYNC


def test_siphash_of_its_paper():
    assert siphash24(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    assert siphash24(bytes(range(16)), b"") == 0x726FDB47DD0E0E31


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 999_999_999),
    st.sampled_from(PaygoType),
    st.integers(0, 995),
    st.integers(0, 60),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_token_comes_back_on_its_own_device(key, start, token_type, value, count, restricted, extended):
    device = PaygoDevice(PaygoKey(key), start, restricted)
    token = issue(device, token_type, value, count, extended=extended)
    assert len(token.digits) == {(0, 0): 9, (0, 1): 12, (1, 0): 15, (1, 1): 20}[restricted, extended]
    read = accept(device, token.digits, count)
    assert isinstance(read, PaygoAccepted)
    assert (read.token_type, read.count) == (token_type, token.new_count)
    assert read.value == (value if token_type in {ADD, SET} else None)
    assert read.count in read.used_counts
    assert len(read.used_counts) <= WINDOW_OLDER + 1


@pytest.mark.parametrize(
    ("token_type", "count", "new"),
    [(ADD, 1, 2), (ADD, 2, 4), (SET, 1, 3), (SET, 2, 3), (DISABLE, 0, 1), (SYNC, 9, 11)],
)
def test_the_count_tells_the_type(token_type, count, new):
    assert next_count(token_type, count) == new


@pytest.mark.parametrize("count", [-1, MAX_COUNT - 1])
def test_counts_are_bounded(count):
    with pytest.raises(InvalidField):
        next_count(ADD, count)
    with pytest.raises(InvalidField):
        accept(DEVICE, "123456789", -1 if count < 0 else MAX_COUNT + 1)


def test_a_token_works_once():
    token = issue(DEVICE, ADD, 7, 10)
    read = accept(DEVICE, token.digits, 10)
    assert isinstance(read, PaygoAccepted)
    assert accept(DEVICE, token.digits, read.count, read.used_counts) is PaygoRejection.USED


def test_older_tokens_that_add_time_still_work_once():
    older, newer = issue(DEVICE, ADD, 3, 10), issue(DEVICE, ADD, 5, 12)
    first = accept(DEVICE, newer.digits, 10)
    assert isinstance(first, PaygoAccepted)
    second = accept(DEVICE, older.digits, first.count, first.used_counts)
    assert isinstance(second, PaygoAccepted)
    assert (second.value, second.count) == (3, 12)
    memory = second.used_counts
    assert {12, 14} <= memory
    assert accept(DEVICE, older.digits, first.count, memory) is PaygoRejection.USED
    assert accept(DEVICE, newer.digits, first.count, memory) is PaygoRejection.USED


def test_setting_the_time_ends_every_older_token():
    older, setting = issue(DEVICE, ADD, 3, 10), issue(DEVICE, SET, 5, 12)
    read = accept(DEVICE, setting.digits, 10)
    assert isinstance(read, PaygoAccepted)
    assert accept(DEVICE, older.digits, read.count, read.used_counts) is PaygoRejection.USED


def test_the_window_ends():
    near = issue(DEVICE, ADD, 1, 10 + WINDOW_JUMP - 2)
    assert isinstance(accept(DEVICE, near.digits, 10), PaygoAccepted)
    far = issue(DEVICE, ADD, 1, 10 + WINDOW_JUMP)
    assert accept(DEVICE, far.digits, 10) is PaygoRejection.INVALID
    sync = issue(DEVICE, SYNC, None, 10 + WINDOW_SYNC - 2)
    assert isinstance(accept(DEVICE, sync.digits, 10), PaygoAccepted)
    too_old = issue(DEVICE, ADD, 1, 10)
    assert accept(DEVICE, too_old.digits, 12 + WINDOW_OLDER) is PaygoRejection.USED
    assert isinstance(accept(DEVICE, too_old.digits, 11 + WINDOW_OLDER), PaygoAccepted)


def test_a_sync_token_may_set_the_count_back_but_only_once():
    sync = issue(DEVICE, SYNC, None, 10)
    read = accept(DEVICE, sync.digits, 40)
    assert isinstance(read, PaygoAccepted)
    assert read.count == 11
    assert accept(DEVICE, sync.digits, 11, read.used_counts | {11}) is PaygoRejection.USED
    assert accept(DEVICE, sync.digits, 11 + WINDOW_JUMP) is PaygoRejection.USED


def test_another_device_does_not_take_it():
    other = PaygoDevice(PaygoKey(bytes(16)), 432435255)
    assert accept(other, issue(DEVICE, ADD, 5, 10).digits, 10) is PaygoRejection.INVALID


@pytest.mark.parametrize(
    ("value", "extended"),
    [(-1, False), (996, False), (998, True), (999, True), (1_000_000, True), (None, False)],
)
def test_values_that_mean_something_else_are_refused(value, extended):
    with pytest.raises(InvalidAmount):
        issue(DEVICE, ADD, value, 1, extended=extended)


@pytest.mark.parametrize(
    ("digits", "restricted", "reason"),
    [
        ("12345678", False, "too_short"),
        ("1234567890123", False, "too_long"),
        ("1234567890", False, "too_long"),
        ("12345678x", False, "letter"),
        ("123412341234125", True, "letter"),
        ("1234", True, "too_short"),
    ],
)
def test_what_is_no_token_says_why(digits, restricted, reason):
    with pytest.raises(InvalidTokenText) as refusal:
        accept(PaygoDevice(KEY, 1, restricted), digits, 1)
    assert refusal.value.reason == reason


def test_a_starting_code_has_nine_digits():
    assert 0 <= starting_code_of(KEY) <= 999_999_999
    with pytest.raises(InvalidField):
        PaygoDevice(KEY, 1_000_000_000)


def test_the_key_does_not_show():
    assert "dac86b1a" not in repr(DEVICE).lower()
