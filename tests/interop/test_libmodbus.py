"""Our simulated prepaid meters as a master of other people's making meets them: a C program on libmodbus."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firmware_sim.fleet_store import FleetStore
from firmware_sim.meter_state import RELAY_REASONS
from firmware_sim.modbus_server import ModbusTcpServer
from firmware_sim.serial_server import SerialServer
from tests.benchmarks.c_program import build, missing
from tests.firmware_sim.buses import make_bus
from tests.firmware_sim.parts import token

ACCEPT, USED = 1, 12  # docs/mqtt.md, the prepaid block
DONE, REFUSED = 1, 2
OPEN, CONNECTED, READY = 0, 1, 2
BY_ORDER = 2
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3


class Master:
    """Runs the C program against one unit and reads what it prints."""

    def __init__(self, program, wire, place, device):
        self._start = (program, wire, str(place), str(device.meter.unit))
        self.device = device

    async def __call__(self, *verb):
        child = await asyncio.create_subprocess_exec(
            *self._start,
            *map(str, verb),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(child.communicate(), 30)
        assert child.returncode == 0, err.decode()
        return {
            name: int(value) if value.lstrip("-").isdigit() and name != "serial" else value
            for name, value in (line.split("=", 1) for line in out.decode().splitlines())
        }


@asynccontextmanager
async def on_the_wire(wire, folder):
    """A bus with two meters, and the C program at the other end of its first."""
    store = FleetStore(folder / "state")
    bus, devices = make_bus(f"{wire}-1", store, converter=wire == "tcp")
    if wire == "tcp":
        server = ModbusTcpServer(bus, "127.0.0.1", 0)
        await server.start()
        place = server.port
    else:
        place = folder / "rtu-1"
        server = SerialServer(bus, place, 9600)
        await server.start()
    try:
        yield Master(build(Path(__file__).with_name("meter_reader.c")), wire, place, devices[0])
    finally:
        await server.stop()
        store.close()


@pytest.fixture(params=["tcp", "rtu"])
async def master(request, tmp_path):
    if reason := missing():
        pytest.skip(reason)
    async with on_the_wire(request.param, tmp_path) as found:
        yield found


async def test_it_reads_who_the_meter_is_and_what_it_holds(master):
    state = master.device.state
    told = await master("read")
    assert told["serial"] == state.drn
    assert (told["map_version"], told["credit_unit"], told["token_count"]) == (1, 0, 0)
    assert (told["credit"], told["counter"], told["load"]) == (state.credit, state.counter, state.load)
    assert abs(told["clock"] - state.clock_ms(master.device.clock()) // 1000) <= 2
    assert (told["relay"], told["relay_reason"]) == (state.relay, RELAY_REASONS.index(state.reason))


async def test_it_brings_a_token_once_however_often_it_says_so(master):
    before = (await master("read"))["credit"]
    digits = token(master.device.meter)
    first = await master("token", digits, 5)
    assert first["token_result"] == ACCEPT
    assert (await master("read"))["credit"] == before + 12_500
    assert await master("token", digits, 5) == first, "the same id again: the stored answer"
    assert (await master("token", digits, 6))["token_result"] == USED
    told = await master("read")
    assert (told["credit"], told["token_count"]) == (before + 12_500, 2)


async def test_it_opens_the_relay_and_makes_it_ready(master):
    assert (await master("token", token(master.device.meter), 20))["token_result"] == ACCEPT
    assert (await master("read"))["relay"] == CONNECTED
    opened = await master("relay", "open", 21)
    assert (opened["command_status"], opened["relay"], opened["relay_reason"]) == (DONE, OPEN, BY_ORDER)
    assert opened["command_balance"] == master.device.state.credit
    closed = await master("relay", "close", 22)
    # A person at the meter lets the supply back: from afar it only becomes ready.
    assert (closed["command_status"], closed["relay"]) == (DONE, READY)
    again = await master("relay", "open", 21)
    assert (again["command_status"], again["relay"]) == (DONE, READY), "an id that was run is not run again"


async def test_what_no_master_may_do_is_answered_by_an_exception(master):
    before = await master("read")
    assert await master("forbidden") == {
        "write_credit": ILLEGAL_ADDRESS,
        "write_one_register": ILLEGAL_FUNCTION,
        "write_coil": ILLEGAL_FUNCTION,
        "half_a_token": ILLEGAL_VALUE,
        "token_without_id": ILLEGAL_VALUE,
        "unarmed_order": ILLEGAL_VALUE,
        "no_such_register": ILLEGAL_ADDRESS,
        "input_registers": ILLEGAL_ADDRESS,
        "write_and_read": ILLEGAL_FUNCTION,
    }
    after = await master("read")
    assert {**after, "clock": 0} == {**before, "clock": 0}
