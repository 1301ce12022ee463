"""Carried credit in the database: one row a removal, its TID reserved once, its token found by its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import kwargs_row
from psycopg.types.json import Jsonb

from billing import identity_store, token_word_store
from billing.credit_carry import CarryEvent, CarryState, next_carry_state
from billing.errors import IdempotencyConflict, InvalidVend, NotFound
from billing.identity_store import STOCK_KEYS, KeyFields
from token_engine.identifiers import rnd_at

# A meter gets its own key within minutes of its link, or of two typed tokens; later somebody looks.
BOUND_TOO_LONG: Final = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class CreditCarry:
    """The credit that stood on a meter when it was taken down, and where it goes; Wh or mL, tenths, baisa."""

    id: UUID
    idempotency_key: str
    installation_id: int
    old_meter_id: int
    usage_point_id: int
    customer_id: int | None
    commodity: str
    counter: int
    credit: int
    source: str
    units_tenths: int
    taken_by: str
    note: str
    taken_at: datetime
    state: CarryState
    new_meter_id: int | None
    base_date: int | None
    tid: int | None
    rnd: int | None
    key: KeyFields | None
    key_change_id: UUID | None
    amount_minor: int | None
    detail: str

    @property
    def request_id(self) -> str:
        """How the vault and the register know its token."""
        return f"carry:{self.id}"


_SELECT = """
    SELECT id, idempotency_key, installation_id, old_meter_id, usage_point_id, customer_id, commodity, counter, credit,
           source, units_tenths, taken_by, note, taken_at, state, new_meter_id, base_date, tid, rnd, key, key_change_id,
           amount_minor, detail
      FROM billing.credit_carry
