"""Every route of the control port on a real fleet: what it answers, and what it refuses without a change."""

import pytest

from firmware_sim.control_server import ControlRequest, Refused
from firmware_sim.fleet import Fleet
from firmware_sim.fleet_control import FleetControl
from tests.firmware_sim.parts import TOWN, VENDING_KEYS, find
from token_engine.software_vault import write_key_file

METER = find(link="keypad")


@pytest.fixture
def fleet(store, tmp_path):
    write_key_file(tmp_path / "keys.json", VENDING_KEYS)
    made = Fleet(TOWN, store, 1)
    made.build(tmp_path / "keys.json")
    return made


@pytest.fixture
def control(fleet):
    return FleetControl(fleet)


async def get(control, *path):
    return await control.handle(ControlRequest("GET", path, {}))


async def post(control, *path, **body):
    return await control.handle(ControlRequest("POST", path, body))


async def test_faces_and_shelves(control):
    faces = await get(control, "meters")
    assert len(faces) == 65
    face = await get(control, "meters", METER.drn)
    assert face in faces
    assert (face["network_node"], face["online"], face["faults"]) == (TOWN.node_of(METER).code, None, [])
    spare = next(one for one in faces if one["drn"] == TOWN.spares[0].drn)
    assert (spare["network_node"], spare["usage_point"], spare["credit"]) == (None, None, 0)
    assert (await get(control, "meters", METER.drn, "store"))["accepted"] == []


async def test_the_network_is_a_tree_with_switches(control):
    await post(control, "network", "FD-1", "power", on=False)
    nodes = {node["code"]: node for node in await get(control, "network")}
    assert nodes["SS-1"]["meters"] == 40
    assert [nodes[code]["powered"] for code in ("SS-1", "FD-1", "TX-1", "TX-4")] == [True, False, False, True]
    assert [nodes[code]["on"] for code in ("FD-1", "TX-1")] == [False, True]
    await post(control, "network", "TX-1", "power", on=False)
    await post(control, "network", "TX-1", "power", on=True)  # the feeder above is still dark
    assert not {node["code"]: node for node in await get(control, "network")}["TX-1"]["powered"]
    await post(control, "network", "SS-1", "power", on=True)
    assert all(node["powered"] for node in await get(control, "network"))


async def test_one_house_can_be_cut_and_not_lit_on_a_dark_street(control, fleet):
    await post(control, "meters", METER.drn, "power", on=False)
    assert not fleet.devices[METER.drn].state.powered
    node = TOWN.node_of(METER).code
    await post(control, "network", node, "power", on=False)
    with pytest.raises(Refused, match="switched off"):
        await post(control, "meters", METER.drn, "power", on=True)
    await post(control, "network", node, "power", on=True)
    assert fleet.devices[METER.drn].state.powered


async def test_the_button(control, fleet):
    rtu = next(m for m in TOWN.installed if (m.bus or "").startswith("rtu") and m.commodity == "electricity")
    device = fleet.devices[rtu.drn]
    device.run_command(1, "relay_open", "")
    device.run_command(2, "relay_close", "")
    assert (await get(control, "meters", rtu.drn))["relay"] == 2
    assert (await post(control, "meters", rtu.drn, "button"))["relay"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (("meters", "00000000000", "keypad"), {"digits": "1"}, 404),
        (("meters", METER.drn, "keypad"), {}, 400),
        (("meters", METER.drn, "keypad"), {"digits": "9" * 500}, 400),
        (("meters", METER.drn, "burn"), {"units": -1}, 400),
        (("meters", METER.drn, "burn"), {"units": "many"}, 400),
        (("meters", METER.drn, "burn"), {"units": float("nan")}, 400),
        (("meters", METER.drn, "fault"), {"name": "sulking"}, 400),
        (("meters", METER.drn, "fault"), {"name": "late", "seconds": True}, 400),
        (("meters", METER.drn, "fault"), {}, 400),
        (("meters", METER.drn, "dance"), {}, 404),
        (("meters", METER.drn, "power"), {"on": "yes"}, 400),
        (("meters", METER.drn, "install"), {}, 400),
        (("network", "TX-9", "power"), {"on": True}, 404),
        (("network", "TX-1", "power"), {}, 400),
        (("scenarios", "none"), {}, 404),
        (("nothing",), {}, 404),
    ],
)
async def test_bad_orders_are_refused_and_change_nothing(control, fleet, path, body, status):
    before = {drn: device.state for drn, device in fleet.devices.items()}
    with pytest.raises(Refused) as refusal:
        await post(control, *path, **body)
    assert refusal.value.status == status
    assert {drn: device.state for drn, device in fleet.devices.items()} == before


async def test_a_dead_meter_refuses_the_keypad_as_a_conflict(control):
    await post(control, "meters", METER.drn, "power", on=False)
    with pytest.raises(Refused) as refusal:
        await post(control, "meters", METER.drn, "keypad", digits="1" * 20)
    assert refusal.value.status == 409


async def test_faults_are_listed_begun_and_ended(control):
    assert "late" in await get(control, "faults")
    assert (await post(control, "meters", METER.drn, "fault", name="late"))["faults"] == ["late"]
    assert (await post(control, "meters", METER.drn, "fault", name="none"))["faults"] == []
