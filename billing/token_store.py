"""The register of issued tokens and the audit of key use in the database; digits are read only by their owner."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from billing.errors import IdempotencyConflict, NotFound


@dataclass(frozen=True, slots=True)
class Token:
    """One issued token; class 1 and key-change tokens have no TID and no units."""

    id: int
    vend_id: UUID | None
    meter_id: int
    base_date: int
    tid: int | None
    token_class: int
    subclass: int
    units_tenths: int | None
    digits: str
    purpose: str
    issued_by: str
    reason: str
    issued_at: datetime
    key_change_id: UUID | None = None

    def __repr__(self) -> str:
        """Without the digits: they are money until they are used."""
        return f"<Token {self.id} {self.purpose} meter={self.meter_id} tid={self.tid}>"


_SELECT = (
    "SELECT id, vend_id, meter_id, base_date, tid, class AS token_class, subclass, units_tenths, digits, purpose,"
    " issued_by, reason, issued_at, key_change_id FROM billing.token"
)


async def insert_credit_token(
    conn: psycopg.AsyncConnection,
    *,
    vend_id: UUID,
    meter_id: int,
    base_date: int,
    tid: int,
    subclass: int,
    units_tenths: int,
    digits: str,
    now: datetime,
    key_change_id: UUID | None = None,
) -> Token:
    """Register the token of a vend; a repeat gives the stored one.

    `key_change_id` names the change whose new key the meter has yet to prove.

    Raises IdempotencyConflict when this vend already has a token with other digits.
    """
    await conn.execute(
        "INSERT INTO billing.token (vend_id, meter_id, base_date, tid, class, subclass, units_tenths, digits,"
        " purpose, issued_by, issued_at, key_change_id)"
        " VALUES (%s, %s, %s, %s, 0, %s, %s, %s, 'credit', 'worker', %s, %s) ON CONFLICT (vend_id) DO NOTHING",
        (vend_id, meter_id, base_date, tid, subclass, units_tenths, digits, now, key_change_id),
    )
    stored = await find_token_of_vend(conn, vend_id)
    if stored is None:
        raise NotFound("token_not_found", "the token was not stored")
    if (stored.digits, stored.tid) != (digits, tid):
        raise IdempotencyConflict("second_token", "this vend has another token already")
    return stored


async def insert_service_token(
    conn: psycopg.AsyncConnection,
    *,
    meter_id: int,
    base_date: int,
    tid: int | None,
    token_class: int,
    subclass: int,
    units_tenths: int | None,
    digits: str,
    purpose: str,
    issued_by: str,
    reason: str,
    now: datetime,
    request_id: str | None = None,
    key_change_id: UUID | None = None,
    place: int | None = None,
) -> Token:
    """Register a token that belongs to no sale: test, engineering, key change, free units.

    With a `request_id` a repeat gives the stored one; raises IdempotencyConflict when that has other digits.
    """
    cursor = await conn.execute(
        "INSERT INTO billing.token (meter_id, base_date, tid, class, subclass, units_tenths, digits, purpose,"
        " issued_by, reason, issued_at, request_id, key_change_id, place)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (request_id) DO NOTHING RETURNING id",
        (
            meter_id,
            base_date,
            tid,
            token_class,
            subclass,
            units_tenths,
            digits,
            purpose,
            issued_by,
            reason,
            now,
            request_id,
            key_change_id,
            place,
        ),
    )
    row = await cursor.fetchone()
    found = conn.cursor(row_factory=class_row(Token))
    if row is None:
        await found.execute(f"{_SELECT} WHERE request_id = %s", (request_id,))
    else:
        await found.execute(f"{_SELECT} WHERE id = %s", row)
    token = await found.fetchone()
    if token is None:
        raise NotFound("token_not_found", "the token was not stored")
    if (token.digits, token.tid) != (digits, tid):
        raise IdempotencyConflict("second_token", "this request has another token already")
    return token


async def find_token_of_vend(conn: psycopg.AsyncConnection, vend_id: UUID) -> Token | None:
    """The one token of a vend."""
    cursor = conn.cursor(row_factory=class_row(Token))
    return await (await cursor.execute(f"{_SELECT} WHERE vend_id = %s", (vend_id,))).fetchone()


async def get_token(conn: psycopg.AsyncConnection, token_id: int) -> Token:
    """The token of this id. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Token))
    found = await (await cursor.execute(f"{_SELECT} WHERE id = %s", (token_id,))).fetchone()
    if found is None:
        raise NotFound("token_not_found", "no such token")
    return found


async def find_token_of_request(conn: psycopg.AsyncConnection, request_id: str) -> Token | None:
    """The one token of a request that is no sale."""
    cursor = conn.cursor(row_factory=class_row(Token))
    return await (await cursor.execute(f"{_SELECT} WHERE request_id = %s", (request_id,))).fetchone()


async def list_key_change_digits(conn: psycopg.AsyncConnection, key_change_id: UUID) -> list[str]:
    """The key-change tokens of a change in the order to type them; empty before they are made."""
    cursor = await conn.execute(
        "SELECT digits FROM billing.token WHERE key_change_id = %s AND purpose = 'key_change' ORDER BY place",
        (key_change_id,),
    )
    return [str(row[0]) for row in await cursor.fetchall()]


async def list_digits_before(conn: psycopg.AsyncConnection, token: Token) -> list[str]:
    """The key-change tokens to type before this one; empty for one under the key that the meter has."""
    if token.key_change_id is None:
        return []
    return await list_key_change_digits(conn, token.key_change_id)


async def has_tokens_under(conn: psycopg.AsyncConnection, key_change_id: UUID) -> bool:
    """Whether any token was made under the new key of a change."""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM billing.token WHERE key_change_id = %s AND purpose <> 'key_change')",
        (key_change_id,),
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def list_tokens_of_meter(conn: psycopg.AsyncConnection, meter_id: int, *, limit: int) -> list[Token]:
    """A meter's tokens of every purpose, newest first."""
    cursor = conn.cursor(row_factory=class_row(Token))
    await cursor.execute(f"{_SELECT} WHERE meter_id = %s ORDER BY id DESC LIMIT %s", (meter_id, limit))
    return await cursor.fetchall()


async def insert_key_use(
    conn: psycopg.AsyncConnection,
    *,
    request_id: str,
    used_by: str,
    purpose: str,
    meter_id: int,
    sgc: str,
    krn: int,
    key_check_value: str,
    now: datetime,
) -> None:
    """Write down that a vending key was used: who, for what, which key by its check value."""
    await conn.execute(
        "INSERT INTO billing.key_use (request_id, used_by, purpose, meter_id, sgc, krn, key_check_value, used_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (request_id, used_by, purpose, meter_id, sgc, krn, key_check_value, now),
    )
