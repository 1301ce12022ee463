"""`raseed order`: order a meter to do something, follow it, list orders, call one back (DATABASE_URL)."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from meter_gateway import command, command_store, meter_store
from meter_gateway.command_state import HOLDING
from meter_gateway.command_store import MeterCommand
from meter_gateway.errors import MeterGatewayError
from raseed.settings import Settings

KINDS: Final = ("read_now", "clock", "limits", "relay_open", "relay_close")
EXIT_REFUSED: Final = 1
EXIT_OPEN: Final = 3  # ordered, and the meter's word is not here yet
LOOK_S: Final = 0.2
MAX_WAIT_S: Final = 3600.0
_EXAMPLES: Final = """\
examples:
  raseed order 04123456785 read_now --wait 30
  raseed order 04123456785 clock
  raseed order 04123456785 limits --power 5000        W, or mL/h for water; 0 ends it
  raseed order 04123456785 limits --low 10000 3000    Wh, or mL for water
  raseed order 04123456785 list
  raseed order 04123456785 cancel --id 17             while it has not left

Ends with 0 when done, 1 when refused, 3 when the meter's answer is still awaited.
A close ends at ready-for-reconnection unless the meter's profile allows more; after tamper it is refused.
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `order` to the command line."""
    order = commands.add_parser(
        "order",
        help="order a meter to read, set its clock or limits, open or close; list orders, call one back",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    order.add_argument("meter", help="the meter's number")
    order.add_argument("what", choices=(*KINDS, "list", "cancel"))
    order.add_argument("--power", type=int, metavar="W", help="limits: the largest load that it lets through")
    order.add_argument(
        "--low", type=int, nargs=2, metavar=("FIRST", "SECOND"), help="limits: the low-credit marks"
    )
    order.add_argument("--minutes", type=float, default=10.0, help="how long the order stands (10)")
    order.add_argument("--wait", type=float, default=0.0, metavar="S", help="follow it for so long (0)")
    order.add_argument("--key", help="your own name for this order: the same twice is one order")
    order.add_argument("--id", type=int, help="cancel: which order")
    order.add_argument("--json", action="store_true", help="one JSON document instead of text")
    order.set_defaults(run=_run)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    try:
        return asyncio.run(_do(options, settings.need("database_url")))
    except (MeterGatewayError, ValueError) as refused:
        print(f"raseed order: {refused}; nothing was changed", file=sys.stderr)
        return EXIT_REFUSED
    except psycopg.OperationalError as error:
        print(f"raseed order: the database does not answer ({type(error).__name__})", file=sys.stderr)
        return EXIT_REFUSED


async def _do(options: argparse.Namespace, url: str) -> int:
    if not 0 <= options.wait <= MAX_WAIT_S or not 0 < options.minutes <= 7 * 24 * 60:
        raise ValueError("an order stands up to a week, and is followed for at most an hour")
    async with await psycopg.AsyncConnection.connect(url) as conn:
        meter = await meter_store.get_meter_by_drn(conn, options.meter)
        if options.what == "list":
            return _show(await command_store.list_commands_of_meter(conn, meter.id), options)
        if options.what == "cancel":
            made = await _cancel(conn, meter.id, options.id)
        else:
            await _check_place(conn, meter.id, options.what)
            made = await _order(conn, meter.id, options)
    if options.what == "cancel":
        return _show([made], options)
    made = await _follow(url, made, options.wait)
    _show([made], options)
    if made.state == "VERIFIED":
        return 0
    return EXIT_OPEN if made.state in (*HOLDING, "UNKNOWN") else EXIT_REFUSED


async def _check_place(conn: psycopg.AsyncConnection, meter_id: int, kind: str) -> None:
    """Nobody cuts a critical customer from a command line. Raises ValueError."""
    cursor = await conn.execute(
        "SELECT is_critical FROM meter_gateway.v_meter WHERE meter_id = %s", (meter_id,)
    )
    row = await cursor.fetchone()
    if kind == "relay_open" and row and row[0]:
        raise ValueError("this is a critical customer: its supply is not cut")


async def _order(conn: psycopg.AsyncConnection, meter_id: int, options: argparse.Namespace) -> MeterCommand:
    now = datetime.now(UTC)
    return await command.order_command(
        conn,
        meter_id=meter_id,
        kind=options.what,
        argument=limits_argument(options.power, options.low) if options.what == "limits" else "",
        idempotency_key=f"cli:{meter_id}:{options.key or uuid.uuid4().hex}",
        requested_by=f"cli:{_who()}",
        now=now,
        expires_at=now + timedelta(minutes=options.minutes),
    )


def limits_argument(power: int | None, low: list[int] | None) -> str:
    """The argument of a limits command. Raises ValueError unless exactly one of the two is given."""
    if (power is None) == (low is None):
        raise ValueError("limits take --power, or --low with two marks; one order sets one of them")
    return f"power={power}" if low is None else f"low={low[0]},{low[1]}"


async def _cancel(conn: psycopg.AsyncConnection, meter_id: int, command_id: int | None) -> MeterCommand:
    if command_id is None:
        raise ValueError("say which order: --id, as `list` shows it")
    found = await command_store.get_command(conn, command_id)
    if found.meter_id != meter_id:
        raise ValueError(f"order {command_id} is another meter's")
    return await command.cancel(conn, command_id, cancelled_by=f"cli:{_who()}", now=datetime.now(UTC))


async def _follow(url: str, made: MeterCommand, seconds: float) -> MeterCommand:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        while made.state in HOLDING and loop.time() < end:
            await asyncio.sleep(LOOK_S)
            made = await command_store.get_command(conn, made.id)
    return made


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def _show(found: list[MeterCommand], options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps([_row(one) for one in found], ensure_ascii=False, indent=2))
        return 0
    for one in found:
        said = ", ".join(f"{name} {value}" for name, value in one.result.items() if name != "registers")
        print(f"{one.id:>8}  {one.created_at:%Y-%m-%d %H:%M:%S}  {one.kind:<12} {one.state:<10} {said}")
    if not found:
        print("no orders")
    return 0


def _row(one: MeterCommand) -> dict[str, Any]:
    """Without the argument: it may be a token."""
    return {
        "id": one.id,
        "kind": one.kind,
        "state": one.state,
        "requested_by": one.requested_by,
        "created_at": one.created_at.isoformat(),
        "expires_at": one.expires_at.isoformat(),
        "attempts": one.attempts,
        "result": dict(one.result),
    }
