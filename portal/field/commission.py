"""Prove a meter at the wall: is its clock right, does its relay obey; the relay only where it harms nobody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import psycopg

from meter_gateway import command_store
from meter_gateway.command import cancel, order_command
from meter_gateway.errors import CommandNotOpen
from portal.contact_centre.desk_store import DeskMeter
from portal.field import commissioning_store
from portal.field.checklist import relay_refusal
from portal.field.field_store import FieldCommand
from portal.field.gather_checklist import RELAY_CLOSE_KEY, RELAY_OPEN_KEY, gather_facts
from portal.field.install import InstallRefused

# Friendly hours and token times hang on the clock; what is further off is set (command `clock`).
CLOCK_TOLERANCE: Final = timedelta(minutes=2)
RELAY_LIFETIME: Final = timedelta(seconds=45)
CLOCK_LIFETIME: Final = timedelta(seconds=60)
CLOCK_KEY: Final = "field-clock:"
RELAY_WORDS: Final = {0: "disconnected", 1: "connected", 2: "ready for reconnection"}
RelayStep = Literal["open", "close"]

Conn = psycopg.AsyncConnection[Any]


def clock_drift(registers: Mapping[str, Any], read_at: datetime) -> timedelta | None:
    """How far a meter's own clock is ahead (behind: negative); None for a meter that shows none."""
    clock = registers.get("clock")
    if not isinstance(clock, int) or isinstance(clock, bool) or not 0 < clock < 2**32:
        return None
    return datetime.fromtimestamp(clock, UTC) - read_at


def is_clock_right(drift: timedelta | None) -> bool:
    """Whether a clock is near enough; a meter without one has nothing to be wrong."""
    return drift is None or abs(drift) <= CLOCK_TOLERANCE


async def set_clock(conn: Conn, *, meter_id: int, key: str, actor: str, now: datetime) -> int:
    """Order a meter to take its gateway's or the head-end's time, and return the command's id.

    Raises MeterHasNoLink, MeterNotFound, CommandConflict.
    """
    command = await order_command(
        conn,
        meter_id=meter_id,
        kind="clock",
        idempotency_key=f"{CLOCK_KEY}{meter_id}:{key}",
        requested_by=actor,
        now=now,
        expires_at=now + CLOCK_LIFETIME,
    )
    return command.id


def may_take_back(command: FieldCommand, actor: str) -> bool:
    """Whether a person may call an order back: it is their own, it has not left, and it is no token.

    A token that was sold waits for its meter whoever looks on; another person's order has that person's reason.
    """
    return command.state == "CREATED" and command.kind != "token" and command.requested_by == actor


async def take_back(conn: Conn, command: FieldCommand, *, actor: str, now: datetime) -> None:
    """Call an order back, in the caller's transaction. Raises InstallRefused (left_already)."""
    if not may_take_back(command, actor):
        raise InstallRefused("left_already")
    try:
        await cancel(conn, command.id, cancelled_by=actor, now=now)
    except CommandNotOpen:  # it left between the page and the button
        raise InstallRefused("left_already") from None


async def exercise_relay(
    conn: Conn, *, meter: DeskMeter, step: RelayStep, key: str, actor: str, now: datetime
) -> int:
    """Order one half of a relay's exercise, in the caller's transaction, and return the command's id.

    A close from afar makes the meter ready for reconnection; a person there presses the button. A repeat of `key`
    gives the order that was made. Raises InstallRefused: not_opened (a close of what this exercise did not open),
    not_closed (an open of what is open), and those of `relay_refusal`.
    """
    prefix = RELAY_OPEN_KEY if step == "open" else RELAY_CLOSE_KEY
    there = await command_store.find_command_by_key(conn, f"{prefix}{meter.meter_id}:{key}")
    if there is not None:
        return there.id
    place = await commissioning_store.find_place(conn, meter.meter_id)
    facts = await gather_facts(conn, meter, place)
    if facts.must_close != (step == "close"):
        raise InstallRefused("not_opened" if step == "close" else "not_closed")
    reason = relay_refusal(facts, now)
    if reason is not None:
        raise InstallRefused(reason)
    command = await order_command(
        conn,
        meter_id=meter.meter_id,
        kind=f"relay_{step}",
        idempotency_key=f"{prefix}{meter.meter_id}:{key}",
        requested_by=actor,
        now=now,
        expires_at=now + RELAY_LIFETIME,
    )
    return command.id
