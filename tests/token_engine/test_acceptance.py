"""A meter's answers, in the order of its checks, over credit, engineering and test tokens."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from token_engine.acceptance import MeterCapabilities, MeterTokenState, enter
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
    unbalance_limit_token,
)
from token_engine.explain import explain
from token_engine.fields import to_digits, transpose
from token_engine.identifiers import EncryptionAlgorithm, KeyType
from token_engine.key_material import DecoderKey
from token_engine.token_effect import (
    CreditAdded,
    CreditCleared,
    ExtendedSet,
    FlagSet,
    KeyChanged,
    PhaseUnbalanceLimitSet,
    PowerLimitSet,
    TamperCleared,
    TariffRateSet,
    TestRequested,
    WaterFactorSet,
)
from token_engine.token_result import TokenResult

NOW = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)
KEY = DecoderKey.from_hex("87f3ecbb2e46b48f")
STA = EncryptionAlgorithm.STA


@pytest.fixture
def fresh(meter):
    return MeterTokenState(meter, KEY)


def credit(amount=100, tid=5000, subclass=0, key=KEY):
    return credit_token(key, STA, subclass=subclass, amount=amount, tid=tid, rnd=5)


def test_credit_is_added_once(fresh):
    state, outcome = enter(fresh, credit(), NOW)
    assert (outcome.result, outcome.tid, outcome.effect) == (TokenResult.ACCEPT, 5000, CreditAdded(0, 100))
    assert outcome.display_code == 1
    again, outcome = enter(state, credit(), NOW)
    assert (outcome.result, outcome.tid, outcome.effect) == (TokenResult.USED_ERROR, 5000, None)
    assert again.tids == (5000,)


def test_tokens_may_come_out_of_order_until_the_store_is_full(fresh):
    state = replace(fresh, capabilities=MeterCapabilities(tid_store_size=3))
    for tid in (300, 100, 200):
        state, outcome = enter(state, credit(tid=tid), NOW)
        assert outcome.result is TokenResult.ACCEPT
    assert enter(state, credit(tid=99), NOW)[1].result is TokenResult.OLD_ERROR
    state, outcome = enter(state, credit(tid=150), NOW)
    assert outcome.result is TokenResult.ACCEPT
    assert state.tids == (150, 200, 300)
    assert enter(state, credit(tid=100), NOW)[1].result is TokenResult.OLD_ERROR


def test_an_expired_key_takes_no_token_and_says_so_before_old_or_used(fresh, meter):
    state = replace(fresh, identity=replace(meter, ken=0), tids=(70000,))
    assert enter(state, credit(tid=65535), NOW)[1].result is TokenResult.ACCEPT
    assert enter(state, credit(tid=70000), NOW)[1].result is TokenResult.KEY_EXPIRED_ERROR


def test_a_default_key_takes_management_but_no_credit(fresh, meter):
    state = replace(fresh, identity=replace(meter, kt=KeyType.DDTK))
    assert enter(state, credit(), NOW)[1].result is TokenResult.DDTK_ERROR
    assert enter(state, clear_tamper_token(KEY, STA, tid=9, rnd=1), NOW)[1].result is TokenResult.ACCEPT
    for kt in (KeyType.DITK, KeyType.DUTK, KeyType.DCTK):
        state = replace(fresh, identity=replace(meter, kt=kt))
        assert enter(state, credit(), NOW)[1].result is TokenResult.ACCEPT


def test_an_overflow_keeps_the_tid_free(fresh):
    state = replace(fresh, capabilities=MeterCapabilities(credit_limit=1000))
    state, outcome = enter(state, credit(amount=600), NOW, credit=401)
    assert (outcome.result, outcome.tid, outcome.effect) == (TokenResult.OVERFLOW_ERROR, 5000, None)
    state, outcome = enter(state, credit(amount=600), NOW, credit=400)
    assert outcome.effect == CreditAdded(0, 600)


def test_credit_of_another_service_is_not_supported(fresh):
    for subclass in (1, 2, 3):
        assert enter(fresh, credit(subclass=subclass), NOW)[1].result is TokenResult.FUNCTION_ERROR
    water = replace(fresh, capabilities=MeterCapabilities(credit_subclasses=frozenset({1})))
    assert enter(water, credit(subclass=1), NOW)[1].effect == CreditAdded(1, 100)
    reserved = seal(KEY, STA, 0, 9 << 44 | 5000 << 16)
    assert enter(fresh, reserved, NOW)[1].result is TokenResult.FUNCTION_ERROR


def test_credit_in_currency(fresh):
    state = replace(
        fresh, capabilities=MeterCapabilities(credit_subclasses=frozenset({4}), credit_limit=10**9)
    )
    token = currency_token(KEY, STA, subclass=4, units=16383, tid=7)
    assert enter(state, token, NOW)[1].effect == CreditAdded(4, 16383)
    back = currency_token(KEY, STA, subclass=4, units=-16383, tid=8)
    assert enter(state, back, NOW)[1].effect == CreditAdded(4, -16383)


@pytest.mark.parametrize(
    ("token", "effect"),
    [
        (power_limit_token(KEY, STA, watts=5000, tid=9, rnd=1), PowerLimitSet(5000)),
        (unbalance_limit_token(KEY, STA, watts=700, tid=9, rnd=1), PhaseUnbalanceLimitSet(700)),
        (clear_credit_token(KEY, STA, register=0, tid=9, rnd=1), CreditCleared(0)),
        (clear_credit_token(KEY, STA, register=0xFFFF, tid=9, rnd=1), CreditCleared(None)),
        (clear_tamper_token(KEY, STA, tid=9, rnd=1), TamperCleared()),
        (flag_token(KEY, STA, flag=2, on=True, tid=9, rnd=1), FlagSet(2, True)),
        (extended_set_token(KEY, STA, index=4, value=77, tid=9, rnd=1), ExtendedSet(4, 77)),
    ],
)
def test_engineering_tokens_do_what_they_say_once(fresh, token, effect):
    state, outcome = enter(fresh, token, NOW)
    assert (outcome.result, outcome.tid, outcome.effect) == (TokenResult.ACCEPT, 9, effect)
    assert enter(state, token, NOW)[1].result is TokenResult.USED_ERROR


def test_rare_engineering_tokens_need_a_meter_that_knows_them(fresh):
    every = replace(fresh, capabilities=MeterCapabilities(management_subclasses=frozenset(range(16))))
    for subclass, effect in ((2, TariffRateSet(12)), (7, WaterFactorSet(12)), (12, None)):
        token = management_token(KEY, STA, subclass=subclass, value=12, tid=9, rnd=1)
        assert enter(fresh, token, NOW)[1].result is TokenResult.FUNCTION_ERROR
        assert enter(every, token, NOW)[1].effect == effect


def test_values_outside_the_meters_limits(fresh):
    state = replace(fresh, capabilities=MeterCapabilities(max_limit_w=15_000))
    token = power_limit_token(KEY, STA, watts=15_001, tid=9, rnd=1)
    assert enter(state, token, NOW)[1].result is TokenResult.RANGE_ERROR
    register = management_token(KEY, STA, subclass=1, value=8, tid=9, rnd=1)
    assert enter(state, register, NOW)[1].result is TokenResult.RANGE_ERROR


def test_clear_tokens(fresh):
    assert enter(fresh, meter_test_token(control=8), NOW)[1].effect == TestRequested(0, 8, 0)
    everything = meter_test_token(control=ALL_TESTS, four_digit_mfr=True)
    assert enter(fresh, everything, NOW)[1].effect == TestRequested(1, (1 << 28) - 1, 0)
    assert enter(fresh, extended_read_token(field=0, low=3), NOW)[1].effect == TestRequested(2, 0, 3)
    assert enter(fresh, meter_test_token(control=8, mfr_code=9), NOW)[1].result is TokenResult.MFR_CODE_ERROR
    ours = replace(fresh, capabilities=MeterCapabilities(mfr_code=9, test_subclasses=frozenset({0})))
    assert enter(ours, meter_test_token(control=8, mfr_code=9), NOW)[1].effect == TestRequested(0, 8, 9)
    assert enter(ours, everything, NOW)[1].result is TokenResult.FUNCTION_ERROR


WRONG = "11111111111111111111"


def test_wrong_entries_lock_out_and_the_time_doubles(fresh):
    state, now, waits = fresh, NOW, []
    for _ in range(13):
        state, outcome = enter(state, WRONG, now)
        assert outcome.result is TokenResult.CRC_ERROR
        if state.locked_until:
            waits.append(int((state.locked_until - now).total_seconds()))
            locked, outcome = enter(state, credit(), state.locked_until - timedelta(seconds=1))
            assert (outcome.result, outcome.display_code) == (TokenResult.LOCKED_OUT, 15)
            assert locked is state
            now = state.locked_until
    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 1280, 1280]
    state, outcome = enter(state, credit(), now)
    assert outcome.result is TokenResult.ACCEPT
    assert (state.wrong_entries, state.locked_until) == (0, None)


def test_an_unfinished_entry_does_not_count_but_too_large_a_number_does(fresh):
    state, outcome = enter(fresh, "1234", NOW)
    assert (outcome.result, state.wrong_entries) == (TokenResult.FORMAT_ERROR, 0)
    state, outcome = enter(state, "9" * 20, NOW)
    assert (outcome.result, state.wrong_entries) == (TokenResult.FORMAT_ERROR, 1)


def test_a_clear_token_does_not_end_a_row_of_wrong_entries(fresh):
    state, _ = enter(fresh, WRONG, NOW)
    state, _ = enter(state, meter_test_token(control=8), NOW)
    assert state.wrong_entries == 1
    state, _ = enter(state, credit(), NOW)
    assert state.wrong_entries == 0


def key_change(meter, **changes):
    new_key = DecoderKey(b"new key!")
    change = KeyChange(meter, replace(meter, **changes), KEY, new_key, with_sgc="sgc" in changes)
    return key_change_tokens(change), change


def test_a_key_change_keeps_the_store_and_ends_the_old_tokens(fresh, meter):
    state, _ = enter(fresh, credit(tid=4000), NOW)
    (first, second), change = key_change(meter, krn=2)
    state, outcome = enter(state, second, NOW)
    assert (outcome.result, outcome.display_code) == (TokenResult.SECOND_KCT, 3)
    state, outcome = enter(state, first, NOW)
    assert outcome.effect == KeyChanged(change.new, tids_cleared=False)
    assert (state.identity, state.decoder_key, state.tids) == (change.new, change.new_key, (4000,))
    assert enter(state, credit(tid=4001), NOW)[1].result is TokenResult.CRC_ERROR
    assert enter(state, credit(tid=4000, key=change.new_key), NOW)[1].result is TokenResult.USED_ERROR


def test_a_new_base_date_empties_the_store(fresh, meter):
    state, _ = enter(fresh, credit(tid=4000), NOW)
    tokens, change = key_change(meter, krn=3, base_date="35", sgc="203557")
    results = []
    for token in tokens:
        state, outcome = enter(state, token, NOW)
        results.append(outcome.result)
    assert results == [TokenResult.FIRST_KCT, TokenResult.SECOND_KCT, TokenResult.ACCEPT]
    assert outcome.effect == KeyChanged(change.new, tids_cleared=True)
    assert state.tids == ()


def test_half_a_key_change_times_out(fresh, meter):
    (first, second), _ = key_change(meter, krn=2)
    state, _ = enter(fresh, first, NOW)
    state, outcome = enter(state, second, NOW + timedelta(seconds=600))
    assert outcome.result is TokenResult.SECOND_KCT
    assert state.identity == meter


def test_refused_key_changes_leave_the_meter_as_it_was(fresh, meter):
    for changes, result in (
        ({"kt": 3}, TokenResult.KEY_TYPE_ERROR),
        ({"ken": 0}, TokenResult.KEY_EXPIRED_ERROR),
    ):
        state, _ = enter(fresh, credit(tid=70_000), NOW)
        for token in key_change(meter, **changes)[0]:
            state, outcome = enter(state, token, NOW)
        assert outcome.result is result
        assert (state.identity, state.decoder_key) == (meter, KEY)
        assert state.pending.sections == ()


def test_an_impossible_key_change_is_a_range_error(fresh):
    state, _ = enter(fresh, seal(KEY, STA, 2, 3 << 44 | 2 << 32), NOW)
    state, outcome = enter(state, seal(KEY, STA, 2, 4 << 44 | 1 << 32), NOW)
    assert outcome.result is TokenResult.RANGE_ERROR
    assert state.pending.sections == ()


def test_a_meter_without_key_changes_says_so(fresh, meter):
    state = replace(fresh, capabilities=MeterCapabilities(management_subclasses=frozenset({5})))
    assert enter(state, key_change(meter, krn=2)[0][0], NOW)[1].result is TokenResult.FUNCTION_ERROR


def test_the_state_survives_its_file_and_hides_the_key(fresh, meter):
    state, _ = enter(fresh, credit(), NOW)
    for token in (key_change(meter, krn=2)[0][0], *[WRONG] * 5):
        state, _ = enter(state, token, NOW)
    stored = json.loads(json.dumps(state.to_dict()))
    assert MeterTokenState.from_dict(stored) == state
    assert MeterTokenState.from_dict(fresh.to_dict()) == fresh
    assert "87f3ecbb2e46b48f" not in repr(state).lower()


@pytest.mark.parametrize("size", [0, 501])
def test_a_tid_store_has_a_bounded_size(size):
    with pytest.raises(ValueError, match="TID store"):
        MeterCapabilities(tid_store_size=size)


@given(st.text("0123456789٠١۵ -x", max_size=30) | st.integers(0, 2**66).map(lambda n: f"{n:020d}"))
@settings(max_examples=150, deadline=None)
def test_any_entry_gets_an_answer_and_only_accepted_ones_change_what_counts(meter, text):
    state = MeterTokenState(meter, KEY, tids=(1, 2, 3))
    after, outcome = enter(state, text, NOW)
    assert 1 <= outcome.display_code <= 15
    if not outcome.result.is_accepted:
        assert (after.tids, after.identity, after.decoder_key) == (
            state.tids,
            state.identity,
            state.decoder_key,
        )


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2]), st.integers(0, 15), st.integers(0, 2**44 - 1)), max_size=8
    ),
    st.sampled_from([STA, EncryptionAlgorithm.MISTY1]),
)
@settings(max_examples=150, deadline=None)
def test_any_authentic_token_gets_an_answer(meter, tokens, ea):
    """The rare wrong token that passes 16 bits of CRC holds anything at all: the meter must bear it."""
    key = DecoderKey(bytes(ea.key_bytes))
    every = MeterCapabilities(
        management_subclasses=frozenset(range(16)), credit_subclasses=frozenset(range(8))
    )
    state = MeterTokenState(replace(meter, ea=ea), key, every)
    for token_class, subclass, payload44 in tokens:
        payload = subclass << 44 | payload44
        if token_class == 1:
            digits = to_digits(transpose(1, data_block(1, payload)))
        else:
            digits = seal(state.decoder_key, ea, token_class, payload)
        state, outcome = enter(state, digits, NOW)
        assert outcome.result not in {TokenResult.CRC_ERROR, TokenResult.FORMAT_ERROR}
        assert explain(digits, state.decoder_key, ea)
        assert MeterTokenState.from_dict(state.to_dict()) == state


def test_sta_meters_have_no_fourth_section(fresh):
    fourth = seal(KEY, STA, 2, 9 << 44)
    assert enter(fresh, fourth, NOW)[1].result is TokenResult.FUNCTION_ERROR


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80))
@settings(max_examples=40, deadline=None)
def test_no_token_is_ever_credited_twice(meter, tids):
    state = MeterTokenState(meter, KEY, MeterCapabilities(tid_store_size=8))
    credited = []
    for tid in tids:
        state, outcome = enter(state, credit(tid=tid), NOW)
        if outcome.result is TokenResult.ACCEPT:
            credited.append(tid)
    assert len(credited) == len(set(credited))
    assert len(state.tids) <= 8
