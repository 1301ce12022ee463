"""The journal holds what meters said: no more than was made, no less, and only where it was asked for."""

import pytest

from firmware_sim.fleet_store import FILE_NAME, FleetStore, UplinkRow
from firmware_sim.journal import Answer, Made, count_unreceipted, each_meter, last_place, list_answers
from meter_gateway import topics
from tests.firmware_sim.buses import make_bus
from tests.firmware_sim.parts import find

E = find()
W = find("water")


def row(seq, *readings):
    return UplinkRow(1, seq, 1000 * seq, True, topics.msgspec.json.encode([*readings]))


def reading(drn, value):
    return topics.Reading(drn, "counter", 1_000 + value, value)


@pytest.fixture
def journalled(tmp_path):
    opened = FleetStore(tmp_path / "s", journal=True)
    yield opened, tmp_path / "s" / FILE_NAME
    opened.close()


def test_what_was_made_stays_when_its_message_is_receipted(journalled):
    store, file = journalled
    with store.transaction():
        store.insert_uplink(E.drn, row(1, reading(E.drn, 1), topics.Event(E.drn, "raseed.relay", 5)))
        store.insert_uplink(W.drn, row(1, reading(W.drn, 7)))
        store.insert_uplink(E.drn, row(2, reading(E.drn, 2)))
    assert [count_unreceipted(file, place) for place in (1, 2, 3)] == [1, 2, 3]
    store.delete_uplinks(E.drn, [(1, 1), (1, 2)])
    assert last_place(file) == 3
    assert count_unreceipted(file, 1) == 0
    assert count_unreceipted(file, 3) == 1
    assert dict(each_meter(file)) == {
        E.drn: [Made(1, reading(E.drn, 1)), Made(3, reading(E.drn, 2))],
        W.drn: [Made(2, reading(W.drn, 7))],
    }


def test_what_was_taken_back_was_not_made(journalled):
    store, file = journalled
    with pytest.raises(RuntimeError), store.transaction():
        store.insert_uplink(E.drn, row(1, reading(E.drn, 1)))
        raise RuntimeError
    assert last_place(file) == 0


async def test_a_wired_meters_answers_are_its_registers_of_that_moment(journalled):
    store, file = journalled
    bus, (device, _) = make_bus("tcp-1", store, converter=True)
    bus._journal = store.journal
    from firmware_sim.modbus_frame import Request, rtu_frame

    before = device.state
    bus.serve(Request(device.meter.unit, bytes((3, 0x10, 0, 0, 6))), rtu_frame)
    device.burn(100)
    bus.serve(Request(device.meter.unit, bytes((3, 0x10, 0, 0, 6))), rtu_frame)
    assert list_answers(file, device.meter.drn) == []
    with store.transaction():
        store.journal.flush()
        store.journal.flush()  # nothing is written twice
    first, second = list_answers(file, device.meter.drn)
    assert first == Answer(
        first.at_ms,
        {"counter": before.counter, "credit": before.credit, "load": before.load, "relay": before.relay},
    )
    assert second.values["counter"] == before.counter + 100


def test_without_being_asked_nothing_is_kept(store, tmp_path):
    assert store.journal is None
    with store.transaction():
        store.insert_uplink(E.drn, row(1, reading(E.drn, 1)))
    assert not store._db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'made'").fetchone()[0]
