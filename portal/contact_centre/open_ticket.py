"""Open a ticket: reference, clocks, the customer's message, and the outage that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from portal import formats, message_store
from portal.contact_centre import calendar_store, clock_store, ticket_store
from portal.contact_centre.clock import ClockKind, plan_clocks
from portal.contact_centre.reference import make_reference
from portal.contact_centre.ticket import (
    MAX_BODY,
    MAX_SUBJECT,
    Channel,
    TicketKind,
    TicketRefused,
    check_text,
)
from portal.contact_centre.ticket_store import TicketRow
from portal.i18n import Language
from portal.outages import outage_store


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose ticket it is and where the answer goes."""

    customer_id: int
    phone: str
    language: str


@dataclass(frozen=True, slots=True)
class NewTicket:
    """What a person came with; `key` is made by the caller's form and makes a repeat harmless."""

    key: str
    kind: TicketKind
    channel: Channel
    subject: str
    body: str
    meter_id: int | None = None
    vend_id: str | None = None


@dataclass(frozen=True, slots=True)
class OpenedTicket:
    """The ticket; `repeated` when this very request had made it before, `outage_id` when it follows one."""

    ticket: TicketRow
    outage_id: int | None
    repeated: bool


class TicketKeyReused(Exception):
    """The idempotency key made another ticket with other content."""


async def open_ticket(
    conn: psycopg.AsyncConnection[Any],
    *,
    caller: Caller,
    new: NewTicket,
    created_by: int | None,
    now: datetime,
    languages: Mapping[str, Language],
) -> OpenedTicket:
    """Open a ticket, start its clocks and tell the customer its reference.

    A no-supply ticket on a meter under an open outage follows that outage, so that no second crew goes out.
    Raises TicketRefused (subject_empty, body_empty, too_long, not_text), TicketKeyReused.
    """
    subject = check_text(new.subject, limit=MAX_SUBJECT, empty_reason="subject_empty").replace("\n", " ")
    body = check_text(new.body, limit=MAX_BODY, empty_reason="body_empty")
    if not 8 <= len(new.key) <= 100:
        raise TicketRefused("key_invalid")
    outage = None
    if new.kind is TicketKind.NO_SUPPLY and new.meter_id is not None:
        outage = await outage_store.find_open_for_meter(conn, new.meter_id)
    outage_id = outage.outage_id if outage else None
    ticket_id = await ticket_store.insert_ticket(
        conn,
        reference=make_reference(formats.in_muscat(now).year, await ticket_store.next_number(conn)),
        kind=new.kind,
        channel=new.channel,
        customer_id=caller.customer_id,
        meter_id=new.meter_id,
        outage_id=outage_id,
        vend_id=new.vend_id,
        subject=subject,
        language=caller.language,
        idempotency_key=new.key,
        created_by=created_by,
        created_at=now,
    )
    if ticket_id is None:
        return await _the_one_before(conn, caller, new, subject)
    await _tell_the_story(conn, ticket_id, body=body, outage_id=outage_id, created_by=created_by, now=now)
    clocks = plan_clocks(new.kind, new.channel, now, await calendar_store.list_calendars(conn))
    await clock_store.insert_clocks(conn, ticket_id, clocks)
    ticket = await ticket_store.get_ticket(conn, ticket_id)
    due_at = next(clock.due_at for clock in clocks if clock.promise.kind is ClockKind.RESOLUTION)
    await message_store.insert_message(
        conn,
        idempotency_key=f"ticket:{ticket.reference}:opened",
        customer_id=caller.customer_id,
        phone=caller.phone,
        kind="ticket",
        language=caller.language,
        body=_opened_text(
            languages[caller.language], ticket.reference, due_at, follows=outage_id is not None
        ),
        reference=ticket.reference,
        now=now,
    )
    if new.kind is TicketKind.NO_SUPPLY and new.meter_id is not None:
        await ticket_store.notify_supply_signal(conn, new.meter_id)
    return OpenedTicket(ticket, outage_id, repeated=False)


async def _the_one_before(
    conn: psycopg.AsyncConnection[Any], caller: Caller, new: NewTicket, subject: str
) -> OpenedTicket:
    before = await ticket_store.find_by_key(conn, new.key)
    asked = (new.kind.value, caller.customer_id, new.meter_id, subject)
    if before is None or (before.kind, before.customer_id, before.meter_id, before.subject) != asked:
        raise TicketKeyReused
    ticket = await ticket_store.find_ticket(conn, before.reference, customer_id=caller.customer_id)
    if ticket is None:
        raise TicketKeyReused
    return OpenedTicket(ticket, ticket.outage_id, repeated=True)


async def _tell_the_story(
    conn: psycopg.AsyncConnection[Any],
    ticket_id: int,
    *,
    body: str,
    outage_id: int | None,
    created_by: int | None,
    now: datetime,
) -> None:
    await ticket_store.insert_entry(
        conn, ticket_id=ticket_id, kind="opened", is_public=True, actor_id=created_by, body=body, at=now
    )
    if outage_id is not None:
        await ticket_store.insert_entry(
            conn,
            ticket_id=ticket_id,
            kind="linked_outage",
            is_public=True,
            actor_id=None,
            body=str(outage_id),
            at=now,
        )


def _opened_text(language: Language, reference: str, due_at: datetime, *, follows: bool) -> str:
    if follows:
        return language._(
            "Raseed: your report %(reference)s is joined to a supply interruption that we know of in your area."
            " Crews are on it; we will tell you when your supply is back.",
            reference=reference,
        )
    return language._(
        "Raseed: your request %(reference)s is registered. We will resolve it by %(due)s.",
        reference=reference,
        due=formats.when_text(due_at, language.code),
    )
