"""Key changes of meters in the database, their steps, the tokens held back by them, and what meters answered."""

# ruff: noqa: S608 - the only part formatted in is the constant list of columns

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import class_row, kwargs_row
from psycopg.types.json import Jsonb

from billing.errors import NotFound
from billing.identity_store import KeyFields
from billing.key_change import ChangeState, SetAnswer, Typed
from billing.token_word_store import REPORTED

MAX_TYPED = 100  # what a busy keypad takes in the days of a change


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One change of one meter's key; `round` counts how often its tokens were sent over the link."""

    id: UUID
    meter_id: int
    plan_id: UUID | None
    old: KeyFields
    new: KeyFields
    with_sgc: bool
    state: ChangeState
    begun_by: str
    begun_at: datetime
    round: int


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token that waits for the meter to prove the key it was made under."""

    token_id: int
    key_change_id: UUID
    command_key: str
    state: str
    reason: str


_CHANGE = "SELECT id, meter_id, plan_id, old, new, with_sgc, state, begun_by, begun_at, round FROM billing.key_change"


def _change(**row: Any) -> KeyChange:
    return KeyChange(
        **{
            **row,
            "old": KeyFields.of(row["old"]),
            "new": KeyFields.of(row["new"]),
            "state": ChangeState(row["state"]),
        }
    )


async def insert_change(
    conn: psycopg.AsyncConnection,
    *,
    meter_id: int,
    plan_id: UUID | None,
    old: KeyFields,
    new: KeyFields,
    begun_by: str,
    now: datetime,
) -> KeyChange | None:
    """Begin a change in state PLANNED; None when the meter has an open one, or had one of this plan."""
    cursor = conn.cursor(row_factory=kwargs_row(_change))
    await cursor.execute(
        "INSERT INTO billing.key_change (meter_id, plan_id, old, new, with_sgc, begun_by, begun_at, looked_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
        " RETURNING id, meter_id, plan_id, old, new, with_sgc, state, begun_by, begun_at, round",
        (
            meter_id,
            plan_id,
            Jsonb(old.stored()),
            Jsonb(new.stored()),
            old.sgc != new.sgc,
            begun_by,
            now,
            now,
        ),
    )
    made = await cursor.fetchone()
    if made is not None:
        await insert_step(conn, made.id, ChangeState.PLANNED, by=begun_by, now=now)
    return made


async def insert_step(
    conn: psycopg.AsyncConnection,
    change_id: UUID,
    state: ChangeState,
    *,
    by: str,
    now: datetime,
    detail: str = "",
) -> None:
    """Add a line to a change's history."""
    await conn.execute(
        "INSERT INTO billing.key_change_step (key_change_id, state, occurred_at, done_by, detail)"
        " VALUES (%s, %s, %s, %s, %s)",
        (change_id, state, now, by, detail),
    )


async def get_change(conn: psycopg.AsyncConnection, change_id: UUID) -> KeyChange:
    """The change of this id. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_change))
    found = await (await cursor.execute(f"{_CHANGE} WHERE id = %s", (change_id,))).fetchone()
    return _found(found)


async def lock_change(conn: psycopg.AsyncConnection, change_id: UUID) -> KeyChange:
    """The change, held until this transaction ends. Lock the meter's identity first. Raises NotFound."""
    cursor = conn.cursor(row_factory=kwargs_row(_change))
    return _found(
        await (await cursor.execute(f"{_CHANGE} WHERE id = %s FOR UPDATE", (change_id,))).fetchone()
    )


async def find_open_change(conn: psycopg.AsyncConnection, meter_id: int) -> KeyChange | None:
    """The change of a meter that is under way."""
    cursor = conn.cursor(row_factory=kwargs_row(_change))
    await cursor.execute(
        f"{_CHANGE} WHERE meter_id = %s AND state IN ('PLANNED', 'ISSUED', 'REFUSED')", (meter_id,)
    )
    return await cursor.fetchone()


async def list_changes_to_issue(conn: psycopg.AsyncConnection, *, limit: int) -> list[KeyChange]:
    """Changes without tokens yet, those that nobody looked at for the longest time first."""
    cursor = conn.cursor(row_factory=kwargs_row(_change))
    await cursor.execute(f"{_CHANGE} WHERE state = 'PLANNED' ORDER BY looked_at LIMIT %s", (limit,))
    return await cursor.fetchall()


