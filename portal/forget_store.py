"""SQL that forgets: only what was sent or ended, never a fact of money."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg


async def delete_codes(conn: psycopg.AsyncConnection[Any], before: datetime) -> int:
    """Forget one-time codes that ended before, and return how many."""
    cursor = await conn.execute("DELETE FROM portal.one_time_code WHERE expires_at < %s", (before,))
    return cursor.rowcount


async def delete_messages(
    conn: psycopg.AsyncConnection[Any], *, codes_before: datetime, others_before: datetime, limit: int
) -> int:
    """Forget up to `limit` messages that were sent before; returns how many. What waits is kept, however old."""
    cursor = await conn.execute(
        "DELETE FROM portal.message WHERE id IN (SELECT id FROM portal.message WHERE sent_at IS NOT NULL"
        " AND created_at < CASE kind WHEN 'one_time_code' THEN %s::timestamptz ELSE %s::timestamptz END"
        " ORDER BY id LIMIT %s)",
        (codes_before, others_before, limit),
    )
    return cursor.rowcount
