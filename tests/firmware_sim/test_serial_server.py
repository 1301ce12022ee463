"""RTU on a real pseudo terminal with pymodbus as the master."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from pymodbus.client import AsyncModbusSerialClient
from pymodbus.exceptions import ModbusIOException

from firmware_sim.faults import LATE_S
from firmware_sim.serial_server import SerialServer
from tests.firmware_sim.buses import make_bus, read_result, write_token
from tests.firmware_sim.parts import token


@asynccontextmanager
async def running(store, tmp_path, baud=115_200, timeout=1):
    bus, devices = make_bus("rtu-1", store, converter=False)
    link = tmp_path / "line" / "rtu-1"
    server = SerialServer(bus, link, baud)
    await server.start()
    client = AsyncModbusSerialClient(str(link), baudrate=baud, retries=0, timeout=timeout)
    await client.connect()
    try:
        yield client, devices, server, link
    finally:
        client.close()
        await server.stop()


async def test_a_token_over_the_line(store, tmp_path):
    async with running(store, tmp_path) as (client, (device, _), _server, _link):
        for submit_id, result in ((5, "ACCEPT"), (6, "USED_ERROR")):
            await write_token(client, device.meter.unit, token(device.meter), submit_id)
            assert (await read_result(client, device.meter.unit))["token_result"] == result


async def test_an_unknown_unit_is_silence(store, tmp_path):
    async with running(store, tmp_path, timeout=0.8) as (client, (device, _), _server, _link):
        with pytest.raises(ModbusIOException):
            await client.read_holding_registers(0x1000, count=1, device_id=99)
        assert not (
            await client.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
        ).isError()


async def test_the_line_has_its_speed(store, tmp_path):
    async with running(store, tmp_path, baud=9_600) as (client, (device, _), _server, _link):
        began = time.monotonic()
        await client.read_holding_registers(0x1000, count=40, device_id=device.meter.unit)
        # 8 + 85 characters of 11 bits at 9600 bits a second
        assert 0.105 < time.monotonic() - began < 3


async def test_a_master_that_closed_the_line_finds_it_again(store, tmp_path):
    async with running(store, tmp_path) as (client, (device, _), _server, link):
        client.close()
        again = AsyncModbusSerialClient(str(link), baudrate=115_200, retries=0, timeout=1)
        await again.connect()
        assert not (
            await again.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
        ).isError()
        again.close()


async def test_a_late_answer_runs_into_the_next_question(store, tmp_path):
    async with running(store, tmp_path, timeout=1.0) as (client, (device, other), _server, _link):
        device.begin_fault("late", 60)
        with pytest.raises(ModbusIOException):
            await client.read_holding_registers(0x1010, count=4, device_id=device.meter.unit)
        device.clear_faults()
        # The other meter is not held up by the slow one.
        assert not (
            await client.read_holding_registers(0x1000, count=1, device_id=other.meter.unit)
        ).isError()
        await asyncio.sleep(LATE_S)
        answer = await client.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
        assert answer.isError() or len(answer.registers) in (1, 4)  # 4: the trap that a gateway must see


async def test_noise_on_the_bus_spoils_only_what_it_touches(store, tmp_path):
    async with running(store, tmp_path, timeout=0.8) as (client, (device, other), _server, _link):
        other.begin_fault("babbling", 60)
        await asyncio.sleep(0.6)
        other.clear_faults()
        good = 0
        for _ in range(4):
            try:
                answer = await client.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
                good += not answer.isError()
            except ModbusIOException:
                continue
        assert good >= 2


async def test_stop_removes_the_link(store, tmp_path):
    async with running(store, tmp_path) as (_client, _devices, server, link):
        assert link.is_symlink()
        await server.stop()
        assert not link.is_symlink()


async def test_a_stale_link_is_replaced(store, tmp_path):
    (tmp_path / "line").mkdir()
    (tmp_path / "line" / "rtu-1").symlink_to("/dev/pts/does-not-exist")
    async with running(store, tmp_path) as (client, (device, _), _server, _link):
        assert not (
            await client.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
        ).isError()
