from dataclasses import replace

import pytest

from meter_gateway.edge.watch import (
    AHEAD_MS,
    MEANINGLESS_MS,
    REPORT_MS,
    Memory,
    is_doubtful,
    is_time_known,
    missed_tokens,
    observe,
    observe_meaningless,
    observe_stranger,
)
from meter_gateway.topics import CLOCK_DRIFT, Event, Reading

DRN = "06000000011"
T0 = 1_800_000_000_000
VALUES = {
    "serial": DRN,
    "boot_count": 4,
    "credit": 9_000,
    "relay": 1,
    "relay_reason": "none",
    "tamper": 0,
    "token_count": 12,
    "last_tid": 777,
    "last_result": "ACCEPT",
    "last_carrier": "keypad",
    "counter": 50_000,
    "load": 1_000,
}


def look(memory, now_ms, log=(), **changes):
    return observe(memory, DRN, {**VALUES, **changes}, log, now_ms)


def seen():
    return look(Memory(), T0)[0]


def codes(records):
    return [record.code for record in records if isinstance(record, Event)]


def channels(records):
    return [record.channel for record in records if isinstance(record, Reading)]


def test_first_sight_reports_values_and_invents_no_events():
    memory, records = look(Memory(), T0)
    assert codes(records) == []
    assert channels(records) == ["counter", "credit", "load", "relay"]
    assert (memory.token_count, memory.reported_ms) == (12, T0)


def test_nothing_new_is_told_until_its_time():
    memory = seen()
    assert look(memory, T0 + 2000, credit=8_999, load=1_100)[1] == []
    again, records = look(memory, T0 + REPORT_MS)
    assert channels(records) == ["counter", "credit", "load", "relay"]
    assert again.reported_ms == T0 + REPORT_MS


@pytest.mark.parametrize("changes", [{"credit": 9_001}, {"credit": 0}, {"load": 0}, {"load": 2_000}], ids=str)
def test_news_is_told_at_once(changes):
    assert channels(look(seen(), T0 + 2000, **changes)[1]) == ["counter", "credit", "load", "relay"]


def test_a_clock_set_back_does_not_silence_the_meter():
    assert channels(look(seen(), T0 - 3_600_000)[1])


def test_a_token_typed_at_the_meter_is_seen_by_polling():
    _, records = look(seen(), T0 + 2000, token_count=13, credit=19_000)
    assert records[0] == Event(
        DRN,
        "raseed.token",
        T0 + 2000,
        {"tid": 777, "result": "ACCEPT", "carrier": "keypad", "credit": 19_000},
    )


