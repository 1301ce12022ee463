import sqlite3

import pytest

from meter_gateway.edge.outbox_file import Reserve, is_broken, is_full, open_outbox


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
