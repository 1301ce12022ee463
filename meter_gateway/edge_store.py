"""SQL of edges: who speaks the contract, their sessions, and the ledger of their messages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Final

import msgspec
import psycopg

from meter_gateway.topics import Birth, Death

_BY_EDGE: Final = attrgetter("edge")


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
    """Enter different (edge, boot, seq) into the ledger; returns those that were not there before."""
    cursor = await conn.execute(
        "WITH fresh AS (INSERT INTO meter_gateway.edge_message (edge, boot, seq, received_at)"
        "  SELECT e, b, s, %s FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS k (e, b, s)"
        "  ON CONFLICT DO NOTHING RETURNING edge, boot, seq)"
        # All but always all are new: then to name each costs more than to enter it.
        " SELECT CASE WHEN (SELECT count(*) FROM fresh) < %s"
        "        THEN (SELECT json_agg(json_build_array(edge, boot, seq)) FROM fresh) ELSE 'true' END",
        (received_at, *map(_array, zip(*keys, strict=True)), len(keys)),
    )
    row = await cursor.fetchone()
    named = row[0] if row else None
    return set(keys) if named is True else {(edge, boot, seq) for edge, boot, seq in named or ()}


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
        binary=True,  # an instant is read out of a number much faster than out of a text
    )
    return {row[1]: SpokenMeter(*row) for row in await cursor.fetchall()}


async def list_known(conn: psycopg.AsyncConnection, births: Collection[Birth]) -> set[tuple[str, str]]:
    """Return (edge, kind) of those that are a site (gateway) or an MQTT meter (meter) of our books."""
    names = {"edges": _array({birth.edge for birth in births})}
    cursor = await conn.execute(
        "SELECT code, 'gateway' FROM meter_gateway.site WHERE code = ANY(%(edges)s::text[])"
        " UNION ALL SELECT drn, 'meter' FROM meter_gateway.meter WHERE drn = ANY(%(edges)s::text[]) AND link = 'mqtt'",
        names,
    )
    return set(await cursor.fetchall())


async def mark_born(conn: psycopg.AsyncConnection, births: Collection[Birth], born_at: datetime) -> set[str]:
    """Note births, at most one of an edge; returns those edges whose birth is not that of an older session."""
    if not births:
        return set()
    ordered = sorted(births, key=_BY_EDGE)
    numbers = [(b.boot, b.session, b.config_version, b.backlog) for b in ordered]
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.edge AS e (edge, kind, boot, session, config_version, backlog, online, born_at,"
        " last_seen_at)"
        " SELECT b.*, true, %s, %s FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[],"
        "                                      %s::bigint[]) AS b"
        " ON CONFLICT (edge) DO UPDATE SET kind = EXCLUDED.kind, boot = EXCLUDED.boot, session = EXCLUDED.session,"
        " config_version = EXCLUDED.config_version, online = true, born_at = EXCLUDED.born_at,"
        " last_seen_at = EXCLUDED.last_seen_at, backlog = EXCLUDED.backlog"
        " WHERE (e.boot, e.session) <= (EXCLUDED.boot, EXCLUDED.session) RETURNING edge",
        (
            born_at,
            born_at,
            _array(b.edge for b in ordered),
            _array(b.kind for b in ordered),
            *map(_array, zip(*numbers, strict=True)),
        ),
    )
    return {edge for (edge,) in await cursor.fetchall()}


async def lock_edges(conn: psycopg.AsyncConnection, edges: Iterable[str]) -> None:
    """Hold the rows of these edges in the one order in which everybody takes them; before any meter's state."""
    await conn.execute(
        "SELECT FROM meter_gateway.edge WHERE edge = ANY(%s::text[]) ORDER BY edge FOR NO KEY UPDATE",
        (_array(edges),),
    )


async def mark_dead(conn: psycopg.AsyncConnection, deaths: Collection[Death]) -> set[str]:
    """Note deaths, at most one of an edge; returns those edges where no other session lives by now."""
    if not deaths:
        return set()
    keys = [(death.edge, death.boot, death.session) for death in deaths]
    cursor = await conn.execute(
        "UPDATE meter_gateway.edge e SET online = false"
        " FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS d (edge, boot, session)"
        " WHERE (e.edge, e.boot, e.session) = (d.edge, d.boot, d.session) RETURNING e.edge",
        tuple(map(_array, zip(*keys, strict=True))),
    )
    return {edge for (edge,) in await cursor.fetchall()}


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


async def list_unborn_since(conn: psycopg.AsyncConnection, since: datetime) -> list[str]:
    """Return every site and every edge that was ever born, but for those that were born again since then."""
    cursor = await conn.execute(
        "SELECT edge FROM (SELECT edge FROM meter_gateway.edge UNION SELECT code FROM meter_gateway.site) every"
        " WHERE NOT EXISTS (SELECT FROM meter_gateway.edge e WHERE e.edge = every.edge AND e.born_at >= %s)"
        " ORDER BY 1",
        (since,),
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
