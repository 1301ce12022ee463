"""Monthly free units in the database: one run a month and commodity, one grant a meter and month."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row, kwargs_row
from psycopg.types.json import Jsonb

from billing import identity_store
from billing.errors import IdempotencyConflict, InvalidVend, NotFound
from billing.identity_store import STOCK_KEYS, KeyFields, StsIdentity
from token_engine.fields import decode_amount, encode_amount
from token_engine.identifiers import rnd_at

# As much as one token carries exactly (sts.md 4), and far above any allowance.
MAX_UNITS_TENTHS = 16_383


@dataclass(frozen=True, slots=True)
class FreeUnitsRun:
    """What each meter of a commodity gets in a month."""

    month: date
    commodity: str
    units_tenths: int
    begun_by: str


@dataclass(frozen=True, slots=True)
class Grant:
    """One meter's free units of a month, with the TID and the key that its token is made with."""

    month: date
    meter_id: int
    commodity: str
    units_tenths: int
    base_date: int
    tid: int
    rnd: int
    key: KeyFields
    key_change_id: UUID | None

    @property
    def request_id(self) -> str:
        """How the vault and the register know it."""
        return f"free:{self.month:%Y-%m}:{self.meter_id}"


# Who may be served: an agreement, a working key, and no key that the meter refuses.
_ELIGIBLE = """
    FROM billing.v_agreement a JOIN billing.sts_identity i ON i.meter_id = a.meter_id
   WHERE a.commodity = %(commodity)s
     AND coalesce((i.pending ->> 'kt')::integer, i.kt) <> ALL (%(stock)s)
     AND NOT coalesce((i.pending ->> 'refused')::boolean, false)
     AND NOT EXISTS (SELECT FROM billing.free_units_grant g WHERE g.month = %(month)s AND g.meter_id = a.meter_id)
"""
_GRANT = """
    SELECT g.month, g.meter_id, g.commodity, g.units_tenths, g.base_date, g.tid, g.rnd, g.key, g.key_change_id
      FROM billing.free_units_grant g
"""
_COUNT_GRANTS = "SELECT count(*) FROM billing.free_units_grant g"
_UNSERVED = """
     WHERE g.month = %(month)s AND g.commodity = %(commodity)s AND g.meter_id > %(after)s
       AND NOT EXISTS (SELECT FROM billing.free_units_refusal f
                        WHERE f.month = g.month AND f.meter_id = g.meter_id)
       AND NOT EXISTS (SELECT FROM billing.token t
                        WHERE t.request_id = 'free:' || to_char(g.month, 'YYYY-MM') || ':' || g.meter_id)
"""


async def begin_run(
    conn: psycopg.AsyncConnection,
    *,
    month: date,
    commodity: str,
    units_tenths: int,
    begun_by: str,
    now: datetime,
) -> FreeUnitsRun:
    """Begin a month's run, or take it up again.

    Raises InvalidVend (`units_invalid`), IdempotencyConflict when the month was begun with other units.
    """
    if not 0 < units_tenths <= MAX_UNITS_TENTHS or decode_amount(encode_amount(units_tenths)) != units_tenths:
        raise InvalidVend("units_invalid", f"free units are 1 to {MAX_UNITS_TENTHS} tenths")
    await conn.execute(
        "INSERT INTO billing.free_units_run (month, commodity, units_tenths, begun_by, begun_at)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (month, commodity) DO NOTHING",
        (month.replace(day=1), commodity, units_tenths, begun_by, now),
    )
    run = await find_run(conn, month, commodity)
    if run is None:
        raise NotFound("run_not_found", "the run was not stored")
    if run.units_tenths != units_tenths:
        raise IdempotencyConflict(
            "other_units", f"this month was begun with {run.units_tenths} tenths for each meter"
        )
    return run


async def find_run(conn: psycopg.AsyncConnection, month: date, commodity: str) -> FreeUnitsRun | None:
    """The run of a month."""
    cursor = conn.cursor(row_factory=class_row(FreeUnitsRun))
    await cursor.execute(
        "SELECT month, commodity, units_tenths, begun_by FROM billing.free_units_run"
        " WHERE month = %s AND commodity = %s",
        (month.replace(day=1), commodity),
    )
    return await cursor.fetchone()


async def count_unserved(conn: psycopg.AsyncConnection, month: date, commodity: str) -> int:
    """Meters that a run of this month would still serve: eligible ones, and those reserved without a token."""
    values = _values(month, commodity)
    eligible = await conn.execute(f"SELECT count(*) {_ELIGIBLE}".encode(), values)
    reserved = await conn.execute(f"{_COUNT_GRANTS} {_UNSERVED}".encode(), {**values, "after": 0})
    return sum(int(row[0]) for row in (await eligible.fetchone(), await reserved.fetchone()) if row)


@dataclass(frozen=True, slots=True)
class Reserved:
    """One slice of reserving: meters without a TID left by id, and the last meter looked at (None: the end)."""

    without_tid: tuple[int, ...]
    last: int | None


