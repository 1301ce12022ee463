"""Signing in: a subscriber by phone and one-time code, staff by name and password.

The answers say nothing about whether a phone or a name is known.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from billing.customer import parse_phone
from billing.errors import InvalidQuantity
from portal import login_store, message_store, session_store
from portal.formats import latin_digits
from portal.i18n import Language
from portal.login_store import LoginRow

CODE_DIGITS = 6
CODE_LIFE = timedelta(minutes=5)
WRONG_TRIES = 5  # 5 of 10**6: one guess in 200,000 for each code sent
STAFF_ROLES = frozenset({"engineer", "agent", "supervisor", "admin"})
PASSWORD_LENGTH = range(12, 257)  # 256: argon2 reads all of it, so a longer one is only work for us

_hasher = PasswordHasher()  # argon2id with the library's own parameters (RFC 9106 low memory)
# Verified when the name is unknown, so that a wrong name costs what a wrong password costs.
_NOBODY = _hasher.hash(secrets.token_hex(16))


class PhoneInvalid(Exception):
    """The text is not a phone number that we serve."""


class StaffInvalid(ValueError):
    """A staff login cannot be made like this; the message says why."""


def normalise_phone(text: str) -> str:
    """Return +968… from what people type: any digits, spaces, 00968, +968 or neither. Raises PhoneInvalid."""
    try:
        return parse_phone(text)
    except InvalidQuantity:
        raise PhoneInvalid from None


def normalise_code(text: str) -> str:
    """Return the digits of a typed code, or empty text when it cannot be one."""
    bare = re.sub(r"[\s\u00a0\-]", "", latin_digits(text))
    return bare if re.fullmatch(rf"[0-9]{{{CODE_DIGITS}}}", bare) else ""


def code_hash(secret_key: str, phone: str, code: str) -> bytes:
    """Return what the table keeps of a code: without the key, a million guesses would find it."""
    return hmac.digest(secret_key.encode(), f"one-time-code:{phone}:{code}".encode(), hashlib.sha256)


async def send_code(
    conn: psycopg.AsyncConnection[Any],
    *,
    phone: str,
    secret_key: str,
    now: datetime,
    languages: dict[str, Language],
    code: str | None = None,
) -> None:
    """Make a code for a known phone and put its SMS into the outbox; do nothing for an unknown one."""
    customer = await login_store.find_customer_by_phone(conn, phone)
    if customer is None:
        return
    digits = code or f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"
    code_id = await login_store.insert_code(
        conn,
        phone=phone,
        code_hash=code_hash(secret_key, phone, digits),
        now=now,
        expires_at=now + CODE_LIFE,
    )
    body = languages[customer.language]._(
        "Your Raseed sign-in code is %(code)s. It is valid for 5 minutes. Do not give it to anyone.",
        code=digits,
    )
    await message_store.insert_message(
        conn,
        idempotency_key=f"one-time-code:{code_id}",
        customer_id=customer.id,
        phone=phone,
        kind="one_time_code",
        language=customer.language,
        body=body,
        now=now,
    )


async def check_code(
    conn: psycopg.AsyncConnection[Any], *, phone: str, code: str, secret_key: str, now: datetime
) -> LoginRow | None:
    """Return the subscriber's login for the right code, else None; a wrong try is counted either way."""
    active = await login_store.lock_active_code(conn, phone, now)
    if active is None or active.wrong_attempts >= WRONG_TRIES:
        return None
    if not hmac.compare_digest(active.code_hash, code_hash(secret_key, phone, code)):
        await login_store.mark_code_wrong(conn, active.id)
        return None
    await login_store.mark_code_used(conn, active.id, now)
    customer = await login_store.find_customer_by_phone(conn, phone)
    return None if customer is None else await login_store.get_subscriber_login(conn, customer.id)


async def password_matches(login: LoginRow | None, password: str) -> bool:
    """Say whether the password is this login's, at the same cost for a login that is not there."""
    stored = login.password_hash if login and login.password_hash else _NOBODY
    try:
        await asyncio.to_thread(_hasher.verify, stored, password[: PASSWORD_LENGTH.stop])
    except (VerificationError, InvalidHashError):
        return False
    return login is not None and login.password_hash is not None


async def create_staff(
    conn: psycopg.AsyncConnection[Any],
    username: str,
    password: str,
    role: str,
    display_name: str,
    *,
    display_name_ar: str | None = None,
) -> int:
    """Make a staff login, return its id. Raises StaffInvalid, or UniqueViolation when the name is taken."""
    name = username.strip().lower()
    if not re.fullmatch(r"[a-z][a-z0-9._-]{1,39}", name):
        raise StaffInvalid("a user name is 2 to 40 letters, digits, dots or dashes and begins with a letter")
    if role not in STAFF_ROLES:
        raise StaffInvalid(f"a role is one of {', '.join(sorted(STAFF_ROLES))}")
    _check_password(password)
    if not display_name.strip() or len(display_name) > 100:
        raise StaffInvalid("a display name has 1 to 100 characters")
    hashed = await asyncio.to_thread(_hasher.hash, password)
    return await login_store.insert_staff(
        conn,
        username=name,
        password_hash=hashed,
        role=role,
        display_name=display_name.strip(),
        display_name_ar=display_name_ar,
    )


def _check_password(password: str) -> None:
    if len(password) not in PASSWORD_LENGTH:
        raise StaffInvalid(f"a password has {PASSWORD_LENGTH.start} to {PASSWORD_LENGTH.stop - 1} characters")


async def disable_staff(conn: psycopg.AsyncConnection[Any], username: str, now: datetime) -> int:
    """End a staff login and its sessions, return how many there were; again changes nothing. Raises StaffInvalid."""
    login_id = await login_store.mark_disabled(conn, username.strip().lower(), now)
    if login_id is None:
        raise StaffInvalid(f"no member of staff is called {username}")
    return await session_store.delete_sessions_of(conn, login_id)


async def change_password(conn: psycopg.AsyncConnection[Any], username: str, password: str) -> int:
    """Give a staff login a new password, end its sessions, return how many there were. Raises StaffInvalid."""
    _check_password(password)
    login = await login_store.find_staff(conn, username.strip().lower())
    if login is None:
        raise StaffInvalid(f"no member of staff who may sign in is called {username}")
    await login_store.mark_password(conn, login.id, await asyncio.to_thread(_hasher.hash, password))
    return await session_store.delete_sessions_of(conn, login.id)


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A new session: the cookie's secret (seen here only) and its end."""

    secret: str
    expires_at: datetime


async def open_session(conn: psycopg.AsyncConnection[Any], login: LoginRow, now: datetime) -> OpenedSession:
    """Open a session for a login, under a fresh secret each time."""
    secret = secrets.token_urlsafe(32)
    expires_at = await session_store.insert_session(
        conn, secret=secret, login_id=login.id, csrf_token=secrets.token_urlsafe(32), now=now, role=login.role
    )
    return OpenedSession(secret, expires_at)
