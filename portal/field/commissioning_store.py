"""SQL of commissioning: what a person recorded, what a customer allowed, the certificate, drafts of the phone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from portal.field.checklist import Consent, Entry, Register

ENTRY_LIMIT = 200  # of one installation; a checklist has ten items

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a meter hangs now, as commissioning needs it."""

    usage_point_id: int
    installed_at: datetime
    is_critical: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """The end of a commissioning; `items` as the checklist stood, each with code, mark, at and by."""

    id: int
    meter_id: int
    installed_at: datetime
    items: list[dict[str, Any]]
    completed_at: datetime
    by_en: str
    by_ar: str


@dataclass(frozen=True, slots=True)
class TakenDraft:
    """A draft that was taken before, with what was answered then."""

    content_hash: bytes
    login_id: int
    answer: dict[str, Any]


async def find_place(conn: Conn, meter_id: int) -> Place | None:
    """Where the meter hangs; None for one in stock."""
    async with conn.cursor(row_factory=class_row(Place)) as cur:
        await cur.execute(
            """SELECT usage_point_id, installed_at, is_critical FROM meter_gateway.v_meter
                WHERE meter_id = %s AND usage_point_id IS NOT NULL""",
            (meter_id,),
        )
        return await cur.fetchone()


async def insert_consent(
    conn: Conn,
    *,
    meter_id: int,
    usage_point_id: int,
    purpose: str,
    given_by: str,
    method: str,
    given_at: datetime,
    recorded_by: int,
    now: datetime,
) -> None:
    """Write down what a customer allowed."""
    await conn.execute(
        """INSERT INTO portal.customer_consent
             (meter_id, usage_point_id, purpose, given_by, method, given_at, recorded_at, recorded_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (meter_id, usage_point_id, purpose, given_by, method, given_at, now, recorded_by),
    )


async def find_consent(
    conn: Conn, *, meter_id: int, usage_point_id: int, purpose: str, since: datetime
) -> Consent | None:
    """The newest consent for this meter at this place, recorded since `since`."""
    async with conn.cursor(row_factory=class_row(Consent)) as cur:
        await cur.execute(
            """SELECT c.given_by, c.method, c.given_at, c.recorded_at, l.display_name AS by_en,
                      coalesce(l.display_name_ar, l.display_name) AS by_ar
                 FROM portal.customer_consent c JOIN portal.login l ON l.id = c.recorded_by
                WHERE c.meter_id = %s AND c.usage_point_id = %s AND c.purpose = %s AND c.recorded_at >= %s
                ORDER BY c.given_at DESC, c.id DESC LIMIT 1""",
            (meter_id, usage_point_id, purpose, since),
        )
        return await cur.fetchone()


async def insert_entry(
    conn: Conn,
    *,
    meter_id: int,
    usage_point_id: int | None,
    item: str,
    outcome: str,
    detail: Mapping[str, Any],
    occurred_at: datetime,
    recorded_by: int,
    now: datetime,
) -> None:
    """Write down what a person saw or did."""
    await conn.execute(
        """INSERT INTO portal.commissioning_entry
             (meter_id, usage_point_id, item, outcome, detail, occurred_at, recorded_at, recorded_by)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (meter_id, usage_point_id, item, outcome, Jsonb(dict(detail)), occurred_at, now, recorded_by),
    )


async def list_entries(conn: Conn, meter_id: int, *, since: datetime) -> list[Entry]:
    """What was recorded since `since`, oldest first."""
    async with conn.cursor(row_factory=class_row(Entry)) as cur:
        await cur.execute(
            """SELECT e.item, e.outcome, e.detail, e.occurred_at, e.recorded_at, l.display_name AS by_en,
                      coalesce(l.display_name_ar, l.display_name) AS by_ar
                 FROM portal.commissioning_entry e JOIN portal.login l ON l.id = e.recorded_by
                WHERE e.meter_id = %s AND e.recorded_at >= %s ORDER BY e.id DESC LIMIT %s""",
            (meter_id, since, ENTRY_LIMIT),
        )
        return (await cur.fetchall())[::-1]


