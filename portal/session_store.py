"""SQL of sessions: the cookie's secret is kept only as its SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row

SUBSCRIBER_LIFE = timedelta(days=30)  # a phone in a pocket: a month between codes
STAFF_LIFE = timedelta(hours=12)  # one shift


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A live session with its login and the names that its owner goes by."""

    login_id: int
    role: str
    customer_id: int | None
    username: str | None
    name_en: str
    name_ar: str
    language: str
    csrf_token: str


def session_hash(secret: str) -> bytes:
    """Return what the table keeps of a cookie."""
    return hashlib.sha256(secret.encode()).digest()


async def insert_session(
    conn: psycopg.AsyncConnection[Any],
    *,
    secret: str,
    login_id: int,
    csrf_token: str,
    now: datetime,
    role: str,
) -> datetime:
    """Store a new session and return when it ends."""
    expires_at = now + (SUBSCRIBER_LIFE if role == "subscriber" else STAFF_LIFE)
    await conn.execute(
        """INSERT INTO portal.session (id_hash, login_id, csrf_token, created_at, last_seen_at, expires_at)
           VALUES (%s, %s, %s, %s, %s, %s)""",
        (session_hash(secret), login_id, csrf_token, now, now, expires_at),
    )
    return expires_at


async def find_session(conn: psycopg.AsyncConnection[Any], secret: str) -> SessionRow | None:
    """Return the live session of a cookie, or None when it ended or its login is disabled."""
    async with conn.cursor(row_factory=class_row(SessionRow)) as cur:
        await cur.execute(
            """SELECT l.id AS login_id, l.role, l.customer_id, l.username,
                      coalesce(c.name_en, l.display_name) AS name_en,
                      coalesce(c.name_ar, l.display_name_ar, l.display_name) AS name_ar,
                      l.language, s.csrf_token
                 FROM portal.session s
                 JOIN portal.login l ON l.id = s.login_id
                 LEFT JOIN billing.v_customer c ON c.id = l.customer_id
                WHERE s.id_hash = %s AND s.expires_at > now() AND l.disabled_at IS NULL""",
            (session_hash(secret),),
        )
        return await cur.fetchone()


async def delete_session(conn: psycopg.AsyncConnection[Any], secret: str) -> None:
    """End one session."""
    await conn.execute("DELETE FROM portal.session WHERE id_hash = %s", (session_hash(secret),))


async def delete_sessions_of(conn: psycopg.AsyncConnection[Any], login_id: int) -> int:
    """End every session of a login, and return how many."""
    cur = await conn.execute("DELETE FROM portal.session WHERE login_id = %s", (login_id,))
    return cur.rowcount


async def delete_expired_sessions(conn: psycopg.AsyncConnection[Any], now: datetime) -> int:
    """Drop sessions that ended, and return how many."""
    cur = await conn.execute("DELETE FROM portal.session WHERE expires_at <= %s", (now,))
    return cur.rowcount
