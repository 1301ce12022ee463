"""SQL of the engineer's pages: meters in stock, houses that wait for one, and what a meter answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

LIST_LIMIT = 50  # what a van carries and a street has; the search box narrows the rest

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class SpareMeter:
    """A meter that hangs nowhere."""

    meter_id: int
    drn: str
    commodity: str
    model: str
    link: str


@dataclass(frozen=True, slots=True)
class FreePoint:
    """A usage point without a meter; the customer is None while nobody has an agreement for it."""

    usage_point_id: int
    code: str
    commodity: str
    network_name_en: str
    network_name_ar: str
    address_en: str
    address_ar: str
    customer_en: str | None
    customer_ar: str | None


@dataclass(frozen=True, slots=True)
class FieldCommand:
    """An order to a meter and what came of it; the token's digits are not among it."""

    id: int
    meter_id: int
    drn: str
    commodity: str
    link: str
    kind: str
    state: str
    created_at: datetime
    expires_at: datetime
    result: dict[str, Any]
    requested_by: str = ""


@dataclass(frozen=True, slots=True)
class CommandStep:
    """One step of an order."""

    state: str
    occurred_at: datetime


_COMMAND = """
SELECT c.id, c.meter_id, m.drn, m.commodity, m.link, c.kind, c.state, c.created_at, c.expires_at, c.result,
       c.requested_by
  FROM meter_gateway.v_meter_command c JOIN meter_gateway.v_meter m ON m.meter_id = c.meter_id
"""


async def list_spare_meters(conn: Conn) -> list[SpareMeter]:
    """Meters in stock, by number."""
    async with conn.cursor(row_factory=class_row(SpareMeter)) as cur:
        await cur.execute(
            """SELECT meter_id, drn, commodity, model, link FROM meter_gateway.v_meter
                WHERE usage_point_id IS NULL ORDER BY drn LIMIT %s""",
            (LIST_LIMIT,),
        )
        return await cur.fetchall()


async def list_free_points(
    conn: Conn, *, commodity: str | None = None, usage_point_id: int | None = None
) -> list[FreePoint]:
    """Usage points without a meter, those with a customer first."""
    async with conn.cursor(row_factory=class_row(FreePoint)) as cur:
        await cur.execute(
            """SELECT u.usage_point_id, u.code, u.commodity, u.network_name_en, u.network_name_ar,
                      u.address_en, u.address_ar, c.name_en AS customer_en, c.name_ar AS customer_ar
                 FROM meter_gateway.v_usage_point u
                 LEFT JOIN billing.v_agreed_point a ON a.usage_point_id = u.usage_point_id
                 LEFT JOIN billing.v_customer c ON c.id = a.customer_id
                WHERE u.meter_id IS NULL AND (%(commodity)s::text IS NULL OR u.commodity = %(commodity)s)
                  AND (%(point)s::bigint IS NULL OR u.usage_point_id = %(point)s)
                ORDER BY (c.id IS NULL), u.code LIMIT %(limit)s""",
            {"commodity": commodity, "point": usage_point_id, "limit": LIST_LIMIT},
        )
        return await cur.fetchall()


async def find_command(conn: Conn, command_id: int) -> FieldCommand | None:
    """An order by its number."""
    async with conn.cursor(row_factory=class_row(FieldCommand)) as cur:
        await cur.execute((_COMMAND + "WHERE c.id = %s").encode(), (command_id,))
        return await cur.fetchone()


async def find_last_command(conn: Conn, meter_id: int, *, key_prefix: str) -> FieldCommand | None:
    """The newest order to a meter whose idempotency key begins so."""
    async with conn.cursor(row_factory=class_row(FieldCommand)) as cur:
        await cur.execute(
            (
                _COMMAND
                + "WHERE c.meter_id = %s AND starts_with(c.idempotency_key, %s) ORDER BY c.id DESC LIMIT 1"
            ).encode(),
            (meter_id, key_prefix),
        )
        return await cur.fetchone()


async def find_last_of_kind(conn: Conn, meter_id: int, *, kind: str) -> FieldCommand | None:
    """The newest order of a kind to a meter, whoever gave it."""
    async with conn.cursor(row_factory=class_row(FieldCommand)) as cur:
        await cur.execute(
            (_COMMAND + "WHERE c.meter_id = %s AND c.kind = %s ORDER BY c.id DESC LIMIT 1").encode(),
            (meter_id, kind),
        )
        return await cur.fetchone()


async def list_steps(conn: Conn, command_id: int) -> list[CommandStep]:
    """The steps of an order, oldest first."""
    async with conn.cursor(row_factory=class_row(CommandStep)) as cur:
        await cur.execute(
            """SELECT state, occurred_at FROM meter_gateway.v_meter_command_step
                WHERE command_id = %s ORDER BY id""",
            (command_id,),
        )
        return await cur.fetchall()
