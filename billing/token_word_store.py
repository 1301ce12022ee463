"""Tokens of which a meter has said nothing, and what a person said of them in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import psycopg
from psycopg.rows import class_row

from token_engine.encode import CLEAR_ALL_REGISTERS

# The display of a meter that never spoke is believed up to what was bought in this time.
SILENT_WINDOW: Final = timedelta(days=180)
Word = Literal["taken", "not_taken"]
Clearing = Literal["none", "taken", "not_taken", "unknown"]


@dataclass(frozen=True, slots=True)
class SilentToken:
    """A credit token that its meter has not reported back; tenths of a unit.

    `is_held`: it waits for the meter's new key and is sent then.
    """

    id: int
    units_tenths: int
    digits: str
    issued_at: datetime
    is_held: bool

    def __repr__(self) -> str:
        """Without the digits."""
        return f"<SilentToken {self.id}>"


# A meter names a TID only when it could read the token. Of one that it was too full for it keeps nothing: that one
# stays valid (sts.md 9), as if nothing had been said.
REPORTED: Final = """
    (EXISTS (SELECT FROM meter_gateway.v_meter_event e WHERE e.meter_id = t.meter_id AND e.code = 'raseed.token'
               AND e.detail ->> 'tid' = t.tid::text AND e.recorded_at >= t.issued_at
               AND upper(coalesce(e.detail ->> 'result', '')) <> 'OVERFLOW_ERROR')
     OR EXISTS (SELECT FROM meter_gateway.v_meter_command c WHERE c.meter_id = t.meter_id
               AND c.result ->> 'tid' = t.tid::text AND c.created_at >= t.issued_at
               AND upper(coalesce(c.result ->> 'result', '')) <> 'OVERFLOW_ERROR'))
"""
_REPORTED_BY = """
    (EXISTS (SELECT FROM meter_gateway.v_meter_event e WHERE e.meter_id = t.meter_id AND e.code = 'raseed.token'
               AND e.detail ->> 'tid' = t.tid::text AND e.recorded_at >= t.issued_at
               AND upper(coalesce(e.detail ->> 'result', '')) <> 'OVERFLOW_ERROR'
               AND e.occurred_at <= %(told_at)s)
     OR EXISTS (SELECT FROM meter_gateway.v_meter_command c
                  JOIN meter_gateway.v_meter_command_step s ON s.command_id = c.id AND s.state = c.state
                 WHERE c.meter_id = t.meter_id AND c.result ->> 'tid' = t.tid::text AND c.created_at >= t.issued_at
                   AND upper(coalesce(c.result ->> 'result', '')) <> 'OVERFLOW_ERROR'
                   AND s.occurred_at <= %(told_at)s))
"""
# The meter's own yes: it took the token, or had it already when it came again.
_ACCEPTED = """
    (EXISTS (SELECT FROM meter_gateway.v_meter_event e WHERE e.meter_id = t.meter_id AND e.code = 'raseed.token'
               AND e.detail ->> 'tid' = t.tid::text AND e.recorded_at >= t.issued_at
               AND upper(e.detail ->> 'result') IN ('ACCEPT', 'USED_ERROR'))
     OR EXISTS (SELECT FROM meter_gateway.v_meter_command c WHERE c.meter_id = t.meter_id
               AND c.result ->> 'tid' = t.tid::text AND c.created_at >= t.issued_at
               AND (c.state, upper(c.result ->> 'result')) IN (('VERIFIED', 'ACCEPT'), ('REJECTED', 'USED_ERROR'))))
