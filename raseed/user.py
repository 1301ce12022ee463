"""`raseed user`: add a member of staff, end a login, renew a password; passwords are typed unseen or piped in."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg

from raseed.settings import Settings

Conn = psycopg.AsyncConnection[Any]


def add_user(options: argparse.Namespace, settings: Settings) -> int:
    """Make the login; return 0, or 1 with a reason when the name is taken or the password too short."""
    from portal.sign_in import create_staff

    settings.need("database_url")
    password = _ask_password()
    if password is None:
        return 1

    async def create(conn: Conn) -> str:
        try:
            await create_staff(
                conn,
                username=options.name,
                password=password,
                role=options.role,
                display_name=options.display_name or options.name,
            )
        except psycopg.errors.UniqueViolation:
            raise ValueError(f"the name {options.name} is taken") from None
        return f"{options.name} may sign in as {options.role}"

    return _connected(settings, create)


def end_user(options: argparse.Namespace, settings: Settings) -> int:
    """End the login and its sessions; return 0, or 1 when there is nobody of this name."""
    from portal.sign_in import disable_staff

    async def end(conn: Conn) -> str:
        ended = await disable_staff(conn, options.name, datetime.now(UTC))
        return f"{options.name} may not sign in any more; {ended} sessions ended"

    return _connected(settings, end)


def renew_user(options: argparse.Namespace, settings: Settings) -> int:
    """Set a new password and end the sessions; return 0, or 1 when it is too short or nobody has this name."""
    from portal.sign_in import change_password

    settings.need("database_url")
    password = _ask_password()
    if password is None:
        return 1

    async def renew(conn: Conn) -> str:
        ended = await change_password(conn, options.name, password)
        return f"{options.name} has a new password; {ended} sessions ended"

    return _connected(settings, renew)


def _ask_password() -> str | None:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password (12 characters or more): ")
    if password != getpass.getpass("Once more: "):
        print("raseed user: the two passwords differ; nothing was changed", file=sys.stderr)
        return None
    return password


def _connected(settings: Settings, step: Callable[[Conn], Awaitable[str]]) -> int:
    """Do one step in one transaction and say what came of it; a refusal (StaffInvalid too) is told."""

    async def run() -> str:
        async with await psycopg.AsyncConnection.connect(settings.need("database_url")) as conn:
            return await step(conn)

    try:
        print(asyncio.run(run()))
    except ValueError as refused:
        print(f"raseed user: {refused}; nothing was changed", file=sys.stderr)
        return 1
    return 0
