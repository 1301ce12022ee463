"""A small made-up world for the tests of this room: one transformer, one site with a bus, meters on demand."""

from datetime import UTC, datetime

from meter_gateway import meter_store, network_store

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


async def make_site(conn, code="site-1", poll_ms=2000):
    site_id = await network_store.insert_site(
        conn, code=code, name_en="Site", name_ar="موقع", poll_ms=poll_ms
    )
    bus_id = await network_store.insert_bus(conn, site_id=site_id, code="tcp-1", framer="tcp")
    return site_id, bus_id


async def make_usage_point(conn, code="UP-1", commodity="electricity"):
    kind = "transformer" if commodity == "electricity" else "zone"
    node_id = await network_store.insert_network_node(
        conn, code=f"N-{code}", commodity=commodity, kind=kind, parent_id=None, name_en="T", name_ar="م"
    )
    place_id = await network_store.insert_service_location(
        conn, code=f"L-{code}", address_en="House", address_ar="منزل"
    )
    return await network_store.insert_usage_point(
        conn, code=code, service_location_id=place_id, network_node_id=node_id, commodity=commodity
    )


async def make_mqtt_meter(conn, drn="06000000011"):
    return await meter_store.insert_meter(conn, drn=drn, commodity="electricity", model="E1", link="mqtt")


async def make_modbus_meter(conn, bus_id, drn="06000000029", unit_id=1):
    return await meter_store.insert_meter(
        conn,
        drn=drn,
        commodity="electricity",
        model="E2",
        link="modbus",
        profile="raseed-prepaid-e1",
        bus_id=bus_id,
        unit_id=unit_id,
    )


async def make_keypad_meter(conn, drn="06000000037"):
    return await meter_store.insert_meter(conn, drn=drn, commodity="electricity", model="E0", link="keypad")
