"""The desk's requests: the list by due time, and one request with its story and its tools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import psycopg
from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.responses import Response

from portal.access import NotFound, Viewer, require
from portal.contact_centre import answer_ticket, attachment_store, clock_store, ticket_store
from portal.contact_centre.reference import InvalidReference, normalise_reference
from portal.contact_centre.ticket import MAX_ATTACHMENT_BYTES, TicketKind, TicketRefused, TicketState
from portal.contact_centre.ticket_store import TicketRow
from portal.contact_centre.ticket_words import (
    CHANNEL_WORDS,
    KIND_WORDS,
    STATE_TONES,
    STATE_WORDS,
    clock_words,
    due_words,
    refusal_words,
)
from portal.outages import outage_store
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of

router = APIRouter()
Agent = Annotated[Viewer, Depends(require("desk.view"))]
TicketAgent = Annotated[Viewer, Depends(require("desk.ticket"))]

Conn = psycopg.AsyncConnection[Any]
Show = Literal["open", "mine", "resolved"]


@router.get("/desk/tickets")
async def tickets_page(
    request: Request, viewer: Agent, show: Show = "open", kind: TicketKind | Literal[""] = ""
) -> Response:
    """List requests by the time they are to be resolved; what is overdue stands first."""
    now, language = datetime.now(UTC), language_of(request)
    async with runtime_of(request).pool.connection() as conn:
        tickets = await ticket_store.list_tickets(
            conn,
            resolved=show == "resolved",
            assigned_to=viewer.login_id if show == "mine" else None,
            kind=kind or None,
        )
    listed = [
        (ticket, due_words(ticket.resolution_due_at or now, ticket.resolved_at, now, language))
        for ticket in tickets
    ]
    return page(
        request,
        "desk/tickets.html",
        block="list",
        show=show,
        kind=kind,
        listed=listed,
        overdue=sum(1 for _, words in listed if words.tone == "bad") if show != "resolved" else 0,
        kind_words=KIND_WORDS,
        state_words=STATE_WORDS,
        state_tones=STATE_TONES,
    )


async def get_ticket(conn: Conn, typed: str, *, customer_id: int | None = None) -> TicketRow:
    """The ticket of a reference as a person may type it. Raises NotFound."""
    try:
        reference = normalise_reference(typed)
    except InvalidReference:
        raise NotFound from None
    ticket = await ticket_store.find_ticket(conn, reference, customer_id=customer_id)
    if ticket is None:
        raise NotFound
    return ticket


@router.get("/desk/tickets/{reference}")
async def ticket_page(request: Request, reference: str, _viewer: Agent) -> Response:
    """Show one request."""
    return await _ticket_page(request, reference)


async def _ticket_page(
    request: Request, reference: str, *, error: str = "", typed: dict[str, str] | None = None
) -> Response:
    now, language = datetime.now(UTC), language_of(request)
    async with runtime_of(request).pool.connection() as conn:
        ticket = await get_ticket(conn, reference)
        entries = await ticket_store.list_entries(conn, ticket.id)
        clocks = await clock_store.list_clocks(conn, ticket.id)
        files = await attachment_store.list_attachments(conn, ticket.id)
        staff = await ticket_store.list_staff(conn)
        outage = (
            await outage_store.find_outage(conn, ticket.outage_id) if ticket.outage_id is not None else None
        )
    return page(
        request,
        "desk/ticket.html",
        status=422 if error else 200,
        ticket=ticket,
        entries=entries,
        clocks=[clock_words(clock, now, language) for clock in clocks],
        files=files,
        staff=staff,
        outage=outage,
        is_resolved=ticket.state is TicketState.RESOLVED,
        kind_words=KIND_WORDS,
        state_words=STATE_WORDS,
        state_tones=STATE_TONES,
        channel_words=CHANNEL_WORDS,
        error=error,
        typed={"reply": "", "note": "", "resolution": ""} | (typed or {}),
    )


async def _change(
    request: Request,
    reference: str,
    step: Callable[[Conn, TicketRow, datetime], Awaitable[object]],
    *,
    done: str,
    typed: dict[str, str] | None = None,
) -> Response:
    """Run one use case on a ticket in its transaction, and lead back to the page."""
    language = language_of(request)
    try:
        async with runtime_of(request).pool.connection() as conn:
            ticket = await get_ticket(conn, reference)
            await step(conn, ticket, datetime.now(UTC))
    except TicketRefused as refused:
        return await _ticket_page(
            request, reference, error=refusal_words(refused.reason, language), typed=typed
        )
    return redirect(request, f"/desk/tickets/{ticket.reference}", flash=("ok", done))


@router.post("/desk/tickets/{reference}/assign")
async def assign(
    request: Request, reference: str, viewer: TicketAgent, login_id: Annotated[int, Form(ge=0)] = 0
) -> Response:
    """Give a request to a person; without one, to whoever pressed the button."""

    async def step(conn: Conn, ticket: TicketRow, now: datetime) -> None:
        await answer_ticket.assign_ticket(
            conn,
            ticket_id=ticket.id,
            assignee_id=login_id or viewer.login_id,
            actor_id=viewer.login_id,
            now=now,
        )

    return await _change(request, reference, step, done=language_of(request)._("The request has its person."))


@router.post("/desk/tickets/{reference}/note")
async def note(
    request: Request, reference: str, viewer: TicketAgent, text: Annotated[str, Form(max_length=20_000)] = ""
) -> Response:
    """Keep a note that only staff read."""

    async def step(conn: Conn, ticket: TicketRow, now: datetime) -> None:
        await answer_ticket.add_note(conn, ticket_id=ticket.id, text=text, actor_id=viewer.login_id, now=now)

    done = language_of(request)._("The note is kept.")
    return await _change(request, reference, step, done=done, typed={"note": text})


@router.post("/desk/tickets/{reference}/reply")
async def reply(
    request: Request,
    reference: str,
    viewer: TicketAgent,
    text: Annotated[str, Form(max_length=20_000)] = "",
    asks: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """Answer the customer in writing and by SMS."""

    async def step(conn: Conn, ticket: TicketRow, now: datetime) -> None:
        await answer_ticket.reply(
            conn,
            ticket_id=ticket.id,
            text=text,
            asks=bool(asks),
            actor_id=viewer.login_id,
            now=now,
            languages=runtime_of(request).languages,
        )

    done = language_of(request)._("The answer is sent.")
    return await _change(request, reference, step, done=done, typed={"reply": text})


@router.post("/desk/tickets/{reference}/resolve")
async def resolve(
    request: Request, reference: str, viewer: TicketAgent, text: Annotated[str, Form(max_length=20_000)] = ""
) -> Response:
    """Close a request with its written answer."""

    async def step(conn: Conn, ticket: TicketRow, now: datetime) -> None:
        await answer_ticket.resolve(
            conn,
            ticket_id=ticket.id,
            text=text,
            actor_id=viewer.login_id,
            now=now,
            languages=runtime_of(request).languages,
        )

    done = language_of(request)._("The request is resolved and the customer is told.")
    return await _change(request, reference, step, done=done, typed={"resolution": text})


@router.post("/desk/tickets/{reference}/attach")
async def attach(
    request: Request, reference: str, viewer: TicketAgent, file: Annotated[UploadFile, File()]
) -> Response:
    """Keep a photo or a PDF with a request."""
    content = await file.read(MAX_ATTACHMENT_BYTES + 1)

    async def step(conn: Conn, ticket: TicketRow, now: datetime) -> None:
        await answer_ticket.attach(
            conn,
            ticket_id=ticket.id,
            file_name=file.filename or "",
            content=content,
            actor_id=viewer.login_id,
            now=now,
        )

    return await _change(request, reference, step, done=language_of(request)._("The file is attached."))


@router.get("/desk/tickets/{reference}/files/{file_id}")
async def download(request: Request, reference: str, file_id: int, _viewer: Agent) -> Response:
    """Hand out a file of a request."""
    async with runtime_of(request).pool.connection() as conn:
        ticket = await get_ticket(conn, reference)
        return await file_response(conn, ticket.id, file_id)


async def file_response(conn: Conn, ticket_id: int, file_id: int) -> Response:
    """A file as a download: a browser never runs or shows what a stranger sent. Raises NotFound."""
    found = await attachment_store.find_attachment(conn, ticket_id, file_id)
    if found is None:
        raise NotFound
    plain = "".join(char for char in found.file_name if char.isascii() and char.isprintable() and char != '"')
    return Response(
        found.content,
        media_type=found.media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{plain or "file"}"',
            "Cache-Control": "no-store",
        },
    )
