"""SQL of what the outage watch judges by: the network, the signals of its meters, and their signs of life."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row, kwargs_row

from portal.outages.infer import Evidence, MeterView

# An older signal that nobody followed up says nothing about now; an open outage keeps its meters anyway.
LOOK_BACK = timedelta(hours=24)
# Any whole number that no other advisory lock of the portal uses: "outage watch".
WATCH_LOCK = 7_262_026

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class UnrestoredMeter:
    """A meter of an open outage with the first sign of life after its own start, if there is one."""

    outage_id: int
    meter_id: int
    speaks: bool
    out_at: datetime
    evidence: str
    alive_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenTicket:
    """An open no-supply ticket on a meter that lies under an outage's element."""

    ticket_id: int
    meter_id: int
    outage_id: int | None


async def lock_watch(conn: Conn) -> bool:
    """Take the watch for this transaction; False when another worker holds it."""
    cur = await conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (WATCH_LOCK,))
    row = await cur.fetchone()
    return bool(row and row[0])


async def list_parents(conn: Conn) -> dict[int, tuple[int | None, str]]:
    """Every network element with its parent and commodity."""
    cur = await conn.execute(
        """SELECT n.node_id, p.ancestor_id, n.commodity
             FROM meter_gateway.v_network_path n
             LEFT JOIN meter_gateway.v_network_path p ON p.node_id = n.node_id AND p.depth = 1
            WHERE n.depth = 0"""
    )
    return {node: (parent, commodity) for node, parent, commodity in await cur.fetchall()}


# A reading proves supply where the meter lives on the supply it measures; a water meter has a battery, so there
# only flow does. A device clock that runs ahead is cut to the instant that we heard it.
_ALIVE = """
SELECT max(seen.at) AS at FROM (
  SELECT least(e.occurred_at, e.recorded_at) AS at FROM meter_gateway.v_meter_event e
   WHERE e.meter_id = m.meter_id AND m.commodity = 'electricity' AND e.occurred_at > %(since)s
     AND e.code IN ('3.26.0.216', 'raseed.link_up')
  UNION ALL
  (SELECT least(r.occurred_at, r.recorded_at) FROM meter_gateway.v_reading r
    WHERE r.meter_id = m.meter_id AND m.commodity = 'electricity' AND r.channel = 'counter'
      AND r.occurred_at > %(since)s AND r.quality <> 'estimated'
    ORDER BY r.occurred_at DESC LIMIT 1)
  UNION ALL
  (SELECT least(r.occurred_at, r.recorded_at) FROM meter_gateway.v_reading r
    WHERE r.meter_id = m.meter_id AND m.commodity = 'water' AND r.channel = 'load'
      AND r.occurred_at > %(since)s AND r.value > 0
    ORDER BY r.occurred_at DESC LIMIT 1)
) seen
"""

_SIGNALS = f"""
WITH heard AS (
  SELECT DISTINCT e.meter_id FROM meter_gateway.v_meter_event e
   WHERE e.code IN ('3.26.0.85', 'raseed.link_down') AND e.occurred_at > %(since)s
     AND e.meter_id IS NOT NULL
  UNION
  SELECT t.meter_id FROM portal.ticket t
   WHERE t.kind = 'no_supply' AND t.state <> 'resolved' AND t.meter_id IS NOT NULL
     AND t.created_at > %(since)s
),
top AS (  -- all of a network is judged when anything in it has spoken
  SELECT DISTINCT p.ancestor_id FROM heard h
    JOIN meter_gateway.v_meter m ON m.meter_id = h.meter_id
    JOIN meter_gateway.v_network_path p ON p.node_id = m.network_node_id
),
line AS (  -- and all who share a line with it: a dead bus silences power and water meters alike
  SELECT DISTINCT m.site, m.bus FROM heard h JOIN meter_gateway.v_meter m ON m.meter_id = h.meter_id
   WHERE m.bus IS NOT NULL
)
SELECT m.meter_id, m.network_node_id AS node_id, m.link <> 'keypad' AS speaks,
       CASE WHEN m.bus IS NOT NULL THEN m.site || '/' || m.bus END AS line,
       told.out_at, told.gasped, called.at AS called_at, alive.at AS alive_at,
       m.bus IS NOT NULL AND (
         SELECT max(e.occurred_at) FILTER (WHERE e.code = 'raseed.link_down')
                > coalesce(max(e.occurred_at) FILTER (WHERE e.code = 'raseed.link_up'), '-infinity')
           FROM meter_gateway.v_meter_event e
          WHERE e.meter_id = m.meter_id AND e.occurred_at > %(since)s
            AND e.code IN ('raseed.link_down', 'raseed.link_up')) IS TRUE AS is_silent
  FROM meter_gateway.v_meter m
  LEFT JOIN LATERAL ({_ALIVE}) alive ON true
  LEFT JOIN LATERAL (
    SELECT min(least(e.occurred_at, e.recorded_at)) AS out_at, bool_or(e.code = '3.26.0.85') AS gasped
      FROM meter_gateway.v_meter_event e
     WHERE e.meter_id = m.meter_id AND m.commodity = 'electricity'
       AND e.code IN ('3.26.0.85', 'raseed.link_down') AND e.occurred_at > %(since)s
       AND least(e.occurred_at, e.recorded_at) >= coalesce(alive.at, '-infinity')
       AND NOT EXISTS (  -- a person closed an outage over this very signal: it has been answered
         SELECT FROM portal.outage_meter x JOIN portal.outage o ON o.id = x.outage_id
          WHERE x.meter_id = m.meter_id AND x.restored_at IS NULL AND x.out_at >= e.occurred_at
            AND o.state IN ('restored', 'cancelled')
            AND EXISTS (SELECT FROM portal.outage_entry n WHERE n.outage_id = o.id
                         AND n.kind IN ('restored', 'cancelled') AND n.actor_id IS NOT NULL))
  ) told ON true
  LEFT JOIN LATERAL (
    SELECT min(t.created_at) AS at FROM portal.ticket t
     WHERE t.meter_id = m.meter_id AND t.kind = 'no_supply' AND t.state <> 'resolved'
       AND t.created_at > %(since)s AND t.created_at > coalesce(alive.at, '-infinity')
       -- no credit, an order or tamper keeps the relay open: that house is dark for a reason of its own
       AND NOT (m.relay = 0 AND coalesce(m.relay_reason, 'none') <> 'none')
       AND NOT EXISTS (SELECT FROM portal.outage o WHERE o.id = t.outage_id
                          AND o.state IN ('restored', 'cancelled'))
  ) called ON true
 WHERE m.network_node_id IN (SELECT p.node_id FROM meter_gateway.v_network_path p
                              JOIN top ON top.ancestor_id = p.ancestor_id)
    OR (m.network_node_id IS NOT NULL AND (m.site, m.bus) IN (SELECT line.site, line.bus FROM line))
"""  # noqa: S608 -- built from constants


