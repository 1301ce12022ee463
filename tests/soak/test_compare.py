"""The comparison finds what it is there to find: a reading lost, changed or invented, and a silent bus."""

import msgspec
import pytest

from firmware_sim.fleet_store import FILE_NAME, FleetStore, UplinkRow
from firmware_sim.journal import Answer
from meter_gateway import reading_store
from meter_gateway.message_key import instant
from meter_gateway.reading_store import StoredReading
from meter_gateway.topics import Reading
from tests.meter_gateway.places import NOW, make_mqtt_meter
from tests.soak.compare import Found, Wired, check_wired, compare, drain

DRN = "06000000011"
AT = int(NOW.timestamp() * 1000)
WIRED = Wired(poll_ms=3_000, deaths_ms=(AT + 200_000,), end_ms=AT + 600_000)


@pytest.fixture
def made(tmp_path):
    store = FleetStore(tmp_path, journal=True)
    with store.transaction():
        for seq in range(1, 6):
            reading = Reading(DRN, "counter", AT + seq, 100 + seq)
            store.insert_uplink(DRN, UplinkRow(1, seq, AT, True, msgspec.json.encode([reading])))
        store.delete_uplinks(DRN, [(1, seq) for seq in range(1, 5)])
    yield tmp_path / FILE_NAME
    store.close()


async def stored(conn, **changes):
    """Store readings 1 to 4, changed as told; the fifth was made after the end."""
    meter_id = (await make_mqtt_meter(conn)).id
    values = {seq: 100 + seq for seq in range(1, 5)} | {int(name[1:]): v for name, v in changes.items()}
    rows = [
        StoredReading(meter_id, "counter", instant(AT + seq), value, "valid")
        for seq, value in values.items()
        if value is not None
    ]
    await reading_store.insert_readings(conn, rows)
    await conn.commit()


@pytest.mark.parametrize(
    ("changes", "missing", "wrong", "nobodys"),
    [
        ({}, 0, 0, 0),
        ({"r5": 105}, 0, 0, 0),
        ({"r2": None}, 1, 0, 0),
        ({"r3": 999}, 0, 1, 0),
        ({"r7": 107}, 0, 0, 1),
    ],
)
async def test_a_radio_meters_readings(conn, database_url, made, changes, missing, wrong, nobodys):
    await stored(conn, **changes)
    assert await drain(made, 0.0) == (5, 1)
    found = await compare(made, database_url, 4, WIRED)
    assert (found.made, found.missing, found.wrong, found.nobodys) == (4, missing, wrong, nobodys)
    assert found.ok == (not changes or "r5" in changes)


def answers(*seconds):
    return [Answer(AT + 1000 * s, {"counter": 50 + s, "credit": 9, "load": 1, "relay": 1}) for s in seconds]


@pytest.mark.parametrize(
    ("told", "nobodys", "uncovered"),
    [
        ({("counter", AT): 50, ("counter", AT + 30_000): 80}, 0, 0),
        ({("counter", AT + 400): 50, ("credit", AT): 9, ("counter", AT + 30_400): 80}, 0, 0),
        ({("counter", AT): 50}, 0, 1),  # the answer at 60 s was never told
        ({("counter", AT): 51, ("counter", AT + 30_000): 80}, 1, 0),  # a value of another time
        ({}, 0, 3),
        ({("counter", AT): 50, ("counter", AT + 30_000): 80, ("counter", AT + 215_000): 265}, 0, 0),
    ],
)
def test_a_wired_meters_answers(told, nobodys, uncovered):
    found = Found()
    # At 199 s the gateway was about to die and may tell later; the answer of the last moment is not judged.
    seconds = (0, 30, 60, 199, 215, 599) if ("counter", AT + 215_000) in told else (0, 30, 60, 599)
    check_wired(found, DRN, told, answers(*seconds), WIRED)
    assert (found.answers, found.nobodys, found.uncovered) == (len(seconds) - 1, nobodys, uncovered)


def test_a_meter_that_nobody_asked_is_a_fault():
    found = Found(made=1)
    check_wired(found, DRN, {}, [], WIRED)
    assert not found.ok
