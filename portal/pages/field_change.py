"""Hang, replace and take down a meter on the phone: first what will happen is shown, then it is done."""

from __future__ import annotations

import dataclasses
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import psycopg
from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from billing.token_word_store import Word
from portal.access import NotAllowed, Viewer, require
from portal.contact_centre import desk_store
from portal.contact_centre.desk_store import DeskMeter
from portal.field import field_store, remove_meter, replace_meter
from portal.field.checklist import parse_display
from portal.field.install import InstallRefused, check_number
from portal.field.remove_meter import FinalReading
from portal.formats import latin_digits, plain
from portal.i18n import Language, msg
from portal.pages.field import OTHER_REFUSAL, REFUSAL_WORDS, refusal_words
from portal.pages.field_commission import get_meter
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of

router = APIRouter()
Installer = Annotated[Viewer, Depends(require("field.install"))]
Short = Annotated[str, Form(max_length=64)]
Note = Annotated[str, Form(max_length=500)]
FormKey = Annotated[str, Form(min_length=8, max_length=64)]
Settle = Annotated[str, Form(pattern="^(keep|money)$")]
Source = Annotated[str, Form(pattern="^(meter|display)$")]
Silent = Annotated[str, Form(pattern="^(taken|not_taken)?$")]
# The ids of the tokens that were shown: a word is said of these and no others.
Tokens = Annotated[str, Form(pattern="^([0-9]{1,18}(,[0-9]{1,18})*)?$", max_length=2_000)]
# Credit becomes money by whoever signs for engineering tokens: the office.
OFFICE: Final = "desk.engineering"

CHANGE_WORDS: Final = {
    "not_installed": msg("This meter hangs nowhere."),
    "sale_open": msg("A purchase for this meter is under way. Wait a minute, then look again."),
    "credit_on_its_way": msg(
        "The meter has not said that it took its last credit token. Type it first, or read the meter again."
    ),
    "token_word_needed": msg(
        "The meter has not said that it took its last credit token. Say whether its display includes it."
    ),
    "reading_changed": msg("The meter has told another reading meanwhile, or none lately. Look again."),
    "credit_above_told": msg(
        "The meter cannot hold so much credit by what it told and what was bought. Let it wait: the office decides."
    ),
    "credit_below_told": msg(
        "The display shows less than the meter told and used since. Let the credit wait: the office decides."
    ),
    "reading_impossible": msg("No meter shows this number. Enter it again."),
    "reading_below_last": msg("The counter is below what the meter told before. Read the display again."),
    "reading_missing": msg("Enter counter and credit as the display shows them."),
    "same_meter": msg("This is the same meter. Enter the number of the new one."),
    "other_commodity": msg(
        "The new meter counts another thing: electricity and water do not replace each other."
    ),
    "meter_hangs": msg("The new meter hangs somewhere already."),
    "key_used": msg("The form has expired. Please send it again."),
    "no_customer": msg("Nobody has an agreement for this place: the credit can only wait there."),
    "no_tariff": msg("There is no tariff to turn the credit into money: let it wait at the place."),
    "carry_not_waiting": msg("The credit was given on already. Look again."),
}

Conn = psycopg.AsyncConnection[Any]


def change_words(reason: str, language: Language) -> str:
    """The sentence for why a meter cannot be hung, replaced or taken down."""
    if reason in REFUSAL_WORDS:
        return refusal_words(reason, language)
    return language._(CHANGE_WORDS.get(reason, OTHER_REFUSAL))


def read_typed(counter: str, credit: str, commodity: str) -> FinalReading | None:
    """A final reading as a person read it from the display, in kWh or m³; None when it is none.

    Credit may be below zero: a meter that gave friendly credit says so.
    """
    typed = latin_digits(credit).strip().replace("\u2212", "-")
    value = parse_display(latin_digits(counter), commodity)
    left = parse_display(typed.removeprefix("-"), commodity)
    if value is None or left is None:
        return None
    return FinalReading(value, -left if typed.startswith("-") else left, "display")


def _word(silent: str) -> Word | None:
    return "taken" if silent == "taken" else "not_taken" if silent == "not_taken" else None


def _ids(tokens: str) -> tuple[int, ...]:
    return tuple(int(token) for token in tokens.split(",") if token)


