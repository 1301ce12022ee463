"""What a person or the watch decides about an outage: confirm, note, cancel, close; followers are told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import psycopg

from portal import formats
from portal.contact_centre import ticket_store
from portal.contact_centre.answer_ticket import reply, resolve
from portal.contact_centre.ticket import TicketState
from portal.i18n import Language
from portal.outages import outage_store
from portal.outages.infer import Rules, is_momentary
from portal.outages.outage import OutageEvent, OutageRefused, move

MAX_NOTE = 2000  # a page of text; more belongs into a document
SILENT_LISTED = 50  # meters named in the entry; the page lists them all

Conn = psycopg.AsyncConnection[Any]


async def confirm_outage(conn: Conn, *, outage_id: int, actor_id: int, now: datetime) -> None:
    """Note that a person knows the outage is real. Raises OutageRefused, LookupError."""
    outage = await outage_store.lock_outage(conn, outage_id)
    await outage_store.mark_state(conn, outage_id, move(outage.state, OutageEvent.CONFIRM))
    await outage_store.insert_entry(
        conn, outage_id=outage_id, kind="confirmed", detail={}, actor_id=actor_id, at=now
    )


async def add_note(conn: Conn, *, outage_id: int, text: str, actor_id: int, now: datetime) -> None:
    """Keep a note for staff. Raises OutageRefused (note_empty, too_long), LookupError."""
    body = text.strip()
    if not body or "\x00" in body:
        raise OutageRefused("note_empty")
    if len(body) > MAX_NOTE:
        raise OutageRefused("too_long")
    outage = await outage_store.lock_outage(conn, outage_id)
    move(outage.state, OutageEvent.NOTE)
    await outage_store.insert_entry(
        conn, outage_id=outage_id, kind="note", detail={"text": body}, actor_id=actor_id, at=now
    )


async def cancel_outage(conn: Conn, *, outage_id: int, actor_id: int, now: datetime) -> None:
    """Close a false alarm; its signals do not open it again. Raises OutageRefused, LookupError."""
    outage = await outage_store.lock_outage(conn, outage_id)
    await outage_store.mark_state(conn, outage_id, move(outage.state, OutageEvent.CANCEL))
    await outage_store.insert_entry(
        conn, outage_id=outage_id, kind="cancelled", detail={}, actor_id=actor_id, at=now
    )


async def close_outage(
    conn: Conn,
    *,
    outage_id: int,
    actor_id: int | None,
    now: datetime,
    rules: Rules,
    languages: Mapping[str, Language],
) -> None:
    """Close an outage as restored and answer every ticket that follows it.

    Closed by the watch (no actor) it ends when its last meter was seen alive, by a person now. A meter not
    heard is listed, and its ticket stays open with a question. Raises OutageRefused, LookupError.
    """
    outage = await outage_store.lock_outage(conn, outage_id)
    state = move(outage.state, OutageEvent.RESTORE)
    meters = await outage_store.list_meters(conn, outage_id)
    seen = [meter.restored_at for meter in meters if meter.restored_at is not None]
    restored_at = max(seen) if seen and actor_id is None else now
    await outage_store.mark_state(conn, outage_id, state, restored_at=restored_at)
    silent = [meter.drn for meter in meters if meter.restored_at is None]
    detail = {
        "closed": True,
        "meters": len(seen),
        "silent": silent[:SILENT_LISTED],
        "silent_count": len(silent),
        "momentary": is_momentary(outage.started_at, restored_at, rules),
    }
    await outage_store.insert_entry(
        conn, outage_id=outage_id, kind="restored", detail=detail, actor_id=actor_id, at=now
    )
    restored_meters = {meter.meter_id: meter.restored_at for meter in meters if meter.restored_at is not None}
    for ticket in await ticket_store.list_tickets(conn, outage_id=outage_id, resolved=False):
        if ticket.state is TicketState.RESOLVED:
            continue
        language = languages[ticket.language]
        own_time = restored_meters.get(ticket.meter_id) if ticket.meter_id is not None else None
        if own_time is not None:
            text = language._(
                "Your supply is back since %(time)s: your meter reports it."
                " If something is still wrong, answer here within 14 days.",
                time=formats.when_text(own_time, language.code),
            )
            await resolve(conn, ticket_id=ticket.id, text=text, actor_id=None, now=now, languages=languages)
        else:
            text = language._(
                "Supply in your area is back, but your meter has not told us so."
                " Do you have supply again? Please answer here."
            )
            await reply(
                conn, ticket_id=ticket.id, text=text, asks=True, actor_id=None, now=now, languages=languages
            )
