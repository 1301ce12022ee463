"""What a gateway keeps of tasks, and how its desk answers."""

import sqlite3
from contextlib import closing

import pytest

from meter_gateway.edge import task_journal
from meter_gateway.edge.outbox_file import OutboxBroken, OutboxFull
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


def test_a_broken_file_is_set_aside_and_the_site_starts(tmp_path):
    path = tmp_path / "tasks.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    with closing(TaskJournal(path)) as opened:
        assert opened.accept(order()) is None
    assert len(list(tmp_path.glob("tasks.sqlite.broken-*"))) == 1


def test_one_that_breaks_in_use_is_set_aside_at_the_next_start(journal, tmp_path):
    journal._db.execute("PRAGMA journal_mode = DELETE")
    path = tmp_path / "tasks.sqlite"
    body = path.read_bytes()
    path.write_bytes(body[:4096] + b"rust" * ((len(body) - 4096) // 4))
    journal._db.execute("PRAGMA shrink_memory")
    with pytest.raises(OutboxBroken):
        journal.accept(order())
    journal.close()
    path.write_bytes(body)  # as sound as it looks now
    with closing(TaskJournal(path)):
        pass
    assert len(list(tmp_path.glob("tasks.sqlite.broken-*"))) == 1


def full(*_anything):
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error


def test_a_full_disk_refuses_a_task(journal):
    journal._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(OutboxFull):
        for task in range(1, 200):
            journal.accept(order(task))


def test_without_room_for_a_file_tasks_are_remembered_until_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(task_journal, "open_outbox", full)
    with closing(TaskJournal(tmp_path / "tasks.sqlite")) as opened:
        opened.accept(order())
        opened.settle(done())
        assert opened.accept(order()) == done()


def test_answers_without_sense_run_again(journal):
    journal.accept(order(1))
    journal.accept(order(2))
    journal.settle(done(1))
    journal._db.execute("UPDATE task SET answer = x'7b80' WHERE id = 1")
    journal._db.execute("UPDATE task SET asked = x'7b80' WHERE id = 2")
    assert journal.accept(order(1)) is None
    assert journal.list_open() == []


def test_an_answer_that_does_not_fit_is_logged_and_asked_again(journal, tmp_path, monkeypatch, caplog):
    with closing(OutboxStore(tmp_path / "outbox.sqlite")) as store:
        desk = TaskDesk(journal, store, lambda: 7, lambda: None)
        worker = Worker()
        desk.take(order(), {"b": worker})

        def full(_records, _now_ms):
            raise OutboxFull("no room")

        monkeypatch.setattr(store, "add", full)
        worker.submitted[0][1](done())
        assert "no room" in caplog.text
        assert [one.task for one in journal.list_open()] == [1]
