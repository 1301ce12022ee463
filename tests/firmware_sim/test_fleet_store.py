"""What is kept comes back; what a failing transaction wrote does not."""

import sqlite3

import pytest

from firmware_sim.fleet_store import FILE_NAME, KEPT_ANSWERS, FleetStore, OtherTown, UplinkRow
from firmware_sim.meter import enter_token
from tests.firmware_sim.parts import NOW_MS, find, fresh, token

E = find()


def test_a_meter_comes_back_with_its_newest_vitals(store):
    state, _, _ = enter_token(fresh(E), token(E), "keypad", NOW_MS)
    store.keep_meter(state)
    store.keep_vitals(fresh(E, credit=7, counter=8, load=9))
    again = store.find_meter(E.drn)
    assert (again.credit, again.counter, again.load) == (7, 8, 9)
    assert again.token == state.token
    assert again.accepted == state.accepted
    assert store.find_meter("00000000000") is None


def test_a_failed_transaction_leaves_nothing(store):
    with pytest.raises(RuntimeError), store.transaction():
        with store.transaction():
            store.keep_meter(fresh(E))
        raise RuntimeError
    assert store.find_meter(E.drn) is None
    with store.transaction():
        store.keep_meter(fresh(E))
    assert store.find_meter(E.drn) is not None


def test_uplinks_stay_until_they_are_deleted(store):
    rows = [UplinkRow(1, n, 1000 + n, n == 2, b"[]") for n in (1, 2, 3)]
    for row in rows:
        store.insert_uplink(E.drn, row)
    assert store.list_uplinks(E.drn) == [(1, 1, False), (1, 2, True), (1, 3, False)]
    assert store.find_uplink(E.drn, 1, 2) == rows[1]
    store.delete_uplinks(E.drn, [(1, 1), (1, 2)])
    assert store.list_uplinks(E.drn) == [(1, 3, False)]
    with pytest.raises(sqlite3.IntegrityError):
        store.insert_uplink(E.drn, rows[2])


def test_answers_are_bounded_for_each_meter(store):
    with store.transaction():
        store.insert_progress("other", 1, b"x")
        for command in range(1, KEPT_ANSWERS + 6):
            store.insert_progress(E.drn, command, b"%d" % command)
    assert store.find_progress(E.drn, 5) is None
    assert store.find_progress(E.drn, 6) == b"6"
    assert store.find_progress("other", 1) == b"x"


def test_a_folder_belongs_to_one_town(store):
    store.claim(1)
    store.claim(1)
    with pytest.raises(OtherTown):
        store.claim(2)


def test_dark_nodes_and_places(store):
    store.keep_dark_nodes({"TX-1", "WZ-2"})
    store.keep_dark_nodes({"WZ-2"})
    assert store.list_dark_nodes() == {"WZ-2"}
    store.keep_placed(E.drn, "UP-1")
    store.keep_placed(E.drn, "UP-2")
    assert store.list_placed() == {E.drn: "UP-2"}


def test_the_file_is_its_owners_only_and_damage_is_told(tmp_path):
    opened = FleetStore(tmp_path / "s")
    assert (tmp_path / "s" / FILE_NAME).stat().st_mode & 0o077 == 0
    opened.keep_meter(fresh(E))
    opened._db.execute("UPDATE meter SET memory = '{}'")
    with pytest.raises(ValueError, match="damaged"):
        opened.find_meter(E.drn)
    opened.close()