"""


def _carry(**row: Any) -> CreditCarry:
    key = row["key"]
    return CreditCarry(
        **{**row, "state": CarryState(row["state"]), "key": None if key is None else KeyFields.of(key)}
    )


async def insert_carry(
    conn: psycopg.AsyncConnection,
    *,
    idempotency_key: str,
    installation_id: int,
    old_meter_id: int,
    usage_point_id: int,
    customer_id: int | None,
    commodity: str,
    counter: int,
    credit: int,
    source: str,
    units_tenths: int,
    held_for: str,
    taken_by: str,
    note: str,
    now: datetime,
) -> CreditCarry:
    """Keep what a removed meter held; a repeat gives the stored one.

    `units_tenths` is what a token will carry of it; `held_for` names why the office decides first, mostly empty.
    Raises IdempotencyConflict when the key, or the installation, has another reading already.
    """
    state = CarryState.EMPTY
    if units_tenths:
        state = CarryState.HELD if held_for else CarryState.WAITING
    await conn.execute(
        "INSERT INTO billing.credit_carry (idempotency_key, installation_id, old_meter_id, usage_point_id,"
        " customer_id, commodity, counter, credit, source, units_tenths, taken_by, note, taken_at, state,"
        " detail, changed_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            idempotency_key,
            installation_id,
            old_meter_id,
            usage_point_id,
            customer_id,
            commodity,
            counter,
            credit,
            source,
            units_tenths,
            taken_by,
            note,
            now,
            state.value,
            held_for,
            now,
        ),
    )
    found = await find_carry_by_key(conn, idempotency_key)
    if found is None or (found.installation_id, found.counter, found.credit) != (
        installation_id,
        counter,
        credit,
    ):
        raise IdempotencyConflict("carry_other", "this removal has another final reading already")
    return found


async def find_carry_by_key(conn: psycopg.AsyncConnection, idempotency_key: str) -> CreditCarry | None:
    """The carry of an idempotency key."""
    return await _find(conn, "WHERE idempotency_key = %s", (idempotency_key,))


async def get_carry(conn: psycopg.AsyncConnection, carry_id: UUID) -> CreditCarry:
    """A carry. Raises NotFound."""
    found = await _find(conn, "WHERE id = %s", (carry_id,))
    if found is None:
        raise NotFound("carry_not_found", "no such carried credit")
    return found


async def lock_carry(conn: psycopg.AsyncConnection, carry_id: UUID) -> CreditCarry:
    """A carry, held until this transaction ends. Raises NotFound."""
    await conn.execute("SELECT 1 FROM billing.credit_carry WHERE id = %s FOR UPDATE", (carry_id,))
    return await get_carry(conn, carry_id)


async def _find(
    conn: psycopg.AsyncConnection, where: str, values: Sequence[object] | Mapping[str, object]
) -> CreditCarry | None:
    cursor = conn.cursor(row_factory=kwargs_row(_carry))
    await cursor.execute(f"{_SELECT} {where}".encode(), values)
    return await cursor.fetchone()


async def _list(conn: psycopg.AsyncConnection, where: str, values: Sequence[object]) -> list[CreditCarry]:
    cursor = conn.cursor(row_factory=kwargs_row(_carry))
    await cursor.execute(f"{_SELECT} {where}".encode(), values)
    return await cursor.fetchall()


async def list_waiting(
    conn: psycopg.AsyncConnection, *, usage_point_id: int, customer_id: int | None, meter_id: int
) -> list[CreditCarry]:
    """What waits at a place for a meter, of the customer who has it now; locked, oldest first.

    With it what the office holds of this same meter: it comes back with its credit in it.
    """
    return await _list(
        conn,
        "WHERE usage_point_id = %s AND customer_id IS NOT DISTINCT FROM %s"
        " AND (state = 'WAITING' OR (state = 'HELD' AND old_meter_id = %s)) ORDER BY taken_at, id FOR UPDATE",
        (usage_point_id, customer_id, meter_id),
    )


async def list_bound_to(conn: psycopg.AsyncConnection, meter_id: int) -> list[CreditCarry]:
    """What a meter is to get once it has its own key; locked. Lock its identity first."""
    return await _list(
        conn, "WHERE new_meter_id = %s AND state = 'BOUND' ORDER BY taken_at, id FOR UPDATE", (meter_id,)
    )


async def list_of_meter(conn: psycopg.AsyncConnection, meter_id: int) -> list[CreditCarry]:
    """What was taken from a meter or brought to it, newest first."""
    return await _list(
        conn, "WHERE old_meter_id = %s OR new_meter_id = %s ORDER BY taken_at DESC, id", (meter_id, meter_id)
    )


async def list_undecided(conn: psycopg.AsyncConnection, *, now: datetime, limit: int) -> list[CreditCarry]:
    """What waits for a meter or its key too long, is held, or gets no token: the office decides; oldest first."""
    return await _list(
        conn,
        "WHERE state IN ('WAITING', 'HELD', 'REFUSED') OR (state = 'BOUND' AND changed_at < %s)"
        " ORDER BY taken_at, id LIMIT %s",
        (now - BOUND_TOO_LONG, limit),
    )


async def list_to_issue(conn: psycopg.AsyncConnection, *, limit: int) -> list[CreditCarry]:
    """What is to become a token and can: its meter has, or is getting, its own key."""
    return await _list(
        conn,
        "WHERE state = 'RESERVED' OR (state = 'BOUND' AND EXISTS (SELECT FROM billing.sts_identity i"
        "   WHERE i.meter_id = credit_carry.new_meter_id"
        "     AND coalesce((i.pending ->> 'kt')::integer, i.kt) <> ALL (%s)"
        "     AND NOT coalesce((i.pending ->> 'refused')::boolean, false)))"
        " ORDER BY changed_at, id LIMIT %s",
        ([int(kt) for kt in STOCK_KEYS], limit),
    )


async def mark_bound(
    conn: psycopg.AsyncConnection, carry: CreditCarry, *, new_meter_id: int, now: datetime
) -> None:
    """Give a locked, waiting credit its meter. Raises InvalidVend (`carry_not_waiting`)."""
    await _move(conn, carry, CarryEvent.BIND, now, new_meter_id=new_meter_id)


async def mark_unbound(conn: psycopg.AsyncConnection, carry: CreditCarry, now: datetime) -> None:
    """The meter of a locked carry came down before it got its key: the credit waits at its place again."""
    await _move(conn, carry, CarryEvent.UNBIND, now, new_meter_id=None)


async def mark_released(conn: psycopg.AsyncConnection, carry: CreditCarry, now: datetime) -> None:
    """The office believes a held credit. Raises InvalidVend (`carry_not_waiting`)."""
    await _move(conn, carry, CarryEvent.RELEASE, now)


async def mark_returned(conn: psycopg.AsyncConnection, carry: CreditCarry, now: datetime) -> None:
    """The meter that holds it hangs at its place again. Raises InvalidVend (`carry_not_waiting`)."""
    await _move(conn, carry, CarryEvent.RETURN, now)


async def find_left_in(conn: psycopg.AsyncConnection, meter_id: int) -> CreditCarry | None:
    """The newest credit that was taken from this meter's account and is not known to be cleared from the meter since.

    None as well when it came back to its place, or when there was none: then what it shows is its own.
    """
    carry = await _find(
        conn,
        "WHERE id = (SELECT c.id FROM billing.credit_carry c WHERE c.old_meter_id = %s"
        "             ORDER BY c.taken_at DESC LIMIT 1) AND state NOT IN ('EMPTY', 'RETURNED')",
        (meter_id,),
    )
    if carry is None or await token_word_store.find_clearing(conn, meter_id, carry.taken_at) == "taken":
        return None
    return carry


async def reserve(conn: psycopg.AsyncConnection, carry: CreditCarry, now: datetime) -> CreditCarry:
    """Take the TID of a locked carry's token, once. Raises InvalidVend (`no_tid_left`), NotFound."""
    if carry.state is CarryState.RESERVED or carry.new_meter_id is None:
        return carry
    allocated = await identity_store.allocate_tid(conn, carry.new_meter_id, now)
    await _move(
        conn,
        carry,
        CarryEvent.RESERVE,
        now,
        base_date=allocated.base_date,
        tid=allocated.tid,
        rnd=rnd_at(now),
        key=Jsonb(allocated.key.stored()),
        key_change_id=allocated.key_change_id,
    )
    return await get_carry(conn, carry.id)


