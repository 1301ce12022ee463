"""`raseed token free-units`: a month's free units for the whole fleet, with a progress bar; run it again to go on."""

from __future__ import annotations

import argparse
import asyncio
import sys
from datetime import UTC, date, datetime
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from raseed.settings import Settings

BAR_WIDTH = 40
EXIT_AGAIN = 3  # the vault was silent: run it again


def add_command(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `free-units` to `raseed token`."""
    command = what.add_parser(
        "free-units",
        help="serve every meter its monthly free units, each once (DATABASE_URL, RASEED_VAULT_FILE)",
    )
    command.add_argument("--month", required=True, type=_month, help="2026-11")
    command.add_argument("--units", required=True, type=_tenths, help="kWh or m3 for each meter, one decimal")
    command.add_argument("--commodity", choices=("electricity", "water"), default="electricity")
    command.add_argument(
        "--dry-run", action="store_true", help="count whom it would serve, and change nothing"
    )
    command.add_argument("--as", dest="person", metavar="NAME", help="staff name; not needed with --dry-run")
    command.set_defaults(run=_free_units)


def _month(text: str) -> date:
    return date.fromisoformat(f"{text}-01")


def _tenths(text: str) -> int:
    whole, _, part = text.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or len(part) > 1:
        raise ValueError(text)
    return int(whole) * 10 + int(part or "0")


def _free_units(options: argparse.Namespace, settings: Settings) -> int:
    from billing.errors import BillingError
    from raseed.staff_word import NotStaff
    from token_engine.errors import TokenEngineError, VaultTimeout

    if not options.dry_run and not options.person:
        raise ValueError("free units need --as NAME; or say --dry-run")
    try:
        return asyncio.run(_serve(options, settings))
    except VaultTimeout:
        print("\nthe vault does not answer; nothing is lost: run it again", file=sys.stderr)
        return EXIT_AGAIN
    except (BillingError, NotStaff, TokenEngineError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except psycopg.OperationalError as error:
        print(f"\nthe database cannot be reached: {type(error).__name__}; run it again", file=sys.stderr)
        return EXIT_AGAIN


async def _serve(options: argparse.Namespace, settings: Settings) -> int:
    from billing import free_units_store
    from billing.engineering import APPROVERS
    from portal.grant_free_units import Tally, serve_fleet
    from portal.open_vault import open_vault
    from raseed.staff_word import NotStaff, ask_staff

    pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]]
    async with AsyncConnectionPool(settings.need("database_url"), min_size=1, max_size=2, open=False) as pool:
        async with pool.connection() as conn:
            waiting = await free_units_store.count_unserved(conn, options.month, options.commodity)
            run = await free_units_store.find_run(conn, options.month, options.commodity)
        if options.dry_run:
            begun = f"; begun by {run.begun_by} with {run.units_tenths} tenths each" if run else ""
            print(f"{waiting} meters would get {options.units} tenths each for {options.month:%Y-%m}{begun}")
            return 0
        vault = open_vault(settings.need("vault_file"), settings.wrapping_key_file)
        async with pool.connection() as conn:
            person = await ask_staff(conn, options.person)
            if person.role not in APPROVERS:
                raise NotStaff(f"a {person.role} may not do this")
            run = await free_units_store.begin_run(
                conn,
                month=options.month,
                commodity=options.commodity,
                units_tenths=options.units,
                begun_by=person.name,
                now=datetime.now(UTC),
            )

        def say(tally: Tally) -> None:
            print(
                _bar(tally.served + sum(tally.refused.values()), waiting), end="", file=sys.stderr, flush=True
            )

        tally = await serve_fleet(pool, vault, run, lambda: datetime.now(UTC), say)
    print(f"\n{tally.served} meters served")
    for reason, count in sorted(tally.refused.items()):
        print(f"  {count} not served: {reason}")
    return 0


def _bar(done: int, total: int) -> str:
    done = min(done, total)
    filled = BAR_WIDTH * done // total if total else BAR_WIDTH
    return f"\r[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done} of {total}"
