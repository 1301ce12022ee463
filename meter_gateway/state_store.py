"""SQL of what is known of each meter now; only newer knowledge replaces older."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import psycopg

from meter_gateway.binary_copy import copy_rows, micros
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


async def apply_patches(
    conn: psycopg.AsyncConnection, patches: Sequence[StatePatch], *, new: Collection[int] | None = None
) -> None:
    """Bring meter_state up to date: each group of values only when it is newer than what is there.

    `new` names the meters that may have no row yet; every one, where that is not known.
    """
    if not patches:
        return
    # Locked in one order everywhere, so that two ingest processes never wait for each other.
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
