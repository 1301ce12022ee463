"""SQL of what is known of each meter now; only newer knowledge replaces older."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import psycopg

from meter_gateway.projection import StatePatch


async def mark_meters_of_edge(
    conn: psycopg.AsyncConnection, edge: str, at: datetime, *, link_up: bool
) -> None:
    """Set the link of every meter behind an edge. Silence of a gateway says nothing about supply."""
    await conn.execute(
        "INSERT INTO meter_gateway.meter_state AS st (meter_id, link_up, supply_on, link_at)"
        " SELECT m.id, %(up)s, CASE WHEN %(up)s THEN true END, %(at)s FROM meter_gateway.meter m"
        "   LEFT JOIN meter_gateway.bus b ON b.id = m.bus_id LEFT JOIN meter_gateway.site s ON s.id = b.site_id"
        "  WHERE (m.link = 'mqtt' AND m.drn = %(edge)s) OR s.code = %(edge)s ORDER BY m.id"
        " ON CONFLICT (meter_id) DO UPDATE SET link_up = EXCLUDED.link_up, link_at = EXCLUDED.link_at,"
        " supply_on = coalesce(EXCLUDED.supply_on, st.supply_on)"
        " WHERE st.link_at IS NULL OR st.link_at <= EXCLUDED.link_at",
        {"up": link_up, "at": at, "edge": edge},
    )


_COLUMNS = (
    "meter_id",
    "seen_at",
    "state_at",
    "credit",
    "counter",
    "counter_at",
    "counter_suspect",
    "relay",
    "relay_reason",
    "load",
    "tamper",
    "link_up",
    "supply_on",
    "link_at",
)


async def apply_patches(conn: psycopg.AsyncConnection, patches: Sequence[StatePatch]) -> None:
    """Bring meter_state up to date: each group of values only when it is newer than what is there."""
    if not patches:
        return
    # Locked in one order everywhere, so that two ingest processes never wait for each other.
    ordered = sorted(patches, key=lambda patch: patch.meter_id)
    values = {name: [getattr(patch, name) for patch in ordered] for name in _COLUMNS}
    await conn.execute(
        "INSERT INTO meter_gateway.meter_state (meter_id)"
        " SELECT id FROM unnest(%(meter_id)s::bigint[]) AS p (id) ORDER BY id ON CONFLICT (meter_id) DO NOTHING",
        values,
    )
    # A comparison with an instant that the patch does not hold is NULL, and so keeps what is there.
    await conn.execute(
        "UPDATE meter_gateway.meter_state st SET"
        " last_seen_at = greatest(st.last_seen_at, p.seen_at),"
        " credit = CASE WHEN p.state_at >= coalesce(st.state_at, '-infinity')"
        "          THEN coalesce(p.credit, st.credit) ELSE st.credit END,"
        " relay = CASE WHEN p.state_at >= coalesce(st.state_at, '-infinity')"
        "         THEN coalesce(p.relay, st.relay) ELSE st.relay END,"
        " relay_reason = CASE WHEN p.state_at >= coalesce(st.state_at, '-infinity')"
        "                THEN coalesce(p.relay_reason, st.relay_reason) ELSE st.relay_reason END,"
        " load = CASE WHEN p.state_at >= coalesce(st.state_at, '-infinity')"
        "        THEN coalesce(p.load, st.load) ELSE st.load END,"
        " tamper = CASE WHEN p.state_at >= coalesce(st.state_at, '-infinity')"
        "          THEN coalesce(p.tamper, st.tamper) ELSE st.tamper END,"
        " state_at = greatest(st.state_at, p.state_at),"
        " counter = CASE WHEN p.counter_at >= coalesce(st.counter_at, '-infinity')"
        "           THEN p.counter ELSE st.counter END,"
        " counter_at = greatest(st.counter_at, p.counter_at),"
        " counter_suspect = coalesce(p.counter_suspect, st.counter_suspect),"
        " link_up = CASE WHEN p.link_at >= coalesce(st.link_at, '-infinity') THEN p.link_up ELSE st.link_up END,"
        " supply_on = CASE WHEN p.link_at >= coalesce(st.link_at, '-infinity')"
        "             THEN coalesce(p.supply_on, st.supply_on) ELSE st.supply_on END,"
        " link_at = greatest(st.link_at, p.link_at)"
        " FROM unnest(%(meter_id)s::bigint[], %(seen_at)s::timestamptz[], %(state_at)s::timestamptz[],"
        "     %(credit)s::bigint[], %(counter)s::bigint[], %(counter_at)s::timestamptz[],"
        "     %(counter_suspect)s::boolean[], %(relay)s::smallint[],"
        "     %(relay_reason)s::text[], %(load)s::bigint[], %(tamper)s::boolean[], %(link_up)s::boolean[],"
        "     %(supply_on)s::boolean[], %(link_at)s::timestamptz[]) AS p (meter_id, seen_at, state_at, credit,"
        "     counter, counter_at, counter_suspect, relay, relay_reason, load, tamper, link_up, supply_on, link_at)"
        " WHERE st.meter_id = p.meter_id",
        values,
    )
