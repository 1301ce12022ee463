"""Who gives an order on the command line: a member of staff by name and password, as on the sign-in page."""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from typing import Any

import psycopg


class NotStaff(ValueError):
    """The name and the password are not those of a member of staff."""


@dataclass(frozen=True, slots=True)
class Staff:
    """A member of staff who has given their password."""

    name: str
    role: str


def read_secret(prompt: str) -> str:
    """What a person types unseen, or one line of standard input where there is no terminal."""
    return getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


async def ask_staff(conn: psycopg.AsyncConnection[Any], name: str) -> Staff:
    """Ask `name` for the password, on the terminal or one line of standard input. Raises NotStaff."""
    from portal import login_store, sign_in

    login = await login_store.find_staff(conn, name.strip().lower())
    if (
        not await sign_in.password_matches(login, read_secret(f"Password of {name}: "))
        or login is None
        or login.username is None
    ):
        raise NotStaff(f"{name} is no member of staff with this password; nothing was changed")
    return Staff(login.username, login.role)
