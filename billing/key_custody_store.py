"""The audit of what was done to vending keys themselves: which two people, which key by its check value."""

from __future__ import annotations

from datetime import datetime

import psycopg


async def insert_custody(
    conn: psycopg.AsyncConnection,
    *,
    action: str,
    people: tuple[str, str],
    address: tuple[str, int, int, int] | None,
    key_check_value: str,
    generation: int,
    now: datetime,
) -> None:
    """Write down a load or a rotation; `address` is SGC, KRN, KT and base year. The database wants two people."""
    sgc, krn, kt, base_date = address or (None, None, None, None)
    await conn.execute(
        "INSERT INTO billing.key_custody (action, first_person, second_person, sgc, krn, kt, base_date,"
        " key_check_value, generation, occurred_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (action, *people, sgc, krn, kt, base_date, key_check_value, generation, now),
    )
