import sqlite3
import struct
from contextlib import closing

import pytest

from meter_gateway.edge.outbox import Quota
from meter_gateway.edge.outbox_file import OutboxFull, Reserve
from meter_gateway.edge.outbox_store import KEEP_SETTLED_MS, OutboxStore
from meter_gateway.edge.watch import Memory
from meter_gateway.topics import Command, Config, Device, Event, Progress, Reading

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


@pytest.mark.parametrize(
    ("now_ms", "state"), [(99_999, "ACCEPTED"), (100_000, "UNKNOWN"), (9_999, "UNKNOWN")], ids=str
)
def test_what_is_new_to_the_journal_too_late_may_have_been_in_one_that_was_lost(store, now_ms, state):
    """Nobody says of it that it never reached its meter; nor while our clock is before the order was made."""
    order = Command(7, DRN, "token", TOKEN, 70_000, 100_000)
    assert store.accept(order, now_ms).state == state
    assert store.get_entry(7).created_ms == 70_000
    assert store.accept(order, 200_000).state == state, "what the journal knows it knows"


def test_a_journal_of_an_earlier_version_is_read(store, tmp_path):
    store.accept(token(), 100)
    store._db.execute("ALTER TABLE command DROP COLUMN created_ms")
    store.close()
    again = reopen(tmp_path)
    assert (again.get_entry(7).state, again.get_entry(7).created_ms) == ("ACCEPTED", 0)
    again.close()


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


def load(step, value=1):
    return Reading(DRN, "load", step, value)


def counter(step):
    return Reading(DRN, "counter", step, step)


class Paper(Reserve):
    """A reserve that only remembers whether it is held: what is tested is the cap on the file."""

    def __init__(self, tmp_path, size):
        super().__init__(tmp_path / "none", size)
        self.is_held = True

    def take(self):
        self.is_held = True
        return True

    def give(self):
        had, self.is_held = self.is_held, False
        return had


def capped(tmp_path, max_kb=100, reserve_kb=40):
    return OutboxStore(
        tmp_path / "capped.sqlite",
        max_bytes=max_kb * 1024,
        reserve=Paper(tmp_path, reserve_kb * 1024),
    )


def test_on_a_full_disk_telemetry_is_refused_first_and_what_matters_goes_on(tmp_path, caplog):
    with closing(capped(tmp_path)) as store:
        step = 0
        while not store.is_full:
            step += 1
            store.add([load(step)], step)
        assert "telemetry is given up" in caplog.text
        filled = store.queue.counts["telemetry"]
        for _ in range(200):
            step += 1
            store.add([load(step), counter(step), Event(DRN, "raseed.relay", step)], step)
        store.accept(token(), step)
        assert store.queue.counts["event"] == 200
        assert store.queue.counts["answer"] == 1
        assert store.queue.counts["telemetry"] <= filled
        assert store.queue.dropped + store.queue.counts["telemetry"] == step, (
            "every value is there or counted"
        )


def test_a_disk_that_takes_nothing_more_says_so_and_changes_nothing_until_it_has_room(tmp_path):
    with closing(capped(tmp_path)) as store:
        kept = 0
        with pytest.raises(OutboxFull, match="Make room on the disk"):
            while True:
                store.add([Event(DRN, "raseed.relay", kept + 1, {"note": "x" * 180})], kept)
                kept += 1
        assert store.depth() == kept
        names = [message.seq for message in drain(store)]
        assert names == list(range(1, kept + 1)), "what could not be stored took no name"
        with pytest.raises(OutboxFull):
            store.accept(token(), 5)
        with pytest.raises(KeyError):
            store.get_entry(7)
        store.delete_receipted(1, [(1, kept)])
        store.breathe()
        assert not store.is_full
        store.add([load(1), counter(1)], 1)
        assert [message.seq for message in drain(store)] == [kept + 1, kept + 2]


def test_beyond_the_quota_the_oldest_telemetry_goes_and_is_told_once(tmp_path):
    quota = Quota(messages=10, bytes=10**6, age_ms=1_000_000)
    with closing(OutboxStore(tmp_path / "q.sqlite", quota=quota)) as store:
        for step in range(1, 9):
            store.add([load(step), counter(step)], step)
        assert store.depth() == 10
        assert store.queue.counts["billing"] == 8
        assert [one.records[0].at for one in drain(store) if one.records[0].channel == "load"] == [7, 8]
        assert store.tell_dropped(50) == 1
        assert store.tell_dropped(51) == 0
        told = drain(store)[-1].records
        assert told == [
            Event(DRN, "raseed.dropped", 50, {"class": "telemetry", "count": 6, "from": 1, "to": 6})
        ]
        for step in range(9, 30):
            store.add([counter(step)], step)
        assert store.queue.counts["telemetry"] == 0
        assert store.queue.counts["billing"] == 29, "never given up, however many"
        assert store.queue.dropped == 8
    with closing(OutboxStore(tmp_path / "q.sqlite", quota=quota)) as again:
        assert again.queue.dropped == 8
        assert again.tell_dropped(60) == 1
        assert drain(again)[-1].records[0].detail == {"class": "telemetry", "count": 2, "from": 7, "to": 8}


