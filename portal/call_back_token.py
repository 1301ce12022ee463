"""Call back a token that goes to its meter no more: its command while it has not left, and its place in the queue."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import psycopg

from billing import key_change_store
from meter_gateway import command_store
from meter_gateway.command import cancel
from meter_gateway.errors import CommandNotOpen

Conn = psycopg.AsyncConnection[Any]
# A token's command is among the newest of its meter; an older one has expired.
COMMANDS: Final = 200


async def call_back(
    conn: Conn, *, meter_id: int, token_id: int, digits: str, actor: str, now: datetime
) -> int:
    """Call back what would still bring this token to its meter; gives how many commands. One that left, leaves.

    A token that waits for its key is settled too: nothing sends it when the key is proven after all.
    """
    called = 0
    for command in await command_store.list_commands_of_meter(conn, meter_id, limit=COMMANDS):
        if command.kind == "token" and command.argument == digits:
            try:
                await cancel(conn, command.id, cancelled_by=actor, now=now)
            except CommandNotOpen:
                continue
            called += 1
    await key_change_store.mark_held(conn, token_id, "RELEASED", reason="carried", now=now)
    return called
