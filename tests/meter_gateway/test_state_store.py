from datetime import timedelta

from meter_gateway import edge_store, meter_store, state_store
from meter_gateway.projection import StatePatch
from meter_gateway.topics import Birth
from tests.meter_gateway.places import NOW, make_modbus_meter, make_mqtt_meter, make_site


def at(seconds):
    return NOW + timedelta(seconds=seconds)


async def test_each_group_of_values_follows_its_own_time(conn):
    meter = await make_mqtt_meter(conn)
    first = StatePatch(
        meter.id,
        at(1),
        state_at=at(5),
        credit=5,
        relay=1,
        counter=70,
        counter_at=at(5),
        link_up=True,
        link_at=at(5),
    )
    second = StatePatch(
        meter.id, at(2), state_at=at(4), credit=4, counter=71, counter_at=at(6), link_up=False, link_at=at(4)
    )
    await state_store.apply_patches(conn, [first])
    await state_store.apply_patches(conn, [second])
    state = await meter_store.find_state(conn, meter.id)
    assert (state.credit, state.counter, state.link_up, state.relay) == (5, 71, True, 1)
    assert (state.state_at, state.last_seen_at) == (at(5), at(2))


async def test_what_a_patch_does_not_say_stays(conn):
    meter = await make_mqtt_meter(conn)
    await state_store.apply_patches(
        conn, [StatePatch(meter.id, at(1), state_at=at(1), credit=5, relay_reason="order", tamper=True)]
    )
    await state_store.apply_patches(conn, [StatePatch(meter.id, at(2), state_at=at(2), load=7)])
    state = await meter_store.find_state(conn, meter.id)
    assert (state.credit, state.load, state.relay_reason, state.tamper) == (5, 7, "order", True)
    assert (state.link_up, state.supply_on) == (False, None)


async def test_many_meters_in_one_go(conn):
    meters = [await make_mqtt_meter(conn, f"0600000{number:04d}") for number in range(20)]
    await state_store.apply_patches(
        conn, [StatePatch(meter.id, at(1), state_at=at(1), credit=meter.id) for meter in reversed(meters)]
    )
    for meter in meters:
        assert (await meter_store.find_state(conn, meter.id)).credit == meter.id
    await state_store.apply_patches(conn, [])


async def test_a_gateway_that_fell_silent_takes_its_meters_links_along_but_not_their_supply(conn):
    _, bus_id = await make_site(conn)
    meter = await make_modbus_meter(conn, bus_id)
    other = await make_mqtt_meter(conn)
    await edge_store.mark_born(conn, [Birth("site-1", "gateway", 1, 1, 0)], at(0))
    await state_store.mark_links(conn, {"site-1": True}, at(0))
    assert await edge_store.mark_silent_gateways(conn, at(0)) == []
    assert await edge_store.mark_silent_gateways(conn, at(1)) == ["site-1"]
    await state_store.mark_links(conn, {"site-1": False, "06000000011": True}, at(2))
    state = await meter_store.find_state(conn, meter.id)
    assert (state.link_up, state.supply_on) == (False, True)
    assert (await meter_store.find_state(conn, other.id)).link_up
    await edge_store.mark_seen(conn, ["site-1"], at(3))
    assert await edge_store.mark_silent_gateways(conn, at(1)) == []
    assert await edge_store.list_unborn_since(conn, at(0.5)) == ["site-1"]
    assert await edge_store.list_unborn_since(conn, at(0)) == []