async def _final(
    conn: Conn, meter: DeskMeter, counter: str, credit: str, *, silent: str, tokens: str
) -> FinalReading:
    """The typed reading, or with nothing typed the meter's own last word. Raises InstallRefused."""
    if counter.strip() or credit.strip():
        typed = read_typed(counter, credit, meter.commodity)
        if typed is None:
            raise InstallRefused("reading_missing")
        return dataclasses.replace(typed, silent=_word(silent), shown=_ids(tokens))
    told = await remove_meter.read_final(conn, meter.meter_id, now=datetime.now(UTC))
    if told is None:
        raise InstallRefused("reading_missing")
    return dataclasses.replace(told, silent=_word(silent), shown=_ids(tokens))


def _shown(counter: int, credit: int, source: str, silent: str, tokens: str) -> FinalReading:
    """What the preview showed; the meter's own word is read anew (remove_meter.check_removal)."""
    told_by: Literal["meter", "display"] = "meter" if source == "meter" else "display"
    return FinalReading(counter, credit, told_by, _word(silent), _ids(tokens))


def _check_settle(viewer: Viewer, settle: str) -> None:
    """Money is the office's to give. Raises NotAllowed."""
    if settle == "money" and not viewer.may(OFFICE):
        raise NotAllowed


@router.post("/field/meters/{drn}/install/preview")
async def install_preview(
    request: Request,
    drn: str,
    _viewer: Installer,
    usage_point_id: Annotated[int, Form(ge=1, le=2**62)],
    note: Note = "",
) -> Response:
    """Say what hanging this meter there will do."""
    async with runtime_of(request).pool.connection() as conn:
        meter = await get_meter(conn, drn)
        points = await field_store.list_free_points(
            conn, commodity=meter.commodity, usage_point_id=usage_point_id
        )
    if not points or meter.usage_point is not None:
        words = refusal_words("meter_or_point_taken", language_of(request))
        return redirect(request, f"/field/meters/{drn}/install", flash=("error", words))
    return page(
        request,
        "field/install_preview.html",
        own_path=f"/field/meters/{drn}/install",
        meter=meter,
        point=points[0],
        note=plain(note),
    )


@router.get("/field/meters/{drn}/replace")
async def replace_form(request: Request, drn: str, viewer: Installer) -> Response:
    """Which meter takes the place of this one, and what this one showed at the end."""
    return await _change_form(request, viewer, "field/replace.html", drn)


@router.get("/field/meters/{drn}/remove")
async def remove_form(request: Request, drn: str, viewer: Installer) -> Response:
    """What the meter showed at the end, and what becomes of its credit."""
    return await _change_form(request, viewer, "field/remove.html", drn)


async def _change_form(
    request: Request,
    viewer: Viewer,
    template: str,
    drn: str,
    *,
    error: str = "",
    typed: dict[str, str] | None = None,
) -> Response:
    async with runtime_of(request).pool.connection() as conn:
        meter = await get_meter(conn, drn)
        now = datetime.now(UTC)
        told = await remove_meter.read_final(conn, meter.meter_id, now=now)
        silent = await remove_meter.list_asked(conn, meter.meter_id, now=now)
        spares = [
            spare for spare in await field_store.list_spare_meters(conn) if spare.commodity == meter.commodity
        ]
    if meter.usage_point is None:
        return redirect(request, f"/field/meters/{drn}")
    return page(
        request,
        template,
        status=422 if error else 200,
        own_path=f"/field/meters/{drn}/{'replace' if 'replace' in template else 'remove'}",
        meter=meter,
        told=told,
        silent=silent,
        spares=spares,
        may_settle=viewer.may(OFFICE),
        error=change_words(error, language_of(request)) if error else "",
        typed=typed or {"new": "", "counter": "", "credit": "", "note": "", "silent": ""},
    )


async def _new_meter(conn: Conn, number: str) -> DeskMeter:
    found = await desk_store.find_meter(conn, check_number(number))
    if found is None:
        raise InstallRefused("number_unknown")
    return found


