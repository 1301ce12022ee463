"""What the demo's town page reads: the network's names, who lives where, the newest messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import kwargs_row

NEWEST_MESSAGES = 60  # what a person scrolls through; the outbox itself keeps all


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One part of the network; `depth` counts from its source, which has no parent."""

    code: str
    parent_code: str | None
    kind: str
    commodity: str
    name_en: str
    name_ar: str
    depth: int


@dataclass(frozen=True, slots=True)
class PlaceRow:
    """Where a meter hangs and whose it is; all None for a spare on the shelf."""

    drn: str
    commodity: str
    address_en: str | None
    address_ar: str | None
    usage_point: str | None
    node_code: str | None
    node_name_en: str | None
    node_name_ar: str | None
    customer_id: int | None
    customer_name_en: str | None
    customer_name_ar: str | None


@dataclass(frozen=True, slots=True)
class MessageRow:
    """One SMS of the outbox."""

    id: int
    phone: str
    kind: str
    language: str
    body: str
    reference: str
    created_at: datetime
    sent_at: datetime | None
    name_en: str | None
    name_ar: str | None


_PLACE = """
SELECT m.drn, m.commodity, m.address_en, m.address_ar, m.usage_point, m.network_node AS node_code,
       m.network_name_en AS node_name_en, m.network_name_ar AS node_name_ar,
       c.id AS customer_id, c.name_en AS customer_name_en, c.name_ar AS customer_name_ar
  FROM meter_gateway.v_meter m
  LEFT JOIN billing.v_agreement a ON a.meter_id = m.meter_id
  LEFT JOIN billing.v_customer c ON c.id = a.customer_id
"""


async def list_nodes(conn: psycopg.AsyncConnection[Any]) -> list[NodeRow]:
    """Every node, each after its parent."""
    cur = conn.cursor(row_factory=kwargs_row(NodeRow))
    await cur.execute(
        """
        SELECT own.code, parent.code AS parent_code, own.kind, own.commodity, own.name_en, own.name_ar,
               (SELECT max(depth) FROM meter_gateway.v_network_path d WHERE d.node_id = own.node_id) AS depth
          FROM meter_gateway.v_network_path own
          LEFT JOIN meter_gateway.v_network_path parent ON parent.node_id = own.node_id AND parent.depth = 1
         WHERE own.depth = 0
         ORDER BY depth, own.code
        """
    )
    return await cur.fetchall()


async def find_place(conn: psycopg.AsyncConnection[Any], drn: str) -> PlaceRow | None:
    """Where one meter hangs; None for a meter that the utility does not know."""
    cur = conn.cursor(row_factory=kwargs_row(PlaceRow))
    await cur.execute(_PLACE + " WHERE m.drn = %s", (drn,))
    return await cur.fetchone()


async def find_first_place(conn: psycopg.AsyncConnection[Any]) -> PlaceRow | None:
    """The first electricity meter of the first customer, who is the persona of the one-click sign-in."""
    cur = conn.cursor(row_factory=kwargs_row(PlaceRow))
    await cur.execute(
        _PLACE + " WHERE c.id IS NOT NULL AND m.commodity = 'electricity' ORDER BY c.id, m.meter_id LIMIT 1"
    )
    return await cur.fetchone()


async def find_newest_vend(conn: psycopg.AsyncConnection[Any]) -> UUID | None:
    """The vend of the payment that was begun last, whoever paid."""
    cur = await conn.execute(
        "SELECT vend_id FROM billing.v_sale WHERE payment_id IS NOT NULL"
        " ORDER BY payment_created_at DESC, vend_id LIMIT 1"
    )
    row = await cur.fetchone()
    return row[0] if row else None


async def list_newest_messages(conn: psycopg.AsyncConnection[Any]) -> list[MessageRow]:
    """The newest messages of the outbox, the newest first."""
    cur = conn.cursor(row_factory=kwargs_row(MessageRow))
    await cur.execute(
        """
        SELECT m.id, m.phone, m.kind, m.language, m.body, m.reference, m.created_at, m.sent_at,
               c.name_en, c.name_ar
          FROM portal.message m LEFT JOIN billing.v_customer c ON c.id = m.customer_id
         ORDER BY m.id DESC LIMIT %s
        """,
        (NEWEST_MESSAGES,),
    )
    return await cur.fetchall()
