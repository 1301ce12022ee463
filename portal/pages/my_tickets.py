"""A subscriber's requests: what they asked, what we answered, and the word back."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import Response

from portal import my_store, timeline_store
from portal.access import NotFound, Viewer, require
from portal.contact_centre import answer_ticket, attachment_store, clock_store, desk_store, ticket_store
from portal.contact_centre.answer_ticket import attach as attach_file
from portal.contact_centre.open_ticket import Caller, NewTicket, TicketKeyReused, open_ticket
from portal.contact_centre.ticket import (
    MAX_ATTACHMENT_BYTES,
    REOPEN_WINDOW,
    Channel,
    TicketKind,
    TicketRefused,
    TicketState,
)
from portal.contact_centre.ticket_words import (
    KIND_WORDS,
    STATE_TONES,
    clock_words,
    due_words,
    refusal_words,
)
from portal.i18n import msg
from portal.outages.supply import SupplyAnswer, explain_supply
from portal.pages.account import spend
from portal.pages.desk_tickets import file_response, get_ticket
from portal.pages.render import language_of, page, redirect
from portal.rate_limit import Limit
from portal.runtime import runtime_of
from portal.timeline import describe

router = APIRouter()
Subscriber = Annotated[Viewer, Depends(require("my.ticket"))]
FormKey = Annotated[str, Form(min_length=8, max_length=64)]

# A person in trouble writes a few times an hour; more is a script.
WRITE_PER_LOGIN = Limit("ticket-write", 30, 3600)
# The customer's own words for where a request stands.
OWN_STATE_WORDS = {
    TicketState.OPEN: msg("Received"),
    TicketState.ASSIGNED: msg("In work"),
    TicketState.WAITING_CUSTOMER: msg("Waiting for your answer"),
    TicketState.RESOLVED: msg("Resolved"),
}

Conn = psycopg.AsyncConnection[Any]


@router.get("/my/tickets")
async def tickets_page(request: Request, viewer: Subscriber) -> Response:
    """List one's own requests."""
    now, language = datetime.now(UTC), language_of(request)
    async with runtime_of(request).pool.connection() as conn:
        tickets = await ticket_store.list_tickets(conn, customer_id=viewer.subscriber_id)
    return page(
        request,
        "tickets/list.html",
        listed=[
            (ticket, due_words(ticket.resolution_due_at or now, ticket.resolved_at, now, language))
            for ticket in tickets
        ],
        kind_words=KIND_WORDS,
        state_words=OWN_STATE_WORDS,
        state_tones=STATE_TONES,
    )


@router.get("/my/story")
async def story_page(request: Request, viewer: Subscriber, before: datetime | None = None) -> Response:
    """Show all that happened to one's own meters, payments and requests, as one story."""
    now = datetime.now(UTC)
    bound = now if before is None or before.tzinfo is None else before
    async with runtime_of(request).pool.connection() as conn:
        rows = await timeline_store.list_customer_timeline(
            conn, customer_id=viewer.subscriber_id, before=bound
        )
    return page(
        request,
        "tickets/story.html",
        lines=describe(rows, language_of(request), public=True),
        older=timeline_store.older_page("/my/story", rows),
    )


@router.get("/my/tickets/new")
async def new_form(
    request: Request,
    viewer: Subscriber,
    kind: TicketKind = TicketKind.NO_SUPPLY,
    meter: Annotated[str, Query(max_length=13)] = "",
) -> Response:
    """Ask what is wrong; for no supply, say first what we can see from here."""
    return await _new_form(request, viewer, {"kind": kind.value, "drn": meter, "subject": "", "body": ""})


async def _new_form(request: Request, viewer: Viewer, typed: dict[str, str], error: str = "") -> Response:
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meters = await my_store.list_meters(conn, viewer.subscriber_id)
        answers: list[tuple[my_store.OwnMeter, SupplyAnswer]] = [
            (meter, await explain_supply(conn, meter_id=meter.meter_id, now=now))
            for meter in meters
            if typed["drn"] in {"", meter.drn}
        ]
    return page(
        request,
        "tickets/new.html",
        status=422 if error else 200,
        meters=meters,
        answers=answers,
        kind_words=KIND_WORDS,
        form=typed,
        error=error,
        form_key=secrets.token_urlsafe(16),
    )


