import sqlite3

import pytest

from meter_gateway.edge.outbox_file import (
    OutboxBroken,
    OutboxFull,
    Reserve,
    in_our_words,
    is_broken,
    is_full,
    mark_broken,
    open_outbox,
)


def test_the_reserve_holds_room_and_gives_it_back(tmp_path):
    reserve = Reserve(tmp_path / "r", size=100_000)
    assert not reserve.is_there
    assert reserve.take()
    assert (tmp_path / "r").stat().st_blocks * 512 >= 100_000, "room on the disk, not only a length"
    assert reserve.give()
    assert not reserve.give()


def test_a_small_disk_gives_a_quarter_and_a_full_one_nothing(tmp_path, monkeypatch):
    reserve = Reserve(tmp_path / "r", size=100_000)
    monkeypatch.setattr(reserve, "free_bytes", lambda: 80_000)
    assert reserve.take()
    assert reserve.size == (tmp_path / "r").stat().st_size == 20_000
    reserve.give()
    monkeypatch.setattr(reserve, "free_bytes", lambda: 40_000)
    assert not reserve.take()
    assert not (tmp_path / "r").exists()


def test_errors_are_told_apart():
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE t (x)")
    db.execute("PRAGMA max_page_count = 4")
    with pytest.raises(sqlite3.OperationalError) as caught:
        for _ in range(100):
            db.execute("INSERT INTO t VALUES (zeroblob(4000))")
    assert is_full(caught.value)
    assert not is_broken(caught.value)
    assert not is_full(sqlite3.OperationalError("of our own"))


def test_what_is_no_database_is_set_aside(tmp_path):
    path = tmp_path / "g.sqlite"
    path.write_bytes(b"no database at all" * 1000)
    db, broken = open_outbox(path)
    db.close()
    assert (tmp_path / broken.kept_as).read_bytes().startswith(b"no database")
    assert broken.reason


def test_the_file_of_a_running_gateway_is_left_alone(tmp_path):
    path = tmp_path / "g.sqlite"
    first, broken = open_outbox(path)
    assert broken is None
    first.execute("CREATE TABLE t (x)")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_outbox(path)
    first.close()
    assert [one.name for one in tmp_path.iterdir()] == ["g.sqlite"]


def made(path):
    db, broken = open_outbox(path)
    db.execute("CREATE TABLE IF NOT EXISTS t (x)")
    db.close()
    return broken


def test_a_file_found_broken_in_use_is_set_aside_whatever_its_check_says(tmp_path):
    path = tmp_path / "g.sqlite"
    made(path)
    mark_broken(path)
    broken = made(path)
    assert "while it was used" in broken.reason
    assert (tmp_path / broken.kept_as).exists()
    assert made(path) is None, "once"


def test_a_kill_while_it_is_set_aside_leaves_no_old_log_to_the_new_file(tmp_path):
    path = tmp_path / "g.sqlite"
    db, _ = open_outbox(path)
    db.execute("CREATE TABLE old (x)")
    log = path.with_name("g.sqlite-wal").read_bytes()
    db.close()
    mark_broken(path)
    path.unlink()
    path.with_name("g.sqlite-wal").write_bytes(log)
    db, broken = open_outbox(path)
    assert broken is not None
    assert db.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    db.close()


def test_the_word_of_a_running_owner_is_left_to_him(tmp_path):
    path = tmp_path / "g.sqlite"
    first, _ = open_outbox(path)
    first.execute("CREATE TABLE t (x)")
    mark_broken(path)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        open_outbox(path)
    first.close()
    assert path.exists()


def test_a_file_without_sense_to_its_owner_is_broken_too(tmp_path):
    path = tmp_path / "g.sqlite"
    made(path)
    seen = []

    def prepare(db):
        seen.append(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
        if seen[-1]:
            raise ValueError("no number")

    db, broken = open_outbox(path, prepare)
    db.close()
    assert (seen, broken.reason) == ([1, 0], "no number")


@pytest.mark.parametrize(
    ("code", "ours", "is_told"),
    [
        (sqlite3.SQLITE_FULL, OutboxFull, False),
        (sqlite3.SQLITE_CORRUPT, OutboxBroken, True),
        (sqlite3.SQLITE_BUSY, sqlite3.OperationalError, False),
    ],
)
def test_errors_of_sqlite_in_our_words(tmp_path, code, ours, is_told):
    path = tmp_path / "g.sqlite"
    made(path)
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = code
    with pytest.raises(ours), in_our_words(path):
        raise error
    assert (made(path) is not None) == is_told