async def list_registers(conn: Conn, meter_id: int, *, at: datetime, reach: timedelta) -> list[Register]:
    """The counter's last reading at or before an instant and its first after, as far as `reach` on both sides."""
    async with conn.cursor(row_factory=class_row(Register)) as cur:
        await cur.execute(
            """(SELECT occurred_at AS at, value FROM meter_gateway.v_reading_judged
                 WHERE meter_id = %(meter)s AND channel = 'counter' AND quality <> 'suspect'
                   AND occurred_at > %(first)s AND occurred_at <= %(at)s ORDER BY occurred_at DESC LIMIT 1)
               UNION ALL
               (SELECT occurred_at, value FROM meter_gateway.v_reading_judged
                 WHERE meter_id = %(meter)s AND channel = 'counter' AND quality <> 'suspect'
                   AND occurred_at > %(at)s AND occurred_at < %(last)s ORDER BY occurred_at LIMIT 1)""",
            {"meter": meter_id, "at": at, "first": at - reach, "last": at + reach},
        )
        return await cur.fetchall()


async def count_photos(conn: Conn, meter_id: int, *, since: datetime) -> int:
    """How many photos were recorded since `since`."""
    cur = await conn.execute(
        "SELECT count(*) FROM portal.site_photo WHERE meter_id = %s AND recorded_at >= %s", (meter_id, since)
    )
    row = await cur.fetchone()
    return int(row[0]) if row else 0


async def insert_certificate(
    conn: Conn,
    *,
    meter_id: int,
    usage_point_id: int,
    installed_at: datetime,
    items: list[dict[str, Any]],
    completed_by: int,
    now: datetime,
) -> None:
    """Close a commissioning; a second time changes nothing."""
    await conn.execute(
        """INSERT INTO portal.commissioning_certificate
             (meter_id, usage_point_id, installed_at, items, completed_at, completed_by)
           VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (meter_id, installed_at) DO NOTHING""",
        (meter_id, usage_point_id, installed_at, Jsonb(items), now, completed_by),
    )


async def find_certificate(conn: Conn, meter_id: int, *, installed_at: datetime) -> Certificate | None:
    """The certificate of an installation."""
    async with conn.cursor(row_factory=class_row(Certificate)) as cur:
        await cur.execute(
            """SELECT c.id, c.meter_id, c.installed_at, c.items, c.completed_at, l.display_name AS by_en,
                      coalesce(l.display_name_ar, l.display_name) AS by_ar
                 FROM portal.commissioning_certificate c JOIN portal.login l ON l.id = c.completed_by
                WHERE c.meter_id = %s AND c.installed_at = %s""",
            (meter_id, installed_at),
        )
        return await cur.fetchone()


@dataclass(frozen=True, slots=True)
class OpenWork:
    """A meter that hangs since lately and has no certificate yet."""

    meter_id: int
    drn: str
    commodity: str
    address_en: str
    address_ar: str
    installed_at: datetime
    link_up: bool
    link: str


async def list_open_work(conn: Conn, *, since: datetime, limit: int) -> list[OpenWork]:
    """Meters hung since `since` that are not commissioned to the end, newest first."""
    async with conn.cursor(row_factory=class_row(OpenWork)) as cur:
        await cur.execute(
            """SELECT m.meter_id, m.drn, m.commodity, m.address_en, m.address_ar, m.installed_at, m.link_up, m.link
                 FROM meter_gateway.v_meter m
                WHERE m.installed_at >= %s AND NOT EXISTS (
                  SELECT FROM portal.commissioning_certificate c
                   WHERE c.meter_id = m.meter_id AND c.installed_at = m.installed_at)
                ORDER BY m.installed_at DESC, m.meter_id LIMIT %s""",
            (since, limit),
        )
        return await cur.fetchall()


async def find_draft(conn: Conn, key: str) -> TakenDraft | None:
    """The draft that was taken under this key."""
    async with conn.cursor(row_factory=class_row(TakenDraft)) as cur:
        await cur.execute(
            "SELECT content_hash, login_id, answer FROM portal.field_draft WHERE idempotency_key = %s", (key,)
        )
        return await cur.fetchone()


async def lock_draft_key(conn: Conn, key: str) -> None:
    """Let nobody else take a draft of this key until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('field_draft:' || %s, 0))", (key,))


async def insert_draft(
    conn: Conn,
    *,
    key: str,
    login_id: int,
    kind: str,
    content_hash: bytes,
    made_at: datetime,
    answer: Mapping[str, Any],
    now: datetime,
) -> None:
    """Note that a draft was taken and what was answered."""
    await conn.execute(
        """INSERT INTO portal.field_draft
             (idempotency_key, login_id, kind, content_hash, made_at, recorded_at, answer)
           VALUES (%s, %s, %s, %s, %s, %s, %s)""",
        (key, login_id, kind, content_hash, made_at, now, Jsonb(dict(answer))),
    )
