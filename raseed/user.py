"""`raseed user`: add a member of staff; the password is asked for, or read from standard input."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys

import psycopg

from raseed.settings import Settings


def add_user(options: argparse.Namespace, settings: Settings) -> int:
    """Make the login; return 0, or 1 with a reason when the name is taken or the password too short."""
    from portal.sign_in import create_staff

    database_url = settings.need("database_url")
    if sys.stdin.isatty():
        password = getpass.getpass("Password (12 characters or more): ")
        if password != getpass.getpass("Once more: "):
            print("raseed user: the two passwords differ; nothing was changed", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().rstrip("\n")

    async def create() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as conn:
            await create_staff(
                conn,
                username=options.name,
                password=password,
                role=options.role,
                display_name=options.display_name or options.name,
            )

    try:
        asyncio.run(create())
    except psycopg.errors.UniqueViolation:
        print(f"raseed user: the name {options.name} is taken; nothing was changed", file=sys.stderr)
        return 1
    print(f"{options.name} may sign in as {options.role}")
    return 0