"""


async def list_silent(conn: psycopg.AsyncConnection, meter_id: int, since: datetime) -> list[SilentToken]:
    """Credit sold since then to a meter with a link, of which neither the meter nor a person has said anything."""
    cursor = conn.cursor(row_factory=class_row(SilentToken))
    await cursor.execute(
        "SELECT t.id, t.units_tenths, t.digits, t.issued_at, EXISTS (SELECT FROM billing.held_token h"  # noqa: S608 - ours
        "   WHERE h.token_id = t.id AND h.state = 'HELD') AS is_held FROM billing.token t"
        "  JOIN meter_gateway.v_meter m ON m.meter_id = t.meter_id LEFT JOIN billing.vend v ON v.id = t.vend_id"
        " WHERE t.meter_id = %(meter)s AND t.purpose = 'credit' AND t.issued_at >= %(since)s"
        "   AND m.link <> 'keypad' AND coalesce(v.state, 'VENDED') = 'VENDED'"
        "   AND NOT EXISTS (SELECT FROM billing.token_word w WHERE w.token_id = t.id)"
        f"  AND NOT {REPORTED} ORDER BY t.id",
        {"meter": meter_id, "since": since},
    )
    return await cursor.fetchall()


async def list_not_taken(conn: psycopg.AsyncConnection, meter_id: int, said_at: datetime) -> list[int]:
    """Ids of the tokens of a meter that a person said then were not taken, and that it has not reported since."""
    cursor = await conn.execute(
        "SELECT t.id FROM billing.token t JOIN billing.token_word w ON w.token_id = t.id"  # noqa: S608 - ours
        f" WHERE t.meter_id = %s AND w.word = 'not_taken' AND w.said_at = %s AND NOT {REPORTED} ORDER BY t.id",
        (meter_id, said_at),
    )
    return [int(row[0]) for row in await cursor.fetchall()]


async def get_tenths_beyond(
    conn: psycopg.AsyncConnection, meter_id: int, *, told_at: datetime | None, since: datetime
) -> int:
    """Tenths of tokens made since `since` that may be in a meter beyond what it told at `told_at` (None: never)."""
    in_told = f"%(told_at)s::timestamptz IS NOT NULL AND {_REPORTED_BY}"
    cursor = await conn.execute(
        "SELECT coalesce(sum(t.units_tenths), 0)::bigint FROM billing.token t"  # noqa: S608 - constants of ours
        " WHERE t.meter_id = %(meter)s AND t.purpose = 'credit' AND t.issued_at >= %(since)s"
        "   AND NOT EXISTS (SELECT FROM billing.token_word w WHERE w.token_id = t.id AND w.word = 'not_taken')"
        f"  AND NOT ({in_told})",
        {"meter": meter_id, "since": since, "told_at": told_at},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def insert_word(
    conn: psycopg.AsyncConnection, token_id: int, word: Word, *, said_by: str, note: str, now: datetime
) -> bool:
    """Keep what a person said of a token; the first word stands, False for a second one."""
    cursor = await conn.execute(
        "INSERT INTO billing.token_word (token_id, word, said_by, note, said_at) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (token_id, word, said_by, note, now),
    )
    return cursor.rowcount == 1


# A clear-credit token that is for the register which this meter's credit is in: 0 for kWh, 1 for m3, or all.
_CLEARING = """
    FROM billing.token t JOIN meter_gateway.v_meter m ON m.meter_id = t.meter_id
    JOIN billing.engineering_request r ON t.request_id = 'engineering:' || r.id
    LEFT JOIN billing.token_word w ON w.token_id = t.id
   WHERE t.meter_id = %(meter)s AND t.class = 2 AND t.subclass = 1
     AND r.value IN (CASE m.commodity WHEN 'water' THEN 1 ELSE 0 END, %(all)s)
"""


async def find_clearing(conn: psycopg.AsyncConnection, meter_id: int, since: datetime) -> Clearing:
    """Whether a clear-credit token (class 2/1) made since then took a meter's credit away.

    What the meter said of a token stands above what a person did. unknown: one was made, and nobody has said what came
    of it. A token for a register that holds no credit of this meter clears nothing.
    """
    cursor = await conn.execute(
        f"SELECT CASE WHEN {_ACCEPTED} THEN 'taken' WHEN {REPORTED} THEN 'not_taken'"
        f"  ELSE coalesce(w.word, 'unknown') END {_CLEARING} AND t.issued_at >= %(since)s",
        {"meter": meter_id, "since": since, "all": CLEAR_ALL_REGISTERS},
    )
    return _strongest([str(row[0]) for row in await cursor.fetchall()])


def _strongest(words: Sequence[str]) -> Clearing:
    if "taken" in words:
        return "taken"
    if "unknown" in words:
        return "unknown"
    return "not_taken" if words else "none"


async def find_newest_clearing(conn: psycopg.AsyncConnection, meter_id: int) -> int | None:
    """Return the newest clear-credit token that a person can speak of: neither meter nor person has."""
    cursor = await conn.execute(
        f"SELECT max(t.id) {_CLEARING} AND w.word IS NULL AND NOT {REPORTED}",
        {"meter": meter_id, "all": CLEAR_ALL_REGISTERS},
    )
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else int(row[0])
