"""The engineer's pages: find a meter by its number, read it live, install it, prove it with a test token."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import psycopg
from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import Response

from billing import identity_store, key_change_store
from meter_gateway.errors import CommandConflict, MeterHasNoLink
from portal import change_keys, timeline_store
from portal.access import NotFound, Viewer, require
from portal.contact_centre import desk_store
from portal.contact_centre.desk_store import DeskMeter
from portal.field import commission, commissioning_store, field_site_store, field_store, install
from portal.field.field_store import FieldCommand
from portal.field.install import InstallRefused
from portal.formats import plain
from portal.i18n import Language, msg
from portal.outages.supply import explain_supply
from portal.pages.field_offline import keep_on_phone
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of
from portal.timeline import describe
from portal.token_words import result_words

router = APIRouter()
Engineer = Annotated[Viewer, Depends(require("field.view"))]
Installer = Annotated[Viewer, Depends(require("field.install"))]
Commander = Annotated[Viewer, Depends(require("field.command"))]
Tester = Annotated[Viewer, Depends(require("field.token"))]
FormKey = Annotated[str, Form(min_length=8, max_length=64)]

# UNKNOWN is not among them: a late word of the edge may still settle it.
FINAL: Final = frozenset({"VERIFIED", "REJECTED", "EXPIRED", "CANCELLED"})
# After its expiry a command is closed within seconds; a page that still waits then says so itself.
GIVE_UP_AFTER: Final = timedelta(seconds=20)
TIMELINE_ROWS: Final = 15
MAX_NOTE: Final = 500
# An installation of last week without a certificate is asked about; an older one is the office's.
OPEN_WORK: Final = timedelta(days=7)
WORK_ROWS: Final = 12

REFUSAL_WORDS: Final = {
    "number_letters": msg("A meter number has digits only."),
    "number_length": msg("A meter number has 11 or 13 digits."),
    "number_check_digit": msg(
        "The check digit does not fit: one digit is wrong or two are swapped. Read the plate again."
    ),
    "number_unknown": msg("The number is right, but no such meter is in our books."),
    "identity_missing": msg(
        "This meter has no key identity yet: it cannot take tokens. Ask the meter workshop."
    ),
    "point_taken": msg("A meter hangs there already. Choose another place."),
    "meter_or_point_taken": msg("The meter or the place was taken meanwhile. Look again."),
    "credit_not_cleared": msg(
        "The new meter still holds credit that was given to another. Ask the meter workshop to clear it."
    ),
    "clear_unknown": msg(
        "A token to clear this meter was made. Nobody has said whether it was typed: ask the meter workshop."
    ),
    "no_link": msg("This meter has no link: read its display."),
    "left_already": msg("This order cannot be called back: it has left, or somebody else gave it."),
    "form_used": msg("The form has expired. Please send it again."),
}
OTHER_REFUSAL: Final = msg("This is not possible at the moment. Look at the meter again.")
STEP_WORDS: Final = {
    "CREATED": msg("Ordered"),
    "SENT": msg("Sent to the gateway"),
    "ACCEPTED": msg("Taken by the gateway"),
    "WRITTEN": msg("Written to the meter"),
    "VERIFIED": msg("The meter confirms"),
    "REJECTED": msg("The meter refuses"),
    "EXPIRED": msg("No answer in time"),
    "UNKNOWN": msg("Outcome unknown"),
    "CANCELLED": msg("Called back before it left"),
}

Conn = psycopg.AsyncConnection[Any]


def refusal_words(reason: str, language: Language) -> str:
    """The sentence for a refusal's reason."""
    return language._(REFUSAL_WORDS.get(reason, OTHER_REFUSAL))