@router.post("/field/meters/{drn}/replace/preview")
async def replace_preview(
    request: Request,
    drn: str,
    viewer: Installer,
    *,
    new: Short = "",
    counter: Short = "",
    credit: Short = "",
    silent: Silent = "",
    tokens: Tokens = "",
    note: Note = "",
) -> Response:
    """Say what replacing will do, with credit and key; nothing is done yet."""
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await get_meter(conn, drn)
            successor = await _new_meter(conn, new)
            final = await _final(conn, meter, counter, credit, silent=silent, tokens=tokens)
            plan = await replace_meter.plan_replacement(
                conn,
                old_id=meter.meter_id,
                new_id=successor.meter_id,
                final=final,
                now=datetime.now(UTC),
            )
    except InstallRefused as refused:
        said = "" if refused.reason == "reading_changed" else silent  # it was said of other tokens
        typed = {"new": new, "counter": counter, "credit": credit, "note": note, "silent": said}
        return await _change_form(
            request, viewer, "field/replace.html", drn, error=refused.reason, typed=typed
        )
    return page(
        request,
        "field/replace_preview.html",
        own_path=f"/field/meters/{drn}/replace",
        meter=meter,
        successor=successor,
        plan=plan,
        note=plain(note),
        form_key=secrets.token_urlsafe(12),
    )


@router.post("/field/meters/{drn}/replace")
async def replace_now(
    request: Request,
    drn: str,
    viewer: Installer,
    *,
    new: Short,
    counter_base: Annotated[int, Form(ge=0, le=10**14)],
    credit_base: Annotated[int, Form(ge=-(10**14), le=10**14)],
    source: Source,
    form_key: FormKey,
    silent: Silent = "",
    tokens: Tokens = "",
    note: Note = "",
) -> Response:
    """Replace the meter as it was shown, and lead to the new one's checklist."""
    language = language_of(request)
    final = _shown(counter_base, credit_base, source, silent, tokens)
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await get_meter(conn, drn)
            successor = await _new_meter(conn, new)
            await replace_meter.replace(
                conn,
                old_id=meter.meter_id,
                new_id=successor.meter_id,
                final=final,
                key=form_key,
                actor=viewer.actor,
                note=plain(note),
                now=datetime.now(UTC),
            )
    except InstallRefused as refused:
        return await _change_form(request, viewer, "field/replace.html", drn, error=refused.reason)
    text = language._("The meter was replaced. Next: the checklist of the new one.")
    return redirect(request, f"/field/meters/{successor.drn}/checklist", flash=("ok", text))


@router.post("/field/meters/{drn}/remove/preview")
async def remove_preview(
    request: Request,
    drn: str,
    viewer: Installer,
    *,
    counter: Short = "",
    credit: Short = "",
    silent: Silent = "",
    tokens: Tokens = "",
    settle: Settle = "keep",
    note: Note = "",
) -> Response:
    """Say what taking the meter down will do; nothing is done yet."""
    _check_settle(viewer, settle)
    now = datetime.now(UTC)
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await get_meter(conn, drn)
            final = await _final(conn, meter, counter, credit, silent=silent, tokens=tokens)
            checked = await remove_meter.check_removal(conn, meter_id=meter.meter_id, final=final, now=now)
            remove_meter.check_settle(checked, "money" if settle == "money" else "keep")
    except InstallRefused as refused:
        said = "" if refused.reason == "reading_changed" else silent
        typed = {"new": "", "counter": counter, "credit": credit, "note": note, "silent": said}
        return await _change_form(
            request, viewer, "field/remove.html", drn, error=refused.reason, typed=typed
        )
    return page(
        request,
        "field/remove_preview.html",
        own_path=f"/field/meters/{drn}/remove",
        meter=meter,
        checked=checked,
        settle="money" if settle == "money" else "keep",
        note=plain(note),
        form_key=secrets.token_urlsafe(12),
    )


@router.post("/field/meters/{drn}/remove")
async def remove_now(
    request: Request,
    drn: str,
    viewer: Installer,
    *,
    counter_base: Annotated[int, Form(ge=0, le=10**14)],
    credit_base: Annotated[int, Form(ge=-(10**14), le=10**14)],
    source: Source,
    form_key: FormKey,
    silent: Silent = "",
    tokens: Tokens = "",
    settle: Settle = "keep",
    note: Note = "",
) -> Response:
    """Take the meter down as it was shown."""
    _check_settle(viewer, settle)
    final = _shown(counter_base, credit_base, source, silent, tokens)
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await get_meter(conn, drn)
            await remove_meter.remove(
                conn,
                meter_id=meter.meter_id,
                final=final,
                settle="money" if settle == "money" else "keep",
                key=form_key,
                actor=viewer.actor,
                note=plain(note),
                now=datetime.now(UTC),
            )
    except InstallRefused as refused:
        return await _change_form(request, viewer, "field/remove.html", drn, error=refused.reason)
    text = language_of(request)._("The meter was taken down and is in stock.")
    return redirect(request, f"/field/meters/{drn}", flash=("ok", text))
