"""SQL of site tasks: what engineers asked of a bus, how far it is, what came of it."""

# ruff: noqa: S608 - the only part formatted in is the constant list of columns

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

_COLUMNS = (
    "id, site, bus, framer, kind, argument, idempotency_key, requested_by, state, progress, result,"
    " created_at, expires_at, sent_at, cancel_at, settled_at, attempts"
)
_OPEN = "state IN ('CREATED', 'SENT', 'RUNNING')"


@dataclass(frozen=True, slots=True)
class SiteTask:
    """A task on one bus of one site; `progress` 0-100, `result` by kind as docs/decisions/0014 lists it."""

    id: int
    site: str
    bus: str
    framer: str
    kind: str
    argument: dict[str, Any]
    idempotency_key: str
    requested_by: str
    state: str
    progress: int
    result: dict[str, Any]
    created_at: datetime
    expires_at: datetime
    sent_at: datetime | None
    cancel_at: datetime | None
    settled_at: datetime | None
    attempts: int

    @property
    def is_open(self) -> bool:
        """Whether something may still come."""
        return self.state in {"CREATED", "SENT", "RUNNING"}


@dataclass(frozen=True, slots=True)
class Bus:
    """A bus of a site."""

    id: int
    site_id: int
    site: str
    code: str
    framer: str


async def find_bus(conn: psycopg.AsyncConnection, site: str, bus: str) -> Bus | None:
    """Return a bus by its site's code and its own."""
    buses = await _list_buses(conn, "WHERE s.code = %s AND b.code = %s", (site, bus))
    return buses[0] if buses else None


async def list_buses(conn: psycopg.AsyncConnection) -> list[Bus]:
    """Return all buses, by site and code."""
    return await _list_buses(conn, "", ())


async def _list_buses(conn: psycopg.AsyncConnection, where: str, values: tuple[object, ...]) -> list[Bus]:
    async with conn.cursor(row_factory=class_row(Bus)) as cursor:
        await cursor.execute(
            "SELECT b.id, b.site_id, s.code AS site, b.code, b.framer FROM meter_gateway.bus b"
            f" JOIN meter_gateway.site s ON s.id = b.site_id {where} ORDER BY s.code, b.code".encode(),
            values,
        )
        return await cursor.fetchall()


async def insert_task(
    conn: psycopg.AsyncConnection,
    *,
    bus: Bus,
    kind: str,
    argument: Mapping[str, Any],
    idempotency_key: str,
    requested_by: str,
    created_at: datetime,
    expires_at: datetime,
) -> int | None:
    """Insert a task and return its id; None when its key was used before."""
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.site_task (site_id, bus_id, kind, argument, idempotency_key, requested_by,"
        " created_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (idempotency_key) DO NOTHING RETURNING id",
        (
            bus.site_id,
            bus.id,
            kind,
            Jsonb(dict(argument)),
            idempotency_key,
            requested_by,
            created_at,
            expires_at,
        ),
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def find_task(conn: psycopg.AsyncConnection, task_id: int) -> SiteTask | None:
    """Return a task by its number."""
    return await _find(conn, "WHERE id = %s", (task_id,))


async def find_task_by_key(conn: psycopg.AsyncConnection, idempotency_key: str) -> SiteTask | None:
    """Return the task of an idempotency key."""
    return await _find(conn, "WHERE idempotency_key = %s", (idempotency_key,))


async def find_last_task(conn: psycopg.AsyncConnection, *, site: str, bus: str, kind: str) -> SiteTask | None:
    """Return the newest task of a kind on a bus."""
    return await _find(
        conn, "WHERE site = %s AND bus = %s AND kind = %s ORDER BY id DESC LIMIT 1", (site, bus, kind)
    )


async def lock_task(conn: psycopg.AsyncConnection, task_id: int) -> SiteTask | None:
    """Return a task, held until this transaction ends."""
    await conn.execute("SELECT 1 FROM meter_gateway.site_task WHERE id = %s FOR UPDATE", (task_id,))
    return await find_task(conn, task_id)


async def list_tasks(
    conn: psycopg.AsyncConnection, *, site: str | None = None, limit: int = 50
) -> list[SiteTask]:
    """Return tasks, newest first."""
    async with conn.cursor(row_factory=class_row(SiteTask)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM meter_gateway.v_site_task"
            " WHERE %(site)s::text IS NULL OR site = %(site)s ORDER BY id DESC LIMIT %(limit)s",
            {"site": site, "limit": limit},
        )
        return await cursor.fetchall()


async def _find(conn: psycopg.AsyncConnection, rest: str, values: tuple[object, ...]) -> SiteTask | None:
    async with conn.cursor(row_factory=class_row(SiteTask)) as cursor:
        await cursor.execute(f"SELECT {_COLUMNS} FROM meter_gateway.v_site_task {rest}".encode(), values)
        return await cursor.fetchone()


async def lock_due_tasks(
    conn: psycopg.AsyncConnection, *, now: datetime, send_before: datetime, limit: int
) -> list[SiteTask]:
    """Return tasks to say to their gateways now: new ones, unanswered ones, and open ones to be stopped."""
    cursor = await conn.execute(
        "SELECT id FROM meter_gateway.site_task"
        f" WHERE {_OPEN} AND expires_at > %(now)s AND (sent_at IS NULL OR (sent_at < %(before)s"
        "   AND (state <> 'RUNNING' OR cancel_at IS NOT NULL)) OR cancel_at > sent_at)"
        " ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED".encode(),
        {"now": now, "before": send_before, "limit": limit},
    )
    ids = [row[0] for row in await cursor.fetchall()]
    async with conn.cursor(row_factory=class_row(SiteTask)) as rows:
        await rows.execute(
            f"SELECT {_COLUMNS} FROM meter_gateway.v_site_task WHERE id = ANY(%s) ORDER BY id", (ids,)
        )
        return await rows.fetchall()


async def mark_sent(conn: psycopg.AsyncConnection, task_ids: Iterable[int], now: datetime) -> None:
    """Note that these were said to their gateways."""
    await conn.execute(
        "UPDATE meter_gateway.site_task SET sent_at = %s, attempts = attempts + 1,"
        " state = CASE state WHEN 'CREATED' THEN 'SENT' ELSE state END WHERE id = ANY(%s)",
        (now, list(task_ids)),
    )


async def mark_cancel(conn: psycopg.AsyncConnection, task_id: int, now: datetime) -> None:
    """Note that somebody wants it stopped; the first wish stands."""
    await conn.execute(
        "UPDATE meter_gateway.site_task SET cancel_at = %s WHERE id = %s AND cancel_at IS NULL",
        (now, task_id),
    )


async def mark_state(
    conn: psycopg.AsyncConnection,
    task_id: int,
    state: str,
    *,
    progress: int | None = None,
    result: Mapping[str, Any] | None = None,
    settled_at: datetime | None = None,
) -> None:
    """Note a state, and what is given with it; progress never falls."""
    await conn.execute(
        "UPDATE meter_gateway.site_task SET state = %s, progress = greatest(progress, coalesce(%s, progress)),"
        " result = coalesce(%s, result), settled_at = coalesce(%s, settled_at) WHERE id = %s",
        (state, progress, None if result is None else Jsonb(dict(result)), settled_at, task_id),
    )


async def mark_overdue(conn: psycopg.AsyncConnection, now: datetime) -> int:
    """Expire open tasks whose deadline passed; returns how many."""
    cursor = await conn.execute(
        f"UPDATE meter_gateway.site_task SET state = 'EXPIRED', settled_at = %s WHERE {_OPEN} AND expires_at <= %s",
        (now, now),
    )
    return cursor.rowcount
