"""SQL of the promised times of tickets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import kwargs_row

from portal.contact_centre.clock import (
    ClockKind,
    ClockMode,
    ClockState,
    PlannedClock,
    Promise,
    clock_state,
)


@dataclass(frozen=True, slots=True)
class ClockRow:
    """One promised time of a ticket; times aware UTC."""

    id: int
    ticket_id: int
    kind: ClockKind
    calendar_code: str
    mode: ClockMode
    target: int
    origin_at: datetime
    due_at: datetime
    met_at: datetime | None

    def state(self, now: datetime) -> ClockState:
        """What it says at `now`."""
        return clock_state(self.due_at, self.met_at, now)

    @property
    def promise(self) -> Promise:
        """The line of the policy that it was started from."""
        return Promise(self.kind, self.calendar_code, self.mode, self.target)


def _row(**columns: Any) -> ClockRow:
    return ClockRow(
        **columns | {"kind": ClockKind(columns["kind"]), "mode": ClockMode(columns["mode"])},
    )


_COLUMNS = "id, ticket_id, kind, calendar_code, mode, target, origin_at, due_at, met_at"


async def insert_clocks(
    conn: psycopg.AsyncConnection[Any], ticket_id: int, clocks: Iterable[PlannedClock]
) -> None:
    """Start the clocks of a new ticket."""
    for clock in clocks:
        promise = clock.promise
        await conn.execute(
            """INSERT INTO portal.clock
                 (ticket_id, kind, calendar_code, mode, target, origin_at, due_at, met_at)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
            (
                ticket_id,
                promise.kind,
                promise.calendar_code,
                promise.mode,
                promise.target,
                clock.origin_at,
                clock.due_at,
                clock.met_at,
            ),
        )


async def list_clocks(conn: psycopg.AsyncConnection[Any], ticket_id: int) -> list[ClockRow]:
    """The clocks of a ticket in the order of the promise: acknowledged, answered, resolved."""
    async with conn.cursor(row_factory=kwargs_row(_row)) as cur:
        await cur.execute(
            f"SELECT {_COLUMNS} FROM portal.clock WHERE ticket_id = %s ORDER BY id",  # noqa: S608 -- constant
            (ticket_id,),
        )
        return await cur.fetchall()


async def mark_met(conn: psycopg.AsyncConnection[Any], ticket_id: int, kind: ClockKind, at: datetime) -> None:
    """Stop a clock that still runs; the first time that meets a promise counts."""
    await conn.execute(
        "UPDATE portal.clock SET met_at = %s WHERE ticket_id = %s AND kind = %s AND met_at IS NULL",
        (at, ticket_id, kind),
    )


async def mark_running_again(conn: psycopg.AsyncConnection[Any], clock_id: int, due_at: datetime) -> None:
    """Let a stopped clock run on to a new due instant."""
    await conn.execute("UPDATE portal.clock SET met_at = NULL, due_at = %s WHERE id = %s", (due_at, clock_id))
