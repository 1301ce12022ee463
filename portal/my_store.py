"""SQL of a subscriber's own pages: every read takes the customer, and the scope stands in the WHERE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from portal.access import NotFound
from portal.consumption import Around


@dataclass(frozen=True, slots=True)
class OwnMeter:
    """A meter of the customer as it last told: credit and counter in Wh or mL, load in W or mL/h."""

    meter_id: int
    drn: str
    commodity: str
    model: str
    link: str
    address_en: str
    address_ar: str
    network_name_en: str
    network_name_ar: str
    last_seen_at: datetime | None
    link_up: bool
    supply_on: bool | None
    credit: int | None
    counter: int | None
    load: int | None
    relay: int | None
    relay_reason: str | None
    state_at: datetime | None

    def address(self, language: str) -> str:
        """Return the address in a language."""
        return self.address_ar if language == "ar" else self.address_en


_METER = """
    SELECT m.meter_id, m.drn, m.commodity, m.model, m.link, m.address_en, m.address_ar, m.network_name_en,
           m.network_name_ar, m.last_seen_at, m.link_up, m.supply_on, m.credit, m.counter, m.load, m.relay,
           m.relay_reason, m.state_at
      FROM billing.v_agreement a JOIN meter_gateway.v_meter m ON m.meter_id = a.meter_id
"""


async def list_meters(conn: psycopg.AsyncConnection, customer_id: int) -> list[OwnMeter]:
    """Return the customer's meters, electricity first."""
    cursor = conn.cursor(row_factory=class_row(OwnMeter))
    await cursor.execute(_METER + " WHERE a.customer_id = %s ORDER BY m.commodity, m.drn", (customer_id,))
    return await cursor.fetchall()


async def get_meter(conn: psycopg.AsyncConnection, customer_id: int, drn: str) -> OwnMeter:
    """Return one meter of the customer. Raises NotFound, for another customer's too."""
    cursor = conn.cursor(row_factory=class_row(OwnMeter))
    await cursor.execute(_METER + " WHERE a.customer_id = %s AND m.drn = %s", (customer_id, drn))
    row = await cursor.fetchone()
    if row is None:
        raise NotFound
    return row


async def list_counters_around(
    conn: psycopg.AsyncConnection, meter_id: int, bounds: Sequence[datetime]
) -> list[Around]:
    """Return for each bound the counter readings next to it: two index look-ups a bound, however many readings."""
    cursor = conn.cursor(row_factory=class_row(Around))
    await cursor.execute(
        """SELECT b.at, p.occurred_at AS before_at, p.value AS before_value,
                  n.occurred_at AS after_at, n.value AS after_value
             FROM unnest(%(bounds)s::timestamptz[]) AS b(at)
             LEFT JOIN LATERAL (SELECT occurred_at, value FROM meter_gateway.v_reading
                                 WHERE meter_id = %(meter)s AND channel = 'counter' AND occurred_at <= b.at
                                   AND quality <> 'suspect'
                                 ORDER BY occurred_at DESC LIMIT 1) p ON true
             LEFT JOIN LATERAL (SELECT occurred_at, value FROM meter_gateway.v_reading
                                 WHERE meter_id = %(meter)s AND channel = 'counter' AND occurred_at >= b.at
                                   AND quality <> 'suspect'
                                 ORDER BY occurred_at LIMIT 1) n ON true
            ORDER BY b.at""",
        {"bounds": list(bounds), "meter": meter_id},
    )
    return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class OwnSale:
    """A sale in a list: amounts in baisa, units in tenths of kWh or m3."""

    vend_id: UUID
    vend_state: str
    payment_id: UUID
    payment_state: str
    meter_id: int
    drn: str
    commodity: str
    amount_minor: int
    units_tenths: int
    receipt_number: int
    payment_created_at: datetime
    vended_at: datetime | None


async def list_sales(
    conn: psycopg.AsyncConnection, customer_id: int, *, meter_id: int | None = None, limit: int
) -> list[OwnSale]:
    """Return sales that reached payment, newest first, of all the customer's meters or of one."""
    cursor = conn.cursor(row_factory=class_row(OwnSale))
    await cursor.execute(
        """SELECT s.vend_id, s.vend_state, s.payment_id, s.payment_state, s.meter_id, m.drn, m.commodity,
                  s.amount_minor, s.units_tenths, s.receipt_number, s.payment_created_at, s.vended_at
             FROM billing.v_sale s JOIN meter_gateway.v_meter m ON m.meter_id = s.meter_id
            WHERE s.customer_id = %(customer)s AND s.payment_id IS NOT NULL
              AND (%(meter)s::bigint IS NULL OR s.meter_id = %(meter)s)
            ORDER BY s.payment_created_at DESC LIMIT %(limit)s""",
        {"customer": customer_id, "meter": meter_id, "limit": limit},
    )
    return await cursor.fetchall()


async def find_meter_of_token(conn: psycopg.AsyncConnection, customer_id: int, digits: str) -> str | None:
    """Return the number of the customer's meter that these digits were sold for, if they were."""
    cursor = await conn.execute(
        """SELECT m.drn FROM billing.v_sale s JOIN meter_gateway.v_meter m ON m.meter_id = s.meter_id
            WHERE s.customer_id = %s AND s.digits = %s""",
        (customer_id, digits),
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])
