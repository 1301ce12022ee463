import pytest

from meter_gateway.edge.outbox import (
    HISTORY_WINDOW,
    RESEND_FIRST_S,
    RESEND_MAX_S,
    WINDOW,
    OutboxWindow,
    Pace,
    Worth,
    cut,
    history_per_s,
    worth_of,
)
from meter_gateway.topics import MAX_RECORDS, Event, Progress, Reading

DRN = "06000000011"


@pytest.mark.parametrize(
    ("record", "worth"),
    [
        (Progress(1, DRN, "VERIFIED", 1), Worth.ANSWER),
        (Event(DRN, "raseed.relay", 1), Worth.EVENT),
        (Reading(DRN, "counter", 1, 1), Worth.BILLING),
        (Reading(DRN, "credit", 1, 1), Worth.BILLING),
        (Reading(DRN, "relay", 1, 1), Worth.BILLING),
        (Reading(DRN, "load", 1, 1), Worth.TELEMETRY),
    ],
)
def test_what_a_record_is_worth(record, worth):
    assert worth_of(record) is worth


def test_telemetry_travels_alone_and_the_rest_together_in_its_order():
    load, counter, event = Reading(DRN, "load", 1, 1), Reading(DRN, "counter", 1, 2), Event(DRN, "x", 1)
    assert list(cut([load, counter, event])) == [(Worth.EVENT, [counter, event]), (Worth.TELEMETRY, [load])]
    assert [len(part) for _, part in cut([counter] * (MAX_RECORDS + 1))] == [MAX_RECORDS, 1]
    assert list(cut([])) == []


def test_the_pace_holds_a_second_and_fills_with_time():
    pace = Pace(20)
    assert pace.allowed(0.0) == 20
    for _ in range(20):
        pace.spend()
    assert pace.allowed(0.0) == 0
    assert pace.allowed(0.5) == 10
    assert pace.allowed(100.0) == 20, "a long silence saves up no flood"
    assert pace.allowed(99.0) <= 20


def test_a_large_site_catches_up_as_fast_as_a_small_one():
    assert [history_per_s(meters) for meters in (0, 1, 30, 60, 600)] == [20, 20, 20, 40, 400]


def test_a_pace_under_one_a_second_lets_one_through_in_time():
    pace = Pace(0.1)
    assert pace.allowed(0.0) == 1
    pace.spend()
    assert [pace.allowed(at) for at in (1.0, 9.0, 10.5)] == [0, 0, 1]


def test_history_leaves_room_for_what_is_true_now():
    window = OutboxWindow()
    for seq in range(HISTORY_WINDOW):
        window.sent((1, seq), 0.0, is_history=True)
    assert window.history_room == 0
    assert window.room == WINDOW - HISTORY_WINDOW
    for seq in range(HISTORY_WINDOW, WINDOW):
        window.sent((1, seq), 0.0)
    window.receipted(1, [(0, 9)])
    assert window.history_room == 10


def test_the_window_is_bounded_and_receipts_make_room():
    window = OutboxWindow()
    for seq in range(WINDOW):
        window.sent((1, seq), 0.0)
    assert window.room == 0
    window.receipted(1, [(0, 9), (50, 50)])
    assert window.room == 11
    window.receipted(2, [(0, WINDOW)])
    assert window.room == 11, "another boot's receipt is not ours"
    assert window.is_under_way((1, 10))
    assert not window.is_under_way((1, 9))


def test_without_a_receipt_it_is_sent_again_with_growing_patience():
    window = OutboxWindow()
    now = 0.0
    window.sent((1, 1), now)
    waits = []
    for _ in range(6):
        step = 0.0
        while not window.overdue(now + step):
            step += 1.0
        now += step
        waits.append(step)
        window.sent((1, 1), now)
    assert waits == [RESEND_FIRST_S, 10.0, 20.0, 40.0, RESEND_MAX_S, RESEND_MAX_S]


def test_after_a_reconnect_everything_is_sent_again_oldest_first():
    window = OutboxWindow()
    for key in ((2, 1), (1, 9), (1, 2)):
        window.sent(key, 0.0)
    assert window.overdue(10.0) == [(1, 2), (1, 9), (2, 1)]
    window.reconnected()
    assert window.room == WINDOW
    assert window.overdue(10.0) == []
