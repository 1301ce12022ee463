"""The commissioning of a meter on the phone: its checklist, photos, the customer's consent, the certificate."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import psycopg
from fastapi import APIRouter, Depends, Form, Path, Request
from fastapi.responses import Response

from portal.access import NotFound, Viewer, require
from portal.contact_centre import desk_store
from portal.contact_centre.desk_store import DeskMeter
from portal.field import commissioning_store, photo_store
from portal.field.checklist import build_checklist, first_open, may_finish, relay_refusal
from portal.field.commission import exercise_relay
from portal.field.gather_checklist import NotComplete, finish, gather_facts
from portal.field.install import InstallRefused
from portal.i18n import msg
from portal.pages.field import OTHER_REFUSAL, STEP_WORDS
from portal.pages.field_offline import keep_on_phone
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of

router = APIRouter()
Engineer = Annotated[Viewer, Depends(require("field.view"))]
Installer = Annotated[Viewer, Depends(require("field.install"))]
Commander = Annotated[Viewer, Depends(require("field.command"))]

ITEM_WORDS: Final = {
    "identity": msg("Key identity is in the books"),
    "installed": msg("Installed at its place"),
    "wiring": msg("Wiring checked, terminals tight"),
    "link": msg("The link answers"),
    "display": msg("Display and register agree"),
    "photo": msg("Photos of the place"),
    "seal": msg("Cover closed and sealed"),
    "own_key": msg("The meter has its own key"),
    "relay": msg("Relay exercised"),
    "test_token": msg("Test token accepted"),
}
MARK_WORDS: Final = {
    "done": msg("Done"),
    "failed": msg("Not in order"),
    "open": msg("Not done yet"),
    "skipped": msg("Left out"),
    "not_needed": msg("Not needed"),
}
REASON_WORDS: Final = {
    "display_differs": msg("The display and the register differ: check the word order and the scale."),
    "no_register": msg("No register was read yet when the display was entered."),
    "no_register_then": msg(
        "No register was read near the time when the display was entered. Enter the display once more."
    ),
    "no_link": msg("This meter has no link: read its display."),
    "key_change": msg("The tokens of its own key are on the way, or wait to be typed."),
    "stock_key": msg(
        "The meter still has a stock key and no change is under way: it takes no credit. Tell the office."
    ),
    "critical_customer": msg("A critical customer: the relay is never exercised here."),
    "relay_begun": msg("The relay was opened. Close it again before you leave."),
    "relay_refused": msg("The meter refused to open its relay."),
    "skipped": msg("Left out, with a reason."),
    "test_failed": msg("The last test token was not accepted."),
    "test_sent": msg("The test token is on its way."),
    "test_typed": msg("Type the test token at the keypad, then record what the display shows."),
}
RELAY_WORDS: Final = {
    "critical_customer": msg("A critical customer: the relay is never exercised here."),
    "tamper": msg("After a tamper alarm the relay is not touched from here. Tell the control room."),
    "no_link": msg("This meter has no link: its relay cannot be ordered."),
    "not_installed": msg("Install the meter first."),
    "link_down": msg("The link does not answer: an opened relay could not be closed again."),
    "not_closed": msg(
        "The relay does not stand closed. Find out who opened it, and why, before you touch it."
    ),
    "not_opened": msg(
        "This exercise did not open the relay: it is not closed from here. Ask the control room."
    ),
    "no_consent": msg("The customer's consent of today is needed first."),
}
METHOD_WORDS: Final = {
    "signature": msg("Signed on paper"),
    "in_person": msg("Said in person"),
    "phone": msg("Said on the phone"),
    "message": msg("Written in a message"),
}
SUBJECT_WORDS: Final = {
    "plate": msg("The meter's plate"),
    "wiring": msg("The wiring"),
    "seal": msg("The seal"),
    "place": msg("The place"),
    "other": msg("Something else"),
}

# An order of these states may still be answered; the page looks again by itself.
MOVING: Final = frozenset({"CREATED", "SENT", "ACCEPTED", "WRITTEN"})

Conn = psycopg.AsyncConnection[Any]


async def get_meter(conn: Conn, drn: str) -> DeskMeter:
    """The meter of an address. Raises NotFound."""
    meter = await desk_store.find_meter(conn, drn)
    if meter is None:
        raise NotFound
    return meter


@router.get("/field/meters/{drn}/checklist")
async def checklist_page(request: Request, drn: str, viewer: Engineer) -> Response:
    """How far the commissioning is, and the form of each open line."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meter = await get_meter(conn, drn)
        place = await commissioning_store.find_place(conn, meter.meter_id)
        facts = await gather_facts(conn, meter, place)
        certificate = (
            await commissioning_store.find_certificate(conn, meter.meter_id, installed_at=place.installed_at)
            if place
            else None
        )
    items = build_checklist(facts)
    response = page(
        request,
        "field/checklist.html",
        meter=meter,
        place=place,
        facts=facts,
        items=items,
        next_item=first_open(items),
        may_finish=may_finish(items),
        certificate=certificate,
        refusal=relay_refusal(facts, now),
        done=sum(item.mark in ("done", "not_needed", "skipped") for item in items),
        words=WORDS,
        form_key=secrets.token_urlsafe(12),
    )
    return keep_on_phone(response, viewer)


