"""Prove a meter at the wall: is its clock right, does its relay obey; the relay only where it harms nobody."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import psycopg

from meter_gateway.command import order_command
from portal.contact_centre.desk_store import DeskMeter
from portal.field import commissioning_store
from portal.field.checklist import relay_refusal
from portal.field.gather_checklist import RELAY_CLOSE_KEY, RELAY_OPEN_KEY, gather_facts
from portal.field.install import InstallRefused

# Friendly hours and token times hang on the clock; what is further off is set (command `clock`).
CLOCK_TOLERANCE: Final = timedelta(minutes=2)
RELAY_LIFETIME: Final = timedelta(seconds=45)
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


async def exercise_relay(
    conn: Conn, *, meter: DeskMeter, step: RelayStep, key: str, actor: str, now: datetime
) -> int:
    """Order one half of a relay's exercise, in the caller's transaction, and return the command's id.

    A close from afar makes the meter ready for reconnection; a person there presses the button. Raises
    InstallRefused: critical_customer, tamper, no_link, not_installed, link_down, no_consent (no recorded consent of
    this visit). What was opened may be closed without a consent, but never after tamper.
    """
    place = await commissioning_store.find_place(conn, meter.meter_id)
    facts = await gather_facts(conn, meter, place)
    reason = relay_refusal(facts, now)
    if reason is not None and not (step == "close" and facts.open_state and reason == "no_consent"):
        raise InstallRefused(reason)
    prefix = RELAY_OPEN_KEY if step == "open" else RELAY_CLOSE_KEY
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
