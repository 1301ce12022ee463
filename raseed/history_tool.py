"""`raseed history`: where readings lie and how old they grow, and the way from plain tables to hypertables."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg

from raseed.settings import Settings

Conn = psycopg.AsyncConnection[Any]
MIB = 1 << 20


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `history` and what it does to the command line."""
    history = commands.add_parser("history", help="readings and how they age (DATABASE_URL)")
    what = history.add_subparsers(dest="what", required=True, metavar="WHAT")
    status = what.add_parser("status", help="edition, tables, sizes, oldest, retention, lag of the job")
    status.set_defaults(run=_status)
    upgrade = what.add_parser(
        "upgrade",
        help="move readings from plain partitions into a TimescaleDB hypertable, while everything runs",
        description="Copies readings beside, compares both, then swaps under a short lock. Killed, it goes on"
        " where it was when it is run again.",
    )
    mode = upgrade.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="say what it would do")
    mode.add_argument("--cancel", action="store_true", help="forget a begun upgrade")
    upgrade.set_defaults(run=_upgrade)


def say(line: str) -> None:
    """Print a line at once: a progress that is seen late is none."""
    print(line, flush=True)


def _connected(settings: Settings, work: Callable[[Conn], Awaitable[int]]) -> int:
    async def run() -> int:
        url = settings.need("database_url")
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
            return await work(conn)

    try:
        return asyncio.run(run())
    except psycopg.Error as error:
        print(f"raseed history: {error}", file=sys.stderr)
        return 1


def _status(_options: argparse.Namespace, settings: Settings) -> int:
    from meter_gateway.time_series import history_store, retention_store
    from raseed.roles import keep_of

    keep = keep_of(settings)

    async def work(conn: Conn) -> int:
        edition = await history_store.ask_edition(conn)
        chunked = await history_store.is_hypertable(conn)
        mark = await history_store.get_mark(conn)
        lag = await history_store.get_lag(conn)
        say(f"edition     {edition}; readings in {'a hypertable' if chunked else 'plain partitions'}")
        say(f"history     kept by {'the server' if mark.kept_by == 'policies' else 'the headend'}")
        for size in await retention_store.list_sizes(conn):
            oldest = f"oldest {_day(size.oldest)}" if size.oldest else ""
            say(
                f"  {size.name:<14}{size.size_bytes / MIB:>10.1f} MiB  {size.parts:>4} parts  {oldest}".rstrip()
            )
        say(
            f"kept        readings {keep.raw_months} months, hours {keep.hour_months}, days {keep.day_months},"
            f" dead letters {keep.dead_letter_days} days"
        )
        if mark.kept_by == "job":
            behind = (
                f"{(datetime.now(UTC) - lag.live_hour).total_seconds() / 3600:.1f} h"
                if lag.live_hour
                else "all"
            )
            say(f"lag         written up to {_time(lag.live_hour)} ({behind} behind),")
            say(f"            last round {_time(lag.worked_at)}, {lag.late_hours} hours to write again")
        return 0

    return _connected(settings, work)


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def _time(at: datetime | None) -> str:
    return "never" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M}Z"


def _upgrade(options: argparse.Namespace, settings: Settings) -> int:
    from meter_gateway.time_series import upgrade_history
    from meter_gateway.time_series.upgrade_history import UpgradeRefused

    async def work(conn: Conn) -> int:
        try:
            if options.cancel:
                await upgrade_history.cancel(conn, say)
            elif options.dry_run:
                for part in await upgrade_history.plan(conn):
                    say(f"{part.name}: {part.size_bytes / MIB:.1f} MiB would be copied, compared and swapped")
            else:
                done = await upgrade_history.upgrade(conn, datetime.now(UTC), say)
                say(f"{done.rows} readings moved, none lost, none doubled")
        except UpgradeRefused as refused:
            print(f"raseed history: {refused}", file=sys.stderr)
            return 1
        return 0

    return _connected(settings, work)
