"""Traps of a serial bus on a real pseudo terminal paced to 9600 baud: our bus engine against simulated meters."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest

from firmware_sim.fleet_store import FleetStore
from firmware_sim.modbus_frame import is_write
from firmware_sim.serial_server import SerialServer
from meter_gateway.bus.modbus_link import BusLink, MeterWire, ModbusError, NoAnswer, WrongAnswer
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.profile import Read
from meter_gateway.readings import validation
from tests.firmware_sim.buses import PROFILE, make_bus
from tests.firmware_sim.parts import token

CREDIT = Read(3, 0x1010, 4)
COUNTER = Read(3, 0x1080, 4)


@pytest.fixture
def anyio_backend():
    """The loop that the gateway runs on."""
    return "asyncio", {"use_uvloop": True}


class Line:
    """A pty with two meters; `asked` holds the requests that reached them."""

    def __init__(self, folder):
        self.path = folder / "rtu-1"
        self.store = FleetStore(folder / "state")
        self.bus, self.devices = make_bus("rtu-1", self.store, converter=False)
        self.asked = []
        serve = self.bus.serve

        def record(request, frame):
            self.asked.append(request)
            return serve(request, frame)

        self.bus.serve = record
        self.server = SerialServer(self.bus, self.path, 9600)

    def link(self, timeout_s=1.0, quiet_s=1.5):
        return BusLink(BusAddress("rtu-1", "rtu", "", 0, str(self.path), 9600, timeout_s, quiet_s))

    def wire(self, link, place=0):
        meter = self.devices[place].meter
        return MeterWire(link, meter.unit, PROFILE, meter.drn)


@pytest.fixture
async def line(tmp_path):
    opened = Line(tmp_path)
    await opened.server.start()
    yield opened
    await opened.server.stop()
    opened.store.close()


def words_of(number):
    return [number >> shift & 0xFFFF for shift in (48, 32, 16, 0)]


async def test_a_late_answer_on_the_line_is_nobodys(line):
    """The credit that came late has the length of the counter that was asked next."""
    link, (device, other) = line.link(), line.devices
    assert await link.read(device.meter.unit, CREDIT) == words_of(device.state.credit)
    device.begin_fault("late", 60)
    with pytest.raises(NoAnswer):
        await link.read(device.meter.unit, CREDIT)
    device.clear_faults()
    assert await link.read(device.meter.unit, COUNTER) == words_of(device.state.counter)
    assert await link.read(other.meter.unit, COUNTER) == words_of(other.state.counter)
    link.close()


async def test_an_answer_of_another_length_on_the_line_is_refused(line):
    link, (device, _) = line.link(quiet_s=0.2), line.devices
    device.begin_fault("wrong_count", 60)
    with pytest.raises((WrongAnswer, NoAnswer)):
        await link.read(device.meter.unit, CREDIT)
    device.clear_faults()
    assert await link.read(device.meter.unit, CREDIT) == words_of(device.state.credit)
    link.close()


async def test_a_slow_write_on_the_line_leaves_once_and_is_settled_by_reading(line):
    link, (device, _) = line.link(quiet_s=2.0), line.devices
    wire = line.wire(link)
    await wire.read(["serial"])
    device.begin_fault("slow_write", 60)
    with pytest.raises(NoAnswer):
        await wire.write({"token": token(device.meter), "token_submit_id": 9})
    assert [is_write(request.pdu) for request in line.asked].count(True) == 1
    found = await wire.read(["token_echo", "token_result"])
    assert found == {"token_echo": 9, "token_result": "ACCEPT"}
    assert device.state.token_count == 1
    link.close()


async def test_a_line_that_was_pulled_out_is_found_again(line):
    link, (device, _) = line.link(timeout_s=0.5, quiet_s=0.1), line.devices
    assert await link.read(device.meter.unit, CREDIT)
    await line.server.stop()
    with pytest.raises(ModbusError):
        await link.read(device.meter.unit, CREDIT)
    line.server = SerialServer(line.bus, line.path, 9600)
    await line.server.start()
    async with asyncio.timeout(20):
        while True:
            try:
                assert await link.read(device.meter.unit, CREDIT) == words_of(device.state.credit)
                break
            except ModbusError:
                await asyncio.sleep(0.1)
    link.close()


async def test_a_dead_meter_on_the_line_costs_under_a_second(line):
    link, (device, other) = line.link(timeout_s=0.4, quiet_s=0.2), line.devices
    await link.read(other.meter.unit, CREDIT)
    device.begin_fault("dead", 60)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(NoAnswer):
        await link.read(device.meter.unit, CREDIT)
    assert loop.time() - began < 1.0
    assert await link.read(other.meter.unit, CREDIT) == words_of(other.state.credit)
    link.close()


async def test_words_in_the_wrong_order_become_no_believed_value(line):
    """A meter whose low word comes first, read by a profile that says otherwise."""
    link, (device, _) = line.link(quiet_s=0.2), line.devices
    wire = line.wire(link)
    names = ("counter", "credit")
    now = datetime.now(UTC)
    window = validation.believable(now)
    right = await wire.read(names)
    assert [validation.refusal(name, now, right[name], window) for name in names] == [None, None]
    device.begin_fault("swapped_words", 60)
    wrong = await wire.read(names)
    assert all(validation.refusal(name, now, wrong[name], window) for name in names)
    known = validation.KnownCounter(now, right["counter"])
    assert validation.counter_is_suspect(known, now, wrong["counter"], "electricity")
    link.close()


async def test_the_line_is_silent_for_three_and_a_half_characters_before_each_request(line):
    """Times are taken where the bytes pass: the last one of an answer, the first one of the next request."""
    link, (device, other) = line.link(), line.devices
    ended, begun = [], []
    send, feed = line.server._send, line.server._frames.feed

    async def sent(data):
        await send(data)
        ended.append(time.monotonic())

    def fed(data):
        begun.append(time.monotonic())
        return feed(data)

    line.server._send, line.server._frames.feed = sent, fed
    for place in range(6):
        await link.read((device, other)[place % 2].meter.unit, CREDIT)
    gaps = [start - end for end, start in zip(ended, begun[1:], strict=False)]
    assert len(gaps) == 5
    assert min(gaps) >= 3.5 * 11 / 9600
    link.close()