def entry(number, result="USED_ERROR", at=T0 // 1000 - 5):
    return {"number": number, "result": result, "carrier": "keypad", "tid": 100 + number, "at": at}


def test_tokens_typed_while_nobody_looked_are_told_in_order():
    values = {"token_count": 15}
    assert missed_tokens(seen(), {**VALUES, **values}) == 3
    log = [entry(15), entry(14), entry(13, at=0)]
    _, records = look(seen(), T0, log, **values)
    tokens = [record for record in records if isinstance(record, Event)]
    assert [token.detail["tid"] for token in tokens] == [113, 114, 777]
    assert [token.at for token in tokens] == [T0, T0 - 5000, T0], "a meter without a clock gets our time"


def test_more_tokens_than_the_meter_keeps():
    _, records = look(seen(), T0, [entry(n) for n in range(100, 92, -1)], token_count=100)
    assert len(codes(records)) == 8


def test_a_token_counter_that_fell_is_a_new_beginning():
    memory, records = look(seen(), T0 + 1, token_count=2)
    assert codes(records) == []
    assert memory.token_count == 2


def test_relay_tamper_and_restart_are_told():
    memory, records = look(seen(), T0 + 1, relay=0, relay_reason="tamper", load=0, tamper=1, boot_count=5)
    assert codes(records) == ["raseed.relay", "3.12.0.257", "3.26.0.216"]
    assert records[0].detail == {"relay": 0, "reason": "tamper", "load": 0}
    _, records = look(memory, T0 + 2, relay=0, relay_reason="tamper", load=0, tamper=0, boot_count=5)
    assert [record.detail for record in records if isinstance(record, Event)] == [{"active": False}]


def test_another_meter_at_our_unit_is_told_once_until_ours_is_back():
    memory, records = observe_stranger(seen(), DRN, "07000000000", T0)
    assert codes(records) == ["raseed.unknown_meter"]
    assert observe_stranger(memory, DRN, "07000000000", T0 + 1) == (memory, [])
    assert not look(memory, T0 + 2)[0].is_stranger


def test_a_counter_that_fell_is_worth_a_second_look():
    assert not is_doubtful(Memory(), VALUES)
    assert not is_doubtful(seen(), VALUES)
    assert is_doubtful(seen(), {**VALUES, "counter": 0})
    assert not is_doubtful(seen(), {**VALUES, "counter": None})


def test_a_map_without_a_load_still_tells_the_rest():
    values = {name: value for name, value in VALUES.items() if name != "load"}
    memory, records = observe(Memory(), DRN, values, (), T0)
    assert channels(records) == ["counter", "credit", "relay"]
    assert memory == replace(seen(), load=None)


@pytest.mark.parametrize(
    ("offsets_s", "told"),
    [
        ([0, 120, -120], []),
        ([121, 121, 90, 61], [(True, 121)]),
        ([-900, -70, -60, -100], [(True, -900), (False, -60)]),
        ([-31_536_000, 0, -31_536_000], [(True, -31_536_000), (False, 0), (True, -31_536_000)]),
        ([None, 500, None, 500], [(True, 500)]),  # a slow block that was not read says nothing
    ],
)
def test_a_clock_that_is_off_is_told_when_it_begins_and_when_it_ends(offsets_s, told):
    memory, events = seen(), []
    for place, offset_s in enumerate(offsets_s):
        now_ms = T0 + place * 1_000
        clock = {} if offset_s is None else {"clock": now_ms // 1000 + offset_s}
        memory, records = look(memory, now_ms, **clock)
        events += [one for one in records if isinstance(one, Event)]
    assert {one.code for one in events} <= {CLOCK_DRIFT}
    assert [(one.detail["active"], one.detail["seconds"]) for one in events] == told


def test_what_flows_back_is_told_when_it_moves_and_with_the_other_readings():
    memory, records = look(Memory(), T0, reverse=0)
    assert "reverse" not in channels(records)
    memory, records = look(memory, T0 + 2_000, reverse=5)
    assert records == [], "it waits for its turn"
    memory, records = look(memory, T0 + REPORT_MS, reverse=7)
    assert channels(records) == ["counter", "credit", "load", "relay", "reverse"]
    assert records[-1].value == 7
    memory, records = look(memory, T0 + 2 * REPORT_MS, reverse=7)
    assert "reverse" not in channels(records)


def test_a_value_that_no_message_can_carry_is_no_value():
    """Words turned round make such a counter; a record of it would stop the gateway that reads it back."""
    _, records = look(replace(seen(), reported_ms=0), T0, counter=2**62 + 1, credit=-(2**62) - 1)
    told = {record.channel for record in records if isinstance(record, Reading)}
    assert told >= {"load", "relay"}
    assert not told & {"counter", "credit"}


def test_registers_without_meaning_are_told_once_and_once_when_they_have_one_again():
    faults = {"last_result": "last_result holds 19, which has no meaning", "b": "x" * 300}
    memory, records = observe_meaningless(seen(), DRN, faults, T0)
    assert codes(records) == ["raseed.no_meaning"]
    assert records[0].detail["active"] is True
    assert records[0].detail["registers"] == {"b": "x" * 100, "last_result": faults["last_result"]}
    assert observe_meaningless(memory, DRN, faults | {"b": "another"}, T0 + 1) == (memory, [])
    memory, records = observe_meaningless(memory, DRN, {}, T0 + 2)
    assert records[0].detail == {"active": False, "registers": {}}
    assert memory == replace(seen(), meaningless_ms=T0)


def test_registers_that_change_their_minds_at_each_poll_are_told_twice_an_hour_at_most():
    memory, told = seen(), []
    for place in range(4 * 3600 // 10):
        faults = {} if place % 3 == 0 else {f"register_{place % 7}": "?"}
        memory, records = observe_meaningless(memory, DRN, faults, T0 + 10_000 * place)
        told += records
    assert len(told) <= 8
    at = told[-1].at + MEANINGLESS_MS
    memory, records = observe_meaningless(memory, DRN, {"another": "?"}, at)
    assert list(records[0].detail["registers"]) == ["another"]
    assert observe_meaningless(memory, DRN, {"b": "?"}, at - 1)[1], "a clock set back does not silence it"


def test_a_map_all_of_nonsense_is_told_shortly():
    faults = {f"register_{place}": "?" for place in range(90)}
    assert len(observe_meaningless(Memory(), DRN, faults, T0)[1][0].detail["registers"]) == 10


def test_a_token_whose_answer_nobody_understands_is_neither_taken_nor_refused():
    records = look(seen(), T0 + 2000, token_count=13, last_result=None, last_tid=900)[1]
    assert records[0].detail == {"tid": 900, "result": "UNKNOWN", "carrier": "keypad", "credit": 9_000}


def test_a_value_without_meaning_is_no_news_and_forgets_nothing():
    memory, records = look(seen(), T0 + 2000, relay_reason=None, counter=None)
    assert records == []
    assert (memory.relay_reason, memory.counter) == ("none", 50_000)


@pytest.mark.parametrize(
    ("now_ms", "created_ms", "is_known"),
    [
        (T0, T0, True),
        (T0 - AHEAD_MS, T0, True),
        (T0 - AHEAD_MS - 1, T0, False),
        (1_600_000_000_000, 0, False),
        (T0, 0, True),
    ],
    ids=str,
)
def test_a_clock_before_an_order_was_made_is_not_believed(now_ms, created_ms, is_known):
    assert is_time_known(now_ms, created_ms) is is_known