@router.get("/field")
async def find(
    request: Request, viewer: Engineer, number: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """The day: find a meter by the number on its plate, what is begun, which sites have trouble, what waits."""
    error, now = "", datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        if number.strip():
            try:
                drn = install.check_number(number)
                if await desk_store.find_meter(conn, drn) is not None:
                    return redirect(request, f"/field/meters/{drn}")
                error = "number_unknown"
            except InstallRefused as refused:
                error = refused.reason
        spares = await field_store.list_spare_meters(conn)
        points = await field_store.list_free_points(conn)
        work = await commissioning_store.list_open_work(conn, since=now - OPEN_WORK, limit=WORK_ROWS)
        sites = await field_site_store.list_map(conn, now)
    response = page(
        request,
        "field/find.html",
        status=422 if error else 200,
        number=number,
        error=refusal_words(error, language_of(request)) if error else "",
        spares=spares,
        points=points,
        work=work,
        troubled=[node for node in sites if node.has_trouble],
        sites=sites,
    )
    return response if number else keep_on_phone(response, viewer)


async def _get_meter(conn: Conn, drn: str) -> DeskMeter:
    meter = await desk_store.find_meter(conn, drn)
    if meter is None:
        raise NotFound
    return meter


@router.get("/field/meters/{drn}")
async def meter_page(request: Request, drn: str, _viewer: Engineer) -> Response:
    """Show a meter: link, live registers, how far its commissioning is, what happened lately."""
    now, language = datetime.now(UTC), language_of(request)
    async with runtime_of(request).pool.connection() as conn:
        meter = await _get_meter(conn, drn)
        answer = await explain_supply(conn, meter_id=meter.meter_id, now=now)
        identity = await identity_store.find_identity(conn, meter.meter_id)
        last_read = await field_store.find_last_command(conn, meter.meter_id, key_prefix=install.READ_KEY)
        last_test = await field_store.find_last_command(conn, meter.meter_id, key_prefix=install.TEST_KEY)
        first_tokens = await change_keys.list_first_tokens(conn, meter.meter_id)
        rows = await timeline_store.list_meter_timeline(
            conn, meter_id=meter.meter_id, before=now + timedelta(seconds=1), limit=TIMELINE_ROWS
        )
    return page(
        request,
        "field/meter.html",
        block="live",
        meter=meter,
        answer=answer,
        identity=identity,
        last_read=last_read,
        last_test=last_test,
        first_tokens=first_tokens,
        test_accepted=last_test is not None and last_test.state == "VERIFIED",
        lines=describe(rows, language, public=False),
        form_key=secrets.token_urlsafe(12),
    )


@router.post("/field/meters/{drn}/own-key")
async def confirm_own_key(request: Request, drn: str, viewer: Installer) -> Response:
    """Take the engineer's word that a meter without a link has the key that its installation began."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meter = await _get_meter(conn, drn)
        change = await key_change_store.find_open_change(conn, meter.meter_id)
        # A campaign's change is the office's to confirm; a meter with a link says it itself.
        if change is not None and change.plan_id is None and meter.link == "keypad":
            reason = "the display showed that it was taken"
            await change_keys.confirm_change(conn, change.id, by=viewer.actor, reason=reason, now=now)
    return redirect(request, f"/field/meters/{drn}")


@router.get("/field/meters/{drn}/install")
async def install_form(request: Request, drn: str, viewer: Installer) -> Response:
    """Choose the house that a meter from stock goes to."""
    return await _install_form(request, drn, viewer)


async def _install_form(request: Request, drn: str, viewer: Viewer, error: str = "") -> Response:
    async with runtime_of(request).pool.connection() as conn:
        meter = await _get_meter(conn, drn)
        points = await field_store.list_free_points(conn, commodity=meter.commodity)
    if meter.usage_point is not None:
        return redirect(request, f"/field/meters/{drn}")
    response = page(
        request,
        "field/install.html",
        status=422 if error else 200,
        meter=meter,
        points=points,
        error=refusal_words(error, language_of(request)) if error else "",
    )
    return response if error else keep_on_phone(response, viewer)


@router.post("/field/meters/{drn}/install")
async def install_here(
    request: Request,
    drn: str,
    viewer: Installer,
    usage_point_id: Annotated[int, Form(ge=1, le=2**62)],
    note: Annotated[str, Form(max_length=MAX_NOTE)] = "",
) -> Response:
    """Hang the meter and lead to its checklist."""
    language = language_of(request)
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await _get_meter(conn, drn)
            point = await install.install(
                conn,
                meter_id=meter.meter_id,
                usage_point_id=usage_point_id,
                installed_by=viewer.actor,
                note=plain(note),
                now=datetime.now(UTC),
            )
    except InstallRefused as refused:
        return await _install_form(request, drn, viewer, refused.reason)
    text = language._("The meter hangs at %(place)s. Next: the checklist.", place=point.code)
    return redirect(request, f"/field/meters/{drn}/checklist", flash=("ok", text))


@router.post("/field/meters/{drn}/read")
async def read(request: Request, drn: str, viewer: Commander, form_key: FormKey) -> Response:
    """Ask the meter for its registers now."""
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await _get_meter(conn, drn)
            command_id = await install.read_now(
                conn, meter_id=meter.meter_id, key=form_key, actor=viewer.actor, now=datetime.now(UTC)
            )
    except (MeterHasNoLink, CommandConflict) as refused:
        return _refused(request, drn, refused)
    return redirect(request, f"/field/commands/{command_id}")


@router.post("/field/meters/{drn}/clock")
async def set_clock(request: Request, drn: str, viewer: Commander, form_key: FormKey) -> Response:
    """Have the meter's clock set to the right time now."""
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await _get_meter(conn, drn)
            command_id = await commission.set_clock(
                conn, meter_id=meter.meter_id, key=form_key, actor=viewer.actor, now=datetime.now(UTC)
            )
    except (MeterHasNoLink, CommandConflict) as refused:
        return _refused(request, drn, refused)
    return redirect(request, f"/field/commands/{command_id}")


@router.post("/field/meters/{drn}/test")
async def send_test(request: Request, drn: str, viewer: Tester, form_key: FormKey) -> Response:
    """Send a test token over the link, or show it to be typed where there is none."""
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await _get_meter(conn, drn)
            made = await install.send_test_token(
                conn, meter_id=meter.meter_id, key=form_key, actor=viewer.actor, now=datetime.now(UTC)
            )
    except InstallRefused as refused:
        text = refusal_words(refused.reason, language_of(request))
        return redirect(request, f"/field/meters/{drn}", flash=("error", text))
    except CommandConflict as refused:
        return _refused(request, drn, refused)
    if made.command_id is None:
        return page(request, "field/test_token.html", meter=meter, digits=made.digits)
    return redirect(request, f"/field/commands/{made.command_id}")


def _refused(request: Request, drn: str, error: Exception) -> Response:
    reason = "no_link" if isinstance(error, MeterHasNoLink) else "form_used"
    return redirect(
        request, f"/field/meters/{drn}", flash=("error", refusal_words(reason, language_of(request)))
    )


@router.get("/field/commands/{command_id}")
async def command_page(
    request: Request, command_id: Annotated[int, Path(ge=1, le=2**62)], viewer: Commander
) -> Response:
    """Follow an order until the meter has answered, or say why no answer came."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        command = await field_store.find_command(conn, command_id)
        if command is None:
            raise NotFound
        steps = await field_store.list_steps(conn, command_id)
        meter = await _get_meter(conn, command.drn)
    moving = is_moving(command, now)
    result = str(command.result.get("result") or "")
    registers = command.result.get("registers")
    return page(
        request,
        "field/command.html",
        block="answer",
        command=command,
        meter=meter,
        steps=steps,
        step_words=STEP_WORDS,
        is_moving=moving,
        may_take_back=commission.may_take_back(command, viewer.actor),
        words=result_words(result) if command.kind == "token" else "",
        registers=sorted(registers.items()) if isinstance(registers, dict) else [],
        form_key=secrets.token_urlsafe(12),
    )


@router.post("/field/commands/{command_id}/take-back")
async def take_back(
    request: Request, command_id: Annotated[int, Path(ge=1, le=2**62)], viewer: Commander
) -> Response:
    """Call an order of one's own back while it has not left."""
    answer = f"/field/commands/{command_id}"
    try:
        async with runtime_of(request).pool.connection() as conn:
            command = await field_store.find_command(conn, command_id)
            if command is None:
                raise NotFound
            await commission.take_back(conn, command, actor=viewer.actor, now=datetime.now(UTC))
    except InstallRefused as refused:
        return redirect(request, answer, flash=("error", refusal_words(refused.reason, language_of(request))))
    return redirect(request, answer)


def is_moving(command: FieldCommand, now: datetime) -> bool:
    """True while an answer may still come."""
    return command.state not in FINAL and now < command.expires_at + GIVE_UP_AFTER