async def mark_done(conn: psycopg.AsyncConnection, carry: CreditCarry, now: datetime) -> None:
    """Its token is registered."""
    await _move(conn, carry, CarryEvent.ISSUED, now)


async def mark_refused(
    conn: psycopg.AsyncConnection, carry: CreditCarry, *, reason: str, now: datetime
) -> None:
    """No token can be made; the office settles it in money."""
    await _move(conn, carry, CarryEvent.REFUSED, now, detail=reason)


async def mark_settled(
    conn: psycopg.AsyncConnection, carry: CreditCarry, *, amount_minor: int, detail: str, now: datetime
) -> None:
    """It became money of the customer. Raises InvalidVend (`carry_not_waiting`) when it went to a meter."""
    await _move(conn, carry, CarryEvent.SETTLE, now, amount_minor=amount_minor, detail=detail)


async def _move(
    conn: psycopg.AsyncConnection, carry: CreditCarry, event: CarryEvent, now: datetime, **fields: object
) -> None:
    state = next_carry_state(carry.state, event)
    if state is None:
        raise InvalidVend("carry_not_waiting", f"this credit is {carry.state} already")
    values: dict[str, object] = {"state": state.value, "changed_at": now, **fields}
    assigned = ", ".join(f"{name} = %({name})s" for name in values)
    await conn.execute(
        f"UPDATE billing.credit_carry SET {assigned} WHERE id = %(id)s".encode(),  # noqa: S608 - names of ours
        {**values, "id": carry.id},
    )
