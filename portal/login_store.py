"""SQL of logins and one-time codes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class LoginRow:
    """A person who may sign in; `password_hash` is None for subscribers."""

    id: int
    role: str
    customer_id: int | None
    username: str | None
    display_name: str
    password_hash: str | None
    language: str


@dataclass(frozen=True, slots=True)
class CodeRow:
    """The one active code of a phone."""

    id: int
    code_hash: bytes
    wrong_attempts: int


_COLUMNS = "id, role, customer_id, username, display_name, password_hash, language"


async def find_staff(conn: psycopg.AsyncConnection[Any], username: str) -> LoginRow | None:
    """Return the enabled staff login of a user name."""
    async with conn.cursor(row_factory=class_row(LoginRow)) as cur:
        await cur.execute(
            f"SELECT {_COLUMNS} FROM portal.login"  # noqa: S608 -- a constant column list
            " WHERE username = %s AND role <> 'subscriber' AND disabled_at IS NULL",
            (username,),
        )
        return await cur.fetchone()


async def find_first_of_role(conn: psycopg.AsyncConnection[Any], role: str) -> LoginRow | None:
    """Return the oldest enabled login of a role: the demo's persona."""
    async with conn.cursor(row_factory=class_row(LoginRow)) as cur:
        await cur.execute(
            f"SELECT {_COLUMNS} FROM portal.login"  # noqa: S608 -- a constant column list
            " WHERE role = %s AND disabled_at IS NULL ORDER BY id LIMIT 1",
            (role,),
        )
        return await cur.fetchone()


async def insert_staff(
    conn: psycopg.AsyncConnection[Any],
    *,
    username: str,
    password_hash: str,
    role: str,
    display_name: str,
    display_name_ar: str | None = None,
) -> int:
    """Make a staff login and return its id. Raises UniqueViolation when the name is taken."""
    cur = await conn.execute(
        """INSERT INTO portal.login (role, username, display_name, display_name_ar, password_hash)
           VALUES (%s, %s, %s, %s, %s) RETURNING id""",
        (role, username, display_name, display_name_ar, password_hash),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else 0


async def mark_disabled(conn: psycopg.AsyncConnection[Any], username: str, now: datetime) -> int | None:
    """End the staff login of a user name and return its id; the first end stays. None for an unknown name."""
    cur = await conn.execute(
        "UPDATE portal.login SET disabled_at = coalesce(disabled_at, %s)"
        " WHERE username = %s AND role <> 'subscriber' RETURNING id",
        (now, username),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else None


async def mark_password(conn: psycopg.AsyncConnection[Any], login_id: int, password_hash: str) -> None:
    """Replace a login's password."""
    await conn.execute("UPDATE portal.login SET password_hash = %s WHERE id = %s", (password_hash, login_id))


@dataclass(frozen=True, slots=True)
class CustomerContact:
    """Whom a phone number belongs to."""

    id: int
    phone: str
    language: str


async def find_customer_by_phone(conn: psycopg.AsyncConnection[Any], phone: str) -> CustomerContact | None:
    """Return the customer of a phone number in +968… form."""
    async with conn.cursor(row_factory=class_row(CustomerContact)) as cur:
        await cur.execute("SELECT id, phone, language FROM billing.v_customer WHERE phone = %s", (phone,))
        return await cur.fetchone()


async def find_demo_customer(conn: psycopg.AsyncConnection[Any]) -> CustomerContact | None:
    """Return the demo's subscriber: of those with most kinds of meter, the first."""
    async with conn.cursor(row_factory=class_row(CustomerContact)) as cur:
        await cur.execute(
            """SELECT c.id, c.phone, c.language FROM billing.v_customer c
                 JOIN billing.v_agreement a ON a.customer_id = c.id
                GROUP BY c.id, c.phone, c.language
                ORDER BY count(DISTINCT a.commodity) DESC, c.id LIMIT 1"""
        )
        return await cur.fetchone()


async def get_subscriber_login(conn: psycopg.AsyncConnection[Any], customer_id: int) -> LoginRow:
    """Return the login of a customer, made at the first sign-in."""
    async with conn.cursor(row_factory=class_row(LoginRow)) as cur:
        await cur.execute(
            f"""INSERT INTO portal.login (role, customer_id, display_name, language)
                SELECT 'subscriber', id, name_en, language FROM billing.v_customer WHERE id = %s
                ON CONFLICT (customer_id) DO UPDATE SET display_name = excluded.display_name
                RETURNING {_COLUMNS}""",  # noqa: S608 -- a constant column list
            (customer_id,),
        )
        row = await cur.fetchone()
    if row is None:
        raise LookupError(f"customer {customer_id} is not there")
    return row


async def insert_code(
    conn: psycopg.AsyncConnection[Any], *, phone: str, code_hash: bytes, now: datetime, expires_at: datetime
) -> int:
    """Store a new code and retire the ones before it: one is active."""
    await conn.execute(
        "UPDATE portal.one_time_code SET used_at = %s WHERE phone = %s AND used_at IS NULL", (now, phone)
    )
    cur = await conn.execute(
        """INSERT INTO portal.one_time_code (phone, code_hash, created_at, expires_at) VALUES (%s, %s, %s, %s)
           RETURNING id""",
        (phone, code_hash, now, expires_at),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else 0


async def lock_active_code(conn: psycopg.AsyncConnection[Any], phone: str, now: datetime) -> CodeRow | None:
    """Return the phone's active code under FOR UPDATE: two tries at once are counted as two."""
    async with conn.cursor(row_factory=class_row(CodeRow)) as cur:
        await cur.execute(
            """SELECT id, code_hash, wrong_attempts FROM portal.one_time_code
                WHERE phone = %s AND used_at IS NULL AND expires_at > %s
                ORDER BY id DESC LIMIT 1 FOR UPDATE""",
            (phone, now),
        )
        return await cur.fetchone()


async def mark_code_used(conn: psycopg.AsyncConnection[Any], code_id: int, now: datetime) -> None:
    """Retire a code."""
    await conn.execute("UPDATE portal.one_time_code SET used_at = %s WHERE id = %s", (now, code_id))


async def mark_code_wrong(conn: psycopg.AsyncConnection[Any], code_id: int) -> None:
    """Count a wrong try."""
    await conn.execute(
        "UPDATE portal.one_time_code SET wrong_attempts = wrong_attempts + 1 WHERE id = %s", (code_id,)
    )
