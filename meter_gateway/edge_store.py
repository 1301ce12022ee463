"""SQL of edges: who speaks the contract, their sessions, and the ledger of their messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

import msgspec
import psycopg


class SpokenMeter(msgspec.Struct, frozen=True, gc=False):
    """A meter as ingest needs it: who may speak for it, and its last believed counter."""

    id: int
    drn: str
    commodity: str
    edge: str | None  # None: a Modbus meter that hangs on no bus now
    counter: int | None
    counter_at: datetime | None
    counter_suspect: bool
    has_state: bool  # False before it was first heard of

    def is_spoken_by(self, edge: str) -> bool:
        """Whether a message of this edge may tell about this meter."""
        # A meter just taken off its bus: what its gateway still had to tell is heard, a meter's voice is not.
        return self.edge == edge or (self.edge is None and not edge.isdigit())


def _array(values: Iterable[object]) -> str:
    """Return numbers, or names of the contract's own letters, as an array literal: psycopg takes ten times longer."""
    return '{"' + '","'.join(map(str, values)) + '"}'


async def insert_messages(
    conn: psycopg.AsyncConnection, keys: Sequence[tuple[str, int, int]], received_at: datetime
) -> set[tuple[str, int, int]]:
    """Enter (edge, boot, seq) into the ledger; returns those that were not there before."""
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.edge_message (edge, boot, seq, received_at)"
        " SELECT e, b, s, %s FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS k (e, b, s)"
        " ON CONFLICT DO NOTHING RETURNING edge, boot, seq",
        (received_at, *map(_array, zip(*keys, strict=True))),
    )
    return set(await cursor.fetchall())


async def list_spoken_meters(conn: psycopg.AsyncConnection, drns: Collection[str]) -> dict[str, SpokenMeter]:
    """Return those of these meters that exist, by DRN."""
    cursor = await conn.execute(
        "SELECT m.id, m.drn, m.commodity, CASE m.link WHEN 'mqtt' THEN m.drn ELSE s.code END,"
        "       st.counter, st.counter_at, coalesce(st.counter_suspect, false), st.meter_id IS NOT NULL"
        "  FROM meter_gateway.meter m LEFT JOIN meter_gateway.bus b ON b.id = m.bus_id"
        "  LEFT JOIN meter_gateway.site s ON s.id = b.site_id"
        "  LEFT JOIN meter_gateway.meter_state st ON st.meter_id = m.id"
        " WHERE m.drn = ANY(%s::text[]) AND m.link <> 'keypad'",
        (_array(drns),),
    )
    return {row[1]: SpokenMeter(*row) for row in await cursor.fetchall()}


async def is_known_edge(conn: psycopg.AsyncConnection, edge: str, kind: str) -> bool:
    """Whether a site (kind gateway) or an MQTT meter (kind meter) of this name is in our books."""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM meter_gateway.site WHERE code = %(edge)s AND %(kind)s = 'gateway')"
        " OR EXISTS (SELECT FROM meter_gateway.meter WHERE drn = %(edge)s AND link = 'mqtt'"
        "            AND %(kind)s = 'meter')",
        {"edge": edge, "kind": kind},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def mark_born(
    conn: psycopg.AsyncConnection,
    *,
    edge: str,
    kind: str,
    boot: int,
    session: int,
    config_version: int,
    born_at: datetime,
    backlog: int = 0,
) -> bool:
    """Note an edge's birth; False when it is the late birth of an older session."""
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.edge AS e (edge, kind, boot, session, config_version, online, born_at,"
        " last_seen_at, backlog)"
        " VALUES (%(edge)s, %(kind)s, %(boot)s, %(session)s, %(version)s, true, %(at)s, %(at)s, %(backlog)s)"
        " ON CONFLICT (edge) DO UPDATE SET kind = EXCLUDED.kind, boot = EXCLUDED.boot, session = EXCLUDED.session,"
        " config_version = EXCLUDED.config_version, online = true, born_at = EXCLUDED.born_at,"
        " last_seen_at = EXCLUDED.last_seen_at, backlog = EXCLUDED.backlog"
        " WHERE (e.boot, e.session) <= (EXCLUDED.boot, EXCLUDED.session)",
        {
            "edge": edge,
            "kind": kind,
            "boot": boot,
            "session": session,
            "version": config_version,
            "at": born_at,
            "backlog": backlog,
        },
    )
    return cursor.rowcount == 1


