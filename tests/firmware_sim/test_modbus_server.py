"""Modbus TCP with pymodbus as the master."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException

from firmware_sim.faults import SLOW_WRITE_S
from firmware_sim.modbus_server import MAX_CONNECTIONS, ModbusTcpServer
from tests.firmware_sim.buses import make_bus, read_result, write_token
from tests.firmware_sim.parts import token


@asynccontextmanager
async def running(store, **options):
    bus, devices = make_bus("tcp-1", store, converter=True)
    server = ModbusTcpServer(bus, "127.0.0.1", 0, **options)
    await server.start()
    client = AsyncModbusTcpClient("127.0.0.1", port=server.port, retries=0, timeout=1.2)
    await client.connect()
    try:
        yield client, devices, server
    finally:
        client.close()
        await server.stop()


async def test_units_behind_one_listener_answer_for_themselves(store):
    async with running(store) as (client, devices, _):
        for device in devices:
            answer = await client.read_holding_registers(0x1000, count=7, device_id=device.meter.unit)
            text = b"".join(word.to_bytes(2, "big") for word in answer.registers)
            assert text.rstrip(b"\0").decode() == device.meter.drn


async def test_a_token_is_accepted_once_and_used_after_that(store):
    async with running(store) as (client, (device, _), _server):
        unit, digits = device.meter.unit, token(device.meter)
        assert not (await write_token(client, unit, digits, 11)).isError()
        first = await read_result(client, unit)
        assert first["token_result"] == "ACCEPT"
        assert device.state.credit == 900 + 12_500
        await write_token(client, unit, digits, 11)  # a blind repeat of the same id
        assert await read_result(client, unit) == first
        await write_token(client, unit, digits, 12)
        assert (await read_result(client, unit))["token_result"] == "USED_ERROR"
        assert device.state.credit == 900 + 12_500
        assert store.find_meter(device.meter.drn) == device.state


async def test_an_unknown_unit_and_a_dead_meter_are_exception_11(store):
    async with running(store) as (client, (device, other), _server):
        device.power(False)
        other.begin_fault("dead", 60)
        for unit in (99, device.meter.unit, other.meter.unit):
            answer = await client.read_holding_registers(0x1000, count=1, device_id=unit)
            assert answer.isError()
            assert answer.exception_code == 0x0B


async def test_half_a_mailbox_is_refused_and_runs_nothing(store):
    async with running(store) as (client, (device, _), _server):
        answer = await client.write_registers(0x1050, [1, 2, 3], device_id=device.meter.unit)
        assert answer.exception_code == 3
        single = await client.write_register(0x1050, 1, device_id=device.meter.unit)
        assert single.exception_code == 1
        assert device.state.token_count == 0


async def test_a_slow_write_is_carried_out_before_it_is_confirmed(store):
    async with running(store) as (client, (device, _), _server):
        device.begin_fault("slow_write", 60)
        began = time.monotonic()
        with pytest.raises(ModbusIOException):
            await write_token(client, device.meter.unit, token(device.meter), 21)
        assert time.monotonic() - began < SLOW_WRITE_S
        assert device.state.token_count == 1
        assert (await read_result(client, device.meter.unit))["token_result"] == "ACCEPT"


@pytest.mark.parametrize("fault", ["late", "short", "corrupt"])
async def test_a_spoilt_answer_costs_a_timeout_and_nothing_else(store, fault):
    async with running(store) as (client, (device, other), _server):
        device.begin_fault(fault, 60)
        with pytest.raises(ModbusIOException):
            await write_token(client, device.meter.unit, token(device.meter), 31)
        if not client.connected:  # a corrupt header may cost the connection
            await client.connect()
        device.clear_faults()
        assert (await read_result(client, device.meter.unit))["token_echo"] == 31
        assert not (
            await client.read_holding_registers(0x1000, count=1, device_id=other.meter.unit)
        ).isError()


async def test_a_converter_may_say_silent_of_a_write_that_was_carried_out(store):
    async with running(store) as (client, (device, _), _server):
        device.begin_fault("mute_write", 60)
        answer = await write_token(client, device.meter.unit, token(device.meter), 41)
        assert answer.exception_code == 0x0B
        assert (await read_result(client, device.meter.unit))["token_result"] == "ACCEPT"


async def test_no_modbus_ends_the_connection(store):
    async with running(store) as (_client, _devices, server):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.close()


async def test_a_converter_takes_few_connections(store):
    async with running(store) as (client, (device, _), server):
        pairs = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(MAX_CONNECTIONS)]
        assert await asyncio.wait_for(pairs[-1][0].read(), 2) == b""
        assert not (
            await client.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
        ).isError()
        for _, writer in pairs:
            writer.close()


async def test_rtu_frames_over_tcp(store):
    from pymodbus.framer import FramerType

    async with running(store, rtu_over_tcp=True) as (_client, (device, _), server):
        client = AsyncModbusTcpClient(
            "127.0.0.1", port=server.port, framer=FramerType.RTU, retries=0, timeout=1
        )
        await client.connect()
        answer = await client.read_holding_registers(0x1010, count=4, device_id=device.meter.unit)
        assert answer.registers == [0, 0, 0, 900]
        client.close()


async def test_a_meter_that_just_got_its_power_back_needs_a_moment(store, monkeypatch):
    async with running(store) as (client, (device, _), _server):
        device.power(False)
        device.power(True)
        answer = await client.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
        assert answer.exception_code == 0x0B
        monkeypatch.setattr("firmware_sim.modbus_bus.SETTLE_MS", 0)
        assert not (
            await client.read_holding_registers(0x1000, count=1, device_id=device.meter.unit)
        ).isError()
