"""SQL of the timeline of one sale, as its customer sees it: a query over what was written down, never a copy."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from portal.sell import command_key


@dataclass(frozen=True, slots=True)
class SaleEntry:
    """One line of a sale's timeline; `source` is payment, vend, message, command or meter; `what` its own word."""

    occurred_at: datetime
    source: str
    what: str
    detail: str


_ENTRIES = """
    WITH sale AS (SELECT * FROM billing.v_sale WHERE vend_id = %(vend)s)
    SELECT occurred_at, source, what, detail FROM (
      SELECT payment_created_at AS occurred_at, 'payment' AS source, 'STARTED' AS what, '' AS detail, 1 AS place
        FROM sale
      UNION ALL SELECT settled_at, 'payment', payment_state, '', 2 FROM sale WHERE settled_at IS NOT NULL
      UNION ALL SELECT t.occurred_at, 'vend', t.state, '', 3 FROM billing.v_vend_step t
       WHERE t.vend_id = %(vend)s AND t.state NOT IN ('QUOTED', 'PAID')
      UNION ALL SELECT g.created_at, 'message', g.kind, '', 4 FROM portal.message g
       WHERE g.reference = %(vend)s::text AND g.kind IN ('token', 'payment')
      UNION ALL SELECT t.occurred_at, 'command', t.state, coalesce(lower(t.detail ->> 'result'), ''), 5
        FROM sale JOIN meter_gateway.v_meter_command c
          ON c.meter_id = sale.meter_id AND c.idempotency_key = %(command)s
        JOIN meter_gateway.v_meter_command_step t ON t.command_id = c.id
       WHERE t.state <> 'CREATED'
      UNION ALL SELECT e.occurred_at, 'meter', lower(e.detail ->> 'result'), coalesce(e.detail ->> 'carrier', ''), 6
        FROM sale JOIN meter_gateway.v_meter_event e ON e.meter_id = sale.meter_id AND e.code = 'raseed.token'
         AND e.detail ->> 'tid' = sale.tid::text AND e.recorded_at >= sale.paid_at
    ) line ORDER BY occurred_at, place
"""


async def list_entries(conn: psycopg.AsyncConnection, vend_id: UUID) -> list[SaleEntry]:
    """Return the sale's timeline, oldest first."""
    cursor = conn.cursor(row_factory=class_row(SaleEntry))
    await cursor.execute(_ENTRIES, {"vend": vend_id, "command": command_key(vend_id)})
    return await cursor.fetchall()
