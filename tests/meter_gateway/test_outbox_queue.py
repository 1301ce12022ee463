import sqlite3
from contextlib import closing

import pytest

from meter_gateway.edge.outbox import Quota
from meter_gateway.edge.outbox_queue import OutboxQueue
from meter_gateway.topics import Event, Reading, TaskReport

DRN = "06000000011"


@pytest.fixture
def queue():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        made = OutboxQueue(db, Quota(messages=4, bytes=10**6, age_ms=100))
        made.boot = 3
        yield made


def load(at):
    return Reading(DRN, "load", at, 1)


def test_names_count_from_one_and_what_waits_is_known_without_asking_the_file(queue):
    queue.add([Event(DRN, "x", 1), load(1)], 1)
    queue.add([TaskReport(1, "DONE", 2)], 2)
    assert queue.list_keys(9) == [(3, 1), (3, 2), (3, 3)]
    assert queue.counts == {"answer": 0, "event": 2, "billing": 0, "telemetry": 1}
    queue.delete(3, 1, 2)
    assert (queue.depth(), queue.list_keys(9)) == (1, [(3, 3)])
    assert queue.find_message((3, 3)).records == [TaskReport(1, "DONE", 2)]
    again = OutboxQueue(queue._db, Quota())
    assert (again.counts, again.tally.bytes) == (queue.counts, queue.tally.bytes)


def test_excess_goes_by_number_first_and_then_by_age(queue):
    for at in (1, 2, 3):
        queue.add([load(at)], at)
    assert queue.give_up_excess(50) == 0
    assert queue.give_up_excess(102) == 1, "older than a hundred"
    for at in (4, 5, 6, 7):
        queue.add([load(at)], at)
    assert queue.depth() == 4
    assert queue.dropped == 3
    assert queue.has_dropped()
    assert queue.tell_dropped(9) == 1
    assert not queue.has_dropped()


def test_another_reading_of_the_future_is_telemetry_until_somebody_bills_by_it(queue):
    queue.refuses_telemetry = True
    queue.add([load(1), Reading(DRN, "reverse", 1, 1)], 1)
    assert queue.counts["billing"] == 1
    assert queue.counts["telemetry"] == 0
    assert queue.dropped == 1


def test_what_is_young_is_only_of_a_minute_though_nobody_asks(queue):
    for second in range(500):
        queue.add([Event(DRN, "x", second)], second * 1000)
    assert len(queue.tally.young) == 61
    queue.give_up_excess(10**9)
    assert queue.tally.young == {}


def test_a_transaction_that_fails_leaves_the_tally_as_it_was(queue):
    for at in (1, 2, 3):
        queue.add([Event(DRN, "x", at)], at)
    before = queue.tally.begin()
    queue.delete(3, 2, 2)
    queue.add([Event(DRN, "x", 4)], 4)
    queue.tally.undo(before)
    assert (queue.tally.seq, queue.depth()) == (3, 3)
    assert queue.list_live(5) == [(3, 1), (3, 2), (3, 3)], "in their order"