def test_the_quota_in_bytes_and_in_age(tmp_path):
    size = 110  # of one reading, about
    quota = Quota(messages=1000, bytes=20 * size, age_ms=1000)
    with closing(OutboxStore(tmp_path / "q.sqlite", quota=quota)) as store:
        for step in range(1, 40):
            store.add([load(step)], step)
        held = store.depth()
        assert 15 <= held < 39
        assert store.queue.tally.bytes <= quota.bytes
        assert store.trim(now_ms=1_010) == 0
        assert store.trim(now_ms=1_030) > 0
        assert all(message.made_ms >= 30 for message in drain(store))
        assert store.queue.dropped == 39 - store.depth()


def test_what_is_young_goes_first_and_history_by_its_worth(tmp_path):
    path = tmp_path / "h.sqlite"
    with closing(OutboxStore(path)) as store:
        store.add([load(1), counter(1)], 1)
        store.add([Event(DRN, "x", 2)], 2)
        store.accept(token(), 3)
    with closing(OutboxStore(path)) as store:
        store.add([counter(5)], 100_000)
        store.add([load(6)], 130_000)
        queue = store.queue
        assert queue.list_live(140_000) == [(2, 1), (2, 2)]
        assert queue.list_live(180_000) == [(2, 2)]
        history = queue.list_history(180_000, 10, ())
        kinds = [type(store.find_message(key).records[0]) for key in history[:2]]
        assert kinds == [Progress, Event]
        assert history[2:] == [(1, 1), (2, 1), (1, 2)], "counters before loads, oldest first"
        assert queue.list_history(180_000, 2, {history[0]}) == history[1:3]
        assert queue.backlog(180_000) == 5
        store.delete_receipted(1, [(1, 4)])
        assert (queue.backlog(180_000), queue.depth()) == (1, 2)
        assert queue.list_live(100_000_000) == []


def test_a_clock_set_back_makes_history_not_a_standstill(store):
    store.add([counter(1)], 10**12)
    assert store.queue.list_live(5) == []
    assert store.queue.list_history(5, 10, ()) == [(1, 1)]


def test_a_file_of_the_first_release_is_taken_over(tmp_path):
    path = tmp_path / "old.sqlite"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
            "INSERT INTO meta VALUES ('boot', '4');"
            "CREATE TABLE message (boot INTEGER NOT NULL, seq INTEGER NOT NULL, made_ms INTEGER NOT NULL,"
            " droppable INTEGER NOT NULL, records BLOB NOT NULL, PRIMARY KEY (boot, seq)) STRICT;"
            "CREATE INDEX message_droppable ON message (boot, seq) WHERE droppable = 1;"
            """INSERT INTO message VALUES (4, 1, 9, 1, x'5b5d'), (4, 2, 9, 0, x'5b5d');"""
        )
    with closing(OutboxStore(path)) as store:
        assert store.boot == 5
        assert store.queue.counts == {"answer": 0, "event": 1, "billing": 0, "telemetry": 1}


def test_a_broken_file_is_kept_for_a_person_and_told_to_the_platform(tmp_path, caplog):
    path = tmp_path / "gateway.sqlite"
    with closing(OutboxStore(path)) as store:
        for step in range(300):
            store.add([counter(step)], step)
    body = bytearray(path.read_bytes())
    body[4096:12_288] = b"rust" * 2048
    path.write_bytes(body)
    with closing(OutboxStore(path, first_boot=77)) as store:
        assert (store.boot, store.depth()) == (77, 0)
        kept = next(tmp_path.glob("gateway.sqlite.broken-*"))
        assert kept.read_bytes() == bytes(body)
        assert kept.name in caplog.text
        store.tell_broken([], 5)
        store.tell_broken([DRN], 6)
        store.jump_above(80)
        store.tell_broken([DRN], 7)
        (told,) = drain(store)
        assert told.records[0].code == "raseed.outbox_lost"
        assert told.records[0].detail["kept_as"] == kept.name


