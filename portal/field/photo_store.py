"""SQL of the photos of meters and their places."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from portal.field.photo import CleanPhoto

LIST_LIMIT = 40  # of one meter: more than anybody takes in its life

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class PhotoRow:
    """A photo without its pixels; `taken_by` is who recorded it, in both scripts."""

    id: int
    meter_id: int
    subject: str
    note: str
    width: int
    height: int
    size_bytes: int
    recorded_at: datetime
    by_en: str
    by_ar: str


async def insert_photo(
    conn: Conn,
    *,
    meter_id: int,
    usage_point_id: int | None,
    subject: str,
    note: str,
    photo: CleanPhoto,
    recorded_by: int,
    now: datetime,
) -> int:
    """Store a cleaned photo and return its id."""
    cur = await conn.execute(
        """INSERT INTO portal.site_photo
             (meter_id, usage_point_id, subject, note, content, width, height, recorded_at, recorded_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id""",
        (meter_id, usage_point_id, subject, note, photo.content, photo.width, photo.height, now, recorded_by),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else 0


async def list_photos(conn: Conn, meter_id: int) -> list[PhotoRow]:
    """The photos of a meter, newest first."""
    async with conn.cursor(row_factory=class_row(PhotoRow)) as cur:
        await cur.execute(
            """SELECT p.id, p.meter_id, p.subject, p.note, p.width, p.height, length(p.content) AS size_bytes,
                      p.recorded_at, l.display_name AS by_en, coalesce(l.display_name_ar, l.display_name) AS by_ar
                 FROM portal.site_photo p JOIN portal.login l ON l.id = p.recorded_by
                WHERE p.meter_id = %s ORDER BY p.id DESC LIMIT %s""",
            (meter_id, LIST_LIMIT),
        )
        return await cur.fetchall()


async def find_content(conn: Conn, photo_id: int) -> bytes | None:
    """The JPEG of a photo."""
    cur = await conn.execute("SELECT content FROM portal.site_photo WHERE id = %s", (photo_id,))
    row = await cur.fetchone()
    return bytes(row[0]) if row else None
