"""Hand history over to the server's own policies where it is TimescaleDB's Community edition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import psycopg

from meter_gateway.time_series import history_store
from meter_gateway.time_series.history import Edition, start_of_month

FOLDER: Final = Path(__file__).parent / "editions"
REFRESH: Final = "CALL public.refresh_continuous_aggregate(%s::regclass, %s::timestamptz, %s::timestamptz)"


def read_sql(name: str) -> str:
    """Return the text of one file of this branch."""
    return (FOLDER / name).read_text(encoding="utf-8")


def months(first: datetime, last: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the (start, end) of the months on the clock of Muscat from that of `first` to that of `last`."""
    start = start_of_month(first)
    while start <= last:
        end = start_of_month(start + timedelta(days=32))
        yield start, end
        start = end


async def settle(conn: psycopg.AsyncConnection, now: datetime, say: Callable[[str], None]) -> bool:
    """Make, fill and switch to continuous aggregates where the server has them; whether it did.

    `conn` commits each statement by itself. A kill in between costs nothing: the views read what the
    job keeps until the last step, and the next run goes on.
    """
    if await history_store.ask_edition(conn) is not Edition.COMMUNITY:
        return False
    if not await history_store.is_hypertable(conn):
        say("history: readings are not in a hypertable yet: raseed history upgrade")
        return False
    if (await history_store.get_mark(conn)).kept_by == "policies":
        return False
    async with conn.transaction():
        await conn.execute(read_sql("community_aggregates.sql").encode())
    oldest = await history_store.find_oldest_hour(conn)
    if oldest is not None:
        await fill(conn, oldest, now, say)
    async with conn.transaction():
        await history_store.wait_for_mark(conn)
        await history_store.mark_kept_from(conn, await first_whole_month(conn))
        await conn.execute(read_sql("community_policies.sql").encode())
    say("history: kept by continuous aggregates from now on")
    return True


async def fill(
    conn: psycopg.AsyncConnection, oldest: datetime, now: datetime, say: Callable[[str], None]
) -> None:
    """Fill the aggregates from the readings, month by month; what is filled already costs nothing."""
    for start, end in months(oldest, now):
        for unit in ("hour", "day", "month"):
            await conn.execute(REFRESH, (f"meter_gateway.history_{unit}_aggregate", start, end))
        say(f"history: {(start + timedelta(days=1)):%Y-%m} filled")


async def first_whole_month(conn: psycopg.AsyncConnection) -> datetime | None:
    """Return from when readings can tell all of a month; None where no reading was ever dropped.

    Before that the tables of the job stay in use: they remember readings that are gone.
    """
    oldest = await history_store.find_oldest_hour(conn)
    if not await history_store.has_hours_before(conn, oldest):
        return None
    if oldest is None:
        return (await history_store.get_mark(conn)).live_month
    return start_of_month(start_of_month(oldest) + timedelta(days=32))