def _view(**columns: Any) -> MeterView:
    told, called = columns.pop("out_at"), columns.pop("called_at")
    gasped = columns.pop("gasped")
    out_at, evidence = None, None
    if told is not None:
        out_at, evidence = told, Evidence.LAST_GASP if gasped else Evidence.SILENCE
    elif called is not None:
        out_at, evidence = called, Evidence.CONTACT
    return MeterView(**columns, out_at=out_at, evidence=evidence)


async def list_meter_views(conn: Conn, now: datetime) -> list[MeterView]:
    """The meters of every network in which a signal was heard within LOOK_BACK."""
    async with conn.cursor(row_factory=kwargs_row(_view)) as cur:
        await cur.execute(_SIGNALS, {"since": now - LOOK_BACK})
        return await cur.fetchall()


async def list_lines_down(conn: Conn) -> frozenset[str]:
    """Lines whose gateway is not online: nothing that its meters did not say can be held against their supply."""
    cur = await conn.execute(
        """SELECT DISTINCT m.site || '/' || m.bus FROM meter_gateway.v_meter m
             JOIN meter_gateway.v_edge e ON e.edge = m.site
            WHERE m.bus IS NOT NULL AND NOT e.online"""
    )
    return frozenset(row[0] for row in await cur.fetchall())


async def list_unrestored(conn: Conn) -> list[UnrestoredMeter]:
    """Meters of open outages that were not seen alive yet, with their first sign of life since."""
    async with conn.cursor(row_factory=class_row(UnrestoredMeter)) as cur:
        await cur.execute(
            """SELECT x.outage_id, x.meter_id, m.link <> 'keypad' AS speaks, x.out_at, x.evidence,
                      alive.at AS alive_at
                 FROM portal.outage_meter x
                 JOIN portal.outage o ON o.id = x.outage_id AND o.state IN ('probable', 'confirmed')
                 JOIN meter_gateway.v_meter m ON m.meter_id = x.meter_id
                 LEFT JOIN LATERAL (
                   SELECT min(seen.at) AS at FROM (
                     SELECT least(e.occurred_at, e.recorded_at) AS at FROM meter_gateway.v_meter_event e
                      WHERE e.meter_id = x.meter_id AND m.commodity = 'electricity'
                        AND e.occurred_at > x.out_at AND e.code IN ('3.26.0.216', 'raseed.link_up')
                     UNION ALL
                     (SELECT least(r.occurred_at, r.recorded_at) FROM meter_gateway.v_reading r
                       WHERE r.meter_id = x.meter_id AND r.occurred_at > x.out_at
                         AND CASE m.commodity WHEN 'electricity'
                               THEN r.channel = 'counter' AND r.quality <> 'estimated'
                               ELSE r.channel = 'load' AND r.value > 0 END
                       ORDER BY r.occurred_at LIMIT 1)
                   ) seen WHERE seen.at > x.out_at
                 ) alive ON true
                WHERE x.restored_at IS NULL
                ORDER BY x.outage_id, x.meter_id"""
        )
        return await cur.fetchall()


async def list_followers(conn: Conn) -> list[OpenTicket]:
    """Open no-supply tickets on meters of open outages that do not follow them yet; `outage_id` is theirs."""
    async with conn.cursor(row_factory=class_row(OpenTicket)) as cur:
        await cur.execute(
            """SELECT DISTINCT ON (t.id) t.id AS ticket_id, t.meter_id, o.id AS outage_id
                 FROM portal.ticket t
                 JOIN portal.outage_meter x ON x.meter_id = t.meter_id AND x.restored_at IS NULL
                 JOIN portal.outage o ON o.id = x.outage_id AND o.state IN ('probable', 'confirmed')
                WHERE t.kind = 'no_supply' AND t.state <> 'resolved' AND t.outage_id IS DISTINCT FROM o.id
                ORDER BY t.id, o.id"""
        )
        return await cur.fetchall()
