"""A small town in the database: one substation, two feeders, three transformers, a water zone, ten meters."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

import psycopg

from billing import customer_store, identity_store
from meter_gateway import meter_store, network_store
from portal.i18n import load_languages
from token_engine.identifiers import luhn_digit

# Yesterday at noon in Muscat: readings go into partitions that the database made around its own today.
NOW = datetime.now(UTC).replace(hour=8, minute=0, second=0, microsecond=0) - timedelta(days=1)
LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)

# (short name, transformer or zone, link)
METERS = (
    ("a1", "TX-1", "mqtt"),
    ("a2", "TX-1", "mqtt"),
    ("a3", "TX-1", "modbus"),
    ("a4", "TX-1", "keypad"),
    ("b1", "TX-2", "mqtt"),
    ("b2", "TX-2", "modbus"),
    ("c1", "TX-3", "mqtt"),
    ("c2", "TX-3", "mqtt"),
    ("w1", "WZ-1", "mqtt"),
    ("w2", "WZ-1", "keypad"),
)


@cache
def languages():
    return load_languages()


@dataclass
class SmallTown:
    conn: psycopg.AsyncConnection
    nodes: dict[str, int] = field(default_factory=dict)
    meters: dict[str, int] = field(default_factory=dict)
    drns: dict[str, str] = field(default_factory=dict)
    customers: dict[str, int] = field(default_factory=dict)
    phones: dict[str, str] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)

    async def event(self, meter, code, at, detail="{}"):
        await self.conn.execute(
            "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (self.meters[meter], self.drns[meter], code, at, at, detail),
        )

    async def gasp(self, *meters, at):
        for meter in meters:
            await self.event(meter, "3.26.0.85", at)

    async def reading(self, meter, at, channel="counter", value=1000):
        await self.conn.execute(
            "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, recorded_at)"
            " VALUES (%s, %s, %s, %s, %s)",
            (self.meters[meter], channel, at, value, at),
        )
        await self.state(meter, at)

    async def state(self, meter, at, **columns):
        values = {"last_seen_at": at, "state_at": at, "link_up": True, "supply_on": True} | columns
        names = ", ".join(values)
        await self.conn.execute(
            f"INSERT INTO meter_gateway.meter_state (meter_id, {names})"
            f" VALUES (%s, {', '.join(['%s'] * len(values))})"
            f" ON CONFLICT (meter_id) DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in values)}",
            (self.meters[meter], *values.values()),
        )

    async def staff(self, username="huda", role="agent"):
        cur = await self.conn.execute(
            "INSERT INTO portal.login (role, username, display_name, password_hash)"
            " VALUES (%s, %s, %s, 'x') RETURNING id",
            (role, username, username.title()),
        )
        return (await cur.fetchone())[0]


def drn_of(index: int) -> str:
    body = f"04{index:08d}"
    return body + luhn_digit(body)


async def build(conn: psycopg.AsyncConnection) -> SmallTown:
    """The town with each meter seen alive an hour ago (those with a link)."""
    town = SmallTown(conn)
    for code, commodity, kind, parent in (
        ("SS-1", "electricity", "substation", None),
        ("FD-1", "electricity", "feeder", "SS-1"),
        ("FD-2", "electricity", "feeder", "SS-1"),
        ("TX-1", "electricity", "transformer", "FD-1"),
        ("TX-2", "electricity", "transformer", "FD-1"),
        ("TX-3", "electricity", "transformer", "FD-2"),
        ("WZ-1", "water", "zone", None),
    ):
        town.nodes[code] = await network_store.insert_network_node(
            conn,
            code=code,
            commodity=commodity,
            kind=kind,
            parent_id=town.nodes.get(parent),
            name_en=f"{kind} {code}",
            name_ar=f"شبكة {code}",
        )
    site = await network_store.insert_site(conn, code="site-1", name_en="Site", name_ar="موقع")
    bus = await network_store.insert_bus(conn, site_id=site, code="rtu-1", framer="rtu")
    for index, (name, node, link) in enumerate(METERS, 1):
        await _house(town, index, name, node, link, bus)
    return town


async def _house(town: SmallTown, index: int, name: str, node: str, link: str, bus: int) -> None:
    conn = town.conn
    commodity = "water" if node.startswith("W") else "electricity"
    location = await network_store.insert_service_location(
        conn, code=f"L-{index}", address_en=f"House {index}, Way 12", address_ar=f"منزل {index}، سكة ١٢"
    )
    town.points[name] = await network_store.insert_usage_point(
        conn,
        code=f"UP-{index}",
        service_location_id=location,
        network_node_id=town.nodes[node],
        commodity=commodity,
    )
    town.drns[name] = drn_of(index)
    modbus = {"profile": "raseed-prepaid-e1", "bus_id": bus, "unit_id": index} if link == "modbus" else {}
    meter = await meter_store.insert_meter(
        conn, drn=town.drns[name], commodity=commodity, model="E1", link=link, **modbus
    )
    town.meters[name] = meter.id
    await meter_store.install_meter(
        conn,
        meter_id=meter.id,
        usage_point_id=town.points[name],
        installed_at=LONG_AGO,
        installed_by="test",
    )
    await identity_store.insert_identity(
        conn,
        meter_id=meter.id,
        iin="600727",
        sgc="201457",
        ti="01",
        krn=1,
        kt=2,
        ken=255,
        ea="07",
        dkga="02",
        base_date=2014,
    )
    town.phones[name] = f"+96890001{index:03d}"
    customer = await customer_store.insert_customer(
        conn,
        code=f"C-{index:04d}",
        name_en=f"Salim Al Harthy {index}",
        name_ar=f"سالم الحارثي {index}",
        phone=town.phones[name],
        language="ar" if index % 2 else "en",
    )
    town.customers[name] = customer.id
    await customer_store.insert_agreement(
        conn,
        customer_id=customer.id,
        usage_point_id=town.points[name],
        tariff_code=f"home-{commodity}",
        valid_from=LONG_AGO,
    )
    if link != "keypad":
        await town.reading(name, NOW - timedelta(hours=1))
        await town.state(name, NOW - timedelta(hours=1), credit=50_000, relay=1, relay_reason="none")
