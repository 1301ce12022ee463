"""Hang a meter at a house and prove it: installation, a live reading, a test token that the meter accepts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from billing import identity_store, token_store
from billing.errors import InvalidVend
from meter_gateway import command_store, meter_store
from meter_gateway.command import order_command
from meter_gateway.errors import InvalidMeter
from portal.change_keys import begin_commissioning
from portal.field import field_store
from portal.field.field_store import FreePoint
from portal.field.pass_credit import bind_waiting
from portal.formats import latin_digits
from token_engine.encode import ALL_TESTS, meter_test_token
from token_engine.errors import InvalidIdentity
from token_engine.identifiers import Drn

# An engineer stands before the meter: an answer that takes longer than this is no answer.
READ_LIFETIME: Final = timedelta(seconds=30)
TEST_LIFETIME: Final = timedelta(minutes=2)
READ_KEY: Final = "field-read:"
TEST_KEY: Final = "field-test:"
MAX_TYPED: Final = 60
_TEST_CLASS: Final = 1
_RECENT_TOKENS: Final = 20

Conn = psycopg.AsyncConnection[Any]


class InstallRefused(Exception):
    """The meter cannot be installed or tested; `reason` names the rule."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class IssuedTest:
    """A test token: its digits to type, and the command that carries it where the meter has a link."""

    digits: str
    command_id: int | None

    def __repr__(self) -> str:
        """Without the digits."""
        return f"<IssuedTest command={self.command_id}>"


def check_number(typed: str) -> str:
    """The meter number of what was typed or scanned, its check digit verified.

    Raises InstallRefused (number_letters, number_length, number_check_digit).
    """
    bare = "".join(latin_digits(typed[:MAX_TYPED]).translate(_DROPPED))
    if not bare or not (bare.isascii() and bare.isdigit()):
        raise InstallRefused("number_letters")
    try:
        return str(Drn(bare))
    except InvalidIdentity as error:
        broken = "number_check_digit" if error.rule == "drn_check_digit" else "number_length"
        raise InstallRefused(broken) from None


_DROPPED: Final = dict.fromkeys(map(ord, " \t\r\n\u00a0-\u2010\u2011\u200e\u200f\u2066\u2067\u2068\u2069"))


async def install(
    conn: Conn, *, meter_id: int, usage_point_id: int, installed_by: str, note: str, now: datetime
) -> FreePoint:
    """Hang a meter from stock at a free usage point and return the place.

    A meter under its stock key begins its way to its own key (portal/change_keys.py) before any credit; credit that
    waits at the place goes to it (portal/field/pass_credit.py).
    Raises InstallRefused (identity_missing, point_taken, meter_or_point_taken, credit_not_cleared), MeterNotFound.
    """
    if await identity_store.find_identity(conn, meter_id) is None:
        raise InstallRefused("identity_missing")
    points = await field_store.list_free_points(conn, usage_point_id=usage_point_id)
    if not points:
        raise InstallRefused("point_taken")
    try:
        await meter_store.install_meter(
            conn,
            meter_id=meter_id,
            usage_point_id=usage_point_id,
            installed_at=now,
            installed_by=installed_by,
            note=note,
        )
    except InvalidMeter:
        raise InstallRefused("meter_or_point_taken") from None
    try:
        await begin_commissioning(conn, meter_id=meter_id, begun_by=installed_by, now=now)
    except InvalidVend:
        raise InstallRefused("identity_missing") from None
    try:
        await bind_waiting(conn, usage_point_id=usage_point_id, meter_id=meter_id, now=now)
    except InvalidVend as error:
        raise InstallRefused(error.code) from None
    return points[0]


async def read_now(conn: Conn, *, meter_id: int, key: str, actor: str, now: datetime) -> int:
    """Ask a meter for its registers and return the command's id.

    Raises MeterHasNoLink, MeterNotFound, CommandConflict.
    """
    command = await order_command(
        conn,
        meter_id=meter_id,
        kind="read_now",
        idempotency_key=f"{READ_KEY}{meter_id}:{key}",
        requested_by=actor,
        now=now,
        expires_at=now + READ_LIFETIME,
    )
    return command.id


async def send_test_token(conn: Conn, *, meter_id: int, key: str, actor: str, now: datetime) -> IssuedTest:
    """Register a class 1 test token and send it; a repeat of `key` gives the one that was made.

    A test token is clear: no vending key is used, nothing is sold. Raises InstallRefused (identity_missing),
    MeterNotFound, CommandConflict.
    """
    meter = await meter_store.get_meter(conn, meter_id)
    identity = await identity_store.find_identity(conn, meter_id)
    if identity is None:
        raise InstallRefused("identity_missing")
    digits = meter_test_token(control=ALL_TESTS)
    command_key, reason = f"{TEST_KEY}{meter_id}:{key}", f"test after installation {key}"
    recent = await token_store.list_tokens_of_meter(conn, meter_id, limit=_RECENT_TOKENS)
    if not any(token.reason == reason for token in recent):
        await token_store.insert_service_token(
            conn,
            meter_id=meter_id,
            base_date=identity.base_date,
            tid=None,
            token_class=_TEST_CLASS,
            subclass=0,
            units_tenths=None,
            digits=digits,
            purpose="test",
            issued_by=actor,
            reason=reason,
            now=now,
        )
    if not meter.is_reachable:
        return IssuedTest(digits, None)
    there = await command_store.find_command_by_key(conn, command_key)
    if there is not None:
        return IssuedTest(digits, there.id)
    command = await order_command(
        conn,
        meter_id=meter_id,
        kind="token",
        argument=digits,
        idempotency_key=command_key,
        requested_by=actor,
        now=now,
        expires_at=now + TEST_LIFETIME,
    )
    return IssuedTest(digits, command.id)
