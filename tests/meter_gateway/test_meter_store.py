from datetime import timedelta

import pytest

from meter_gateway import meter_store, network_store
from meter_gateway.errors import InvalidMeter, MeterNotFound
from meter_gateway.topics import Device
from tests.meter_gateway.places import (
    NOW,
    make_keypad_meter,
    make_modbus_meter,
    make_mqtt_meter,
    make_site,
    make_usage_point,
)


async def test_a_swapped_modbus_meter_leaves_its_unit_and_renews_the_config(conn):
    _, bus_id = await make_site(conn)
    point = await make_usage_point(conn)
    old = await make_modbus_meter(conn, bus_id)
    await meter_store.install_meter(
        conn, meter_id=old.id, usage_point_id=point, installed_at=NOW, installed_by="t"
    )
    before = await network_store.find_site(conn, "site-1")
    with pytest.raises(InvalidMeter):
        await make_modbus_meter(conn, bus_id, "06000000045")
    await meter_store.remove_meter(conn, meter_id=old.id, removed_at=NOW + timedelta(days=1))
    new = await make_modbus_meter(conn, bus_id, "06000000045")
    await meter_store.install_meter(
        conn, meter_id=new.id, usage_point_id=point, installed_at=NOW + timedelta(days=1), installed_by="t"
    )
    after = await network_store.find_site(conn, "site-1")
    assert after.config_version > before.config_version
    assert await meter_store.list_meters_of_site(conn, "site-1") == [
        Device(drn="06000000045", profile="raseed-prepaid-e1", bus="tcp-1", unit=1)
    ]
    assert not (await meter_store.get_meter(conn, old.id)).is_reachable
    with pytest.raises(InvalidMeter):
        await meter_store.remove_meter(conn, meter_id=old.id, removed_at=NOW + timedelta(days=2))


async def test_installing_twice_or_at_the_wrong_commodity_is_refused(conn):
    meter = await make_mqtt_meter(conn)
    water = await make_usage_point(conn, "UP-W", "water")
    point = await make_usage_point(conn)
    with pytest.raises(InvalidMeter):
        await meter_store.install_meter(
            conn, meter_id=meter.id, usage_point_id=water, installed_at=NOW, installed_by="t"
        )
    await meter_store.install_meter(
        conn, meter_id=meter.id, usage_point_id=point, installed_at=NOW, installed_by="t"
    )
    with pytest.raises(InvalidMeter):
        await meter_store.install_meter(
            conn, meter_id=meter.id, usage_point_id=point, installed_at=NOW, installed_by="t"
        )


async def test_lookup(conn):
    meter = await make_keypad_meter(conn)
    assert await meter_store.get_meter_by_drn(conn, meter.drn) == meter
    assert await meter_store.list_meters_by_drn(conn, [meter.drn, "06000000099"]) == {meter.drn: meter}
    assert await meter_store.find_state(conn, meter.id) is None
    with pytest.raises(MeterNotFound):
        await meter_store.get_meter_by_drn(conn, "06000000099")
    with pytest.raises(InvalidMeter):
        await make_keypad_meter(conn)


async def test_a_meter_goes_from_the_shelf_onto_a_bus(conn):
    _, bus_id = await make_site(conn)
    spare = await meter_store.insert_meter(
        conn, drn="06000000052", commodity="water", model="W2", link="modbus", profile="raseed-prepaid-w1"
    )
    assert await meter_store.list_meters_of_site(conn, "site-1") == []
    await meter_store.put_on_bus(conn, meter_id=spare.id, bus_id=bus_id, unit_id=7)
    assert [device.unit for device in await meter_store.list_meters_of_site(conn, "site-1")] == [7]
    taken = await make_mqtt_meter(conn)
    with pytest.raises(InvalidMeter):
        await meter_store.put_on_bus(conn, meter_id=taken.id, bus_id=bus_id, unit_id=8)
