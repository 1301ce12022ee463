"""Sales that a person must look at: paid without a token for too long, refused, or with money in suspense."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class LateSale:
    """One such sale; `paid_at` is None when its money stands in suspense. Baisa, aware UTC."""

    vend_id: UUID
    meter_id: int
    drn: str
    customer_id: int
    phone: str
    language: str
    amount_minor: int
    receipt_number: int
    paid_at: datetime | None


_LATE = """
    WITH late AS (
      SELECT vend_id, paid_at FROM billing.v_sale
       WHERE vend_state IN ('PAID', 'REQUESTED', 'UNKNOWN', 'REFUSED')
         AND (vend_state = 'REFUSED' OR paid_at < %(paid_before)s)
      UNION SELECT vend_id, NULL FROM billing.v_suspense WHERE occurred_at >= %(since)s
    )
    SELECT l.vend_id, s.meter_id, m.drn, c.id AS customer_id, c.phone, c.language, s.amount_minor,
           s.receipt_number, l.paid_at
      FROM late l
      JOIN billing.v_sale s ON s.vend_id = l.vend_id
      JOIN meter_gateway.v_meter m ON m.meter_id = s.meter_id
      JOIN billing.v_customer c ON c.id = s.customer_id
     WHERE NOT EXISTS (SELECT 1 FROM portal.ticket t WHERE t.vend_id = l.vend_id)
     ORDER BY l.paid_at NULLS FIRST LIMIT %(limit)s
"""


async def list_late_sales(
    conn: psycopg.AsyncConnection, *, paid_before: datetime, since: datetime, limit: int
) -> list[LateSale]:
    """Sales paid before an instant (or refused at any time), and suspense since another, that have no ticket."""
    cursor = conn.cursor(row_factory=class_row(LateSale))
    await cursor.execute(_LATE, {"paid_before": paid_before, "since": since, "limit": limit})
    return await cursor.fetchall()
