"""Keep history: write what became old enough, look again at hours with late readings, drop what outlived its time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meter_gateway.time_series import history, history_store, retention_store
from meter_gateway.time_series.history import Edition
from meter_gateway.time_series.retention import Keep, cutoffs, outlived

log = logging.getLogger(__name__)

# A chart looks up the last hours in the readings themselves: late ones may wait this long.
ROUND_S: Final = 30.0
# A headend that starts has a queue to empty first, and charts do without history for a minute.
START_S: Final = 60.0
# After each step the job rests this many times as long as the step took: history can wait, what is sold now cannot.
REST: Final = 3.0
# Hours written again in one transaction: each is at most some hundred readings, the whole about a second.
LATE_LIMIT: Final = 2_000
# Partitions that readings may still come into: the months ahead, this one, and those of late readings.
NEWEST: Final = 6
RETENTION_EVERY: Final = timedelta(hours=6)
# Dead letters that go in one transaction; the next round takes the next slice.
LETTER_SLICE: Final = 10_000


async def step(conn: psycopg.AsyncConnection, now: datetime) -> bool:
    """Do one bounded step, to be committed by the caller; whether more is waiting."""
    mark = await history_store.lock_mark(conn)
    if mark is None or mark.kept_by != "job":
        return False  # another headend is at it, or the server's own policies are
    start = mark.live_hour or await history_store.find_oldest_hour(conn)
    if start is None:
        until, rows = history.live_from(now), 0
    else:
        found = history.next_until(start, mark.step_hours, now)
        if found is None:
            await history_store.note_late_readings(conn, mark, now)
            return await history_store.write_late_hours(conn, mark, limit=LATE_LIMIT) == LATE_LIMIT
        until, rows = found, await history_store.insert_hours(conn, start, found)
    step_hours = history.next_step_hours(mark.step_hours, rows)
    await history_store.move_mark(conn, mark, until, step_hours=step_hours, now=now)
    return True  # at least a look for late readings


async def tidy(pool: AsyncConnectionPool, *, newest: int | None = NEWEST) -> None:
    """Bring the indexes up to date by which readings are looked up; left to the next time while somebody vacuums."""
    async with pool.connection() as conn:
        mark = await history_store.get_mark(conn)
    if mark.kept_by != "job":
        return
    with contextlib.suppress(psycopg.errors.LockNotAvailable):
        async with pool.connection() as conn:
            # What the first steps read was perhaps brought in all at once.
            await history_store.summarize(conn, newest=None if mark.live_hour is None else newest)


async def catch_up(pool: AsyncConnectionPool, now: datetime, *, rest: float = 0.0) -> int:
    """Take steps until nothing waits, each its own transaction, `rest` times as long between them; returns how many."""
    await tidy(pool)
    steps = 0
    more = True
    while more:
        began = time.monotonic()
        async with pool.connection() as conn:
            more = await step(conn, now)
        steps += 1
        if more:
            await asyncio.sleep(rest * (time.monotonic() - began))
    return steps


async def retain(pool: AsyncConnectionPool, keep: Keep, now: datetime) -> list[str]:
    """Drop what outlived its time; returns the names of what went."""
    async with pool.connection() as conn:
        mark = await history_store.get_mark(conn)
        edition = await history_store.ask_edition(conn)
        is_hypertable = await history_store.is_hypertable(conn)
        partitions = await retention_store.list_partitions(conn)
    by_policies = mark.kept_by == "policies"
    written_until = history.start_of_month(now) if by_policies else mark.live_month
    before = cutoffs(keep, now, written_until)
    gone = []
    for partition in outlived(partitions, before):
        async with pool.connection() as conn:
            await retention_store.drop_partition(conn, partition.name)
        gone.append(partition.name)
    chunked = [("reading", "reading")] if is_hypertable and "reading" in before else []
    if edition is Edition.COMMUNITY and by_policies:
        chunked += [(f"history_{unit}", f"history_{unit}_aggregate") for unit in ("hour", "day", "month")]
    for kept_as, table in chunked:
        async with pool.connection() as conn:
            chunks = await retention_store.drop_chunks(conn, table, before[kept_as])
        gone += [f"{chunks} chunks of {table}"] if chunks else []
    slice_size = LETTER_SLICE
    while slice_size == LETTER_SLICE:
        async with pool.connection() as conn:
            slice_size = await retention_store.delete_dead_letters(
                conn, now - timedelta(days=keep.dead_letter_days), limit=LETTER_SLICE
            )
    return gone


async def run(pool: AsyncConnectionPool, *, clock: Callable[[], datetime], keep: Keep) -> None:
    """Keep history until cancelled, through absences of the database; begins START_S after the start."""
    await asyncio.sleep(START_S)
    retained_at: datetime | None = None
    is_away = False
    while True:
        try:
            now = clock()
            await catch_up(pool, now, rest=REST)
            if retained_at is None or now - retained_at >= RETENTION_EVERY:
                for name in await retain(pool, keep, now):
                    log.info("retention dropped %s", name)
                await tidy(pool, newest=None)
                retained_at = now
        except (psycopg.OperationalError, PoolTimeout) as error:
            if not is_away:
                log.warning("history waits for the database: %s", type(error).__name__)
            is_away = True
        except Exception:
            # One round may fail, the next one must come.
            log.exception("a round of history failed")
        else:
            is_away = False
        await asyncio.sleep(ROUND_S)
