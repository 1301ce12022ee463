"""The desk's interruptions: what is open, which meters are out, and what a person decides about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Depends, Form, Path, Request
from fastapi.responses import Response

from portal.access import NotFound, Viewer, require
from portal.contact_centre import ticket_store
from portal.contact_centre.ticket_words import KIND_WORDS, STATE_TONES, STATE_WORDS, due_words, refusal_words
from portal.i18n import msg
from portal.outages import handle_outage, outage_store
from portal.outages.infer import Rules
from portal.outages.outage import OPEN_STATES, OutageRefused, OutageState
from portal.outages.outage_store import OutageRow
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of

router = APIRouter()
Agent = Annotated[Viewer, Depends(require("desk.outage"))]
Restorer = Annotated[Viewer, Depends(require("desk.restore"))]
OutageId = Annotated[int, Path(ge=1, le=2**62)]

Conn = psycopg.AsyncConnection[Any]

STATE_LABELS = {
    OutageState.PROBABLE: msg("Probable"),
    OutageState.CONFIRMED: msg("Confirmed"),
    OutageState.RESTORED: msg("Supply is back"),
    OutageState.CANCELLED: msg("False alarm"),
}
OUTAGE_TONES = {
    OutageState.PROBABLE: "warn",
    OutageState.CONFIRMED: "bad",
    OutageState.RESTORED: "ok",
    OutageState.CANCELLED: "quiet",
}
SOURCE_WORDS = {
    "last_gasp": msg("the meters' last word"),
    "silence": msg("meters fell silent"),
    "contact": msg("customers called"),
    "crew": msg("a crew reported it"),
}
EVIDENCE_WORDS = {
    "last_gasp": msg("Said that it lost supply"),
    "silence": msg("Fell silent"),
    "contact": msg("Its customer called"),
    "inferred": msg("Same network, not heard"),
}
NODE_KINDS = {
    "substation": msg("Substation"),
    "feeder": msg("Feeder"),
    "transformer": msg("Transformer"),
    "source": msg("Water source"),
    "zone": msg("Water zone"),
}


@router.get("/desk/outages")
async def outages_page(request: Request, _viewer: Agent) -> Response:
    """List interruptions, open ones first."""
    async with runtime_of(request).pool.connection() as conn:
        outages = await outage_store.list_outages(conn)
    return page(
        request,
        "desk/outages.html",
        block="list",
        outages=outages,
        open_count=sum(outage.state in OPEN_STATES for outage in outages),
        state_labels=STATE_LABELS,
        outage_tones=OUTAGE_TONES,
        source_words=SOURCE_WORDS,
        node_kinds=NODE_KINDS,
    )


@router.get("/desk/outages/{outage_id}")
async def outage_page(request: Request, outage_id: OutageId, _viewer: Agent) -> Response:
    """Show one interruption: its meters with their own times, its story, the requests that follow it."""
    now, language = datetime.now(UTC), language_of(request)
    async with runtime_of(request).pool.connection() as conn:
        outage = await _get_outage(conn, outage_id)
        meters = await outage_store.list_meters(conn, outage_id)
        entries = await outage_store.list_entries(conn, outage_id)
        tickets = await ticket_store.list_tickets(conn, outage_id=outage_id)
    return page(
        request,
        "desk/outage.html",
        block="live",
        outage=outage,
        is_open=outage.state in OPEN_STATES,
        meters=meters,
        entries=entries,
        tickets=[
            (ticket, due_words(ticket.resolution_due_at or now, ticket.resolved_at, now, language))
            for ticket in tickets
        ],
        state_labels=STATE_LABELS,
        outage_tones=OUTAGE_TONES,
        source_words=SOURCE_WORDS,
        evidence_words=EVIDENCE_WORDS,
        node_kinds=NODE_KINDS,
        kind_words=KIND_WORDS,
        state_words=STATE_WORDS,
        state_tones=STATE_TONES,
    )


async def _get_outage(conn: Conn, outage_id: int) -> OutageRow:
    outage = await outage_store.find_outage(conn, outage_id)
    if outage is None:
        raise NotFound
    return outage


async def _change(
    request: Request, outage_id: int, step: Callable[[Conn, datetime], Awaitable[object]], done: str
) -> Response:
    """Run one use case on an outage in its transaction, and lead back to the page."""
    url = f"/desk/outages/{outage_id}"
    try:
        async with runtime_of(request).pool.connection() as conn:
            await _get_outage(conn, outage_id)
            await step(conn, datetime.now(UTC))
    except OutageRefused as refused:
        return redirect(request, url, flash=("error", refusal_words(refused.reason, language_of(request))))
    return redirect(request, url, flash=("ok", done))


@router.post("/desk/outages/{outage_id}/confirm")
async def confirm(request: Request, outage_id: OutageId, viewer: Agent) -> Response:
    """Say that a probable interruption is real."""

    async def step(conn: Conn, now: datetime) -> None:
        await handle_outage.confirm_outage(conn, outage_id=outage_id, actor_id=viewer.login_id, now=now)

    return await _change(request, outage_id, step, language_of(request)._("The interruption is confirmed."))


@router.post("/desk/outages/{outage_id}/note")
async def note(
    request: Request, outage_id: OutageId, viewer: Agent, text: Annotated[str, Form(max_length=4000)] = ""
) -> Response:
    """Keep a note."""

    async def step(conn: Conn, now: datetime) -> None:
        await handle_outage.add_note(conn, outage_id=outage_id, text=text, actor_id=viewer.login_id, now=now)

    return await _change(request, outage_id, step, language_of(request)._("The note is kept."))


@router.post("/desk/outages/{outage_id}/cancel")
async def cancel(request: Request, outage_id: OutageId, viewer: Restorer) -> Response:
    """Close a false alarm."""

    async def step(conn: Conn, now: datetime) -> None:
        await handle_outage.cancel_outage(conn, outage_id=outage_id, actor_id=viewer.login_id, now=now)

    return await _change(request, outage_id, step, language_of(request)._("Closed as a false alarm."))


@router.post("/desk/outages/{outage_id}/restore")
async def restore(request: Request, outage_id: OutageId, viewer: Restorer) -> Response:
    """Close an interruption on a crew's word; meters that were not heard stay listed as such."""

    async def step(conn: Conn, now: datetime) -> None:
        await handle_outage.close_outage(
            conn,
            outage_id=outage_id,
            actor_id=viewer.login_id,
            now=now,
            rules=Rules(),
            languages=runtime_of(request).languages,
        )

    return await _change(
        request, outage_id, step, language_of(request)._("Closed. Those who follow it are told.")
    )
