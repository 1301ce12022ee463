"""Give the credit that waits at a place to the meter that was just hung there."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg

from billing import credit_carry_store
from billing.credit_carry_store import CreditCarry
from billing.errors import InvalidVend
from portal.field import removal_store

Conn = psycopg.AsyncConnection[Any]


async def bind_waiting(conn: Conn, *, usage_point_id: int, meter_id: int, now: datetime) -> list[CreditCarry]:
    """Give what waits at a place, of the customer who has it, to the meter that was just hung there.

    A meter that comes back to its place has its credit in it. Raises InvalidVend (`credit_not_cleared`) for one
    whose credit was given to another and still stands in it.
    """
    customer_id = await removal_store.find_customer_of_point(conn, usage_point_id)
    bound = []
    for carry in await credit_carry_store.list_waiting(
        conn, usage_point_id=usage_point_id, customer_id=customer_id
    ):
        if carry.old_meter_id == meter_id:
            await credit_carry_store.mark_returned(conn, carry, now)
        else:
            await credit_carry_store.mark_bound(conn, carry, new_meter_id=meter_id, now=now)
            bound.append(await credit_carry_store.get_carry(conn, carry.id))
    if await credit_carry_store.find_left_in(conn, meter_id) is not None:
        raise InvalidVend(
            "credit_not_cleared", "credit that was given to another meter still stands in this one"
        )
    return bound
