"""A bus with two real meters of the town, for the tests of the servers."""

from firmware_sim.device import Device
from firmware_sim.modbus_bus import ModbusBus
from firmware_sim.register_map import RegisterMap
from meter_gateway.profile import load_profile
from tests.firmware_sim.parts import TOWN, fresh

PROFILE = load_profile("raseed-prepaid-e1")


def meters_of(code):
    return [m for m in TOWN.installed if m.bus == code and m.commodity == "electricity"][:2]


def make_bus(code, store, *, converter):
    bus = ModbusBus(code, converter=converter)
    devices = [Device(TOWN, meter, fresh(meter, credit=900), store) for meter in meters_of(code)]
    for device in devices:
        device.start()
        bus.add(device, RegisterMap(PROFILE))
    return bus, devices


async def write_token(client, unit, digits, submit_id):
    address, words = PROFILE.encode_write({"token": digits, "token_submit_id": submit_id})
    return await client.write_registers(address, words, device_id=unit)


async def read_result(client, unit):
    answer = await client.read_holding_registers(0x1059, count=7, device_id=unit)
    image = {(3, 0x1059 + n): word for n, word in enumerate(answer.registers)}
    return PROFILE.decode(("token_echo", "token_result", "token_tid"), image)
