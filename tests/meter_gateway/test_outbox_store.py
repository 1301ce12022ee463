import sqlite3

import pytest

from meter_gateway.outbox_store import KEEP_SETTLED_MS, OutboxStore
from meter_gateway.topics import Command, Config, Device, Event, Reading
from meter_gateway.watch import Memory

DRN = "06000000011"
TOKEN = "1" * 20


def reopen(tmp_path):
    return OutboxStore(tmp_path / "gateway.sqlite")


@pytest.fixture
def store(tmp_path):
    opened = reopen(tmp_path)
    yield opened
    opened.close()


def token(command=7, expires=10_000):
    return Command(command, DRN, "token", TOKEN, 1, expires)


def drain(store):
    return [store.find_message(key) for key in store.list_keys(1000)]


def test_boot_grows_and_messages_survive_a_start(store, tmp_path):
    assert store.boot == 1
    store.add([Reading(DRN, "credit", 1, 2)], 5)
    store.close()
    again = reopen(tmp_path)
    assert again.boot == 2
    again.add([Reading(DRN, "credit", 2, 3)], 6)
    assert again.list_keys(10) == [(1, 1), (2, 1)]
    again.delete_receipted(1, [(1, 1)])
    assert again.list_keys(10) == [(2, 1)]
    assert again.find_message((1, 1)) is None
    again.close()


def test_a_disk_that_was_lost_does_not_repeat_the_names_of_old_messages(tmp_path):
    before = OutboxStore(tmp_path / "old.sqlite", first_boot=1_000)
    before.close()
    again = OutboxStore(tmp_path / "old.sqlite", first_boot=5_000)
    assert again.boot == 1_001, "a disk that is there counts on"
    again.close()
    replaced = OutboxStore(tmp_path / "new.sqlite", first_boot=5_000)
    replaced.add([Reading(DRN, "credit", 1, 2)], 5)
    assert replaced.list_keys(10) == [(5_000, 1)]
    replaced.close()


def test_one_owner(store, tmp_path):
    store.add([Reading(DRN, "credit", 1, 2)], 5)
    with pytest.raises(sqlite3.OperationalError):
        reopen(tmp_path)


def test_a_repeated_command_is_journalled_once_and_answered_from_the_journal(store):
    assert store.accept(token(), 100).state == "ACCEPTED"
    store.mark_writing(7, 110)
    assert store.get_entry(7).progress.state == "ACCEPTED", "WRITING is nobody else's business"
    store.mark(7, "VERIFIED", {"credit": 5}, 120)
    repeated = store.accept(token(), 130)
    assert (repeated.state, repeated.detail, repeated.at_ms) == ("VERIFIED", {"credit": 5}, 120)
    told = [message.records[0].state for message in drain(store)]
    assert told == ["ACCEPTED", "VERIFIED", "VERIFIED"]
    assert store.list_open() == []


def test_a_settled_command_forgets_its_token(store, tmp_path):
    store.accept(token(), 100)
    assert TOKEN not in repr(store.get_entry(7))
    assert store.get_entry(7).argument == TOKEN
    store.mark(7, "REJECTED", {"result": "OLD_ERROR"}, 120)
    assert store.get_entry(7).argument == ""


def test_open_commands_come_back_in_their_order_after_a_kill(store, tmp_path):
    for command in (9, 3, 5):
        store.accept(token(command), 100)
    store.mark_writing(3, 101)
    store.mark(9, "EXPIRED", {}, 102)
    store.close()
    again = reopen(tmp_path)
    assert [(entry.id, entry.state) for entry in again.list_open()] == [(3, "WRITING"), (5, "ACCEPTED")]
    again.close()


def test_loads_travel_alone_and_go_first_when_the_disk_fills(store):
    event = Event(DRN, "raseed.relay", 1)
    for step in range(4):
        store.add([Reading(DRN, "load", step, 1), Reading(DRN, "counter", step, 2), event], step)
    assert store.depth() == 8
    assert store.trim(limit=6) == 2
    assert store.trim(limit=0) == 2
    assert store.trim(limit=0) == 0, "counters and events are never given up"
    assert store.depth() == 4


def test_memory_and_events_are_kept_together(store, tmp_path):
    memory = Memory(token_count=5, relay=1, is_down=True)
    store.save(DRN, memory, [Event(DRN, "raseed.link_down", 1)], 1)
    config = Config(4, 2.0, [Device(DRN, "raseed-prepaid-e1", "tcp-1", 1)])
    store.save_config(config)
    store.close()
    again = reopen(tmp_path)
    assert again.list_memories() == {DRN: memory}
    assert again.find_config() == config
    assert again.depth() == 1
    again.close()


def test_old_answers_are_forgotten_open_commands_never(store):
    store.accept(token(1), 100)
    store.accept(token(2), 100)
    store.mark(1, "VERIFIED", {}, 100)
    store.forget_settled(101 + KEEP_SETTLED_MS)
    assert [entry.id for entry in store.list_open()] == [2]
    with pytest.raises(KeyError):
        store.get_entry(1)
