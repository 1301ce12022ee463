"""The small town with a wired house that waits and meters in stock, and an engineer to visit it."""

from __future__ import annotations

import re
from html import unescape

from billing import customer_store, identity_store
from meter_gateway import meter_store, network_store
from tests.portal.small_town import LONG_AGO, build, drn_of

__all__ = ["build_field_town", "hidden", "stock_identity"]


async def build_field_town(conn):
    """Stock: `spare` (mqtt, no profile), `wire` (modbus, off the bus), `keypad`; a free house UP-99; site-1 online."""
    town = await build(conn)
    location = await network_store.insert_service_location(
        conn, code="L-99", address_en="House 99", address_ar="منزل 99"
    )
    town.points["free"] = await network_store.insert_usage_point(
        conn,
        code="UP-99",
        service_location_id=location,
        network_node_id=town.nodes["TX-3"],
        commodity="electricity",
    )
    await customer_store.insert_agreement(
        conn,
        customer_id=town.customers["c1"],
        usage_point_id=town.points["free"],
        tariff_code="home-electricity",
        valid_from=LONG_AGO,
    )
    for index, name, link in ((90, "spare", "mqtt"), (91, "wire", "modbus"), (92, "keypad", "keypad")):
        town.drns[name] = drn_of(index)
        meter = await meter_store.insert_meter(
            conn,
            drn=town.drns[name],
            commodity="electricity",
            model="E1",
            link=link,
            profile="raseed-prepaid-e1" if link == "modbus" else None,
        )
        town.meters[name] = meter.id
        await stock_identity(conn, meter.id)
    await conn.execute(
        "INSERT INTO meter_gateway.edge (edge, kind, boot, online, born_at, last_seen_at)"
        " VALUES ('site-1', 'gateway', 1, true, now(), now())"
    )
    await conn.commit()
    return town


async def stock_identity(conn, meter_id, kt=2):
    await identity_store.insert_identity(
        conn, meter_id=meter_id, iin="600727", sgc="201457", ti="01", krn=1, kt=kt, ken=255,
        ea="07", dkga="04", base_date=2014,
    )  # fmt: skip


def hidden(page, name):
    """The value of a form's hidden field."""
    return unescape(re.search(rf'name="{name}" value="([^"]*)"', page.text)[1])