WORDS: Final = {
    "item": ITEM_WORDS,
    "mark": MARK_WORDS,
    "reason": REASON_WORDS,
    "relay": RELAY_WORDS,
    "method": METHOD_WORDS,
    "subject": SUBJECT_WORDS,
}


@router.get("/field/meters/{drn}/relay")
async def relay_page(request: Request, drn: str, _viewer: Commander) -> Response:
    """What opening and closing the relay will do, and the button for the half that is next."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meter = await get_meter(conn, drn)
        facts = await gather_facts(conn, meter, await commissioning_store.find_place(conn, meter.meter_id))
    return page(
        request,
        "field/relay_page.html",
        block="relay",
        meter=meter,
        facts=facts,
        refusal=relay_refusal(facts, now),
        step="close" if facts.must_close else "open",
        is_over=facts.open_state == "VERIFIED" and facts.close_state == "VERIFIED",
        is_moving=not MOVING.isdisjoint((facts.open_state, facts.close_state)),
        state_words=STEP_WORDS,
        words=WORDS,
        form_key=secrets.token_urlsafe(12),
    )


@router.post("/field/meters/{drn}/relay")
async def exercise(
    request: Request,
    drn: str,
    viewer: Commander,
    step: Annotated[str, Form(pattern="^(open|close)$")],
    form_key: Annotated[str, Form(min_length=8, max_length=64)],
) -> Response:
    """Order one half of the relay's exercise; refused where nobody may touch it, whatever the page showed."""
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await get_meter(conn, drn)
            await exercise_relay(
                conn,
                meter=meter,
                step="open" if step == "open" else "close",
                key=form_key,
                actor=viewer.actor,
                now=datetime.now(UTC),
            )
    except InstallRefused as refused:
        words = language_of(request)._(RELAY_WORDS.get(refused.reason, OTHER_REFUSAL))
        return redirect(request, f"/field/meters/{drn}/checklist", flash=("error", words))
    return redirect(request, f"/field/meters/{drn}/relay")


@router.post("/field/meters/{drn}/finish")
async def finish_checklist(request: Request, drn: str, viewer: Installer) -> Response:
    """Close the checklist with a certificate."""
    language = language_of(request)
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await get_meter(conn, drn)
            await finish(conn, meter, login_id=viewer.login_id, now=datetime.now(UTC))
    except NotComplete:
        text = language._("Something on the checklist is still open.")
        return redirect(request, f"/field/meters/{drn}/checklist", flash=("error", text))
    return redirect(request, f"/field/meters/{drn}/certificate")


@router.get("/field/meters/{drn}/certificate")
async def certificate_page(request: Request, drn: str, viewer: Engineer) -> Response:
    """The certificate to show or print."""
    async with runtime_of(request).pool.connection() as conn:
        meter = await get_meter(conn, drn)
        place = await commissioning_store.find_place(conn, meter.meter_id)
        certificate = (
            await commissioning_store.find_certificate(conn, meter.meter_id, installed_at=place.installed_at)
            if place
            else None
        )
    if certificate is None:
        return redirect(request, f"/field/meters/{drn}/checklist")
    items = [
        {**item, "at": datetime.fromisoformat(item["at"]) if item["at"] else None}
        for item in certificate.items
    ]
    response = page(
        request, "field/certificate.html", meter=meter, certificate=certificate, items=items, words=WORDS
    )
    return keep_on_phone(response, viewer)


@router.get("/field/meters/{drn}/photos")
async def photos_page(request: Request, drn: str, _viewer: Engineer) -> Response:
    """The photos of a meter and the form for one more."""
    async with runtime_of(request).pool.connection() as conn:
        meter = await get_meter(conn, drn)
        photos = await photo_store.list_photos(conn, meter.meter_id)
    return page(
        request,
        "field/photos.html",
        meter=meter,
        photos=photos,
        subject_words=SUBJECT_WORDS,
        form_key=secrets.token_urlsafe(12),
    )


@router.get("/field/photos/{photo_id}")
async def photo_content(
    request: Request, photo_id: Annotated[int, Path(ge=1, le=2**62)], _viewer: Engineer
) -> Response:
    """A photo's pixels."""
    async with runtime_of(request).pool.connection() as conn:
        content = await photo_store.find_content(conn, photo_id)
    if content is None:
        raise NotFound
    headers = {"Cache-Control": "private, no-store", "Content-Disposition": "inline"}
    return Response(content, media_type="image/jpeg", headers=headers)
