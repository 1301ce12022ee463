"""The agent's desk: find a customer, see everything about them on one page, open a request."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from portal import timeline_store
from portal.access import NotAllowed, NotFound, Viewer, require
from portal.contact_centre import desk_store, ticket_store
from portal.contact_centre.desk_store import DeskCustomer, DeskMeter
from portal.contact_centre.open_ticket import Caller, NewTicket, TicketKeyReused, open_ticket
from portal.contact_centre.reference import InvalidReference, normalise_reference
from portal.contact_centre.ticket import Channel, TicketKind, TicketRefused
from portal.contact_centre.ticket_words import CHANNEL_WORDS, KIND_WORDS, due_words, refusal_words
from portal.formats import plain
from portal.outages.supply import SupplyAnswer, explain_supply
from portal.pages import desk_outages, desk_tickets
from portal.pages.account import spend
from portal.pages.render import language_of, page, redirect
from portal.rate_limit import Limit
from portal.runtime import runtime_of
from portal.timeline import Line, describe, mask_token

router = APIRouter()
router.include_router(desk_tickets.router)
router.include_router(desk_outages.router)
Agent = Annotated[Viewer, Depends(require("desk.view"))]
TicketAgent = Annotated[Viewer, Depends(require("desk.ticket"))]

# An agent reads a token out to a caller now and then; ten in ten minutes is somebody collecting them.
REVEAL_PER_LOGIN = Limit("token-reveal", 10, 600)
DESK_CHANNELS = (Channel.PHONE, Channel.WALK_IN, Channel.LETTER)

Conn = psycopg.AsyncConnection[Any]


@router.get("/desk")
async def search(request: Request, viewer: Agent, q: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Find a customer by phone, meter number or name, or a request by its reference."""
    if q:
        try:
            return redirect(request, f"/desk/tickets/{normalise_reference(q)}")
        except InvalidReference:
            pass
    async with runtime_of(request).pool.connection() as conn:
        found = await desk_store.search_customers(conn, q) if q.strip() else []
        mine = await ticket_store.list_tickets(conn, assigned_to=viewer.login_id, resolved=False, limit=8)
        waiting = await ticket_store.list_tickets(conn, resolved=False, limit=8)
    language, now = language_of(request), datetime.now(UTC)
    return page(
        request,
        "desk/search.html",
        q=q,
        found=found,
        mine=[(ticket, due_words(ticket.resolution_due_at or now, None, now, language)) for ticket in mine],
        waiting=[
            (ticket, due_words(ticket.resolution_due_at or now, None, now, language)) for ticket in waiting
        ],
        kind_words=KIND_WORDS,
    )


async def _meters_with_answers(
    conn: Conn, customer_id: int, now: datetime
) -> list[tuple[DeskMeter, SupplyAnswer]]:
    meters = await desk_store.list_customer_meters(conn, customer_id)
    return [(meter, await explain_supply(conn, meter_id=meter.meter_id, now=now)) for meter in meters]


async def _get_customer(conn: Conn, customer_id: int) -> DeskCustomer:
    customer = await desk_store.find_customer(conn, customer_id)
    if customer is None:
        raise NotFound
    return customer


def _bound(before: datetime | None, now: datetime) -> datetime:
    """The instant before which the timeline is read; a naive one is no instant."""
    return now if before is None or before.tzinfo is None else before


@router.get("/desk/customers/{customer_id}")
async def customer_page(
    request: Request, customer_id: int, _viewer: Agent, before: datetime | None = None
) -> Response:
    """Show a customer: meters with their live state, why there is no supply, requests, one timeline."""
    return await _customer_page(request, customer_id, before=before)


async def _customer_page(
    request: Request,
    customer_id: int,
    *,
    before: datetime | None = None,
    error: str = "",
    form: dict[str, str] | None = None,
) -> Response:
    now, language = datetime.now(UTC), language_of(request)
    bound = _bound(before, now)
    async with runtime_of(request).pool.connection() as conn:
        customer = await _get_customer(conn, customer_id)
        meters = await _meters_with_answers(conn, customer_id, now)
        tokens = await desk_store.list_tokens(conn, [meter.meter_id for meter, _ in meters])
        tickets = await ticket_store.list_tickets(conn, customer_id=customer_id, limit=10)
        rows = await timeline_store.list_customer_timeline(conn, customer_id=customer_id, before=bound)
    return page(
        request,
        "desk/customer.html",
        status=422 if error else 200,
        block="live",
        customer=customer,
        meters=meters,
        tokens=[(token, mask_token(token.digits)) for token in tokens],
        tickets=[
            (ticket, due_words(ticket.resolution_due_at or now, ticket.resolved_at, now, language))
            for ticket in tickets
        ],
        lines=describe(rows, language, public=False, desk=True),
        older=timeline_store.older_page(request.url.path, rows),
        kind_words=KIND_WORDS,
        channels=[(channel, CHANNEL_WORDS[channel]) for channel in DESK_CHANNELS],
        form=form or {"kind": "no_supply", "channel": "phone", "meter_id": "", "subject": "", "body": ""},
        form_key=secrets.token_urlsafe(16),
        error=error,
    )


