"""SQL of meter events and of messages that nobody could read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to store."""

    meter_id: int
    edge: str
    code: str
    occurred_at: datetime
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message, or a part of one, that cannot be stored, and why."""

    topic: str
    payload: bytes
    reason: str


async def insert_events(conn: psycopg.AsyncConnection, events: Sequence[NewEvent]) -> None:
    """Store events in the order given."""
    if not events:
        return
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, detail)"
            " VALUES (%s, %s, %s, %s, %s)",
            [(e.meter_id, e.edge, e.code, e.occurred_at, Jsonb(e.detail)) for e in events],
        )


async def insert_dead_letters(conn: psycopg.AsyncConnection, letters: Sequence[DeadLetter]) -> None:
    """Park what cannot be stored."""
    if not letters:
        return
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO meter_gateway.dead_letter (topic, payload, reason) VALUES (%s, %s, %s)",
            [(letter.topic.replace("\x00", "�"), letter.payload, letter.reason) for letter in letters],
        )
