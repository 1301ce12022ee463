"""An engineer's tasks on a real pseudo terminal with simulated meters, one of them unknown and low word first."""

from __future__ import annotations

from dataclasses import replace
from threading import get_ident

import pytest

from firmware_sim.device import Device
from firmware_sim.fleet_store import FleetStore
from firmware_sim.modbus_bus import ModbusBus
from firmware_sim.register_map import RegisterMap
from firmware_sim.serial_server import SerialServer
from meter_gateway.bus import survey_bus
from meter_gateway.bus.bus_trace import describe
from meter_gateway.bus.modbus_link import BusDown, BusLink
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.bus.survey_bus import Wires
from meter_gateway.profile import load_profile, profile_names
from meter_gateway.site_task import check_argument
from tests.firmware_sim.buses import meters_of
from tests.firmware_sim.parts import TOWN, fresh

LOW_WORD_FIRST = "carlo-gavazzi-em340-prepaid"
UNIT = 33


class Line:
    """A pty with one known meter of the town and one that nobody knows."""

    def __init__(self, folder):
        self.path = folder / "rtu-1"
        self.store = FleetStore(folder / "state")
        self.bus = ModbusBus("rtu-1", converter=False)
        self.known, other = meters_of("rtu-1")
        self.unknown = replace(other, profile=LOW_WORD_FIRST, unit=UNIT)
        for meter in (self.known, self.unknown):
            device = Device(TOWN, meter, fresh(meter, credit=900), self.store)
            device.start()
            device.booted_ms = 0
            self.bus.add(device, RegisterMap(load_profile(meter.profile)))
            self.device = device
        self.server = SerialServer(self.bus, self.path, 115_200)

    def wires(self):
        address = BusAddress("rtu-1", "rtu", "", 0, str(self.path), 115_200, 0.3, 0.05)
        return Wires(address, BusLink(address))


@pytest.fixture
async def line(tmp_path):
    opened = Line(tmp_path)
    await opened.server.start()
    yield opened
    await opened.server.stop()
    opened.store.close()


async def done(kind, argument, wires):
    steps = [
        step
        async for step in survey_bus.run(kind, check_argument(kind, argument, framer="rtu"), wires, lambda: 7)
    ]
    wires.release()
    wires.link.close()
    assert [step.is_done for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [step.progress for step in steps] == sorted(step.progress for step in steps)
    return steps[-1].result


async def test_a_scan_finds_who_is_there_and_who_they_are(line):
    result = await done("scan", {"first": 1, "last": UNIT + 1, "timeout_ms": 60}, line.wires())
    assert [(one["unit"], one["serial"]) for one in result["units_found"]] == [
        (line.known.unit, line.known.drn),
        (UNIT, line.unknown.drn),
    ]
    assert (result["asked"], result["garbled"], result["lines"]) == (UNIT + 1, [], ["115200 8N1"])


async def test_a_probe_names_the_profile_and_says_why(line):
    result = await done("probe", {"unit": UNIT}, line.wires())
    assert (result["likely"], result["serial"], result["max_read"]) == (LOW_WORD_FIRST, line.unknown.drn, 50)
    best, *rest = result["profiles"]
    assert best["profile"] == LOW_WORD_FIRST and not best["ruled_out"]
    assert {"serial_is_drn", "plausible", "read_limit"} <= {reason["code"] for reason in best["reasons"]}
    assert {one["profile"] for one in rest} == set(profile_names()) - {LOW_WORD_FIRST}


async def test_a_probe_of_nobody_ends_early(line):
    assert (await done("probe", {"unit": 99}, line.wires()))["is_silent"]


async def test_every_register_but_the_mailboxes(line):
    result = await done("registers", {"unit": UNIT, "profile": LOW_WORD_FIRST}, line.wires())
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["serial"]["value"] == line.unknown.drn
    assert rows["voltage"]["text"].endswith(" V") and len(rows["voltage"]["words"]) == 2
    assert not {"token", "token_submit_id", "command_id"} & set(rows)
    assert all(row["error"] is None for row in rows.values())


async def test_four_orders_of_a_number(line):
    argument = {"unit": UNIT, "profile": LOW_WORD_FIRST, "register": "counter"}
    result = await done("words", argument, line.wires())
    orders = {one["order"]: one["value"] for one in result["orders"]}
    assert result["profile_order"] == "CDAB"
    assert orders["CDAB"] == line.device.state.counter // 100 * 100 != orders["ABCD"]


async def test_a_trace_hears_what_others_ask_on_the_link(line, monkeypatch):
    wires = line.wires()
    threads = []
    monkeypatch.setattr(
        survey_bus, "describe", lambda *args, **kw: threads.append(get_ident()) or describe(*args, **kw)
    )
    steps = survey_bus.run(
        "trace", check_argument("trace", {"seconds": 1}, framer="rtu"), wires, lambda: 1000
    )
    await anext(steps)
    await wires.link.read(UNIT, load_profile(LOW_WORD_FIRST).plan(("serial",))[0])
    step = await anext(steps)
    while not step.is_done:
        step = await anext(steps)
    assert step.result["counts"] == {"asked": 1, "answer": 1}
    assert threads and get_ident() not in threads, (
        "a long trace is not told in the loop that serves the buses"
    )
    assert step.result["lines"][0]["text"] == f"asked unit {UNIT} for 7 registers from 0x1000"
    wires.link.close()


async def test_a_port_that_is_not_there(tmp_path):
    address = BusAddress("rtu-1", "rtu", "", 0, str(tmp_path / "none"), 9600, 0.3, 0.05)
    with pytest.raises(BusDown):
        await done("scan", {"first": 1, "last": 2}, Wires(address, BusLink(address)))
