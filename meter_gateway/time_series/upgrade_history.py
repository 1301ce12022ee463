"""Move readings from plain partitions into a hypertable: copied beside, counted, swapped under a short lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import psycopg

from meter_gateway.time_series import history_store, set_up_history, upgrade_store
from meter_gateway.time_series.upgrade_store import Part

# A lock is asked for this often, two seconds each and a pause between: a minute in all.
LOCK_TRIES: Final = 20
LOCK_PAUSE_S: Final = 1.0

Say = Callable[[str], None]


class UpgradeRefused(Exception):
    """The upgrade cannot be done here, or was stopped by what it found; nothing is lost."""


@dataclass(frozen=True, slots=True)
class Done:
    """What an upgrade did: readings moved, and how long the swap kept others out."""

    rows: int
    locked_s: float


def days_of(part: Part) -> Iterator[tuple[datetime, datetime]]:
    """Yield (start, end) of the days of a partition."""
    start = part.starts_at
    while start < part.ends_at:
        end = min(start + timedelta(days=1), part.ends_at)
        yield start, end
        start = end


async def plan(conn: psycopg.AsyncConnection) -> list[Part]:
    """Return the partitions to move. Raises UpgradeRefused where that is impossible or done."""
    if await history_store.is_hypertable(conn):
        raise UpgradeRefused("readings are in a hypertable already: nothing to do")
    if not await upgrade_store.is_offered(conn):
        raise UpgradeRefused(
            "this server does not offer TimescaleDB: install it, add it to shared_preload_libraries, restart"
        )
    return await upgrade_store.list_parts(conn)


async def upgrade(conn: psycopg.AsyncConnection, now: datetime, say: Say) -> Done:
    """Do it, or go on where a killed one stopped. `conn` commits each statement by itself.

    Raises UpgradeRefused; the plain table stays in use then.
    """
    if await upgrade_store.is_left_over(conn):
        await upgrade_store.drop_left_over(conn)
        say("the swap was done; the old table is gone now")
        await set_up_history.settle(conn, now, say)
        return Done(0, 0.0)
    parts = await plan(conn)
    if await upgrade_store.is_begun(conn):
        say("going on with the upgrade that was begun")
    else:
        await _with_lock(conn, lambda: upgrade_store.begin(conn), say)
        say("new readings go into both tables from now on")
    for place, part in enumerate(parts, 1):
        rows = await _copy(conn, part)
        say(f"{part.name}: {rows} readings copied ({place} of {len(parts)})")
    rows = 0
    for place, part in enumerate(parts, 1):
        found = await upgrade_store.compare(conn, part.starts_at, part.ends_at)
        if not found.agree:
            raise UpgradeRefused(
                f"{part.name} has {found.rows} readings, the hypertable {found.rows_next}, or they differ:"
                " cancel with  raseed history upgrade --cancel  and begin again"
            )
        rows += found.rows
        say(f"{part.name}: {found.rows} readings in both, the same ({place} of {len(parts)})")
    locked_s = await _with_lock(conn, lambda: _swap(conn), say)
    say(f"readings are in a hypertable; others waited {locked_s:.3f} s")
    await upgrade_store.drop_left_over(conn)  # outside the lock: nobody looks at it any more
    await upgrade_store.analyze(conn)
    await set_up_history.settle(conn, now, say)
    return Done(rows, locked_s)


async def _copy(conn: psycopg.AsyncConnection, part: Part) -> int:
    rows = 0
    for start, end in days_of(part):
        async with conn.transaction():
            if not await upgrade_store.is_copied(conn, start):
                rows += await upgrade_store.copy_day(conn, start, end)
    return rows


async def _swap(conn: psycopg.AsyncConnection) -> None:
    await upgrade_store.lock_both(conn)
    # A partition made meanwhile was mirrored from its first reading: nothing of it needs copying.
    await upgrade_store.swap(conn, await upgrade_store.list_dependents(conn))


async def _with_lock(conn: psycopg.AsyncConnection, work: Callable[[], Awaitable[None]], say: Say) -> float:
    """Do `work` in one transaction, again when a lock does not come; returns how long it took."""
    for attempt in range(1, LOCK_TRIES + 1):
        began = time.perf_counter()
        try:
            async with conn.transaction():
                await work()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            say(f"somebody reads or writes for long; asked again ({attempt} of {LOCK_TRIES})")
            await asyncio.sleep(LOCK_PAUSE_S)
        else:
            return time.perf_counter() - began
    raise UpgradeRefused("the lock did not come: run it again when fewer long queries run")


async def cancel(conn: psycopg.AsyncConnection, say: Say) -> None:
    """Forget a begun upgrade. Raises UpgradeRefused when there is none."""
    if not await upgrade_store.is_begun(conn):
        raise UpgradeRefused("no upgrade is under way")
    await _with_lock(conn, lambda: upgrade_store.cancel(conn), say)
    say("the begun upgrade is forgotten; readings are where they were")
