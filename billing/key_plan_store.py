"""Plans to change many meters' keys, the meters they name, who approved them and how far they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from billing import identity_store, key_change_store
from billing.errors import IdempotencyConflict, InvalidVend, NotFound
from billing.identity_store import StsIdentity
from billing.key_change import ChangeEvent, new_fields, next_change_state

# More meters than a utility changes at once; a scope that names more is a mistake.
MAX_METERS = 500_000
SCOPE_FIELDS = frozenset({"sgc", "krn", "ti", "kt", "base_date", "drn"})


@dataclass(frozen=True, slots=True)
class KeyPlan:
    """A plan and its decision; `verdict` is approved, refused or None."""

    id: UUID
    scope: dict[str, Any]
    target: dict[str, Any]
    reason: str
    requested_by: str
    requested_at: datetime
    verdict: str | None
    decided_by: str | None
    meters: int


@dataclass(frozen=True, slots=True)
class RestLine:
    """A meter of a plan that has not proven its new key; `state` is WAITING before its change began."""

    drn: str
    link: str
    state: str
    detail: str
    since: datetime | None
    held: int


_PLAN = (
    "SELECT p.id, p.scope, p.target, p.reason, p.requested_by, p.requested_at, d.verdict, d.decided_by,"
    " (SELECT count(*) FROM billing.key_plan_meter m WHERE m.plan_id = p.id) AS meters"
    " FROM billing.key_plan p LEFT JOIN billing.key_plan_decision d ON d.id = p.id"
)
_IDENTITIES = (
    "SELECT i.meter_id, m.drn, i.iin, i.sgc, i.ti, i.krn, i.kt, i.ken, i.ea, i.dkga, i.base_date, i.last_tid,"
    " i.pending FROM billing.sts_identity i JOIN meter_gateway.v_meter m ON m.meter_id = i.meter_id"
    " WHERE m.usage_point_id IS NOT NULL"
)


async def list_identities(conn: psycopg.AsyncConnection, scope: Mapping[str, Any]) -> list[StsIdentity]:
    """The installed meters of a scope. Raises InvalidVend (`scope_invalid`, `scope_too_large`)."""
    if not scope or not set(scope) <= SCOPE_FIELDS:
        raise InvalidVend("scope_invalid", f"a scope names one or more of {', '.join(sorted(SCOPE_FIELDS))}")
    conditions = "".join(
        " AND m.drn = ANY(%(drn)s)" if name == "drn" else f" AND i.{name} = %({name})s"
        for name in sorted(scope)
    )
    cursor = conn.cursor(row_factory=class_row(StsIdentity))
    await cursor.execute(
        (_IDENTITIES + conditions + " ORDER BY m.drn LIMIT %(limit)s").encode(),
        {**scope, "limit": MAX_METERS + 1},
    )
    found = await cursor.fetchall()
    if len(found) > MAX_METERS:
        raise InvalidVend("scope_too_large", f"a plan holds at most {MAX_METERS} meters")
    return found


async def insert_plan(
    conn: psycopg.AsyncConnection,
    *,
    idempotency_key: str,
    scope: Mapping[str, Any],
    target: Mapping[str, Any],
    meter_ids: Sequence[int],
    reason: str,
    requested_by: str,
    now: datetime,
) -> KeyPlan:
    """Store a plan with its meters; the same key with the same content gives the stored one.

    Raises IdempotencyConflict.
    """
    cursor = await conn.execute(
        "INSERT INTO billing.key_plan (idempotency_key, scope, target, reason, requested_by, requested_at)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (idempotency_key) DO NOTHING RETURNING id",
        (idempotency_key, Jsonb(dict(scope)), Jsonb(dict(target)), reason, requested_by, now),
    )
    made = await cursor.fetchone()
    if made is not None:
        await conn.execute(
            "INSERT INTO billing.key_plan_meter (plan_id, meter_id) SELECT %s, unnest(%s::bigint[])",
            (made[0], list(meter_ids)),
        )
        return await get_plan(conn, made[0])
    there = conn.cursor(row_factory=class_row(KeyPlan))
    await there.execute(f"{_PLAN} WHERE p.idempotency_key = %s", (idempotency_key,))
    plan = _found(await there.fetchone())
    if (plan.scope, plan.target, plan.requested_by) != (dict(scope), dict(target), requested_by):
        raise IdempotencyConflict("other_plan", "this key belongs to another plan")
    return plan


async def get_plan(conn: psycopg.AsyncConnection, plan_id: UUID) -> KeyPlan:
    """The plan of this id. Raises NotFound."""
    return _found(await find_plan(conn, plan_id))


async def find_plan(conn: psycopg.AsyncConnection, plan_id: UUID) -> KeyPlan | None:
    """The plan of this id, if it is one."""
    cursor = conn.cursor(row_factory=class_row(KeyPlan))
    return await (await cursor.execute(f"{_PLAN} WHERE p.id = %s", (plan_id,))).fetchone()


async def list_plans(conn: psycopg.AsyncConnection, *, limit: int) -> list[KeyPlan]:
    """Plans, newest first."""
    cursor = conn.cursor(row_factory=class_row(KeyPlan))
    await cursor.execute(f"{_PLAN} ORDER BY p.requested_at DESC LIMIT %s", (limit,))
    return await cursor.fetchall()


async def insert_decision(
    conn: psycopg.AsyncConnection,
    *,
    plan_id: UUID,
    verdict: str,
    decided_by: str,
    decided_role: str,
    note: str,
    now: datetime,
) -> bool:
    """Write down a decision, once; False when one is there. The database refuses the requester's own."""
    cursor = await conn.execute(
        "INSERT INTO billing.key_plan_decision (id, verdict, decided_by, decided_role, decided_at, note)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING",
        (plan_id, verdict, decided_by, decided_role, now, note),
    )
    return cursor.rowcount == 1


