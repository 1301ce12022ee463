"""SQL of meter commands and of the steps they take."""

# ruff: noqa: S608 - the only part formatted in is the constant list of columns

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from meter_gateway.command_state import CommandState
from meter_gateway.errors import CommandNotFound

_COLUMNS = (
    "id, meter_id, kind, argument, idempotency_key, requested_by, state, created_at, expires_at, sent_at, "
    "attempts, result"
)


@dataclass(frozen=True, slots=True)
class MeterCommand:
    """One order to one meter. `argument` may be a token: keep it out of logs."""

    id: int
    meter_id: int
    kind: str
    argument: str
    idempotency_key: str
    requested_by: str
    state: str
    created_at: datetime
    expires_at: datetime
    sent_at: datetime | None
    attempts: int
    result: Mapping[str, Any]

    def __repr__(self) -> str:
        """Leave the argument out: it may be a token."""
        return f"MeterCommand({self.id}, meter {self.meter_id}, {self.kind}, {self.state})"


@dataclass(frozen=True, slots=True)
class DueCommand:
    """A command to send now, with the meter and the edge that it goes to."""

    id: int
    drn: str
    edge: str
    kind: str
    argument: str
    state: str
    created_at: datetime
    expires_at: datetime

    def __repr__(self) -> str:
        """Leave the argument out: it may be a token."""
        return f"DueCommand({self.id}, {self.drn} by {self.edge}, {self.kind}, {self.state})"


async def insert_command(
    conn: psycopg.AsyncConnection,
    *,
    meter_id: int,
    kind: str,
    argument: str,
    idempotency_key: str,
    requested_by: str,
    created_at: datetime,
    expires_at: datetime,
) -> MeterCommand | None:
    """Insert a new command; None when the idempotency key is taken."""
    async with conn.cursor(row_factory=class_row(MeterCommand)) as cursor:
        await cursor.execute(
            f"INSERT INTO meter_gateway.meter_command"
            f" (meter_id, kind, argument, idempotency_key, requested_by, created_at, expires_at)"
            f" VALUES (%s, %s, %s, %s, %s, %s, %s)"
            f" ON CONFLICT (idempotency_key) DO NOTHING RETURNING {_COLUMNS}",
            (meter_id, kind, argument, idempotency_key, requested_by, created_at, expires_at),
        )
        return await cursor.fetchone()


async def find_command_by_key(conn: psycopg.AsyncConnection, idempotency_key: str) -> MeterCommand | None:
    """Return the command with this idempotency key, if any."""
    async with conn.cursor(row_factory=class_row(MeterCommand)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM meter_gateway.meter_command WHERE idempotency_key = %s",
            (idempotency_key,),
        )
        return await cursor.fetchone()


async def get_command(conn: psycopg.AsyncConnection, command_id: int) -> MeterCommand:
    """Return a command. Raises CommandNotFound."""
    async with conn.cursor(row_factory=class_row(MeterCommand)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM meter_gateway.meter_command WHERE id = %s", (command_id,)
        )
        row = await cursor.fetchone()
    if row is None:
        raise CommandNotFound(f"no command {command_id}")
    return row


async def lock_command(conn: psycopg.AsyncConnection, command_id: int) -> MeterCommand | None:
    """Return a command and hold its row until the transaction ends; None when there is none."""
    async with conn.cursor(row_factory=class_row(MeterCommand)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM meter_gateway.meter_command WHERE id = %s FOR UPDATE", (command_id,)
        )
        return await cursor.fetchone()