async def list_changes_to_follow(conn: psycopg.AsyncConnection, *, limit: int) -> list[KeyChange]:
    """Changes of meters with a link whose tokens are out: with a credit that waits first, then the longest unseen."""
    cursor = conn.cursor(row_factory=kwargs_row(_change))
    await cursor.execute(
        f"{_CHANGE} k WHERE state IN ('ISSUED', 'REFUSED') AND EXISTS (SELECT FROM meter_gateway.v_meter m"
        "   WHERE m.meter_id = k.meter_id AND m.link <> 'keypad')"
        " ORDER BY EXISTS (SELECT FROM billing.held_token h WHERE h.key_change_id = k.id AND h.state = 'HELD') DESC,"
        " looked_at LIMIT %s",
        (limit,),
    )
    return await cursor.fetchall()


async def mark_looked(conn: psycopg.AsyncConnection, change_id: UUID, now: datetime) -> None:
    """Somebody looked at a change: the others come first next time."""
    await conn.execute("UPDATE billing.key_change SET looked_at = %s WHERE id = %s", (now, change_id))


async def mark_change(
    conn: psycopg.AsyncConnection,
    change: KeyChange,
    state: ChangeState,
    *,
    by: str,
    now: datetime,
    detail: str = "",
) -> None:
    """Move a locked change, with a step unless it stands there already."""
    if change.state is state:
        return
    await conn.execute("UPDATE billing.key_change SET state = %s WHERE id = %s", (state, change.id))
    await insert_step(conn, change.id, state, by=by, now=now, detail=detail)


async def mark_round(conn: psycopg.AsyncConnection, change_id: UUID, number: int) -> None:
    """Note that the tokens of a change were sent for the `number`th time."""
    await conn.execute("UPDATE billing.key_change SET round = %s WHERE id = %s", (number, change_id))


async def insert_held(
    conn: psycopg.AsyncConnection,
    *,
    token_id: int,
    key_change_id: UUID,
    command_key: str,
    now: datetime,
) -> None:
    """Hold a token back until its meter has proven the key; a repeat changes nothing."""
    await conn.execute(
        "INSERT INTO billing.held_token (token_id, key_change_id, command_key, held_at) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (token_id) DO NOTHING",
        (token_id, key_change_id, command_key, now),
    )


async def list_held(
    conn: psycopg.AsyncConnection, change_id: UUID, states: Sequence[str] = ("HELD", "STOPPED")
) -> list[HeldToken]:
    """Tokens of a change that were not sent, in the order of their making."""
    cursor = conn.cursor(row_factory=class_row(HeldToken))
    await cursor.execute(
        "SELECT token_id, key_change_id, command_key, state, reason FROM billing.held_token"
        " WHERE key_change_id = %s AND state = ANY(%s) ORDER BY token_id FOR UPDATE",
        (change_id, list(states)),
    )
    return await cursor.fetchall()


async def mark_held(
    conn: psycopg.AsyncConnection, token_id: int, state: str, *, reason: str, now: datetime
) -> None:
    """RELEASED or STOPPED, and why."""
    await conn.execute(
        "UPDATE billing.held_token SET state = %s, reason = %s, settled_at = %s WHERE token_id = %s",
        (state, reason, now, token_id),
    )


def command_key(change_id: UUID, round_number: int, place: int) -> str:
    """The idempotency key of the command that carries one token of a change."""
    return f"key-change:{change_id}:{round_number}:{place}"


async def list_set_answers(conn: psycopg.AsyncConnection, change: KeyChange) -> list[SetAnswer]:
    """What the meter said to the newest round of this change's tokens."""
    cursor = conn.cursor(row_factory=class_row(SetAnswer))
    await cursor.execute(
        "SELECT state, coalesce(result ->> 'result', '') AS result FROM meter_gateway.v_meter_command"
        " WHERE meter_id = %s AND starts_with(idempotency_key, %s) ORDER BY id",
        (change.meter_id, command_key(change.id, change.round, 0)[:-1]),
    )
    return await cursor.fetchall()


