"""SQL of the site map: sites, buses and the meters on them, with what was heard last."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from meter_gateway import network_store, site_task_store
from portal.field.link_map import KnownMeter, KnownSite, SiteNode, build_map

MOST_METERS = 5000  # of all sites on one map; beyond it the map of one site is asked for

Conn = psycopg.AsyncConnection[Any]


async def list_map(conn: Conn, now: datetime, *, site: str | None = None) -> list[SiteNode]:
    """The map of all sites, or of one."""
    links = await network_store.list_site_links(conn)
    sites = [
        KnownSite(link.code, link.name_en, link.name_ar, link.poll_ms, link.online, link.last_seen_at)
        for link in links
        if site is None or link.code == site
    ]
    buses = [(bus.site, bus.code, bus.framer) for bus in await site_task_store.list_buses(conn)]
    return build_map(sites, buses, await list_bus_meters(conn, site=site), now)


async def list_bus_meters(conn: Conn, *, site: str | None = None, bus: str | None = None) -> list[KnownMeter]:
    """The meters that are on a bus, by site, bus and unit."""
    async with conn.cursor(row_factory=class_row(KnownMeter)) as cur:
        await cur.execute(
            """SELECT site, bus, unit_id, drn, commodity, address_en, address_ar, link_up, last_seen_at
                 FROM meter_gateway.v_meter
                WHERE bus IS NOT NULL AND (%(site)s::text IS NULL OR site = %(site)s)
                  AND (%(bus)s::text IS NULL OR bus = %(bus)s)
                ORDER BY site, bus, unit_id LIMIT %(limit)s""",
            {"site": site, "bus": bus, "limit": MOST_METERS},
        )
        return await cur.fetchall()
