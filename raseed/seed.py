"""Put the simulated town into an empty database: places, meters, people, tariffs and history, in one transaction.

It writes tables of every package in bulk by COPY, as an operator's import would, which is why it stands above
them all and not in their stores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from billing import ledger, ledger_store
from firmware_sim.household import history
from firmware_sim.town import Town, TownMeter

SITE = "site-1"
HISTORY_DAYS = 396  # 13 months, so that a year can be compared with the one before
HALF_HOUR_DAYS = 60

# Demo tariffs, near to what Gulf households pay; blocks are small so that a quote shows how they work.
_TARIFFS: tuple[tuple[Any, ...], ...] = (
    (
        "home-electricity",
        1,
        "electricity",
        datetime(2025, 1, 1, tzinfo=UTC),
        "Home electricity",
        "كهرباء المنازل",
        Jsonb(
            [
                {"up_to": 300_000, "rate_micro": 14_000},
                {"up_to": 1_000_000, "rate_micro": 18_000},
                {"up_to": None, "rate_micro": 32_000},
            ]
        ),
        500,
        20,
        500,
        100_000,
    ),
    (
        "home-water",
        1,
        "water",
        datetime(2025, 1, 1, tzinfo=UTC),
        "Home water",
        "مياه المنازل",
        Jsonb(
            [
                {"up_to": 20_000_000, "rate_micro": 550_000},
                {"up_to": None, "rate_micro": 770_000},
            ]
        ),
        500,
        20,
        500,
        100_000,
    ),
)


async def seed(
    conn: psycopg.AsyncConnection[Any],
    town: Town,
    *,
    now: datetime,
    say: Callable[[str], None] = lambda _line: None,
    with_history: bool = True,
) -> bool:
    """Seed `town`; return False and change nothing when a site is there already."""
    found = await conn.execute("SELECT EXISTS (SELECT FROM meter_gateway.site)")
    row = await found.fetchone()
    if row is not None and row[0]:
        return False
    nodes = await _seed_network(conn, town)
    points = await _seed_places(conn, town, nodes)
    meters = await _seed_meters(conn, town, points, now)
    await _seed_people(conn, town, points, now)
    say(f"{len(town.meters)} meters, {len(town.customers)} customers")
    if not with_history:
        return True
    rows = await _seed_history(conn, town.installed, town, meters, now)
    say(f"{rows} readings of 13 months, marked simulated")
    return True


async def _seed_network(conn: psycopg.AsyncConnection[Any], town: Town) -> dict[str, int]:
    ids: dict[str, int] = {}
    for node in town.nodes:  # parents stand before their children
        cursor = await conn.execute(
            "INSERT INTO meter_gateway.network_node (code, commodity, kind, parent_id, name_en, name_ar) "
            "VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            (
                node.code,
                node.commodity,
                node.kind,
                ids[node.parent_code] if node.parent_code else None,
                node.name_en,
                node.name_ar,
            ),
        )
        ids[node.code] = _one(await cursor.fetchone())
    return ids


async def _seed_places(
    conn: psycopg.AsyncConnection[Any], town: Town, nodes: dict[str, int]
) -> dict[str, int]:
    await _copy(
        conn,
        "meter_gateway.service_location",
        ("code", "address_en", "address_ar"),
        ((place.code, place.address_en, place.address_ar) for place in town.locations),
    )
    places = await _ids(conn, "SELECT code, id FROM meter_gateway.service_location")
    await _copy(
        conn,
        "meter_gateway.usage_point",
        ("code", "service_location_id", "network_node_id", "commodity"),
        (
            (point.code, places[point.location_code], nodes[point.node_code], point.commodity)
            for point in town.usage_points
        ),
    )
    return await _ids(conn, "SELECT code, id FROM meter_gateway.usage_point")


async def _seed_meters(
    conn: psycopg.AsyncConnection[Any], town: Town, points: dict[str, int], now: datetime
) -> dict[str, int]:
    site = await conn.execute(
        "INSERT INTO meter_gateway.site (code, name_en, name_ar) VALUES (%s, %s, %s) RETURNING id",
        (SITE, "Wadi Al Noor", "وادي النور"),
    )
    site_id = _one(await site.fetchone())
    await _copy(
        conn,
        "meter_gateway.bus",
        ("site_id", "code", "framer"),
        (
            (site_id, code, "rtu" if code.startswith("rtu") else "tcp")
            for code in sorted({m.bus for m in town.meters if m.bus})
        ),
    )
    buses = await _ids(conn, "SELECT code, id FROM meter_gateway.bus")
    await _copy(
        conn,
        "meter_gateway.meter",
        ("drn", "commodity", "model", "link", "profile", "bus_id", "unit_id"),
        (
            (m.drn, m.commodity, m.model, m.link, m.profile, buses[m.bus] if m.bus else None, m.unit)
            for m in town.meters
        ),
    )
    meters = await _ids(conn, "SELECT drn, id FROM meter_gateway.meter")
    await _copy(
        conn,
        "meter_gateway.meter_installation",
        ("meter_id", "usage_point_id", "installed_at", "installed_by"),
        (
            (meters[m.drn], points[m.usage_point_code], datetime(2025, 1, 1, tzinfo=UTC), "seed")
            for m in town.installed
            if m.usage_point_code
        ),
    )
    await _copy(
        conn,
        "billing.sts_identity",
        ("meter_id", "iin", "sgc", "ti", "krn", "kt", "ken", "ea", "dkga", "base_date"),
        (
            (meters[m.drn], m.iin, m.sgc, f"{m.ti:02d}", m.krn, m.kt, m.ken, m.ea, m.dkga, m.base_date)
            for m in town.meters
        ),
    )
    for m in town.meters:
        if m.usage_point_code:
            await conn.execute(
                "INSERT INTO meter_gateway.meter_state (meter_id, credit, counter, state_at) VALUES (%s, %s, %s, %s)",
                (meters[m.drn], m.initial_credit, m.initial_counter, now),
            )
    return meters


async def _seed_people(
    conn: psycopg.AsyncConnection[Any], town: Town, points: dict[str, int], now: datetime
) -> None:
    await _copy(
        conn,
        "billing.tariff",
        (
            "code",
            "version",
            "commodity",
            "valid_from",
            "name_en",
            "name_ar",
            "blocks",
            "vat_basis_points",
            "arrears_cap_percent",
            "minimum_minor",
            "maximum_minor",
        ),
        _TARIFFS,
    )
    await _copy(
        conn,
        "billing.customer",
        ("code", "name_en", "name_ar", "phone", "language"),
        ((c.code, c.name_en, c.name_ar, c.phone, c.language) for c in town.customers),
    )
    customers = await _ids(conn, "SELECT code, id FROM billing.customer")
    commodity = {point.code: point.commodity for point in town.usage_points}
    await _copy(
        conn,
        "billing.customer_agreement",
        ("customer_id", "usage_point_id", "tariff_code", "valid_from"),
        (
            (customers[c.code], points[code], f"home-{commodity[code]}", datetime(2025, 1, 1, tzinfo=UTC))
            for c in town.customers
            for code in c.usage_point_codes
        ),
    )
    await _copy(
        conn,
        "portal.login",
        ("role", "customer_id", "display_name", "language"),
        (
            ("subscriber", customers[c.code], c.name_ar if c.language == "ar" else c.name_en, c.language)
            for c in town.customers
        ),
    )
    for c in town.customers:
        if c.arrears_minor:
            debt = ledger.opening_entry(customers[c.code], c.arrears_minor, source="town")
            await ledger_store.insert_entry(conn, debt, now=now)


async def _seed_history(
    conn: psycopg.AsyncConnection[Any],
    installed: Sequence[TownMeter],
    town: Town,
    meters: dict[str, int],
    now: datetime,
) -> int:
    rows = 0
    columns = sql.SQL("meter_id, channel, occurred_at, value, quality")
    statement = sql.SQL("COPY meter_gateway.reading ({}) FROM STDIN (FORMAT BINARY)").format(columns)
    cursor = conn.cursor()
    async with cursor.copy(statement) as copy:
        copy.set_types(["int8", "text", "timestamptz", "int8", "text"])
        for meter in installed:
            past = history(town, meter, now, HISTORY_DAYS, HALF_HOUR_DAYS)
            points = dict(past.daily)
            points.update(past.half_hourly)  # a midnight of the last 60 days stands in both, and once here
            for occurred_at, value in points.items():
                await copy.write_row((meters[meter.drn], "counter", occurred_at, value, "simulated"))
            rows += len(points)
    return rows


async def _copy(
    conn: psycopg.AsyncConnection[Any],
    table: LiteralString,
    columns: Sequence[LiteralString],
    rows: Iterable[tuple[Any, ...]],
) -> None:
    names = sql.SQL(", ").join(sql.Identifier(column) for column in columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.SQL(table), names)
    async with conn.cursor().copy(statement) as copy:
        for row in rows:
            await copy.write_row(row)


async def _ids(conn: psycopg.AsyncConnection[Any], query: LiteralString) -> dict[str, int]:
    cursor = await conn.execute(query)
    return dict(await cursor.fetchall())


def _one(row: tuple[Any, ...] | None) -> int:
    if row is None:
        raise RuntimeError("INSERT … RETURNING gave no row")
    return int(row[0])