async def has_taken_set(conn: psycopg.AsyncConnection, change: KeyChange) -> bool:
    """Whether the meter accepted this change over its link, in any round: an answer may come late."""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM meter_gateway.v_meter_command WHERE meter_id = %s AND state = 'VERIFIED'"
        " AND starts_with(idempotency_key, %s) AND upper(result ->> 'result') = 'ACCEPT')",
        (change.meter_id, f"key-change:{change.id}:"),
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def list_typed(conn: psycopg.AsyncConnection, change: KeyChange, since: datetime) -> list[Typed]:
    """What was typed at the meter's keypad since its key-change tokens were made, oldest first.

    A TID that is no number, as a faulty meter may tell it, is -1: a token was named, and none of ours.
    """
    cursor = conn.cursor(row_factory=class_row(Typed))
    await cursor.execute(
        "SELECT occurred_at, result, tid FROM (SELECT occurred_at, id, detail ->> 'result' AS result,"
        " CASE WHEN detail ->> 'tid' ~ '^[0-9]{1,18}$' THEN (detail ->> 'tid')::bigint"
        "  WHEN detail ->> 'tid' IS NOT NULL THEN -1 END AS tid FROM meter_gateway.v_meter_event"
        " WHERE meter_id = %s AND code = 'raseed.token' AND lower(detail ->> 'carrier') = 'keypad'"
        " AND recorded_at >= %s ORDER BY id DESC LIMIT %s) e WHERE result IS NOT NULL ORDER BY occurred_at, id",
        (change.meter_id, since, MAX_TYPED),
    )
    return await cursor.fetchall()


async def has_read_new_key(conn: psycopg.AsyncConnection, change: KeyChange) -> bool:
    """Whether the meter could read a token that was made under the new key.

    It names a TID only when it could decrypt the token, whatever it thought of it then (sts.md 9, 4 before 6).
    """
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM billing.token t WHERE t.key_change_id = %(change)s AND t.tid IS NOT NULL AND ("
        "  EXISTS (SELECT FROM meter_gateway.v_meter_event e WHERE e.meter_id = t.meter_id"
        "    AND e.code = 'raseed.token' AND e.detail ->> 'tid' = t.tid::text AND e.recorded_at >= t.issued_at)"
        "  OR EXISTS (SELECT FROM meter_gateway.v_meter_command c WHERE c.meter_id = t.meter_id"
        "    AND c.result ->> 'tid' = t.tid::text AND c.created_at >= t.issued_at)))",
        {"change": change.id},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def has_unused_credit(conn: psycopg.AsyncConnection, meter_id: int, since: datetime) -> bool:
    """Whether a meter with a link has credit sold under its present key that it has not reported back.

    After a change of key that token could not be read any more, and its units would be lost.
    """
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM billing.token t JOIN meter_gateway.v_meter m ON m.meter_id = t.meter_id"
        "  LEFT JOIN billing.vend v ON v.id = t.vend_id"
        " WHERE t.meter_id = %(meter)s AND t.purpose = 'credit' AND t.issued_at >= %(since)s AND m.link <> 'keypad'"
        "   AND coalesce(v.state, 'VENDED') = 'VENDED'"
        # Taken by a person's word, or its units went on as money or in a token: nothing of it can be lost any more.
        "   AND NOT EXISTS (SELECT FROM billing.token_word w WHERE w.token_id = t.id AND (w.word = 'taken'"
        "     OR EXISTS (SELECT FROM billing.credit_carry c WHERE c.old_meter_id = t.meter_id"
        "       AND c.taken_at = w.said_at AND c.state IN ('RESERVED', 'DONE', 'REFUSED', 'SETTLED'))))"
        f"  AND NOT {REPORTED})",
        {"meter": meter_id, "since": since},
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def get_issued_at(conn: psycopg.AsyncConnection, change_id: UUID) -> datetime | None:
    """When a change's tokens were made."""
    cursor = await conn.execute(
        "SELECT min(occurred_at) FROM billing.key_change_step WHERE key_change_id = %s AND state = 'ISSUED'",
        (change_id,),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


def _found(row: KeyChange | None) -> KeyChange:
    if row is None:
        raise NotFound("key_change_not_found", "no such key change")
    return row
