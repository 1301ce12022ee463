"""What a gateway keeps of tasks, and how its desk answers."""

import pytest

from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.edge.task_desk import TaskDesk
from meter_gateway.edge.task_journal import KEPT, TaskJournal
from meter_gateway.topics import TaskOrder, TaskReport


@pytest.fixture
def journal(tmp_path):
    opened = TaskJournal(tmp_path / "tasks.sqlite")
    yield opened
    opened.close()


def order(task=1, bus="b", **more):
    return TaskOrder(task, bus, "probe", {"unit": 3, "profiles": []}, 0, 2000, **more)


def done(task=1):
    return TaskReport(task, "DONE", 5, 100, {"unit": 3})


def test_an_answer_is_given_again_and_survives(journal, tmp_path):
    assert journal.accept(order()) is None and journal.accept(order()) is None
    assert [one.task for one in journal.list_open()] == [1]
    journal.settle(done())
    journal.settle(TaskReport(1, "FAILED", 9))  # the first one stands
    journal.close()
    again = TaskJournal(tmp_path / "tasks.sqlite")
    assert again.accept(order()) == done() and again.list_open() == []
    again.close()


def test_old_answers_are_forgotten_and_open_tasks_are_not(journal):
    journal.accept(order(1))
    for task in range(2, KEPT + 5):
        journal.accept(order(task))
        journal.settle(done(task))
    assert [one.task for one in journal.list_open()] == [1]
    assert journal.accept(order(2)) is None  # forgotten: it would run again, and only read


class Worker:
    def __init__(self):
        self.submitted = []
        self.tasks = self
        self.woken = 0

    def submit(self, order, tell):
        self.submitted.append((order, tell))

    def wake(self):
        self.woken += 1


def test_the_desk(journal, tmp_path):
    store = OutboxStore(tmp_path / "outbox.sqlite")
    stored = []
    desk = TaskDesk(journal, store, lambda: 7, lambda: stored.append(1))
    worker = Worker()
    desk.take(order(), {"b": worker})
    assert worker.woken == 1
    desk.resume({"b": worker})  # after a restart
    assert len(worker.submitted) == 2
    worker.submitted[0][1](done())
    desk.take(order(), {"b": worker})  # said again by the headend: answered, not run
    assert len(worker.submitted) == 2 and len(stored) == 2
    desk.take(order(2, bus="nowhere"), {"b": worker})
    assert journal.list_open() == [] and len(stored) == 3
    store.close()
