"""SQL of taking meters down and up: where a meter hangs, who has the place, what it said last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Hanging:
    """A meter where it hangs; customer and tariff None where nobody has an agreement. Wh or mL."""

    meter_id: int
    drn: str
    commodity: str
    model: str
    link: str
    site: str | None
    bus: str | None
    unit_id: int | None
    usage_point_id: int
    usage_point: str
    address_en: str
    is_critical: bool
    installed_at: datetime
    counter: int | None
    credit: int | None
    relay: int | None
    tamper: bool
    link_up: bool
    state_at: datetime | None
    customer_id: int | None
    customer_en: str | None
    tariff_code: str | None


async def find_hanging(conn: Conn, meter_id: int) -> Hanging | None:
    """A meter at its place; None for one that hangs nowhere."""
    async with conn.cursor(row_factory=class_row(Hanging)) as cur:
        await cur.execute(
            """SELECT m.meter_id, m.drn, m.commodity, m.model, m.link, m.site, m.bus, m.unit_id, m.usage_point_id,
                      m.usage_point, m.address_en, m.is_critical, m.installed_at, m.counter, m.credit, m.relay,
                      m.tamper, m.link_up, m.state_at, a.customer_id, c.name_en AS customer_en, a.tariff_code
                 FROM meter_gateway.v_meter m
                 LEFT JOIN billing.v_agreed_point a ON a.usage_point_id = m.usage_point_id
                 LEFT JOIN billing.v_customer c ON c.id = a.customer_id
                WHERE m.meter_id = %s AND m.usage_point_id IS NOT NULL""",
            (meter_id,),
        )
        return await cur.fetchone()


async def find_removed(conn: Conn, meter_id: int, usage_point_id: int) -> Hanging:
    """A meter that was taken down, as it hung at this place last."""
    async with conn.cursor(row_factory=class_row(Hanging)) as cur:
        await cur.execute(
            """SELECT m.meter_id, m.drn, m.commodity, m.model, m.link, NULL::text AS site, NULL::text AS bus,
                      NULL::integer AS unit_id, u.usage_point_id, u.code AS usage_point, u.address_en,
                      false AS is_critical, i.installed_at, m.counter, m.credit, m.relay, m.tamper, m.link_up,
                      m.state_at, a.customer_id, c.name_en AS customer_en, a.tariff_code
                 FROM meter_gateway.v_meter m
                 JOIN meter_gateway.v_usage_point u ON u.usage_point_id = %s
                 JOIN meter_gateway.v_meter_installation i ON i.meter_id = m.meter_id
                  AND i.usage_point_id = u.usage_point_id
                 LEFT JOIN billing.v_agreed_point a ON a.usage_point_id = u.usage_point_id
                 LEFT JOIN billing.v_customer c ON c.id = a.customer_id
                WHERE m.meter_id = %s ORDER BY i.installed_at DESC LIMIT 1""",
            (usage_point_id, meter_id),
        )
        row = await cur.fetchone()
    if row is None:
        raise LookupError(f"meter {meter_id} never hung at {usage_point_id}")
    return row


async def find_customer_of_point(conn: Conn, usage_point_id: int) -> int | None:
    """Who has an agreement for a place."""
    cursor = await conn.execute(
        "SELECT customer_id FROM billing.v_agreed_point WHERE usage_point_id = %s", (usage_point_id,)
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def lock_point(conn: Conn, usage_point_id: int) -> None:
    """Let nobody else hang a meter, take one down or release credit at a place until the transaction ends."""
    await conn.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('usage-point:' || %s::text, 0))", (usage_point_id,)
    )


async def lock_place_of(conn: Conn, meter_id: int) -> None:
    """Lock the point at which this meter hangs, if it does: before the meters, as everybody takes them."""
    hanging = await find_hanging(conn, meter_id)
    if hanging is not None:
        await lock_point(conn, hanging.usage_point_id)


async def find_meter_at(conn: Conn, usage_point_id: int) -> int | None:
    """Which meter hangs at a place."""
    cursor = await conn.execute(
        "SELECT meter_id FROM meter_gateway.v_meter WHERE usage_point_id = %s", (usage_point_id,)
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def find_removal_detail(conn: Conn, meter_id: int, code: str, removed_at: datetime) -> dict[str, Any]:
    """What a meter's event of its removal tells; empty where there is none."""
    cursor = await conn.execute(
        "SELECT detail FROM meter_gateway.v_meter_event WHERE meter_id = %s AND code = %s AND occurred_at = %s",
        (meter_id, code, removed_at),
    )
    row = await cursor.fetchone()
    return {} if row is None else dict(row[0])


async def lock_removal_key(conn: Conn, key: str) -> None:
    """Let nobody else take a meter down under this key until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('removal:' || %s, 0))", (key,))
