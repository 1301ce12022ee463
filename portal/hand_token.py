"""Hand a new token to its meter: at once, or held back until the meter has proven the key it is made under."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from billing import key_change_store, token_store
from billing.token_store import Token
from meter_gateway import meter_store
from meter_gateway.command import order_command

# A meter that is silent for a day gets its token at the keypad; the code is in the SMS all the while.
TOKEN_COMMAND_LIFETIME = timedelta(hours=24)


async def hand_token(
    conn: psycopg.AsyncConnection, token: Token, *, command_key: str, requested_by: str, now: datetime
) -> bool:
    """Order the command that carries a token, or hold it; False for a meter that has a keypad only.

    A token under a key that the meter has yet to prove is sent when it has (portal/change_keys.py). Raises
    MeterNotFound, CommandConflict.
    """
    meter = await meter_store.get_meter(conn, token.meter_id)
    if not meter.is_reachable:
        return False
    change_id = token.key_change_id
    if change_id is not None:
        await key_change_store.insert_held(
            conn, token_id=token.id, key_change_id=change_id, command_key=command_key, now=now
        )
        return True
    await order_command(
        conn,
        meter_id=token.meter_id,
        kind="token",
        argument=token.digits,
        idempotency_key=command_key,
        requested_by=requested_by,
        now=now,
        expires_at=now + TOKEN_COMMAND_LIFETIME,
    )
    return True


async def release_held(conn: psycopg.AsyncConnection, change_id: UUID, now: datetime) -> int:
    """Send every token that waited for a change's proof, in the order of their making; gives how many."""
    held = await key_change_store.list_held(conn, change_id)
    for one in held:
        token = await token_store.get_token(conn, one.token_id)
        meter = await meter_store.get_meter(conn, token.meter_id)
        if meter.is_reachable:
            await order_command(
                conn,
                meter_id=token.meter_id,
                kind="token",
                argument=token.digits,
                idempotency_key=one.command_key,
                requested_by="key-change",
                now=now,
                expires_at=now + TOKEN_COMMAND_LIFETIME,
            )
        await key_change_store.mark_held(conn, one.token_id, "RELEASED", reason="", now=now)
    return len(held)