@router.post("/my/tickets/new")
async def open_own(
    request: Request,
    viewer: Subscriber,
    *,
    form_key: FormKey,
    kind: Annotated[TicketKind, Form()],
    subject: Annotated[str, Form(max_length=1000)] = "",
    body: Annotated[str, Form(max_length=20_000)] = "",
    drn: Annotated[str, Form(max_length=13)] = "",
) -> Response:
    """Register a request."""
    now, language = datetime.now(UTC), language_of(request)
    await spend(request, now, (WRITE_PER_LOGIN, str(viewer.login_id)))
    try:
        async with runtime_of(request).pool.connection() as conn:
            customer = await desk_store.find_customer(conn, viewer.subscriber_id)
            own = {
                meter.drn: meter.meter_id for meter in await my_store.list_meters(conn, viewer.subscriber_id)
            }
            if customer is None or (drn and drn not in own):
                raise NotFound
            opened = await open_ticket(
                conn,
                caller=Caller(customer.id, customer.phone, customer.language),
                new=NewTicket(
                    f"my:{viewer.login_id}:{form_key}", kind, Channel.WEB, subject, body, own.get(drn)
                ),
                created_by=viewer.login_id,
                now=now,
                languages=runtime_of(request).languages,
            )
    except (TicketRefused, TicketKeyReused) as refused:
        reason = refused.reason if isinstance(refused, TicketRefused) else "key_invalid"
        typed = {"kind": kind.value, "drn": drn, "subject": subject, "body": body}
        return await _new_form(request, viewer, typed, refusal_words(reason, language))
    text = language._(
        "Your request is registered. Its number is %(reference)s.", reference=opened.ticket.reference
    )
    if opened.outage_id is not None:
        text = language._(
            "We know of an interruption in your area. Your report %(reference)s follows it: you need not write"
            " again, we will tell you when supply is back.",
            reference=opened.ticket.reference,
        )
    return redirect(request, f"/my/tickets/{opened.ticket.reference}", flash=("ok", text))


@router.get("/my/tickets/{reference}")
async def ticket_page(request: Request, reference: str, viewer: Subscriber) -> Response:
    """Show one's own request with all that was said in public."""
    return await _ticket_page(request, viewer, reference)


async def _ticket_page(
    request: Request, viewer: Viewer, reference: str, *, error: str = "", typed: str = ""
) -> Response:
    now, language = datetime.now(UTC), language_of(request)
    async with runtime_of(request).pool.connection() as conn:
        ticket = await get_ticket(conn, reference, customer_id=viewer.subscriber_id)
        entries = await ticket_store.list_entries(conn, ticket.id, public_only=True)
        clocks = await clock_store.list_clocks(conn, ticket.id)
        files = await attachment_store.list_attachments(conn, ticket.id)
    reopens = ticket.resolved_at is not None and now - ticket.resolved_at <= REOPEN_WINDOW
    return page(
        request,
        "tickets/ticket.html",
        status=422 if error else 200,
        ticket=ticket,
        entries=entries,
        clocks=[clock_words(clock, now, language) for clock in clocks],
        files=files,
        kind_words=KIND_WORDS,
        state_words=OWN_STATE_WORDS,
        state_tones=STATE_TONES,
        is_resolved=ticket.state is TicketState.RESOLVED,
        may_write=ticket.resolved_at is None or reopens,
        error=error,
        typed=typed,
    )


@router.post("/my/tickets/{reference}/message")
async def write(
    request: Request, reference: str, viewer: Subscriber, text: Annotated[str, Form(max_length=20_000)] = ""
) -> Response:
    """Add a message to one's own request."""
    now, language = datetime.now(UTC), language_of(request)
    await spend(request, now, (WRITE_PER_LOGIN, str(viewer.login_id)))
    try:
        async with runtime_of(request).pool.connection() as conn:
            ticket = await get_ticket(conn, reference, customer_id=viewer.subscriber_id)
            await answer_ticket.add_customer_message(
                conn, ticket_id=ticket.id, text=text, actor_id=viewer.login_id, now=now
            )
    except TicketRefused as refused:
        error = refusal_words(refused.reason, language)
        return await _ticket_page(request, viewer, reference, error=error, typed=text)
    return redirect(
        request, f"/my/tickets/{ticket.reference}", flash=("ok", language._("Your message is with us."))
    )


@router.post("/my/tickets/{reference}/attach")
async def attach(
    request: Request, reference: str, viewer: Subscriber, file: Annotated[UploadFile, File()]
) -> Response:
    """Add a photo or a PDF to one's own request."""
    now, language = datetime.now(UTC), language_of(request)
    await spend(request, now, (WRITE_PER_LOGIN, str(viewer.login_id)))
    content = await file.read(MAX_ATTACHMENT_BYTES + 1)
    try:
        async with runtime_of(request).pool.connection() as conn:
            ticket = await get_ticket(conn, reference, customer_id=viewer.subscriber_id)
            await attach_file(
                conn,
                ticket_id=ticket.id,
                file_name=file.filename or "",
                content=content,
                actor_id=viewer.login_id,
                now=now,
            )
    except TicketRefused as refused:
        return await _ticket_page(request, viewer, reference, error=refusal_words(refused.reason, language))
    return redirect(
        request, f"/my/tickets/{ticket.reference}", flash=("ok", language._("The file is attached."))
    )


@router.get("/my/tickets/{reference}/files/{file_id}")
async def download(request: Request, reference: str, file_id: int, viewer: Subscriber) -> Response:
    """Hand out a file of one's own request."""
    async with runtime_of(request).pool.connection() as conn:
        ticket = await get_ticket(conn, reference, customer_id=viewer.subscriber_id)
        return await file_response(conn, ticket.id, file_id)
