"""The commissioning checklist: what is done, what ends it, and when nobody touches the relay."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.field.checklist import (
    BESIDE,
    CONSENT_LIFE,
    RELAY_CLOSED,
    Consent,
    Entry,
    Facts,
    Mark,
    Register,
    build_checklist,
    first_open,
    judge_display,
    may_finish,
    parse_display,
    relay_refusal,
)
from tests.portal.small_town import NOW

HUNG = NOW - timedelta(hours=1)
CONSENT = Consent("Salim", "in_person", NOW - timedelta(minutes=5), NOW, "E", "م")


def said(item, outcome="done", **detail):
    return Entry(item, outcome, detail, NOW, NOW, "E", "م")


DONE = Facts(
    link="modbus",
    is_critical=False,
    tamper=False,
    has_identity=True,
    installed_at=HUNG,
    last_seen_at=NOW,
    link_up=True,
    key_change=None,
    test_state="VERIFIED",
    test_at=NOW,
    open_state=None,
    close_state=None,
    relay_at=None,
    photos=1,
    entries=(said("wiring"), said("display"), said("seal")),
    consent=CONSENT,
    relay=RELAY_CLOSED,
)
OPENED = replace(DONE, open_state="VERIFIED", relay=0)


def marks(facts):
    return {item.code: item.mark for item in build_checklist(facts)}


def test_it_ends_with_the_test_token():
    assert build_checklist(DONE)[-1].code == "test_token"
    assert may_finish(build_checklist(DONE))
    for state in (None, "CREATED", "SENT", "ACCEPTED", "WRITTEN", "REJECTED", "EXPIRED", "UNKNOWN"):
        assert not may_finish(build_checklist(replace(DONE, test_state=state))), state


@pytest.mark.parametrize(
    ("change", "item"),
    [
        ({"has_identity": False}, "identity"),
        ({"installed_at": None}, "installed"),
        ({"link_up": False}, "link"),
        ({"last_seen_at": HUNG - timedelta(seconds=1)}, "link"),  # heard before it hung here: another wall
        ({"last_seen_at": None}, "link"),
        ({"key_change": "ISSUED"}, "own_key"),
        ({"entries": (said("display"), said("seal"))}, "wiring"),
        ({"entries": (*DONE.entries, said("wiring", "failed", note="loose"))}, "wiring"),
        ({"entries": (said("wiring"), said("seal"), said("display", "failed", reason="display_differs"))}, "display"),
        ({"open_state": "VERIFIED"}, "relay"),  # opened and not closed: the house is dark
        ({"open_state": "VERIFIED", "close_state": "REJECTED"}, "relay"),
    ],
)  # fmt: skip
def test_one_open_line_keeps_it_open(change, item):
    items = build_checklist(replace(DONE, **change))
    assert not may_finish(items)
    found = first_open(items)
    assert found is not None and found.code == item


def test_what_is_said_later_stands():
    again = (*DONE.entries, said("wiring", "failed", note="loose"), said("wiring"))
    assert marks(replace(DONE, entries=again))["wiring"] is Mark.DONE


def test_a_keypad_meter_needs_the_word_of_a_person():
    keypad = replace(DONE, link="keypad", link_up=False, last_seen_at=None, test_state="VERIFIED")
    assert not may_finish(build_checklist(keypad)), "no meter without a link says that it accepted"
    accepted = replace(keypad, entries=(*DONE.entries, said("test_token")))
    assert may_finish(build_checklist(accepted))
    assert marks(accepted)["link"] is Mark.NOT_NEEDED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"is_critical": True}, "critical_customer"),
        ({"tamper": True}, "tamper"),
        ({"link": "keypad"}, "no_link"),
        ({"installed_at": None}, "not_installed"),
        ({"link_up": False}, "link_down"),
        ({"consent": None}, "no_consent"),
        ({"consent": replace(CONSENT, given_at=NOW - CONSENT_LIFE - timedelta(seconds=1))}, "no_consent"),
        ({"is_critical": True, "consent": CONSENT}, "critical_customer"),
        ({"relay": 0}, "not_closed"),
        ({"relay": 2}, "not_closed"),
        ({"relay": None}, "not_closed"),
        ({"relay": 0, "consent": None}, "not_closed"),  # no use to ask for one
    ],
)
def test_when_the_relay_may_be_opened(change, reason):
    facts = replace(DONE, **change)
    assert (facts.must_close, relay_refusal(facts, NOW)) == (False, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"consent": None}, None),
        ({"link_up": False}, None),
        ({"is_critical": True}, None),
        ({"close_state": "EXPIRED"}, None),
        ({"close_state": "REJECTED"}, None),
        ({"tamper": True}, "tamper"),
        ({"link": "keypad"}, "no_link"),
    ],
)
def test_what_the_exercise_opened_can_be_closed(change, reason):
    facts = replace(OPENED, **change)
    assert (facts.must_close, relay_refusal(facts, NOW)) == (True, reason)
    assert marks(facts)["relay"] in (Mark.OPEN, Mark.FAILED) and not may_finish(build_checklist(facts))


@pytest.mark.parametrize(
    ("change", "must_close"),
    [
        *(({"open_state": state}, True) for state in ("CREATED", "SENT", "ACCEPTED", "WRITTEN", "UNKNOWN")),
        *(({"open_state": state}, False) for state in (None, "EXPIRED", "REJECTED", "CANCELLED")),
        ({"close_state": "VERIFIED"}, False),  # whoever opens it after that has a reason of his own
        ({"other_opened": True}, False),
    ],
)
def test_only_what_the_exercise_may_have_opened_is_closed(change, must_close):
    assert replace(OPENED, **change).must_close is must_close


def test_an_order_to_open_that_never_left_leaves_nothing_to_finish():
    for state in ("EXPIRED", "CANCELLED", "REJECTED"):
        facts = replace(DONE, open_state=state)
        assert may_finish(build_checklist(facts)), state
        assert marks(facts)["relay"] is (Mark.FAILED if state == "REJECTED" else Mark.OPEN)


def test_the_relay_is_not_needed_at_a_critical_customer_and_may_be_left_out_elsewhere():
    assert marks(replace(DONE, is_critical=True))["relay"] is Mark.NOT_NEEDED
    skipped = replace(DONE, entries=(*DONE.entries, said("relay", "skipped", note="nobody home")))
    assert marks(skipped)["relay"] is Mark.SKIPPED
    assert may_finish(build_checklist(skipped))


@pytest.mark.parametrize(
    ("typed", "commodity", "value"),
    [
        ("1234.5", "electricity", 1_234_500),
        (" 1234,5 ", "electricity", 1_234_500),
        ("0", "water", 0),
        ("12.345678", "water", 12_345_678),
        ("1.2345", "electricity", None),
        ("", "electricity", None),
        ("-5", "electricity", None),
        ("1e5", "electricity", None),
        ("1.2.3", "electricity", None),
        ("9" * 17, "electricity", None),
    ],
)
def test_a_display_is_read_as_base_units(typed, commodity, value):
    assert parse_display(typed, commodity) == value


@settings(max_examples=60)
@given(st.integers(0, 10**9), st.integers(-5_000, 5_000))
def test_a_display_agrees_within_one_unit(register, difference):
    beside = [Register(NOW - BESIDE, register)]
    agrees = judge_display(register + difference, NOW, beside, "electricity") is None
    assert agrees == (abs(difference) <= 1000)


@pytest.mark.parametrize(
    ("registers", "display", "reason"),
    [
        ([], 5_000, "no_register_then"),
        ([(-16, 5_000)], 5_000, "no_register_then"),  # nobody knows what was used since
        ([(16, 5_000)], 5_000, "no_register_then"),
        ([(14, 5_000)], 5_900, None),
        ([(-600, 5_000), (600, 40_000)], 20_000, None),  # between two registers it is bounded
        ([(-600, 5_000), (600, 40_000)], 4_000, None),
        ([(-600, 5_000), (600, 40_000)], 3_999, "display_differs"),
        ([(-600, 5_000), (600, 40_000)], 41_001, "display_differs"),
        ([(-600, 1), (-5, 5_000), (5, 5_100), (600, 90_000)], 50_000, "display_differs"),  # the nearest count
    ],
)
def test_a_display_is_held_against_its_own_time(registers, display, reason):
    known = [Register(NOW + timedelta(minutes=minutes), value) for minutes, value in registers]
    assert judge_display(display, NOW, known, "electricity") == reason


@pytest.mark.parametrize("reason", ["no_register", "no_register_then"])
def test_a_display_that_nobody_could_compare_is_open_not_wrong(reason):
    facts = replace(DONE, entries=(said("wiring"), said("seal"), said("display", "failed", reason=reason)))
    item = next(item for item in build_checklist(facts) if item.code == "display")
    assert (item.mark, item.reason) == (Mark.OPEN, reason)
