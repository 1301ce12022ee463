"""Nothing leaves the outbox but by receipt or for want of room; repeats are patient."""

from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.mqtt_outbox import FIRST_REPEAT_MS, LAST_REPEAT_MS, MAX_ROWS, WINDOW, Outbox


def test_sent_once_then_again_after_five_seconds_then_more_patiently():
    box = Outbox()
    box.add((1, 1), telemetry=False)
    sent = [now for now in range(0, 200_000, 1_000) if box.due(now)]
    assert sent[:4] == [0, FIRST_REPEAT_MS, 3 * FIRST_REPEAT_MS, 7 * FIRST_REPEAT_MS]
    assert sent[-1] - sent[-2] == LAST_REPEAT_MS


def test_a_receipt_covers_its_own_boot_only():
    box = Outbox([(1, 1, False), (1, 2, False), (2, 1, False), (2, 5, True)])
    assert box.receipt(2, [(1, 3), (9, 4)]) == [(2, 1)]
    assert box.due(0) == [(1, 1), (1, 2), (2, 5)]


def test_a_reconnect_makes_everything_due_again():
    box = Outbox([(1, 1, False)])
    assert box.due(0) == [(1, 1)]
    assert box.due(1) == []
    box.reconnected()
    assert box.due(2) == [(1, 1)]


def test_the_window_holds_back_the_rest():
    box = Outbox((1, n, False) for n in range(1, 200))
    assert box.due(0) == [(1, n) for n in range(1, WINDOW + 1)]
    box.receipt(1, [(1, 10)])
    assert box.due(1) == [(1, n) for n in range(WINDOW + 1, WINDOW + 11)]


def test_a_full_outbox_drops_the_oldest_telemetry_and_never_an_event():
    box = Outbox((1, n, n % 2 == 0) for n in range(1, MAX_ROWS + 1))
    assert box.add((1, MAX_ROWS + 1), telemetry=True) == [(1, 2)]
    full = Outbox((1, n, False) for n in range(1, MAX_ROWS + 1))
    assert full.add((2, 1), telemetry=False) == []
    assert len(full) == MAX_ROWS + 1


def test_a_clock_that_went_back_does_not_silence_the_meter():
    box = Outbox([(1, 1, False)])
    assert box.due(10_000_000)
    assert box.due(5) == [(1, 1)]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 30)), unique=True), st.integers(1, 3))
def test_what_is_due_and_receipted_is_everything(keys, boot):
    box = Outbox((b, s, False) for b, s in sorted(keys))
    gone = box.receipt(boot, [(1, 30)])
    assert sorted(gone + box.due(0)) == sorted(keys)