async def is_tampered(conn: psycopg.AsyncConnection, meter_id: int) -> bool:
    """Whether the meter last said that its lid was opened."""
    cursor = await conn.execute(
        "SELECT tamper FROM meter_gateway.meter_state WHERE meter_id = %s", (meter_id,)
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def list_commands_of_meter(
    conn: psycopg.AsyncConnection, meter_id: int, *, limit: int = 50
) -> list[MeterCommand]:
    """Return the newest commands of a meter, newest first."""
    async with conn.cursor(row_factory=class_row(MeterCommand)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM meter_gateway.meter_command WHERE meter_id = %s ORDER BY id DESC LIMIT %s",
            (meter_id, limit),
        )
        return await cursor.fetchall()


async def lock_due_commands(
    conn: psycopg.AsyncConnection, *, now: datetime, send_before: datetime, ask_before: datetime, limit: int
) -> list[DueCommand]:
    """Return commands to send now, their rows held; another dispatcher skips them.

    A meter's oldest holding command is due when never sent or last sent before `send_before`; an UNKNOWN one
    is asked for again when last sent before `ask_before`. What another dispatcher holds is skipped.
    """
    async with conn.cursor(row_factory=class_row(DueCommand)) as cursor:
        await cursor.execute(
            "SELECT c.id, m.drn, coalesce(s.code, m.drn) AS edge, c.kind, c.argument, c.state,"
            "       c.created_at, c.expires_at"
            "  FROM meter_gateway.meter_command c"
            "  JOIN meter_gateway.meter m ON m.id = c.meter_id"
            "  LEFT JOIN meter_gateway.bus b ON b.id = m.bus_id"
            "  LEFT JOIN meter_gateway.site s ON s.id = b.site_id"
            " WHERE (m.link = 'mqtt' OR s.id IS NOT NULL)"
            "   AND ((c.state IN ('CREATED', 'SENT') AND c.expires_at > %(now)s"
            "         AND (c.sent_at IS NULL OR c.sent_at <= %(send_before)s)"
            "         AND NOT EXISTS (SELECT FROM meter_gateway.meter_command o WHERE o.meter_id = c.meter_id"
            "               AND o.id < c.id AND o.state IN ('CREATED', 'SENT', 'ACCEPTED', 'WRITTEN')))"
            "     OR (c.state = 'UNKNOWN' AND c.sent_at <= %(ask_before)s"
            "         AND c.created_at > %(now)s - interval '7 days'))"
            " ORDER BY c.id LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED",
            {"now": now, "send_before": send_before, "ask_before": ask_before, "limit": limit},
        )
        return await cursor.fetchall()


async def mark_sent(conn: psycopg.AsyncConnection, command_ids: Sequence[int], now: datetime) -> None:
    """Count one more sending; a CREATED command becomes SENT, an UNKNOWN one stays so."""
    await conn.execute(
        "UPDATE meter_gateway.meter_command SET sent_at = %(now)s, attempts = attempts + 1,"
        " state = CASE state WHEN 'CREATED' THEN 'SENT' ELSE state END"
        " WHERE id = ANY(%(ids)s) AND state IN ('CREATED', 'SENT', 'UNKNOWN')",
        {"now": now, "ids": list(command_ids)},
    )


async def list_overdue_commands(conn: psycopg.AsyncConnection, now: datetime, *, limit: int) -> list[int]:
    """Return ids of commands whose deadline passed while they were open."""
    cursor = await conn.execute(
        "SELECT id FROM meter_gateway.meter_command WHERE expires_at <= %s"
        " AND state IN ('CREATED', 'SENT', 'ACCEPTED', 'WRITTEN') ORDER BY id LIMIT %s",
        (now, limit),
    )
    return [row[0] for row in await cursor.fetchall()]


async def mark_state(
    conn: psycopg.AsyncConnection, command_id: int, state: CommandState, result: Mapping[str, Any] | None
) -> None:
    """Set a command's state, and its result when there is one."""
    await conn.execute(
        "UPDATE meter_gateway.meter_command SET state = %s, result = coalesce(%s, result) WHERE id = %s",
        (state.value, None if result is None else Jsonb(dict(result)), command_id),
    )


async def insert_step(
    conn: psycopg.AsyncConnection,
    command_id: int,
    state: str,
    occurred_at: datetime,
    detail: Mapping[str, Any],
) -> None:
    """Record a step; the same state of the same instant is recorded once."""
    await conn.execute(
        "INSERT INTO meter_gateway.meter_command_step (command_id, state, occurred_at, detail)"
        " SELECT %(id)s, %(state)s, %(at)s, %(detail)s WHERE NOT EXISTS ("
        "   SELECT FROM meter_gateway.meter_command_step"
        "    WHERE command_id = %(id)s AND state = %(state)s AND occurred_at = %(at)s)",
        {"id": command_id, "state": state, "at": occurred_at, "detail": Jsonb(dict(detail))},
    )
