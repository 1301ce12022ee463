"""SQL of networks, places, usage points, sites and buses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class NetworkNode:
    """A part of a network; kind substation, feeder, transformer, source or zone."""

    id: int
    code: str
    commodity: str
    kind: str
    parent_id: int | None
    name_en: str
    name_ar: str


@dataclass(frozen=True, slots=True)
class Site:
    """A place with a gateway; its code is the gateway's edge name."""

    id: int
    code: str
    config_version: int
    poll_ms: int


@dataclass(frozen=True, slots=True)
class SiteLink:
    """A site with its names and how its gateway is; `online` is None while the gateway was never born."""

    code: str
    name_en: str
    name_ar: str
    poll_ms: int
    online: bool | None
    last_seen_at: datetime | None


async def _inserted_id(conn: psycopg.AsyncConnection, query: str, values: tuple[object, ...]) -> int:
    cursor = await conn.execute(query.encode(), values)
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - RETURNING of an insert that did not raise
    return int(row[0])


async def insert_network_node(
    conn: psycopg.AsyncConnection,
    *,
    code: str,
    commodity: str,
    kind: str,
    parent_id: int | None,
    name_en: str,
    name_ar: str,
) -> int:
    """Insert a network node and return its id."""
    return await _inserted_id(
        conn,
        "INSERT INTO meter_gateway.network_node (code, commodity, kind, parent_id, name_en, name_ar)"
        " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
        (code, commodity, kind, parent_id, name_en, name_ar),
    )


async def insert_service_location(
    conn: psycopg.AsyncConnection, *, code: str, address_en: str, address_ar: str, is_critical: bool = False
) -> int:
    """Insert a service location and return its id."""
    return await _inserted_id(
        conn,
        "INSERT INTO meter_gateway.service_location (code, address_en, address_ar, is_critical)"
        " VALUES (%s, %s, %s, %s) RETURNING id",
        (code, address_en, address_ar, is_critical),
    )


async def insert_usage_point(
    conn: psycopg.AsyncConnection,
    *,
    code: str,
    service_location_id: int,
    network_node_id: int,
    commodity: str,
) -> int:
    """Insert a usage point and return its id."""
    return await _inserted_id(
        conn,
        "INSERT INTO meter_gateway.usage_point (code, service_location_id, network_node_id, commodity)"
        " VALUES (%s, %s, %s, %s) RETURNING id",
        (code, service_location_id, network_node_id, commodity),
    )


async def insert_site(
    conn: psycopg.AsyncConnection, *, code: str, name_en: str, name_ar: str, poll_ms: int = 2000
) -> int:
    """Insert a site and return its id."""
    return await _inserted_id(
        conn,
        "INSERT INTO meter_gateway.site (code, name_en, name_ar, poll_ms) VALUES (%s, %s, %s, %s) RETURNING id",
        (code, name_en, name_ar, poll_ms),
    )


async def insert_bus(conn: psycopg.AsyncConnection, *, site_id: int, code: str, framer: str) -> int:
    """Insert a bus and return its id."""
    return await _inserted_id(
        conn,
        "INSERT INTO meter_gateway.bus (site_id, code, framer) VALUES (%s, %s, %s) RETURNING id",
        (site_id, code, framer),
    )


async def list_network_nodes(conn: psycopg.AsyncConnection) -> list[NetworkNode]:
    """Return all network nodes, parents before children by id."""
    async with conn.cursor(row_factory=class_row(NetworkNode)) as cursor:
        await cursor.execute(
            "SELECT id, code, commodity, kind, parent_id, name_en, name_ar"
            " FROM meter_gateway.network_node ORDER BY id"
        )
        return await cursor.fetchall()


async def list_sites(conn: psycopg.AsyncConnection) -> list[Site]:
    """Return all sites with the version of their configuration."""
    async with conn.cursor(row_factory=class_row(Site)) as cursor:
        await cursor.execute("SELECT id, code, config_version, poll_ms FROM meter_gateway.site ORDER BY id")
        return await cursor.fetchall()


async def list_site_links(conn: psycopg.AsyncConnection) -> list[SiteLink]:
    """Return all sites with the state of their gateways, by code."""
    async with conn.cursor(row_factory=class_row(SiteLink)) as cursor:
        await cursor.execute(
            "SELECT s.code, s.name_en, s.name_ar, s.poll_ms, e.online, e.last_seen_at FROM meter_gateway.site s"
            " LEFT JOIN meter_gateway.edge e ON e.edge = s.code AND e.born_at IS NOT NULL ORDER BY s.code"
        )
        return await cursor.fetchall()


async def find_site(conn: psycopg.AsyncConnection, code: str) -> Site | None:
    """Return the site with this code, if any."""
    async with conn.cursor(row_factory=class_row(Site)) as cursor:
        await cursor.execute(
            "SELECT id, code, config_version, poll_ms FROM meter_gateway.site WHERE code = %s", (code,)
        )
        return await cursor.fetchone()
