"""SQL of rate limits: one row for each bucket and window."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import psycopg

from portal.rate_limit import Limit, check_hits, window_start


def bucket_name(limit: Limit, subject: str) -> str:
    """Return the bucket of a subject; the subject itself (a phone, an address) is not stored."""
    return f"{limit.name}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"


async def insert_hit(conn: psycopg.AsyncConnection[Any], limit: Limit, subject: str, now: datetime) -> int:
    """Count one try and return how many this window has seen."""
    cur = await conn.execute(
        """INSERT INTO portal.rate_limit (bucket, window_start) VALUES (%s, %s)
           ON CONFLICT (bucket, window_start) DO UPDATE SET hits = portal.rate_limit.hits + 1
           RETURNING hits""",
        (bucket_name(limit, subject), window_start(now, limit)),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else 0


async def spend(
    conn: psycopg.AsyncConnection[Any], now: datetime, *pairs: tuple[Limit, str]
) -> list[tuple[Limit, int]]:
    """Count one try in each (limit, subject); judge them with `check_all` after the count is committed."""
    return [(limit, await insert_hit(conn, limit, subject, now)) for limit, subject in pairs]


def check_all(counts: list[tuple[Limit, int]], now: datetime) -> None:
    """Raise TooManyAttempts when one of the counted limits is passed."""
    for limit, hits in counts:
        check_hits(hits, limit, now)


async def delete_old_windows(conn: psycopg.AsyncConnection[Any], before: datetime) -> int:
    """Drop windows that began before `before`, and return how many."""
    cur = await conn.execute("DELETE FROM portal.rate_limit WHERE window_start < %s", (before,))
    return cur.rowcount