def test_a_file_that_breaks_while_it_is_used_is_noticed(tmp_path):
    path = tmp_path / "g.sqlite"
    with closing(OutboxStore(path)) as store:
        for step in range(300):
            store.add([counter(step)], step)
        store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store._db.execute("PRAGMA shrink_memory")
        body = bytearray(path.read_bytes())
        body[4096:] = b"rust" * ((len(body) - 4096) // 4)
        path.write_bytes(body)
        assert not store.is_broken
        with pytest.raises(sqlite3.DatabaseError):
            store.delete_receipted(1, [(1, 300)])
        assert store.is_broken


PAGE = 4096


def flip_in_index(path, place):
    """Flip one bit of the third entry of the index by worth: 3 bytes worth, boot, seq, then the row's number."""
    with closing(sqlite3.connect(path)) as db:
        ((root,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'message_worth'").fetchall()
    body = bytearray(path.read_bytes())
    page = (root - 1) * PAGE
    (cell,) = struct.unpack(">H", body[page + 12 : page + 14])
    body[page + cell + 6 + place] ^= 0x40
    path.write_bytes(body)


@pytest.mark.parametrize("place", [2, 3])
def test_one_flipped_bit_in_an_index_sets_the_file_aside_and_the_site_goes_on(tmp_path, place):
    path = tmp_path / "g.sqlite"
    with closing(OutboxStore(path, first_boot=5)) as store:
        for step in range(20):
            store.add([counter(step)], step)
    flip_in_index(path, place)
    with closing(OutboxStore(path, first_boot=9)) as store:
        assert (store.boot, store.depth()) == (9, 0)
        store.add([counter(1)], 1)
    with closing(OutboxStore(path, first_boot=11)) as store:
        assert (store.boot, store.depth()) == (10, 1)
    assert len(list(tmp_path.glob("g.sqlite.broken-*"))) == 1


@pytest.mark.parametrize("rot", ["UPDATE meta SET value = 'x4'", "UPDATE message SET worth = 67"])
def test_a_value_without_sense_sets_the_file_aside(tmp_path, rot):
    path = tmp_path / "g.sqlite"
    with closing(OutboxStore(path)) as store:
        store.add([counter(1)], 1)
        store._db.execute(rot)
    with closing(OutboxStore(path, first_boot=9)) as store:
        assert (store.boot, store.depth()) == (9, 0)


def test_rot_inside_a_message_or_a_memory_costs_only_that_one(store, tmp_path, caplog):
    for step in (1, 2):
        store.add([counter(step)], step)
        store.add([load(step)], step)
    store.save(DRN, Memory(token_count=5), [], 3)
    store.save_config(Config(4, 2.0, []))
    store._db.execute("UPDATE message SET records = x'5b7b80' WHERE seq IN (1, 2)")
    store._db.execute("UPDATE memory SET value = '{'")
    store._db.execute("UPDATE meta SET value = '{' WHERE name = 'config'")
    assert store.find_message((1, 1)) is None
    assert store.list_keys(9) == [(1, 2), (1, 3), (1, 4)], "the platform finds the gap"
    assert store.queue.give_up(1) == 1
    assert (store.list_memories(), store.find_config()) == ({}, None)
    assert "look at the disk" in caplog.text


def fill(store):
    kept = 0
    while True:
        try:
            store.add([Event(DRN, "raseed.relay", kept + 1, {"note": "x" * 180})], kept)
        except OutboxFull:
            return kept
        kept += 1


def test_a_full_disk_ends_neither_the_house_keeping_nor_the_next_start(tmp_path, monkeypatch):
    path = tmp_path / "capped.sqlite"
    with closing(capped(tmp_path)) as store:
        store.accept(token(1), 5)
        store.mark(1, "VERIFIED", {}, 5)
        kept = fill(store)

        def full():
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(store.queue, "give_up_excess", lambda _now: full())
            assert store.trim(10**13) == 0
            patched.setattr(store, "_begin", full)
            store._is_begun = False
            store.forget_settled(10**13)
        store._is_begun = True
        boot = store.boot
    with monkeypatch.context() as patched:
        patched.setattr(OutboxStore, "_begin", lambda _self: full())
        again = OutboxStore(path, max_bytes=100 * 1024, first_boot=500, reserve=Paper(tmp_path, 1024))
    with closing(again):
        assert again.boot == 500, "a start that could not be kept is counted by the clock"
        assert again.depth() == kept + 2
        again.delete_receipted(boot, [(1, kept)])
        again.add([counter(9)], 9)
        assert again.list_keys(10)[-1] == (500, 1)
    with closing(OutboxStore(path, first_boot=900)) as last:
        assert last.boot == 501, "kept with the first message that bears it"


def test_a_start_with_a_late_clock_goes_on_above_the_one_the_platform_knows(tmp_path):
    path = tmp_path / "g.sqlite"
    with closing(OutboxStore(path, first_boot=70)) as store:
        store.add([counter(1)], 1)
        assert not store.jump_above(0)
        assert not store.jump_above(70)
        assert not store.jump_above(2**62)
        assert store.jump_above(90)
        store.add([counter(2)], 2)
        assert store.list_keys(9) == [(70, 1), (91, 1)]
        assert store.queue.list_live(3) == [(91, 1)]
        assert store.queue.list_history(3, 9, ()) == [(70, 1)]
    with closing(OutboxStore(path, first_boot=80)) as again:
        assert again.boot == 92