async def lock_edges(conn: psycopg.AsyncConnection, edges: Iterable[str]) -> None:
    """Hold the rows of these edges in the one order in which everybody takes them; before any meter's state."""
    await conn.execute(
        "SELECT FROM meter_gateway.edge WHERE edge = ANY(%s::text[]) ORDER BY edge FOR NO KEY UPDATE",
        (_array(edges),),
    )


async def mark_dead(conn: psycopg.AsyncConnection, *, edge: str, boot: int, session: int) -> bool:
    """Note an edge's death; False when another session lives by now."""
    cursor = await conn.execute(
        "UPDATE meter_gateway.edge SET online = false WHERE edge = %s AND boot = %s AND session = %s",
        (edge, boot, session),
    )
    return cursor.rowcount == 1


async def mark_seen(conn: psycopg.AsyncConnection, edges: Sequence[str], seen_at: datetime) -> None:
    """Note that these edges spoke just now, and so are there, whatever was thought of them.

    To the second: who speaks twenty times in one is not written down twenty times. Who is being written by
    somebody else at this moment is left to him: nobody waits for an edge while he holds meters.
    """
    await conn.execute(
        "UPDATE meter_gateway.edge SET last_seen_at = greatest(last_seen_at, %(at)s), online = true"
        " WHERE edge IN (SELECT edge FROM meter_gateway.edge WHERE edge = ANY(%(edges)s::text[])"
        "                AND (NOT online OR last_seen_at IS NULL OR last_seen_at < %(at)s - interval '1 second')"
        "                FOR NO KEY UPDATE SKIP LOCKED)",
        {"at": seen_at, "edges": _array(edges)},
    )


async def mark_silent_gateways(conn: psycopg.AsyncConnection, before: datetime) -> list[str]:
    """Note gateways as gone that have meters and said nothing since `before`; returns them.

    A will that was lost with its broker would otherwise leave them alive for ever. MQTT meters may rightly be
    silent for hours.
    """
    cursor = await conn.execute(
        "UPDATE meter_gateway.edge SET online = false WHERE edge IN (SELECT edge FROM meter_gateway.edge e"
        " WHERE online AND kind = 'gateway' AND last_seen_at < %s"
        " AND EXISTS (SELECT FROM meter_gateway.site s JOIN meter_gateway.bus b ON b.site_id = s.id"
        "             JOIN meter_gateway.meter m ON m.bus_id = b.id WHERE s.code = e.edge)"
        # Who is being written at this moment is not silent.
        " FOR NO KEY UPDATE OF e SKIP LOCKED) RETURNING edge",
        (before,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def list_boots(conn: psycopg.AsyncConnection, edges: Collection[str]) -> dict[str, int]:
    """Return the last boot known of each of these edges."""
    cursor = await conn.execute(
        "SELECT edge, boot FROM meter_gateway.edge WHERE edge = ANY(%s::text[])", (_array(edges),)
    )
    return dict(await cursor.fetchall())


async def list_edges(conn: psycopg.AsyncConnection) -> list[str]:
    """Return every edge that was ever born, and every site."""
    cursor = await conn.execute(
        "SELECT edge FROM meter_gateway.edge UNION SELECT code FROM meter_gateway.site ORDER BY 1"
    )
    return [row[0] for row in await cursor.fetchall()]


async def list_speakers(conn: psycopg.AsyncConnection) -> list[str]:
    """Return every name that may speak at the broker: sites and MQTT meters of our books, born or not."""
    cursor = await conn.execute(
        "SELECT code FROM meter_gateway.site UNION SELECT drn FROM meter_gateway.meter WHERE link = 'mqtt' ORDER BY 1"
    )
    return [row[0] for row in await cursor.fetchall()]


async def delete_old_messages(conn: psycopg.AsyncConnection, before: datetime, *, limit: int) -> int:
    """Forget ledger entries from before an instant, at most `limit`; returns how many went."""
    cursor = await conn.execute(
        "DELETE FROM meter_gateway.edge_message WHERE (edge, boot, seq) IN"
        " (SELECT edge, boot, seq FROM meter_gateway.edge_message WHERE received_at < %s LIMIT %s)",
        (before, limit),
    )
    return cursor.rowcount
