"""Rules of a key change as tables: states, which change may be, what answers and typed tokens prove."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import BooksBroken, InvalidVend
from billing.identity_store import KeyFields, StsIdentity
from billing.key_change import (
    CHANGE_TABLE,
    OPEN_STATES,
    ChangeEvent,
    ChangeState,
    SetAnswer,
    Typed,
    Verdict,
    new_fields,
    next_change_state,
    typed_set,
    verdict_of,
)

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
METER = StsIdentity(
    meter_id=1,
    drn="06000000015",
    iin="600727",
    sgc="201457",
    ti="01",
    krn=1,
    kt=2,
    ken=255,
    ea="07",
    dkga="04",
    base_date=2014,
    last_tid=-1,
    pending=None,
)


@pytest.mark.parametrize("state", list(ChangeState))
@pytest.mark.parametrize("event", list(ChangeEvent))
def test_every_pair_is_decided(state, event):
    assert event in CHANGE_TABLE[state]
    if CHANGE_TABLE[state][event] is None:
        with pytest.raises(BooksBroken):
            next_change_state(state, event)
    else:
        assert next_change_state(state, event) is CHANGE_TABLE[state][event]


@pytest.mark.parametrize("state", [s for s in ChangeState if s not in OPEN_STATES])
def test_an_ended_change_stays_ended(state):
    assert {next_change_state(state, event) for event in ChangeEvent} == {state}


@pytest.mark.parametrize("state", [ChangeState.ISSUED, ChangeState.REFUSED])
def test_the_meters_own_word_always_counts(state):
    assert next_change_state(state, ChangeEvent.PROVEN) is ChangeState.PROVEN


@pytest.mark.parametrize(
    ("begin", "target"),
    [
        ({}, {"krn": 2}),
        ({}, {"sgc": "300000"}),
        ({}, {"ti": "99"}),
        ({}, {"ken": 200}),
        ({}, {"kt": 1}),
        ({"kt": 1}, {"kt": 2}),
        ({"kt": 0}, {"kt": 2}),
        ({"base_date": 1993}, {"base_date": 2014, "krn": 2}),
        ({"base_date": 1993}, {"base_date": 2014, "sgc": "300000"}),
    ],
)
def test_a_change_that_may_be(begin, target):
    meter = replace(METER, **begin)
    assert new_fields(meter, target, NOW) == replace(meter.current, **target)


@pytest.mark.parametrize(
    ("begin", "target", "code"),
    [
        ({}, {}, "target_invalid"),
        ({}, {"drn": "1"}, "target_invalid"),
        ({}, {"krn": 1}, "nothing_to_change"),
        ({"pending": {"change_id": "x"}}, {"krn": 2}, "change_under_way"),
        ({}, {"krn": 10}, "identity_invalid"),
        ({}, {"sgc": "12"}, "identity_invalid"),
        ({}, {"ti": "1x"}, "identity_invalid"),
        ({}, {"ken": 256}, "identity_invalid"),
        ({}, {"base_date": 2020}, "identity_invalid"),
        ({}, {"base_date": 2035, "krn": 2}, "identity_invalid"),  # 2035 has not begun
        ({}, {"kt": 0}, "key_type_move"),
        ({}, {"kt": 3}, "identity_invalid"),
        ({"kt": 1}, {"kt": 0}, "key_type_move"),
        ({}, {"base_date": 1993, "krn": 2}, "identity_invalid"),  # 1993 has ended
        ({"base_date": 1993}, {"base_date": 2014}, "vending_key_same"),
        ({}, {"ken": 50}, "new_key_expired"),
    ],
)
def test_a_change_that_may_not_be(begin, target, code):
    with pytest.raises(InvalidVend) as refused:
        new_fields(replace(METER, **begin), target, NOW)
    allowed = {code} | ({"key_type_move"} if code == "identity_invalid" else set())
    assert refused.value.code in allowed


def test_a_base_date_goes_only_forward():
    with pytest.raises(InvalidVend) as refused:
        new_fields(METER, {"base_date": 1993, "krn": 2}, datetime(2024, 1, 1, tzinfo=UTC))
    assert refused.value.code == "base_date_not_following"


@pytest.mark.parametrize(
    ("answers", "verdict", "word"),
    [
        ([], Verdict.AGAIN, "never sent"),
        ([("CREATED", ""), ("CREATED", "")], Verdict.WAITING, ""),
        ([("VERIFIED", "FIRST_KCT"), ("SENT", "")], Verdict.WAITING, ""),
        ([("VERIFIED", "FIRST_KCT"), ("VERIFIED", "ACCEPT")], Verdict.PROVEN, "ACCEPT"),
        ([("VERIFIED", "second_kct"), ("VERIFIED", "accept")], Verdict.PROVEN, "ACCEPT"),
        ([("REJECTED", "CRC_ERROR"), ("CREATED", "")], Verdict.REFUSED, "CRC_ERROR"),
        ([("VERIFIED", "FIRST_KCT"), ("REJECTED", "KEY_TYPE_ERROR")], Verdict.REFUSED, "KEY_TYPE_ERROR"),
        ([("REJECTED", ""), ("EXPIRED", "")], Verdict.REFUSED, "REJECTED"),
        ([("VERIFIED", "FIRST_KCT"), ("UNKNOWN", "")], Verdict.WAITING, ""),
        ([("VERIFIED", "FIRST_KCT"), ("EXPIRED", "")], Verdict.AGAIN, "FIRST_KCT,EXPIRED"),
        ([("EXPIRED", ""), ("EXPIRED", "")], Verdict.AGAIN, "EXPIRED,EXPIRED"),
        ([("REJECTED", "CRC_ERROR"), ("VERIFIED", "ACCEPT")], Verdict.PROVEN, "ACCEPT"),
    ],
)
def test_what_answers_say(answers, verdict, word):
    assert verdict_of([SetAnswer(*answer) for answer in answers]) == (verdict, word)


def typed(*words, every=timedelta(seconds=20)):
    return [
        Typed(NOW + every * number, word.rstrip("*"), 7 if word.endswith("*") else None)
        for number, word in enumerate(words)
    ]


@pytest.mark.parametrize(
    ("words", "sections", "taken"),
    [
        (("FIRST_KCT", "ACCEPT"), 2, True),
        (("SECOND_KCT", "ACCEPT"), 2, True),
        (("CRC_ERROR", "FIRST_KCT", "ACCEPT", "ACCEPT*"), 2, True),
        (("FIRST_KCT", "THIRD_KCT", "SECOND_KCT", "ACCEPT"), 4, True),
        (("ACCEPT",), 2, False),
        (("FIRST_KCT", "ACCEPT*"), 2, False),  # with a TID it is another token
        (("FIRST_KCT", "CRC_ERROR", "ACCEPT"), 2, False),
        (("FIRST_KCT", "FIRST_KCT", "ACCEPT"), 3, False),
        (("FIRST_KCT", "ACCEPT"), 4, False),
        ((), 2, False),
    ],
)
def test_a_set_typed_at_the_keypad(words, sections, taken):
    assert typed_set(typed(*words), sections) is taken


def test_parts_typed_far_apart_are_no_set():
    assert not typed_set(typed("FIRST_KCT", "ACCEPT", every=timedelta(minutes=11)), 2)


FIELDS = st.builds(
    KeyFields,
    sgc=st.sampled_from(["201457", "300000"]),
    ti=st.sampled_from(["01", "42"]),
    krn=st.integers(1, 9),
    kt=st.integers(1, 2),
    ken=st.sampled_from([255, 254]),
    base_date=st.just(2014),
)


@given(FIELDS)
def test_fields_are_kept_as_they_are(fields):
    assert KeyFields.of({**fields.stored(), "change_id": "x", "last_tid": 5}) == fields


@given(FIELDS, FIELDS)
def test_a_pending_key_is_the_one_that_issues(current, pending):
    meter = replace(
        METER, **current.stored(), pending={**pending.stored(), "change_id": "0" * 32, "last_tid": 9}
    )
    assert (meter.current, meter.issuing) == (current, pending)
    assert meter.key_identity().krn == pending.krn
    assert meter.last_issuing_tid == -1  # the base date is the same, and so are its TIDs