async def reserve(
    conn: psycopg.AsyncConnection, run: FreeUnitsRun, *, after: int, limit: int, now: datetime
) -> Reserved:
    """Reserve a TID for each of the next meters after `after`. Runs of one month wait for each other."""
    await conn.execute(
        "SELECT 1 FROM billing.free_units_run WHERE month = %s AND commodity = %s FOR UPDATE",
        (run.month, run.commodity),
    )
    cursor = await conn.execute(
        f"SELECT DISTINCT a.meter_id {_ELIGIBLE} AND a.meter_id > %(after)s"
        " ORDER BY a.meter_id LIMIT %(limit)s".encode(),
        {**_values(run.month, run.commodity), "after": after, "limit": limit},
    )
    meter_ids = [int(row[0]) for row in await cursor.fetchall()]
    without_tid = []
    for meter_id in meter_ids:  # in the order of their ids, so that two runs cannot wait for each other
        try:
            allocated = await identity_store.allocate_tid(conn, meter_id, now)
        except InvalidVend:  # its base date has run out: it needs a key change first
            without_tid.append(meter_id)
            continue
        # Its identity is locked now: a meter that came down meanwhile has nobody to get units for.
        if not await _is_agreed(conn, meter_id):
            continue
        await _insert_grant(conn, run, meter_id, allocated, now)
    return Reserved(tuple(without_tid), meter_ids[-1] if meter_ids else None)


async def _is_agreed(conn: psycopg.AsyncConnection, meter_id: int) -> bool:
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM billing.v_agreement WHERE meter_id = %s)", (meter_id,)
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def _insert_grant(
    conn: psycopg.AsyncConnection,
    run: FreeUnitsRun,
    meter_id: int,
    allocated: identity_store.AllocatedTid,
    now: datetime,
) -> None:
    await conn.execute(
        "INSERT INTO billing.free_units_grant (month, meter_id, commodity, units_tenths, base_date, tid, rnd, key,"
        " key_change_id, reserved_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            run.month,
            meter_id,
            run.commodity,
            run.units_tenths,
            allocated.base_date,
            allocated.tid,
            rnd_at(now),
            Jsonb(allocated.key.stored()),
            allocated.key_change_id,
            now,
        ),
    )


async def list_unserved(
    conn: psycopg.AsyncConnection, run: FreeUnitsRun, *, after: int, limit: int
) -> list[Grant]:
    """Grants without a token, by meter id, from the one after `after`."""
    cursor = conn.cursor(row_factory=kwargs_row(_grant))
    await cursor.execute(
        f"{_GRANT} {_UNSERVED} ORDER BY g.meter_id LIMIT %(limit)s".encode(),
        {**_values(run.month, run.commodity), "after": after, "limit": limit},
    )
    return await cursor.fetchall()


async def list_identities(
    conn: psycopg.AsyncConnection, meter_ids: Sequence[int], *, lock: bool = False
) -> dict[int, StsIdentity]:
    """Identities by meter id; with `lock` held until this transaction ends."""
    if lock:
        await conn.execute(
            "SELECT 1 FROM billing.sts_identity WHERE meter_id = ANY(%s) ORDER BY meter_id FOR UPDATE",
            (list(meter_ids),),
        )
    cursor = conn.cursor(row_factory=class_row(StsIdentity))
    await cursor.execute(
        "SELECT i.meter_id, m.drn, i.iin, i.sgc, i.ti, i.krn, i.kt, i.ken, i.ea, i.dkga, i.base_date, i.last_tid,"
        " i.pending FROM billing.sts_identity i JOIN meter_gateway.v_meter m ON m.meter_id = i.meter_id"
        " WHERE i.meter_id = ANY(%s)",
        (list(meter_ids),),
    )
    return {row.meter_id: row for row in await cursor.fetchall()}


async def insert_refusal(conn: psycopg.AsyncConnection, grant: Grant, *, reason: str, now: datetime) -> None:
    """The vault refused a meter: its grant ends without a token."""
    await conn.execute(
        "INSERT INTO billing.free_units_refusal (month, meter_id, reason, refused_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (grant.month, grant.meter_id, reason, now),
    )


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom to tell about a meter's free units."""

    meter_id: int
    drn: str
    customer_id: int
    phone: str
    language: str


async def list_recipients(conn: psycopg.AsyncConnection, meter_ids: Sequence[int]) -> dict[int, Recipient]:
    """The customers of meters, by meter id."""
    cursor = conn.cursor(row_factory=class_row(Recipient))
    await cursor.execute(
        "SELECT a.meter_id, a.drn, c.id AS customer_id, c.phone, c.language FROM billing.v_agreement a"
        " JOIN billing.customer c ON c.id = a.customer_id WHERE a.meter_id = ANY(%s)",
        (list(meter_ids),),
    )
    return {row.meter_id: row for row in await cursor.fetchall()}


def _grant(**row: Any) -> Grant:
    return Grant(**{**row, "key": KeyFields.of(row["key"])})


def _values(month: date, commodity: str) -> dict[str, Any]:
    return {
        "month": month.replace(day=1),
        "commodity": commodity,
        "stock": [int(kt) for kt in STOCK_KEYS],
    }
