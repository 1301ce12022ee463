"""Sections of a key change: any order, replaced, timed out, refused as a whole."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from token_engine.encode import KeyChange, key_change_payloads
from token_engine.errors import InvalidIdentity
from token_engine.identifiers import BaseDate, KeyType
from token_engine.key_change import NOTHING_PENDING, PendingSections, assemble
from token_engine.key_material import DecoderKey
from token_engine.token_result import TokenResult

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LOW = (1 << 44) - 1


def pending_of(payloads, now=NOW):
    pending = NOTHING_PENDING
    for payload in payloads:
        pending = pending.with_section(payload >> 44, payload & LOW, now)
    return pending


def change_of(old, with_sgc=False, **changes):
    key = DecoderKey(bytes(range(old.ea.key_bytes)))
    return KeyChange(
        old, replace(old, **changes), key, DecoderKey(bytes(range(100, 100 + old.ea.key_bytes))), with_sgc
    )


@pytest.mark.parametrize("third", [False, True])
def test_sta_sections_make_the_new_identity_in_any_order(meter, third):
    change = change_of(meter, with_sgc=third, sgc="203557", ti=7, krn=2, ken=0x3A)
    for order in itertools.permutations(key_change_payloads(change)):
        for cut in range(len(order)):
            assert assemble(pending_of(order[:cut]), meter) is None
        complete = assemble(pending_of(order), meter)
        assert complete is not None
        assert complete.key == change.new_key
        assert complete.identity == (change.new if third else replace(change.new, sgc=meter.sgc))
        assert not complete.rolls_over


def test_misty_sections_make_the_new_identity_in_any_order(misty_meter):
    change = change_of(misty_meter, sgc="999999", krn=9, ti=99, ken=1, base_date=BaseDate.Y2035)
    for order in itertools.permutations(key_change_payloads(change)):
        assert assemble(pending_of(order[:3]), misty_meter) is None
        complete = assemble(pending_of(order), misty_meter)
        assert complete is not None
        assert (complete.identity, complete.key, complete.rolls_over) == (change.new, change.new_key, True)


def test_a_section_entered_again_replaces_the_earlier_one(meter):
    first, second = key_change_payloads(change_of(meter, ti=7))
    other_first = key_change_payloads(change_of(meter, krn=5))[0]
    complete = assemble(pending_of([first, other_first, second]), meter)
    assert complete is not None
    assert complete.identity.krn == 5


def test_a_rollover_past_the_last_base_date_stays_on_it(meter):
    last = replace(meter, base_date=BaseDate.Y2035)
    first, second = key_change_payloads(change_of(last))
    complete = assemble(pending_of([first | 1 << 35, second]), last)
    assert complete is not None
    assert complete.identity.base_date is BaseDate.Y2035


def test_a_set_with_impossible_fields_is_refused(meter):
    first, second = key_change_payloads(change_of(meter))
    with pytest.raises(InvalidIdentity):
        assemble(pending_of([first & ~(15 << 36), second]), meter)


def test_sections_wait_until_the_time_out_of_the_first(meter):
    first, second = key_change_payloads(change_of(meter))
    pending = pending_of([first]).with_section(second >> 44, second & LOW, NOW + timedelta(seconds=599))
    assert pending.at(NOW + timedelta(seconds=599), 600) is pending
    assert pending.at(NOW + timedelta(seconds=600), 600) == NOTHING_PENDING


ALLOWED = {
    (KeyType.DITK, KeyType.DITK),
    (KeyType.DITK, KeyType.DDTK),
    (KeyType.DITK, KeyType.DUTK),
    (KeyType.DITK, KeyType.DCTK),
    (KeyType.DDTK, KeyType.DDTK),
    (KeyType.DDTK, KeyType.DUTK),
    (KeyType.DUTK, KeyType.DUTK),
    (KeyType.DUTK, KeyType.DDTK),
    (KeyType.DCTK, KeyType.DCTK),
    (KeyType.DCTK, KeyType.DDTK),
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(KeyType, KeyType)))
def test_every_move_between_key_types_is_decided(meter, old, new):
    before = replace(meter, kt=old)
    complete = assemble(pending_of(key_change_payloads(change_of(before, kt=new))), before)
    assert complete is not None
    assert complete.refusal(before, 0) is (None if (old, new) in ALLOWED else TokenResult.KEY_TYPE_ERROR)


def test_an_already_expired_new_key_is_refused_unless_the_count_begins_anew(meter):
    newest = 10 << 16
    for ken, refusal in ((9, TokenResult.KEY_EXPIRED_ERROR), (10, None), (255, None)):
        complete = assemble(pending_of(key_change_payloads(change_of(meter, ken=ken))), meter)
        assert complete is not None
        assert complete.refusal(meter, newest) is refusal
    rolled = assemble(
        pending_of(key_change_payloads(change_of(meter, ken=1, base_date=BaseDate.Y2035))), meter
    )
    assert rolled is not None
    assert rolled.refusal(meter, newest) is None


def test_pending_sections_survive_a_state_file_and_hide_in_repr(meter):
    pending = pending_of(key_change_payloads(change_of(meter))[:1])
    assert PendingSections.from_dict(pending.to_dict()) == pending
    assert PendingSections.from_dict(NOTHING_PENDING.to_dict()) == NOTHING_PENDING
    assert str(pending.sections[0][1]) not in repr(pending)
