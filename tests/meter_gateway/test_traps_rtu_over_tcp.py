"""RTU frames through a transparent converter: no number tells answers apart, and the line behind it is shared."""

from __future__ import annotations

import asyncio

import pytest

from firmware_sim.fleet_store import FleetStore
from firmware_sim.modbus_frame import is_write
from firmware_sim.modbus_server import ModbusTcpServer
from meter_gateway.bus.modbus_link import BusLink, MeterWire, ModbusError, NoAnswer
from meter_gateway.bus.site_file import parse_site
from meter_gateway.profile import Read
from tests.firmware_sim.buses import PROFILE, make_bus
from tests.firmware_sim.parts import token

CREDIT = Read(3, 0x1010, 4)
COUNTER = Read(3, 0x1080, 4)
SITE = """
site = "s"
[[bus]]
code = "b"
framer = "rtu_over_tcp"
address = "127.0.0.1:{port}"
timeout_s = {timeout_s}
quiet_s = {quiet_s}
"""


@pytest.fixture
def anyio_backend():
    """The loop that the gateway runs on."""
    return "asyncio", {"use_uvloop": True}


class Converter:
    """Two simulated meters behind a converter; `asked` holds the requests that reached them."""

    def __init__(self, folder):
        self.store = FleetStore(folder / "state")
        self.bus, self.devices = make_bus("rtu-1", self.store, converter=False)
        self.asked = []
        serve = self.bus.serve

        def record(request, frame):
            self.asked.append(request)
            return serve(request, frame)

        self.bus.serve = record
        self.server = ModbusTcpServer(self.bus, "127.0.0.1", 0, rtu_over_tcp=True)

    def link(self, timeout_s=0.3, quiet_s=0.1):
        site = parse_site(SITE.format(port=self.server.port, timeout_s=timeout_s, quiet_s=quiet_s))
        return BusLink(site.buses["b"])


@pytest.fixture
async def converter(tmp_path):
    opened = Converter(tmp_path)
    await opened.server.start()
    yield opened
    await opened.server.stop()
    opened.store.close()


def words_of(number):
    return [number >> shift & 0xFFFF for shift in (48, 32, 16, 0)]


async def test_a_late_answer_through_a_converter_is_nobodys(converter, monkeypatch):
    """It comes after the question was given up, with the length of the counter that is asked next."""
    monkeypatch.setattr("firmware_sim.faults.LATE_S", 0.5)
    link, (device, other) = converter.link(timeout_s=0.3, quiet_s=0.4), converter.devices
    assert await link.read(device.meter.unit, CREDIT) == words_of(device.state.credit)
    device.begin_fault("late", 60)
    with pytest.raises(NoAnswer):
        await link.read(device.meter.unit, CREDIT)
    device.clear_faults()
    assert await link.read(device.meter.unit, COUNTER) == words_of(device.state.counter)
    assert await link.read(other.meter.unit, COUNTER) == words_of(other.state.counter)
    link.close()


async def test_an_answer_later_than_all_patience_is_found_out(converter, monkeypatch):
    """A quiet time that is too short: the serial number that is read after a doubt finds the stranger."""
    monkeypatch.setattr("firmware_sim.faults.LATE_S", 0.45)
    link, (device, _) = converter.link(timeout_s=0.25, quiet_s=0.05), converter.devices
    wire = MeterWire(link, device.meter.unit, PROFILE, device.meter.drn)
    await wire.read(["counter"])
    device.begin_fault("late", 60)
    with pytest.raises(NoAnswer):
        await wire.read(["counter"])
    found = []
    for _ in range(6):  # every answer is late, into one of the next questions
        try:
            found.append(await wire.read(["credit"]))
        except ModbusError:
            continue
    assert all(values == {"credit": device.state.credit} for values in found)
    device.clear_faults()
    await asyncio.sleep(0.5)
    assert await wire.read(["credit"]) == {"credit": device.state.credit}
    link.close()


@pytest.mark.parametrize(
    "fault", ["short", "doubled", "corrupt", "garbage", "wrong_unit", "wrong_count", "dead", "busy"]
)
async def test_no_spoilt_answer_is_believed_and_the_next_is_clean(converter, fault):
    link, (device, _) = converter.link(), converter.devices
    device.begin_fault(fault, 60)
    try:
        words = await link.read(device.meter.unit, CREDIT)
    except ModbusError:
        assert fault not in ("doubled", "garbage"), "a whole answer stands in it"
    else:
        assert words == words_of(device.state.credit)
        assert fault in ("doubled", "garbage")
    device.clear_faults()
    assert await link.read(device.meter.unit, COUNTER) == words_of(device.state.counter)
    link.close()


async def test_a_write_through_a_converter_that_is_never_confirmed_leaves_once(converter):
    link, (device, _) = converter.link(), converter.devices
    wire = MeterWire(link, device.meter.unit, PROFILE, device.meter.drn)
    await wire.read(["serial"])
    device.begin_fault("mute_write", 60)
    with pytest.raises(NoAnswer):
        await wire.write({"token": token(device.meter), "token_submit_id": 9})
    assert [is_write(request.pdu) for request in converter.asked].count(True) == 1
    found = await wire.read(["token_echo", "token_result"])
    assert found == {"token_echo": 9, "token_result": "ACCEPT"}
    link.close()
