"""Money of customers that no token was given for and that nobody has returned: refused, reversed, in suspense."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class HeldMoney:
    """One such sum in baisa; `state` is REFUSED, REVERSED or SUSPENSE, `detail` why, `since` aware UTC."""

    vend_id: UUID
    payment_id: UUID
    customer_id: int
    meter_drn: str
    state: str
    detail: str
    amount_minor: int
    receipt_number: int
    since: datetime


_HELD = """
    SELECT s.vend_id, s.payment_id, s.customer_id, m.drn AS meter_drn,
           CASE WHEN j.journal_id IS NULL THEN s.vend_state ELSE 'SUSPENSE' END AS state,
           CASE WHEN j.journal_id IS NULL THEN step.detail ELSE 'the payment is ' || s.payment_state END AS detail,
           s.amount_minor, s.receipt_number, coalesce(j.occurred_at, step.occurred_at) AS since
      FROM billing.v_sale s
      JOIN meter_gateway.v_meter m ON m.meter_id = s.meter_id
      LEFT JOIN billing.v_suspense j ON j.vend_id = s.vend_id
      JOIN LATERAL (SELECT detail, occurred_at FROM billing.vend_step
                     WHERE vend_id = s.vend_id ORDER BY id DESC LIMIT 1) step ON true
     WHERE (s.vend_state IN ('REFUSED', 'REVERSED') OR (j.journal_id IS NOT NULL AND s.vend_state <> 'REFUNDED'))
"""


async def list_held(conn: psycopg.AsyncConnection) -> list[HeldMoney]:
    """Every such sum, the oldest first."""
    cursor = conn.cursor(row_factory=class_row(HeldMoney))
    await cursor.execute(f"{_HELD} ORDER BY since, s.receipt_number")
    return await cursor.fetchall()
