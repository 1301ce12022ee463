"""SQL of the one timeline: a query over what every room recorded, never a copy of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from portal.timeline import TimelineRow

PAGE_SIZE = 60  # what a person scrolls before asking for older rows

# Each part gives: at, source, kind, is_public (only where a row itself decides it), meter_id, detail. Each is cut
# to the newest %(limit)s rows on its own, so that one talkative room cannot make the query long.
_PARTS = (
    # payment: begun, and settled one way or the other
    """SELECT s.payment_created_at AS at, 'payment' AS source, 'CREATED' AS kind, NULL::boolean AS is_public,
              s.meter_id, jsonb_build_object('amount_minor', s.amount_minor, 'provider', s.provider) AS detail
         FROM billing.v_sale s
        WHERE s.payment_id IS NOT NULL AND s.payment_created_at < %(before)s
          AND {sales}""",
    """SELECT s.settled_at, 'payment', s.payment_state, NULL, s.meter_id,
              jsonb_build_object('amount_minor', s.amount_minor, 'provider', s.provider)
         FROM billing.v_sale s
        WHERE s.settled_at < %(before)s AND s.payment_state IN ('CONFIRMED', 'DECLINED', 'EXPIRED')
          AND {sales}""",
    """SELECT v.occurred_at, 'vend', v.state, NULL, s.meter_id,
              jsonb_build_object('nr', v.id, 'vend_id', s.vend_id, 'receipt', s.receipt_number, 'why', v.detail)
         FROM billing.v_vend_step v JOIN billing.v_sale s ON s.vend_id = v.vend_id
        WHERE v.occurred_at < %(before)s AND v.state NOT IN ('QUOTED', 'PAID')
          AND {sales}""",
    """SELECT t.issued_at, 'token', t.purpose, NULL, t.meter_id,
              jsonb_build_object('digits', t.digits, 'units_tenths', t.units_tenths, 'vend_id', t.vend_id,
                'by', t.issued_by, 'why', t.reason)
         FROM billing.v_token t JOIN scope ON scope.meter_id = t.meter_id
        WHERE t.issued_at < %(before)s AND t.issued_at >= scope.since""",
    """SELECT c.occurred_at, 'command', c.state, NULL, c.meter_id,
              jsonb_build_object('nr', c.id, 'command', c.kind, 'result', c.detail)
         FROM meter_gateway.v_meter_command_step c JOIN scope ON scope.meter_id = c.meter_id
        WHERE c.occurred_at < %(before)s AND c.occurred_at >= scope.since""",
    """SELECT e.occurred_at, 'meter', e.code, NULL, e.meter_id, e.detail || jsonb_build_object('nr', e.id)
         FROM meter_gateway.v_meter_event e JOIN scope ON scope.meter_id = e.meter_id
        WHERE e.occurred_at < %(before)s AND e.occurred_at >= scope.since""",
    """SELECT x.out_at, 'outage', 'out', NULL, x.meter_id,
              jsonb_build_object('outage_id', o.id, 'node_en', n.name_en, 'node_ar', n.name_ar,
                'evidence', x.evidence)
         FROM portal.outage_meter x JOIN scope ON scope.meter_id = x.meter_id
         JOIN portal.outage o ON o.id = x.outage_id AND o.state <> 'cancelled'
         JOIN meter_gateway.v_network_path n ON n.node_id = o.network_node_id AND n.depth = 0
        WHERE x.out_at < %(before)s AND x.out_at >= scope.since""",
    """SELECT x.restored_at, 'outage', 'restored', NULL, x.meter_id,
              jsonb_build_object('outage_id', o.id, 'node_en', n.name_en, 'node_ar', n.name_ar)
         FROM portal.outage_meter x JOIN scope ON scope.meter_id = x.meter_id
         JOIN portal.outage o ON o.id = x.outage_id AND o.state <> 'cancelled'
         JOIN meter_gateway.v_network_path n ON n.node_id = o.network_node_id AND n.depth = 0
        WHERE x.restored_at < %(before)s AND x.restored_at >= scope.since""",
    """SELECT e.occurred_at, 'ticket', e.kind, e.is_public, t.meter_id,
              jsonb_build_object('nr', e.id, 'reference', t.reference, 'subject', t.subject, 'actor', l.display_name,
                'text', CASE WHEN e.kind IN ('assigned', 'attached') THEN e.body
                             WHEN e.kind <> 'linked_outage' THEN left(e.body, 400) ELSE '' END)
         FROM portal.ticket_entry e JOIN portal.ticket t ON t.id = e.ticket_id
         LEFT JOIN portal.login l ON l.id = e.actor_id
        WHERE e.occurred_at < %(before)s AND {tickets}""",
    """SELECT m.created_at, 'message', m.kind, NULL, NULL::bigint,
              jsonb_build_object('nr', m.id, 'text', m.body, 'language', m.language, 'sent', m.sent_at IS NOT NULL)
         FROM portal.message m
        WHERE m.created_at < %(before)s AND {messages}""",
    """SELECT r.occurred_at, 'reveal', 'shown', NULL, t.meter_id,
              jsonb_build_object('nr', r.id, 'digits', t.digits, 'actor', l.display_name, 'why', r.reason)
         FROM portal.token_reveal r JOIN billing.v_token t ON t.token_id = r.token_id
         JOIN scope ON scope.meter_id = t.meter_id JOIN portal.login l ON l.id = r.login_id
        WHERE r.occurred_at < %(before)s AND r.occurred_at >= scope.since""",
    """SELECT i.installed_at, 'installation', 'installed', NULL, i.meter_id,
              jsonb_build_object('usage_point', i.usage_point)
         FROM meter_gateway.v_meter i JOIN scope ON scope.meter_id = i.meter_id
        WHERE i.installed_at < %(before)s AND i.installed_at >= scope.since""",
)

# Rows of one instant are never torn apart by a page's end: WITH TIES.
_CUT = "FETCH FIRST %(limit)s ROWS WITH TIES"
_UNION = " UNION ALL ".join(f"({part} ORDER BY 1 DESC {_CUT})" for part in _PARTS)
_QUERY = f"""
WITH scope AS ({{scope}}), told AS ({_UNION})
SELECT told.at, told.source, told.kind, told.is_public, told.meter_id, told.detail, m.drn, m.commodity
  FROM told LEFT JOIN meter_gateway.v_meter m ON m.meter_id = told.meter_id
 ORDER BY told.at DESC {_CUT}
