"""Work on a ticket: give it to a person, note, answer, hear the customer, attach, resolve."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import psycopg

from portal import message_store
from portal.contact_centre import attachment_store, calendar_store, clock_store, ticket_store
from portal.contact_centre.clock import ClockKind, due_after_reopening
from portal.contact_centre.ticket import (
    MAX_ATTACHMENTS,
    MAX_BODY,
    TicketEvent,
    TicketRefused,
    TicketState,
    check_reopen,
    check_text,
    media_type_of,
    move,
    safe_file_name,
)
from portal.contact_centre.ticket_store import TicketRow
from portal.i18n import Language, msg

# A form sent twice by an impatient thumb is one message; the same words an hour later are two.
REPEAT_WINDOW = timedelta(minutes=2)
SMS_TEXT = 300  # five SMS parts of Arabic text; the whole answer is on the ticket's page

Conn = psycopg.AsyncConnection[Any]


async def assign_ticket(
    conn: Conn, *, ticket_id: int, assignee_id: int, actor_id: int, now: datetime
) -> None:
    """Give a ticket to a person. Raises TicketRefused (ticket_resolved, assignee_unknown)."""
    ticket = await ticket_store.lock_ticket(conn, ticket_id)
    moved = move(ticket.state, TicketEvent.ASSIGN)
    names = {person.login_id: person.display_name for person in await ticket_store.list_staff(conn)}
    if assignee_id not in names:
        raise TicketRefused("assignee_unknown")
    if ticket.assigned_to == assignee_id:
        return
    await ticket_store.mark_assigned(conn, ticket_id, assignee_id)
    await ticket_store.mark_state(conn, ticket_id, moved.state, ticket.resolved_at)
    await _add(conn, ticket, "assigned", names[assignee_id], actor_id=actor_id, now=now, public=False)


async def add_note(conn: Conn, *, ticket_id: int, text: str, actor_id: int, now: datetime) -> None:
    """Keep a note for staff. Raises TicketRefused (note_empty, too_long)."""
    body = check_text(text, limit=MAX_BODY, empty_reason="note_empty")
    ticket = await ticket_store.lock_ticket(conn, ticket_id)
    move(ticket.state, TicketEvent.NOTE)
    await _add(conn, ticket, "note", body, actor_id=actor_id, now=now, public=False)


async def reply(
    conn: Conn,
    *,
    ticket_id: int,
    text: str,
    asks: bool,
    actor_id: int | None,
    now: datetime,
    languages: Mapping[str, Language],
) -> None:
    """Answer the customer in writing and by SMS; with `asks` the ticket waits for the customer's word.

    A person's answer meets the clock of the first answer, an automatic one (no actor) does not.
    Raises TicketRefused (reply_empty, too_long, ticket_resolved).
    """
    body = check_text(text, limit=MAX_BODY, empty_reason="reply_empty")
    ticket = await ticket_store.lock_ticket(conn, ticket_id)
    moved = move(ticket.state, TicketEvent.ASK_CUSTOMER if asks else TicketEvent.REPLY)
    entry_id = await _add(conn, ticket, "reply", body, actor_id=actor_id, now=now, public=True)
    if entry_id is None:
        return
    await ticket_store.mark_state(conn, ticket_id, moved.state, ticket.resolved_at)
    if actor_id is not None:
        await clock_store.mark_met(conn, ticket_id, ClockKind.FIRST_RESPONSE, now)
    template = msg("Raseed: answer to your request %(reference)s: %(text)s")
    await _send(conn, ticket, entry_id=entry_id, languages=languages, template=template, text=body, now=now)


async def add_customer_message(
    conn: Conn, *, ticket_id: int, text: str, actor_id: int | None, now: datetime
) -> None:
    """Hear the customer; within 14 days a resolved ticket takes up again and its clock runs on.

    Raises TicketRefused (message_empty, too_long, reopen_window_over).
    """
    body = check_text(text, limit=MAX_BODY, empty_reason="message_empty")
    ticket = await ticket_store.lock_ticket(conn, ticket_id)
    moved = move(ticket.state, TicketEvent.CUSTOMER_MESSAGE)
    if moved.reopens and ticket.resolved_at is not None:
        check_reopen(ticket.resolved_at, now)
    entry_id = await _add(conn, ticket, "customer_message", body, actor_id=actor_id, now=now, public=True)
    if entry_id is None:
        return
    state = moved.state
    if moved.reopens and ticket.resolved_at is not None:
        if ticket.assigned_to is None:
            state = TicketState.OPEN
        await _add(conn, ticket, "reopened", "", actor_id=actor_id, now=now, public=True)
        await _run_on(conn, ticket_id, ticket.resolved_at, now)
    elif state is TicketState.ASSIGNED and ticket.assigned_to is None:
        state = TicketState.OPEN
    await ticket_store.mark_state(conn, ticket_id, state, None)


async def resolve(
    conn: Conn,
    *,
    ticket_id: int,
    text: str,
    actor_id: int | None,
    now: datetime,
    languages: Mapping[str, Language],
) -> None:
    """Close a ticket with its written answer, which names what was done (Oman, Decision 4/2020).

    Raises TicketRefused (resolution_empty, too_long, ticket_resolved).
    """
    body = check_text(text, limit=MAX_BODY, empty_reason="resolution_empty")
    ticket = await ticket_store.lock_ticket(conn, ticket_id)
    moved = move(ticket.state, TicketEvent.RESOLVE)
    entry_id = await _add(conn, ticket, "resolved", body, actor_id=actor_id, now=now, public=True)
    if entry_id is None:
        return
    await ticket_store.mark_state(conn, ticket_id, moved.state, now)
    await clock_store.mark_met(conn, ticket_id, ClockKind.FIRST_RESPONSE, now)
    await clock_store.mark_met(conn, ticket_id, ClockKind.RESOLUTION, now)
    template = msg("Raseed: your request %(reference)s is resolved: %(text)s")
    await _send(conn, ticket, entry_id=entry_id, languages=languages, template=template, text=body, now=now)


async def attach(
    conn: Conn, *, ticket_id: int, file_name: str, content: bytes, actor_id: int, now: datetime
) -> int:
    """Keep a file with a ticket and return its id.

    Raises TicketRefused (file_empty, file_too_big, file_type, too_many_files, ticket_resolved).
    """
    media_type = media_type_of(content)
    ticket = await ticket_store.lock_ticket(conn, ticket_id)
    move(ticket.state, TicketEvent.ATTACH)
    if len(await attachment_store.list_attachments(conn, ticket_id)) >= MAX_ATTACHMENTS:
        raise TicketRefused("too_many_files")
    name = safe_file_name(file_name, media_type)
    attachment_id = await attachment_store.insert_attachment(
        conn,
        ticket_id=ticket_id,
        file_name=name,
        media_type=media_type,
        content=content,
        actor_id=actor_id,
        at=now,
    )
    await ticket_store.insert_entry(
        conn, ticket_id=ticket_id, kind="attached", is_public=True, actor_id=actor_id, body=name, at=now
    )
    return attachment_id


async def follow_outage(conn: Conn, *, ticket_id: int, outage_id: int, now: datetime) -> bool:
    """Let an open ticket follow an outage; False when it does so already or is resolved."""
    ticket = await ticket_store.lock_ticket(conn, ticket_id)
    if ticket.outage_id == outage_id or ticket.state is TicketState.RESOLVED:
        return False
    await ticket_store.mark_outage(conn, ticket_id, outage_id)
    await ticket_store.insert_entry(
        conn,
        ticket_id=ticket_id,
        kind="linked_outage",
        is_public=True,
        actor_id=None,
        body=str(outage_id),
        at=now,
    )
    return True


async def _add(
    conn: Conn, ticket: TicketRow, kind: str, body: str, *, actor_id: int | None, now: datetime, public: bool
) -> int | None:
    """Add an entry and return its id; None when the same person just said the same."""
    last = await ticket_store.find_last_entry(conn, ticket.id)
    if (
        last is not None
        and (last.kind, last.body, last.actor_id) == (kind, body, actor_id)
        and now - last.occurred_at < REPEAT_WINDOW
    ):
        return None
    return await ticket_store.insert_entry(
        conn, ticket_id=ticket.id, kind=kind, is_public=public, actor_id=actor_id, body=body, at=now
    )


async def _send(
    conn: Conn,
    ticket: TicketRow,
    *,
    entry_id: int,
    languages: Mapping[str, Language],
    template: str,
    text: str,
    now: datetime,
) -> None:
    shown = text if len(text) <= SMS_TEXT else text[: SMS_TEXT - 1] + "…"
    await message_store.insert_message(
        conn,
        idempotency_key=f"ticket:{ticket.reference}:entry:{entry_id}",
        customer_id=ticket.customer_id,
        phone=ticket.customer_phone,
        kind="ticket",
        language=ticket.language,
        body=languages[ticket.language]._(template, reference=ticket.reference, text=shown),
        reference=ticket.reference,
        now=now,
    )


async def _run_on(conn: Conn, ticket_id: int, resolved_at: datetime, now: datetime) -> None:
    calendars = await calendar_store.list_calendars(conn)
    for clock in await clock_store.list_clocks(conn, ticket_id):
        if clock.kind is ClockKind.RESOLUTION:
            due = due_after_reopening(
                clock.promise,
                calendars[clock.calendar_code],
                due=clock.due_at,
                resolved_at=resolved_at,
                now=now,
            )
            await clock_store.mark_running_again(conn, clock.id, due)
