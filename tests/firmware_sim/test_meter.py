"""A meter counts, cuts off, takes tokens and orders, and remembers."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim import meter as rules
from firmware_sim.meter import NoPower, burn, enter_token, open_lid, power, press_button, run_command, step
from firmware_sim.meter_face import display, face, lamp, shelf, units_text
from firmware_sim.meter_state import CONNECTED, DISCONNECTED, READY, MeterState
from meter_gateway import topics
from tests.firmware_sim.parts import NOW_MS, TOWN, find, fresh, key_of, token
from token_engine.encode import clear_credit_token, clear_tamper_token, power_limit_token
from token_engine.identifiers import EncryptionAlgorithm

E, W = find(), find("water")


def codes(events):
    return [event.code for event in events]


def test_event_codes_are_those_of_the_contract():
    for name in ("LAST_GASP", "POWER_RESTORED", "TAMPER", "TOKEN", "RELAY"):
        assert getattr(rules, name) == getattr(topics, name)


def test_use_is_counted_and_paid_from_credit():
    state, events = step(fresh(E, credit=1_000, counter=50), NOW_MS, 300, 2_200)
    assert (state.credit, state.counter, state.load, events) == (700, 350, 2_200, ())


def test_the_relay_opens_when_the_credit_is_gone_and_nothing_more_is_drawn():
    state, events = step(fresh(E, credit=200, counter=0), NOW_MS, 300, 2_200)
    assert (state.credit, state.counter, state.relay, state.reason, state.load) == (0, 200, 0, "no_credit", 0)
    assert codes(events) == [rules.RELAY]
    assert events[0].detail == {"relay": 0, "reason": "no_credit", "load": 0}
    later, silence = step(state, NOW_MS + 1, 500, 2_200)
    assert (later.counter, silence) == (200, ())


@settings(max_examples=30)
@given(st.integers(0, 5_000), st.lists(st.integers(0, 900), max_size=12))
def test_what_is_counted_is_what_was_paid(credit, uses):
    state = fresh(E, credit=credit, counter=0)
    for use in uses:
        state, _ = step(state, NOW_MS, use, 100)
    assert state.credit + state.counter == credit
    assert state.credit >= 0


@pytest.mark.parametrize(("meter", "added"), [(E, 12_500), (W, 12_500_000), (find(ea="11"), 12_500)])
def test_a_token_adds_credit_and_closes_the_relay(meter, added):
    state = fresh(meter, credit=0, relay=DISCONNECTED, reason="no_credit")
    state, answer, events = enter_token(state, token(meter), "keypad", NOW_MS)
    assert (answer.result.name, answer.amount_tenths, state.credit) == ("ACCEPT", 125, added)
    assert (state.relay, state.reason) == (CONNECTED, "none")
    assert codes(events) == [rules.TOKEN, rules.RELAY]
    assert events[0].detail["tid"] == answer.tid == state.token.tids[-1]


def test_the_same_token_again_is_used_and_adds_nothing():
    state, _, _ = enter_token(fresh(E), token(E), "keypad", NOW_MS)
    again, answer, events = enter_token(state, token(E), "remote", NOW_MS)
    assert answer.result.name == "USED_ERROR"
    assert again.credit == state.credit
    assert len(again.accepted) == 1
    assert events[0].detail["result"] == "USED_ERROR"


def test_a_token_of_another_meter_is_refused():
    other = next(m for m in TOWN.installed if m.commodity == "electricity" and m.drn != E.drn)
    _, answer, _ = enter_token(fresh(E), token(other), "keypad", NOW_MS)
    assert answer.result.name == "CRC_ERROR"


def test_wrong_entries_lock_the_keypad_but_not_the_utility():
    state = fresh(E)
    for n in range(4):
        state, answer, _ = enter_token(state, f"{n:020d}", "keypad", NOW_MS)
        assert answer.result.name in {"CRC_ERROR", "MFR_CODE_ERROR"}
    assert state.lock_ms(NOW_MS) == 10_000
    assert "LOCKED 10 s" in display(state, NOW_MS)
    _, answer, _ = enter_token(state, token(E), "keypad", NOW_MS + 9_000)
    assert answer.result.name == "LOCKED_OUT"
    still, refused, _ = enter_token(state, "0" * 20, "remote", NOW_MS)
    assert refused.result.name != "LOCKED_OUT"
    assert still.lock_ms(NOW_MS) == 10_000
    opened, answer, _ = enter_token(state, token(E), "remote", NOW_MS)
    assert answer.result.name == "ACCEPT"
    assert opened.lock_ms(NOW_MS) == 0


def test_an_order_runs_once_and_is_answered_from_memory_after_that():
    state, first, _ = run_command(fresh(E), 77, "token", token(E), NOW_MS)
    assert (first.done, first.result) == (True, "ACCEPT")
    again, second, events = run_command(state, 77, "token", token(E, minutes=5), NOW_MS)
    assert (again, second, events) == (state, first, ())
    assert state.commands_run == (77,)


def test_a_repeat_fetches_the_stored_answer_to_where_a_master_looks():
    state = fresh(E)
    for command, kind in ((1, "relay_open"), (2, "relay_close")):
        state, _, _ = run_command(state, command, kind, "", NOW_MS)
    again, _, events = run_command(state, 1, "relay_open", "", NOW_MS)
    assert ([one.command for one in again.answers], events) == ([1, 2], ())
    assert (again.relay, again.commands_run) == (state.relay, (1, 2))


def test_the_memory_of_orders_holds_eight():
    state = fresh(E)
    for command in range(1, 12):
        state, _, _ = run_command(state, command, "read_now", "", NOW_MS)
    assert [one.command for one in state.answers] == [11, 10, 9, 8, 7, 6, 5, 4]


@pytest.mark.parametrize(
    ("before", "order", "relay", "reason", "done"),
    [
        ({}, "relay_open", DISCONNECTED, "order", True),
        ({"relay_stuck": True}, "relay_open", CONNECTED, "order", False),
        (
            {"ordered_open": True, "relay": 0, "reason": "order"},
            "relay_connect",
            CONNECTED,
            "none",
            True,
        ),
        (
            {"ordered_open": True, "relay": 0, "reason": "order", "hand_closes": False},
            "relay_close",
            CONNECTED,
            "none",
            True,
        ),
        (
            {"ordered_open": True, "relay": 0, "reason": "tamper", "tamper": True},
            "relay_close",
            DISCONNECTED,
            "tamper",
            False,
        ),
        (
            {"ordered_open": True, "relay": 0, "reason": "tamper", "tamper": True},
            "relay_connect",
            DISCONNECTED,
            "tamper",
            False,
        ),
        (
            {"ordered_open": True, "relay": 0, "reason": "order", "hand_closes": True},
            "relay_close",
            READY,
            "none",
            True,
        ),
        (
            {"ordered_open": True, "relay": 0, "reason": "order", "credit": 0},
            "relay_close",
            DISCONNECTED,
            "no_credit",
            False,
        ),
    ],
)
def test_relay_orders(before, order, relay, reason, done):
    state, answer, _ = run_command(fresh(E, **{"credit": 500} | before), 5, order, "", NOW_MS)
    assert (state.relay, state.reason, answer.done) == (relay, reason, done)


def test_an_order_to_close_a_tampered_meter_leaves_nothing_behind():
    state = fresh(E, ordered_open=True, relay=0, reason="tamper", tamper=True, credit=500)
    after, answer, events = run_command(state, 5, "relay_close", "", NOW_MS)
    assert (answer.result, events) == ("tamper", ())
    assert after.ordered_open, "clearing the tamper later must not close it by itself"


def test_the_clock_is_set_to_what_is_ordered_or_to_the_networks_time():
    state = fresh(E, clock_offset_ms=-86_400_000, clock_ok=False)
    wired, _, _ = run_command(state, 5, "clock", str(NOW_MS // 1000 + 3), NOW_MS)
    assert (wired.clock_offset_ms // 1000, wired.clock_ok) == (3 - bool(NOW_MS % 1000), True)
    radio, _, _ = run_command(state, 5, "clock", "", NOW_MS)
    assert (radio.clock_offset_ms, radio.clock_ok) == (0, True)


@pytest.mark.parametrize(
    ("argument", "done", "shows"),
    [
        ("power=4000", True, {"power_limit_w": 4000}),
        ("power=0", True, {"power_limit_w": 0}),
        ("low=9000,2000", True, {"low_marks": (9000, 2000)}),
        ("low=10,20", False, {"low_marks": (10_000, 3_000)}),
        ("power=4294967296", False, {"power_limit_w": 0}),
    ],
)
def test_limits(argument, done, shows):
    state, answer, _ = run_command(fresh(E), 5, "limits", argument, NOW_MS)
    assert (answer.done, answer.result) == (done, "DONE" if done else "out_of_range")
    assert {name: getattr(state, name) for name in shows} == shows


def test_a_relay_ready_for_reconnection_waits_for_a_hand():
    state = fresh(E, ordered_open=True, relay=0, reason="order", hand_closes=True, credit=500)
    state, _, _ = run_command(state, 5, "relay_close", "", NOW_MS)
    assert display(state, NOW_MS)[1] == "RELAY READY PRESS BUTTON"
    state, events = press_button(state, NOW_MS)
    assert (state.relay, codes(events)) == (CONNECTED, [rules.RELAY])


def test_no_meter_knows_another_order():
    with pytest.raises(ValueError, match="explode"):
        run_command(fresh(E), 5, "explode", "", NOW_MS)


def test_credit_does_not_close_what_the_utility_opened():
    state, _, _ = run_command(fresh(E, credit=0, relay=0, reason="no_credit"), 5, "relay_open", "", NOW_MS)
    state, answer, _ = enter_token(state, token(E), "keypad", NOW_MS)
    assert (answer.result.name, state.relay, state.reason) == ("ACCEPT", DISCONNECTED, "order")


def test_tamper_latches_until_its_token():
    state, events = open_lid(fresh(E, credit=500), NOW_MS)
    assert codes(events) == [rules.TAMPER, rules.RELAY]
    assert (state.relay, state.reason, lamp(state)) == (DISCONNECTED, "tamper", "red")
    assert open_lid(state, NOW_MS)[1] == ()
    clear = clear_tamper_token(key_of(E), EncryptionAlgorithm(int(E.ea)), tid=6_000_000, rnd=1)
    state, _, events = enter_token(state, clear, "keypad", NOW_MS)
    assert (state.tamper, state.relay) == (False, CONNECTED)
    assert codes(events) == [rules.TOKEN, rules.TAMPER, rules.RELAY]
    assert events[1].detail == {"active": False}


def test_a_power_limit_trips_and_closes_again():
    limit = power_limit_token(key_of(E), EncryptionAlgorithm(int(E.ea)), watts=1_000, tid=6_000_000, rnd=1)
    state, _, _ = enter_token(fresh(E, credit=9_000), limit, "remote", NOW_MS)
    state, events = step(state, NOW_MS, 10, 1_500)
    assert (state.reason, codes(events)) == ("overload", [rules.RELAY])
    state, _ = step(state, NOW_MS + rules.OVERLOAD_WAIT_MS, 0, 1_500)
    assert state.relay == CONNECTED


def test_clear_credit_empties_its_own_register_only():
    ea = EncryptionAlgorithm(int(E.ea))
    other = clear_credit_token(key_of(E), ea, register=1, tid=6_000_000, rnd=1)
    own = clear_credit_token(key_of(E), ea, register=0, tid=6_000_001, rnd=1)
    state, _, _ = enter_token(fresh(E, credit=900), other, "remote", NOW_MS)
    assert state.credit == 900
    state, _, _ = enter_token(state, own, "remote", NOW_MS)
    assert (state.credit, state.reason) == (0, "no_credit")


def test_an_electricity_meter_gasps_and_dies_with_its_network():
    state, events = power(fresh(E, credit=900), False, NOW_MS)
    assert codes(events) == [rules.LAST_GASP]
    assert (state.powered, lamp(state), display(state, NOW_MS)) == (False, "off", [])
    drawn, _ = step(state, NOW_MS, 100, 900)
    assert (drawn.credit, drawn.load) == (900, 0)
    for act in (
        lambda: enter_token(state, token(E), "keypad", NOW_MS),
        lambda: run_command(state, 1, "read_now", "", NOW_MS),
        lambda: press_button(state, NOW_MS),
    ):
        with pytest.raises(NoPower):
            act()
    back, events = power(state, True, NOW_MS)
    assert (codes(events), back.boot) == ([rules.POWER_RESTORED], state.boot + 1)
    assert power(back, True, NOW_MS) == (back, ())


def test_a_water_meter_lives_on_its_battery_without_flow():
    state, events = power(fresh(W, credit=900_000), False, NOW_MS)
    assert (state.powered, events) == (True, ())
    drawn, _ = step(state, NOW_MS, 100_000, 900)
    assert drawn.credit == 900_000
    assert display(drawn, NOW_MS)[-1] == "NO FLOW"
    taken, answer, _ = enter_token(state, token(W), "keypad", NOW_MS)
    assert answer.result.name == "ACCEPT"
    assert taken.credit == 900_000 + 12_500_000


def test_welded_contacts_draw_without_credit():
    state, _ = step(fresh(E, credit=100, counter=0, relay_stuck=True), NOW_MS, 300, 1_000)
    assert (state.credit, state.counter, state.relay) == (0, 300, CONNECTED)


def test_burn_is_counted_and_stops_at_zero():
    state, events = burn(fresh(E, credit=100, counter=7), 10_000, NOW_MS)
    assert (state.credit, state.counter, codes(events)) == (0, 107, [rules.RELAY])


def test_the_state_comes_back_from_json_as_it_was():
    state, _, _ = run_command(fresh(E), 9, "token", token(E), NOW_MS)
    state, _, _ = enter_token(state, "1" * 20, "keypad", NOW_MS)
    assert MeterState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


def test_what_is_shown_holds_no_key():
    state, _, _ = enter_token(fresh(E), token(E), "keypad", NOW_MS)
    shown = json.dumps([face(E, state, "TX-1", NOW_MS), shelf(state)])
    assert key_of(E).reveal().hex() not in shown
    assert shelf(state)["accepted"] == [
        {"tid": state.token.tids[0], "amount_tenths": 125, "carrier": "keypad", "at_ms": NOW_MS}
    ]
    assert face(E, state, "TX-1", NOW_MS)["last_token_result"] == "ACCEPT"


def test_units_are_rounded_down():
    assert (units_text(4_299, "electricity"), units_text(1_999_999, "water")) == ("4.2 kWh", "1.9 m3")


def test_low_credit_is_amber():
    assert [lamp(fresh(E, credit=c)) for c in (10_000, 10_001)] == ["amber", "green"]


def test_a_wrong_clock_stamps_events_wrongly():
    state = replace(fresh(E, credit=100), clock_offset_ms=-3_600_000)
    _, events = burn(state, 100, NOW_MS)
    assert events[0].at_ms == NOW_MS - 3_600_000
