"""Order a meter to do something, follow what comes of it, call it back while it has not left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import psycopg

from meter_gateway import command_store, meter_store
from meter_gateway.command_state import CommandEvent, CommandState, next_state
from meter_gateway.command_store import MeterCommand
from meter_gateway.errors import (
    CommandConflict,
    CommandNotFound,
    CommandNotOpen,
    InvalidCommand,
    MeterHasNoLink,
    MeterTampered,
)
from meter_gateway.topics import limits_of

KINDS: Final = frozenset({"token", "relay_open", "relay_close", "read_now", "clock", "limits"})
_TOKEN: Final = re.compile(r"[0-9]{20}")
# One sweep expires at most this many, so that its transaction stays short.
SWEEP_LIMIT: Final = 500


async def order_command(
    conn: psycopg.AsyncConnection,
    *,
    meter_id: int,
    kind: str,
    argument: str = "",
    idempotency_key: str,
    requested_by: str,
    now: datetime,
    expires_at: datetime,
) -> MeterCommand:
    """Put a command in line for a meter, in the caller's transaction; the only place that does.

    `argument` holds a token's 20 digits, or what limits set (see topics.limits_of), and is empty for other
    kinds. The same key with the same meter, kind and argument returns the command that is there. Raises
    InvalidCommand, MeterTampered for a close after tamper, MeterNotFound, MeterHasNoLink, and CommandConflict
    when the key was used for something else.
    """
    _check_argument(kind, argument)
    if not idempotency_key:
        raise InvalidCommand("a command needs an idempotency key")
    if now.tzinfo is None or expires_at.tzinfo is None or expires_at <= now:
        raise InvalidCommand("a command expires at an instant after now")
    meter = await meter_store.get_meter(conn, meter_id)
    if not meter.is_reachable:
        raise MeterHasNoLink(f"meter {meter.drn} takes its tokens at the keypad only")
    if kind == "relay_close" and await command_store.is_tampered(conn, meter_id):
        raise MeterTampered(f"meter {meter.drn} was opened: clear its tamper first")
    made = await command_store.insert_command(
        conn,
        meter_id=meter_id,
        kind=kind,
        argument=argument,
        idempotency_key=idempotency_key,
        requested_by=requested_by,
        created_at=now,
        expires_at=expires_at,
    )
    if made is not None:
        await command_store.insert_step(conn, made.id, CommandState.CREATED, now, {"by": requested_by})
        return made
    there = await command_store.find_command_by_key(conn, idempotency_key)
    if there is None or (there.meter_id, there.kind, there.argument) != (meter_id, kind, argument):
        raise CommandConflict("this idempotency key belongs to another command")
    return there


def _check_argument(kind: str, argument: str) -> None:
    if kind not in KINDS:
        raise InvalidCommand(f"no command is called {kind!r}")
    if kind == "token":
        if not _TOKEN.fullmatch(argument):
            raise InvalidCommand("a token command takes 20 digits")
    elif kind == "limits":
        try:
            limits_of(argument)
        except ValueError as error:
            raise InvalidCommand(str(error)) from None
    elif argument:
        raise InvalidCommand(f"{kind} takes no argument")


async def cancel(
    conn: psycopg.AsyncConnection, command_id: int, *, cancelled_by: str, now: datetime
) -> MeterCommand:
    """Call back a command that was not sent yet, in the caller's transaction; again, it stays called back.

    The row's lock decides against a dispatcher: whoever has it first. Raises CommandNotFound, or CommandNotOpen
    once it left.
    """
    command = await command_store.lock_command(conn, command_id)
    if command is None:
        raise CommandNotFound(f"no command {command_id}")
    if command.state == CommandState.CANCELLED:
        return command
    state = next_state(CommandState(command.state), CommandEvent.CANCEL)
    if state is None:
        raise CommandNotOpen(f"command {command_id} is {command.state}")
    detail = {"reason": "cancelled", "by": cancelled_by}
    await command_store.mark_state(conn, command_id, state, detail)
    await command_store.insert_step(conn, command_id, state, now, detail)
    return await command_store.get_command(conn, command_id)


async def apply_event(
    conn: psycopg.AsyncConnection,
    command_id: int,
    event: CommandEvent,
    *,
    meter_id: int | None = None,
    at: datetime,
    detail: Mapping[str, Any],
) -> CommandState | None:
    """Move a command on, record the step, and return its new state; None when the event changed nothing.

    Raises CommandNotFound when there is no such command, or when it is not one of `meter_id`.
    """
    command = await command_store.lock_command(conn, command_id)
    if command is None or (meter_id is not None and command.meter_id != meter_id):
        raise CommandNotFound(f"no command {command_id} of this meter")
    state = next_state(CommandState(command.state), event)
    if state is None or state == command.state:
        return None
    # An interim step has nothing to say about the outcome; what it tells stays with the step.
    is_outcome = state in (
        CommandState.VERIFIED,
        CommandState.REJECTED,
        CommandState.EXPIRED,
        CommandState.UNKNOWN,
    )
    await command_store.mark_state(conn, command_id, state, detail if is_outcome else None)
    await command_store.insert_step(conn, command_id, state, at, detail)
    return state


async def expire_commands(conn: psycopg.AsyncConnection, now: datetime) -> int:
    """Close commands whose deadline passed: EXPIRED when no edge took them, else UNKNOWN. Returns how many."""
    overdue = await command_store.list_overdue_commands(conn, now, limit=SWEEP_LIMIT)
    for command_id in overdue:
        await apply_event(conn, command_id, CommandEvent.DEADLINE, at=now, detail={"reason": "deadline"})
    return len(overdue)
