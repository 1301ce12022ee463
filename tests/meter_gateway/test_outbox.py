from meter_gateway.outbox import RESEND_FIRST_S, RESEND_MAX_S, WINDOW, OutboxWindow


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