"""  # noqa: S608 -- joined from the constants above
# Two queries from the same parts, so that each can go by its own index.
_OF_CUSTOMER = _QUERY.format(
    sales="s.customer_id = %(customer)s",
    tickets="t.customer_id = %(customer)s",
    messages="m.customer_id = %(customer)s",
    scope="""SELECT a.meter_id, a.valid_from AS since FROM billing.v_agreement a
              WHERE a.customer_id = %(customer)s AND a.meter_id IS NOT NULL""",
)
_OF_METER = _QUERY.format(
    sales="s.meter_id = %(meter)s",
    tickets="t.meter_id = %(meter)s",
    messages="""m.reference IN (SELECT s.vend_id::text FROM billing.v_sale s WHERE s.meter_id = %(meter)s
                                UNION ALL
                                SELECT t.reference FROM portal.ticket t WHERE t.meter_id = %(meter)s)""",
    scope="SELECT %(meter)s::bigint AS meter_id, '-infinity'::timestamptz AS since",
)
# Of rows of one instant the effect stands above its cause.
_RANK = {
    name: rank
    for rank, name in enumerate(
        (
            "message",
            "reveal",
            "outage",
            "command",
            "meter",
            "token",
            "vend",
            "payment",
            "ticket",
            "installation",
        )
    )
}


async def list_customer_timeline(
    conn: psycopg.AsyncConnection[Any],
    *,
    customer_id: int,
    before: datetime,
    limit: int = PAGE_SIZE,
) -> list[TimelineRow]:
    """All that happened to a customer and the meters of their agreements before an instant, newest first."""
    return await _list(conn, _OF_CUSTOMER, {"customer": customer_id, "before": before, "limit": limit})


async def list_meter_timeline(
    conn: psycopg.AsyncConnection[Any], *, meter_id: int, before: datetime, limit: int = PAGE_SIZE
) -> list[TimelineRow]:
    """All that happened to one meter before an instant, whoever lived there, newest first: for staff."""
    return await _list(conn, _OF_METER, {"meter": meter_id, "before": before, "limit": limit})


def older_page(path: str, rows: list[TimelineRow]) -> str:
    """The address at which a timeline goes on before these rows, empty at its end."""
    if len(rows) < PAGE_SIZE:
        return ""
    return f"{path}?before={rows[-1].at.astimezone(UTC).strftime('%Y-%m-%dT%H:%M:%S.%fZ')}#timeline"


async def _list(conn: psycopg.AsyncConnection[Any], query: str, values: dict[str, Any]) -> list[TimelineRow]:
    async with conn.cursor(row_factory=class_row(TimelineRow)) as cur:
        await cur.execute(query.encode(), values)
        rows = await cur.fetchall()
    # `nr` counts within a room: of two rows of one instant the later written stands above.
    return sorted(rows, key=lambda row: (-row.at.timestamp(), _RANK[row.source], -row.detail.get("nr", 0)))
