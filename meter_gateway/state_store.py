"""SQL of what is known of each meter now; only newer knowledge replaces older."""

# ruff: noqa: S608 - the only part formatted in is the constant query of the meters behind edges

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import psycopg

from meter_gateway.binary_copy import copy_rows, micros
from meter_gateway.projection import StatePatch

# Each meter behind the edges named in the array, with its edge.
_BEHIND: Final = (
    "SELECT m.id, m.drn AS edge FROM meter_gateway.meter m WHERE m.link = 'mqtt' AND m.drn = ANY(%(edges)s::text[])"
    " UNION ALL SELECT m.id, s.code FROM meter_gateway.site s JOIN meter_gateway.bus b ON b.site_id = s.id"
    "   JOIN meter_gateway.meter m ON m.bus_id = b.id WHERE s.code = ANY(%(edges)s::text[])"
    "    AND m.link <> 'mqtt'"
)


async def mark_links(conn: psycopg.AsyncConnection, links: Mapping[str, bool], at: datetime) -> None:
    """Set the link of every meter behind each edge: up, or down. Silence of a gateway says nothing about supply."""
    if not links:
        return
    await conn.execute(
        "INSERT INTO meter_gateway.meter_state AS st (meter_id, link_up, supply_on, link_at)"
        f" SELECT id, up, CASE WHEN up THEN true END, %(at)s FROM ({_BEHIND}) behind"
        "   JOIN unnest(%(edges)s::text[], %(ups)s::boolean[]) AS link (edge, up) USING (edge) ORDER BY id"
        " ON CONFLICT (meter_id) DO UPDATE SET link_up = EXCLUDED.link_up, link_at = EXCLUDED.link_at,"
        " supply_on = coalesce(EXCLUDED.supply_on, st.supply_on)"
        " WHERE st.link_at IS NULL OR st.link_at <= EXCLUDED.link_at",
        {"at": at, "edges": list(links), "ups": list(links.values())},
    )


async def apply_patches(
    conn: psycopg.AsyncConnection,
    patches: Sequence[StatePatch],
    *,
    new: Collection[int] | None = None,
    edges: Collection[str] = (),
) -> None:
    """Bring meter_state up to date: each group of values only when it is newer than what is there.

    `new` names the meters that may have no row yet; every one, where that is not known. `edges` names those whose
    meters this transaction will mark with `mark_links`.
    """
    if not patches:
        return
    ordered = sorted(patches, key=lambda patch: patch.meter_id)
    async with conn.cursor() as cursor:
        if new is None:
            new = [patch.meter_id for patch in ordered]
        if new:
            await cursor.execute(
                "INSERT INTO meter_gateway.meter_state (meter_id)"
                " SELECT id FROM unnest(%s::bigint[]) AS p (id) ORDER BY id ON CONFLICT (meter_id) DO NOTHING",
                (sorted(new),),
            )
        await cursor.execute(_STAGE)
        await copy_rows(cursor, "COPY state_in FROM STDIN (FORMAT BINARY)", _TYPES, map(_row, ordered))
        if edges:
            await cursor.execute(_LOCK_BEHIND_TOO, {"edges": list(edges)})
        else:
            await cursor.execute(_LOCK)
        await cursor.execute(_APPLY)


def _row(patch: StatePatch) -> tuple[Any, ...]:
    return (
        patch.meter_id,
        micros(patch.seen_at),
        _micros(patch.state_at),
        patch.credit,
        patch.counter,
        _micros(patch.counter_at),
        patch.counter_suspect,
        patch.relay,
        patch.relay_reason,
        patch.load,
        patch.tamper,
        patch.link_up,
        patch.supply_on,
        _micros(patch.link_at),
    )


def _micros(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


_STAGE: Final = (
    "CREATE TEMPORARY TABLE IF NOT EXISTS state_in (meter_id bigint, seen_at timestamptz, state_at timestamptz,"
    " credit bigint, counter bigint, counter_at timestamptz, counter_suspect boolean, relay smallint,"
    " relay_reason text, load bigint, tamper boolean, link_up boolean, supply_on boolean, link_at timestamptz)"
    " ON COMMIT DELETE ROWS;"
    # A second batch in the same transaction starts empty.
    " DELETE FROM state_in"
)
# In the order of the table above; an instant travels as the integer that it is inside.
_TYPES: Final = (
    *("int8", "int8", "int8", "int8", "int8", "int8", "bool", "int2", "text", "int8", "bool", "bool", "bool"),
    "int8",
)
# Locked in one order everywhere, so that two ingest processes never wait for each other crosswise.
_IN_ORDER: Final = " ORDER BY meter_id FOR NO KEY UPDATE) held"
_LOCK: Final = (
    "SELECT count(*) FROM (SELECT FROM meter_gateway.meter_state WHERE meter_id IN (SELECT meter_id FROM state_in)"
    + _IN_ORDER
)
_LOCK_BEHIND_TOO: Final = (
    "SELECT count(*) FROM (SELECT FROM meter_gateway.meter_state WHERE meter_id IN (SELECT meter_id FROM state_in"
    f" UNION ALL SELECT id FROM ({_BEHIND}) behind)" + _IN_ORDER
)
# A comparison with an instant that the patch does not hold is NULL, and so keeps what is there.
_APPLY: Final = (
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
    " FROM state_in p WHERE st.meter_id = p.meter_id"
)
