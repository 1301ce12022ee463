"""Take a meter that a scan found into the books: its number, model and key papers, wired where it answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import psycopg
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from billing import identity_store
from billing.identity_store import BASE_DATES
from meter_gateway.profile import load_profile, profile_names
from portal.access import Viewer, require
from portal.contact_centre import desk_store
from portal.field import take_stock
from portal.field.install import InstallRefused, check_number
from portal.field.take_stock import StsPlate
from portal.formats import latin_digits
from portal.i18n import Language, msg
from portal.pages.field import REFUSAL_WORDS, refusal_words
from portal.pages.field_sites import Code, Unit, get_bus
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of

router = APIRouter()
Installer = Annotated[Viewer, Depends(require("field.install"))]
Short = Annotated[str, Form(max_length=80)]

ADD_WORDS: Final = {
    "commodity_unknown": msg("Choose electricity or water."),
    "model_missing": msg("Enter the model as the plate shows it."),
    "profile_unknown": msg("Choose a profile from the list."),
    "profile_other_commodity": msg("This profile is of another kind of meter."),
    "meter_known": msg("This number is in our books as another meter. Read the plate again."),
    "identity_invalid": msg("The key papers do not fit together. Compare each field with the papers."),
    "unit_taken": msg("Our books have another meter at this unit. Take that one down first."),
    "bus_unknown": msg("There is no such bus."),
    "no_link": msg("This meter is not one that answers on a bus."),
}
OTHER: Final = msg("This is not possible at the moment. Look at the meter again.")
KEY_TYPES: Final = {
    1: msg("Stock key of the supply group"),
    0: msg("The maker's own key"),
    2: msg("Its own key already"),
}
FIELDS: Final = ("drn", "model", "profile", "sgc", "ti", "krn", "ken", "kt", "ea", "dkga", "base_date", "iin")

Conn = psycopg.AsyncConnection[Any]


def add_words(reason: str, language: Language) -> str:
    """The sentence for why a meter is not taken into the books."""
    if reason in REFUSAL_WORDS and reason != "no_link":
        return refusal_words(reason, language)
    return language._(ADD_WORDS.get(reason, OTHER))


@router.get("/field/sites/{site}/buses/{bus}/units/{unit}/add")
async def add_form(
    request: Request,
    *,
    site: Code,
    bus: Code,
    unit: Unit,
    _viewer: Installer,
    profile: Annotated[str, Query(max_length=64)] = "",
    serial: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Ask for what the plate and the papers say; what the probe told stands there already."""
    chosen = profile if profile in profile_names() else ""
    typed = {"profile": chosen, "drn": serial if _is_number(serial) else ""}
    if chosen:
        typed["model"] = load_profile(chosen).title[: take_stock.MAX_MODEL]
    return await _form(request, site, bus, unit, typed=typed)


def _is_number(text: str) -> bool:
    try:
        check_number(text)
    except InstallRefused:
        return False
    return True


async def _form(
    request: Request, site: str, bus: str, unit: int, *, typed: dict[str, str], error: str = ""
) -> Response:
    commodity = load_profile(typed["profile"]).commodity if typed.get("profile") else "electricity"
    async with runtime_of(request).pool.connection() as conn:
        node, found = await get_bus(conn, site, bus, datetime.now(UTC))
        usual = await identity_store.find_usual_group(conn, commodity)
    papers = StsPlate(sgc=usual[0] if usual else "", ti=usual[1] if usual else "01")
    values = {name: str(getattr(papers, name, "")) for name in FIELDS} | typed
    return page(
        request,
        "field/add.html",
        status=422 if error else 200,
        own_path=f"/field/sites/{site}/buses/{bus}/units/{unit}/add",
        node=node,
        bus=found,
        unit=unit,
        values=values,
        profiles=profile_names(),
        base_dates=sorted(BASE_DATES),
        key_types=KEY_TYPES,
        error=add_words(error, language_of(request)) if error else "",
    )


@router.post("/field/sites/{site}/buses/{bus}/units/{unit}/add")
async def add(request: Request, *, site: Code, bus: Code, unit: Unit, _viewer: Installer) -> Response:
    """Take the meter into the books, wire it to its unit, and lead to its installation."""
    form = await request.form(max_files=0)
    typed = {name: latin_digits(str(form.get(name, "")))[:80].strip() for name in FIELDS}
    language = language_of(request)
    try:
        async with runtime_of(request).pool.connection() as conn:
            meter = await _add(conn, typed, site=site, bus=bus, unit=unit)
    except InstallRefused as refused:
        if typed["profile"] not in profile_names():
            typed["profile"] = ""
        return await _form(request, site, bus, unit, typed=typed, error=refused.reason)
    text = language._("Meter %(number)s is in our books. Next: where does it hang?", number=meter)
    return redirect(request, f"/field/meters/{meter}/install", flash=("ok", text))


async def _add(conn: Conn, typed: dict[str, str], *, site: str, bus: str, unit: int) -> str:
    if typed["profile"] not in profile_names():
        raise InstallRefused("profile_unknown")
    number = check_number(typed["drn"])
    known = await desk_store.find_meter(conn, number)
    meter = await take_stock.add_meter(
        conn,
        drn=number,
        commodity=load_profile(typed["profile"]).commodity,
        model=typed["model"],
        link="modbus",
        profile=typed["profile"],
        # A meter from stock has its identity already: papers are asked of a stranger only.
        sts=_plate(typed)
        if known is None or await identity_store.find_identity(conn, known.meter_id) is None
        else None,
    )
    await take_stock.bind_meter(conn, meter_id=meter.id, site=site, bus=bus, unit=unit)
    return meter.drn


def _plate(typed: dict[str, str]) -> StsPlate:
    numbers = [typed[name] for name in ("krn", "ken", "kt", "base_date")]
    if not all(text.isascii() and text.isdigit() and len(text) <= 4 for text in numbers):
        raise InstallRefused("identity_invalid")
    krn, ken, kt, base_date = map(int, numbers)
    return StsPlate(
        sgc=typed["sgc"],
        ti=typed["ti"],
        krn=krn,
        kt=kt,
        ken=ken,
        ea=typed["ea"],
        dkga=typed["dkga"],
        base_date=base_date,
        iin=typed["iin"],
    )
