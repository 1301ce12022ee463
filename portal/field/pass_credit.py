"""Give the credit that waits at a place to the meter that was just hung there."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg

from billing import credit_carry_store, key_change_store, token_store, token_word_store
from billing.credit_carry import CarryState
from billing.credit_carry_store import CreditCarry
from billing.errors import InvalidVend
from billing.key_change import ChangeState
from portal.field import removal_store
from portal.hand_token import hand_token

Conn = psycopg.AsyncConnection[Any]
# A change whose key the meter may still show: what was made under it waits.
_UNDECIDED: Final = frozenset({ChangeState.PLANNED, ChangeState.ISSUED, ChangeState.REFUSED})


async def bind_waiting(conn: Conn, *, usage_point_id: int, meter_id: int, now: datetime) -> list[CreditCarry]:
    """Give what waits at a place, of the customer who has it, to the meter that was just hung there.

    A meter that comes back to its place has its credit in it, and is sent what it had not taken when it came down; one
    that was cleared meanwhile gets all of it by a token.
    Raises InvalidVend: `clear_unknown` where nobody has said whether it was, `credit_not_cleared` for a meter whose
    credit was given to another and still stands in it.
    """
    await removal_store.lock_point(conn, usage_point_id)
    customer_id = await removal_store.find_customer_of_point(conn, usage_point_id)
    bound = []
    for carry in await credit_carry_store.list_waiting(
        conn, usage_point_id=usage_point_id, customer_id=customer_id, meter_id=meter_id
    ):
        if carry.old_meter_id == meter_id and not await _was_cleared(conn, carry):
            await credit_carry_store.mark_returned(conn, carry, now)
            await _hand_again(conn, carry, now)
        elif carry.state is CarryState.WAITING:
            await credit_carry_store.mark_bound(conn, carry, new_meter_id=meter_id, now=now)
            bound.append(await credit_carry_store.get_carry(conn, carry.id))
    if await credit_carry_store.find_left_in(conn, meter_id) is not None:
        raise InvalidVend(
            "credit_not_cleared", "credit that was given to another meter still stands in this one"
        )
    return bound


async def _hand_again(conn: Conn, carry: CreditCarry, now: datetime) -> None:
    """Send what this meter had not taken when it came down: its credit is in it, those units are not."""
    for token_id in await token_word_store.list_not_taken(conn, carry.old_meter_id, carry.taken_at):
        token = await token_store.get_token(conn, token_id)
        if token.key_change_id is not None:
            change = await key_change_store.get_change(conn, token.key_change_id)
            if change.state in _UNDECIDED:
                await key_change_store.mark_held(conn, token_id, "HELD", reason="", now=now)
                continue
            if change.state is not ChangeState.PROVEN:
                # No meter has the key that it was made under, nor will have it.
                await key_change_store.mark_held(
                    conn, token_id, "STOPPED", reason=change.state.lower(), now=now
                )
                continue
        await hand_token(
            conn,
            replace(token, key_change_id=None),
            command_key=f"return:{carry.id}:{token_id}",
            requested_by="replacement",
            now=now,
        )


async def _was_cleared(conn: Conn, carry: CreditCarry) -> bool:
    word = await token_word_store.find_clearing(conn, carry.old_meter_id, carry.taken_at)
    if word == "unknown":
        raise InvalidVend("clear_unknown", "nobody has said whether this meter took its clear-credit token")
    return word == "taken"


async def release_held(conn: Conn, carry_id: UUID, now: datetime) -> CreditCarry:
    """The office believes a held credit: it waits at its place, or goes to the meter that hangs there by now.

    One that waits already goes to that meter too. Raises NotFound, InvalidVend (`carry_not_waiting`, `carry_waits`
    where no meter takes it, and as bind_waiting).
    """
    seen = await credit_carry_store.get_carry(conn, carry_id)
    await removal_store.lock_point(conn, seen.usage_point_id)  # no meter is hung there while we look for one
    carry = await credit_carry_store.lock_carry(conn, carry_id)
    if carry.state is not CarryState.WAITING:
        await credit_carry_store.mark_released(conn, carry, now)
    meter_id = await removal_store.find_meter_at(conn, carry.usage_point_id)
    if meter_id is not None:
        await bind_waiting(conn, usage_point_id=carry.usage_point_id, meter_id=meter_id, now=now)
    after = await credit_carry_store.get_carry(conn, carry_id)
    if after.state is carry.state:
        raise InvalidVend(
            "carry_waits", "this credit waits already, and no meter of its customer hangs there"
        )
    return after