async def begin_changes(conn: psycopg.AsyncConnection, *, now: datetime, limit: int) -> int:
    """Begin the changes of approved plans for the next meters that have none open; gives how many.

    A meter that meanwhile breaks a rule gets a change that has FAILED, with the rule as its detail.
    """
    cursor = await conn.execute(
        "SELECT m.plan_id, m.meter_id FROM billing.key_plan_meter m"
        " JOIN billing.key_plan_decision d ON d.id = m.plan_id AND d.verdict = 'approved'"
        " WHERE NOT EXISTS (SELECT FROM billing.key_change k WHERE k.meter_id = m.meter_id"
        "   AND (k.plan_id = m.plan_id OR k.state IN ('PLANNED', 'ISSUED', 'REFUSED')))"
        " ORDER BY d.decided_at, m.meter_id LIMIT %s",
        (limit,),
    )
    begun = 0
    for plan_id, meter_id in await cursor.fetchall():
        begun += await _begin(conn, await get_plan(conn, plan_id), meter_id, now)
    return begun


async def _begin(conn: psycopg.AsyncConnection, plan: KeyPlan, meter_id: int, now: datetime) -> int:
    identity = await identity_store.lock_identity(conn, meter_id)
    broken = ""
    new = identity.current
    try:
        new = new_fields(identity, plan.target, now)
    except InvalidVend as error:
        if error.code == "change_under_way":
            return 0
        broken = error.code
    change = await key_change_store.insert_change(
        conn,
        meter_id=meter_id,
        plan_id=plan.id,
        old=identity.current,
        new=new,
        begun_by=plan.requested_by,
        now=now,
    )
    if change is not None and broken:
        state = next_change_state(change.state, ChangeEvent.FAILED)
        await key_change_store.mark_change(conn, change, state, by="worker", now=now, detail=broken)
    return int(change is not None)


async def get_progress(conn: psycopg.AsyncConnection, plan_id: UUID) -> dict[str, int]:
    """How many meters of a plan stand where; WAITING: their change has not begun."""
    cursor = await conn.execute(
        "SELECT coalesce(k.state, 'WAITING'), count(*) FROM billing.key_plan_meter m"
        " LEFT JOIN billing.key_change k ON k.plan_id = m.plan_id AND k.meter_id = m.meter_id"
        " WHERE m.plan_id = %s GROUP BY 1",
        (plan_id,),
    )
    return {str(state): int(count) for state, count in await cursor.fetchall()}


async def list_rest(conn: psycopg.AsyncConnection, plan_id: UUID, *, limit: int) -> list[RestLine]:
    """The meters of a plan that have not proven their new key, those that need a person first."""
    cursor = conn.cursor(row_factory=class_row(RestLine))
    await cursor.execute(
        "SELECT v.drn, v.link, coalesce(k.state, 'WAITING') AS state, coalesce(s.detail, '') AS detail,"
        " s.occurred_at AS since, (SELECT count(*) FROM billing.held_token h"
        "   WHERE h.key_change_id = k.id AND h.state <> 'RELEASED') AS held"
        " FROM billing.key_plan_meter m JOIN meter_gateway.v_meter v ON v.meter_id = m.meter_id"
        " LEFT JOIN billing.key_change k ON k.plan_id = m.plan_id AND k.meter_id = m.meter_id"
        " LEFT JOIN LATERAL (SELECT detail, occurred_at FROM billing.key_change_step s"
        "   WHERE s.key_change_id = k.id ORDER BY s.id DESC LIMIT 1) s ON true"
        " WHERE m.plan_id = %s AND coalesce(k.state, '') <> 'PROVEN'"
        " ORDER BY array_position(ARRAY['REFUSED', 'FAILED', 'WITHDRAWN', 'ISSUED', 'PLANNED'], k.state), v.drn"
        " LIMIT %s",
        (plan_id, limit),
    )
    return await cursor.fetchall()


def _found(row: KeyPlan | None) -> KeyPlan:
    if row is None:
        raise NotFound("plan_not_found", "no such key plan")
    return row