@router.get("/desk/meters/{drn}")
async def meter_page(request: Request, drn: str, _viewer: Agent, before: datetime | None = None) -> Response:
    """Show one meter, whoever lives there: state, place, and its own timeline."""
    now, language = datetime.now(UTC), language_of(request)
    async with runtime_of(request).pool.connection() as conn:
        meter = await desk_store.find_meter(conn, drn)
        if meter is None:
            raise NotFound
        answer = await explain_supply(conn, meter_id=meter.meter_id, now=now)
        customer = (
            await desk_store.find_customer(conn, meter.customer_id) if meter.customer_id is not None else None
        )
        tokens = await desk_store.list_tokens(conn, [meter.meter_id])
        rows = await timeline_store.list_meter_timeline(
            conn, meter_id=meter.meter_id, before=_bound(before, now)
        )
    lines: list[Line] = describe(rows, language, public=False, desk=True)
    return page(
        request,
        "desk/meter.html",
        meter=meter,
        answer=answer,
        customer=customer,
        tokens=[(token, mask_token(token.digits)) for token in tokens],
        lines=lines,
        older=timeline_store.older_page(request.url.path, rows),
    )


@router.post("/desk/customers/{customer_id}/tickets")
async def open_for_customer(
    request: Request,
    customer_id: int,
    viewer: TicketAgent,
    *,
    form_key: Annotated[str, Form(min_length=8, max_length=64)],
    kind: Annotated[TicketKind, Form()],
    channel: Annotated[Channel, Form()],
    subject: Annotated[str, Form(max_length=1000)] = "",
    body: Annotated[str, Form(max_length=20_000)] = "",
    meter_id: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """Open a request that a customer brought by telephone, at the counter or by letter."""
    now, language = datetime.now(UTC), language_of(request)
    typed = {
        "kind": kind.value,
        "channel": channel.value,
        "meter_id": meter_id,
        "subject": subject,
        "body": body,
    }
    try:
        async with runtime_of(request).pool.connection() as conn:
            customer = await _get_customer(conn, customer_id)
            own = {
                str(m.meter_id): m.meter_id for m in await desk_store.list_customer_meters(conn, customer_id)
            }
            if meter_id and meter_id not in own:
                raise NotFound
            opened = await open_ticket(
                conn,
                caller=Caller(customer.id, customer.phone, customer.language),
                new=NewTicket(f"desk:{form_key}", kind, channel, subject, body, own.get(meter_id)),
                created_by=viewer.login_id,
                now=now,
                languages=runtime_of(request).languages,
            )
    except (TicketRefused, TicketKeyReused) as refused:
        reason = refused.reason if isinstance(refused, TicketRefused) else "key_invalid"
        return await _customer_page(request, customer_id, error=refusal_words(reason, language), form=typed)
    text = language._("Request %(reference)s is registered.", reference=opened.ticket.reference)
    if opened.outage_id is not None:
        text += " " + language._(
            "It is joined to an interruption that we know of: tell the caller that no new report is needed."
        )
    return redirect(request, f"/desk/tickets/{opened.ticket.reference}", flash=("ok", text))


@router.post("/desk/tokens/{token_id}/reveal")
async def reveal_token(
    request: Request,
    token_id: int,
    viewer: TicketAgent,
    reason: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Show one token whole, after it is written down who looks and why; an engineering one to its signers only."""
    now, language = datetime.now(UTC), language_of(request)
    await spend(request, now, (REVEAL_PER_LOGIN, str(viewer.login_id)))
    why = plain(reason)
    async with runtime_of(request).pool.connection() as conn:
        token = await desk_store.find_token(conn, token_id)
        if token is None:
            raise NotFound
        if token.purpose == "engineering" and not viewer.may("desk.engineering"):
            raise NotAllowed  # it may have needed two signatures: only who may sign it looks at it
        if not why:
            return redirect(
                request,
                f"/desk/meters/{token.drn}",
                flash=("error", language._("Say why you need to see the token.")),
            )
        await desk_store.insert_reveal(conn, token_id=token_id, login_id=viewer.login_id, reason=why, at=now)
    return page(request, "desk/token.html", shown=token)
