"""SQL of the files that tickets carry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class AttachmentRow:
    """A file without its content."""

    id: int
    ticket_id: int
    file_name: str
    media_type: str
    size_bytes: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AttachmentContent:
    """A file to be handed out."""

    file_name: str
    media_type: str
    content: bytes


async def insert_attachment(
    conn: psycopg.AsyncConnection[Any],
    *,
    ticket_id: int,
    file_name: str,
    media_type: str,
    content: bytes,
    actor_id: int,
    at: datetime,
) -> int:
    """Store a checked file and return its id."""
    cur = await conn.execute(
        """INSERT INTO portal.attachment (ticket_id, file_name, media_type, content, actor_id, created_at)
           VALUES (%s, %s, %s, %s, %s, %s) RETURNING id""",
        (ticket_id, file_name, media_type, content, actor_id, at),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else 0


async def list_attachments(conn: psycopg.AsyncConnection[Any], ticket_id: int) -> list[AttachmentRow]:
    """The files of a ticket, oldest first."""
    async with conn.cursor(row_factory=class_row(AttachmentRow)) as cur:
        await cur.execute(
            """SELECT id, ticket_id, file_name, media_type, length(content) AS size_bytes, created_at
                 FROM portal.attachment WHERE ticket_id = %s ORDER BY id""",
            (ticket_id,),
        )
        return await cur.fetchall()


async def find_attachment(
    conn: psycopg.AsyncConnection[Any], ticket_id: int, attachment_id: int
) -> AttachmentContent | None:
    """A file of this very ticket, whose reader was checked already."""
    async with conn.cursor(row_factory=class_row(AttachmentContent)) as cur:
        await cur.execute(
            """SELECT file_name, media_type, content FROM portal.attachment
                WHERE id = %s AND ticket_id = %s""",
            (attachment_id, ticket_id),
        )
        return await cur.fetchone()
