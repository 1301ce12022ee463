"""Sites and their buses on the phone: the map of link states, and what can be asked of a bus."""

from __future__ import annotations

import math
import secrets
from datetime import UTC, datetime
from typing import Annotated, Final

import psycopg
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from meter_gateway import site_task_store
from meter_gateway.bus import survey
from meter_gateway.errors import InvalidTask
from meter_gateway.profile import profile_names
from meter_gateway.site_task import BAUDS, PARITIES, check_argument, number_registers
from portal.access import NotFound, Viewer, require
from portal.field import field_site_store
from portal.field.link_map import BusNode, SiteNode
from portal.i18n import msg
from portal.pages.field_offline import keep_on_phone
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of

router = APIRouter()
Engineer = Annotated[Viewer, Depends(require("field.view"))]
Commander = Annotated[Viewer, Depends(require("field.command"))]
Unit = Annotated[int, Path(ge=1, le=247)]
Code = Annotated[str, Path(max_length=64)]

TASKS_SHOWN: Final = 8
TRACE_SECONDS: Final = (10, 30, 60, 300)
STATE_WORDS: Final = {"up": msg("Answers"), "down": msg("Silent"), "unknown": msg("Not known")}
FRAMER_WORDS: Final = {
    "tcp": msg("Modbus TCP"),
    "rtu": msg("Serial line (RTU)"),
    "rtu_over_tcp": msg("Serial line behind a converter"),
}
TASK_WORDS: Final = {
    "scan": msg("Scan"),
    "probe": msg("Probe"),
    "registers": msg("Live registers"),
    "words": msg("Word order"),
    "trace": msg("Trace of the bus"),
}
TASK_STATES: Final = {
    "CREATED": msg("Ordered"),
    "SENT": msg("Sent to the gateway"),
    "RUNNING": msg("Under way"),
    "DONE": msg("Done"),
    "FAILED": msg("Failed"),
    "EXPIRED": msg("No answer in time"),
    "CANCELLED": msg("Stopped"),
}
REFUSED_TASKS: Final = {
    "bus_unknown": msg("There is no such bus."),
    "unit_range": msg("Units are 1 to 247, the first not after the last."),
    "baud_unknown": msg("Choose a speed from the list."),
    "parity_unknown": msg("Choose a parity from the list."),
    "line_fixed": msg("Speed and parity can be chosen on a serial port of the gateway only."),
    "seconds_range": msg("A trace takes 1 to 300 seconds."),
    "profile_unknown": msg("Choose a profile from the list."),
    "register_unknown": msg("This profile has no such number to check."),
}
OTHER_REFUSAL: Final = msg("This cannot be asked of the bus. Check what you entered.")


@router.get("/field/sites")
async def sites_page(request: Request, viewer: Engineer) -> Response:
    """All sites, those with trouble first."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        sites = await field_site_store.list_map(conn, now)
    sites.sort(key=lambda node: (not node.has_trouble, node.site.code))
    return keep_on_phone(page(request, "field/sites.html", sites=sites, state_words=STATE_WORDS), viewer)


async def get_site(conn: psycopg.AsyncConnection, site: str, now: datetime) -> SiteNode:
    """A site of the map. Raises NotFound."""
    found = await field_site_store.list_map(conn, now, site=site)
    if not found:
        raise NotFound
    return found[0]


async def get_bus(
    conn: psycopg.AsyncConnection, site: str, bus: str, now: datetime
) -> tuple[SiteNode, BusNode]:
    """A bus of the map. Raises NotFound."""
    node = await get_site(conn, site, now)
    for found in node.buses:
        if found.code == bus:
            return node, found
    raise NotFound


@router.get("/field/sites/{site}")
async def site_page(request: Request, site: Code, viewer: Engineer) -> Response:
    """The map of a site: gateway, buses, meters."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        node = await get_site(conn, site, now)
    response = page(
        request,
        "field/site.html",
        block="map",
        node=node,
        state_words=STATE_WORDS,
        framer_words=FRAMER_WORDS,
    )
    return keep_on_phone(response, viewer)


@router.get("/field/sites/{site}/buses/{bus}")
async def bus_page(request: Request, site: Code, bus: Code, _viewer: Commander) -> Response:
    """A bus: scan it, trace it, look at a unit, and what was asked of it lately."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        node, found = await get_bus(conn, site, bus, now)
        tasks = [
            task for task in await site_task_store.list_tasks(conn, site=site, limit=50) if task.bus == bus
        ][:TASKS_SHOWN]
    return page(
        request,
        "field/bus.html",
        node=node,
        bus=found,
        tasks=tasks,
        bauds=BAUDS,
        parities=PARITIES,
        seconds=TRACE_SECONDS,
        state_words=STATE_WORDS,
        framer_words=FRAMER_WORDS,
        task_words=TASK_WORDS,
        task_states=TASK_STATES,
        form_key=secrets.token_urlsafe(12),
    )


@router.get("/field/sites/{site}/buses/{bus}/scan")
async def scan_preview(
    request: Request,
    *,
    site: Code,
    bus: Code,
    _viewer: Commander,
    first: Annotated[int, Query()] = 1,
    last: Annotated[int, Query()] = 247,
    baud: Annotated[list[int] | None, Query(max_length=10)] = None,
    parity: Annotated[list[str] | None, Query(max_length=3)] = None,
) -> Response:
    """Say what a scan would ask and how long it may take, before it is started."""
    now = datetime.now(UTC)
    asked = {"first": first, "last": last, "bauds": baud or [], "parities": parity or []}
    async with runtime_of(request).pool.connection() as conn:
        node, found = await get_bus(conn, site, bus, now)
    try:
        argument = check_argument("scan", asked, framer=found.framer)
    except InvalidTask as refused:
        return redirect(
            request,
            f"/field/sites/{site}/buses/{bus}",
            flash=("error", task_refusal(refused, request)),
        )
    estimate = math.ceil(survey.estimate_s("scan", argument, framer=found.framer))
    return page(
        request,
        "field/scan.html",
        node=node,
        bus=found,
        argument=argument,
        estimate=estimate,
        lines=max(1, len(argument["bauds"])) * len(argument["parities"]),
        form_key=secrets.token_urlsafe(12),
    )


def task_refusal(refused: InvalidTask, request: Request) -> str:
    """The sentence for a task that makes no sense."""
    return language_of(request)._(REFUSED_TASKS.get(refused.reason, OTHER_REFUSAL))


@router.get("/field/sites/{site}/buses/{bus}/units/{unit}")
async def unit_page(
    request: Request,
    site: Code,
    bus: Code,
    unit: Unit,
    _viewer: Commander,
    profile: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """One unit of a bus: probe it, see its registers, check its word order, name it."""
    return await _unit_page(request, "field/unit.html", site=site, bus=bus, unit=unit, profile=profile)


@router.get("/field/sites/{site}/buses/{bus}/units/{unit}/words")
async def words_page(
    request: Request,
    site: Code,
    bus: Code,
    unit: Unit,
    _viewer: Commander,
    profile: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Begin the word-order wizard: which number of which profile."""
    return await _unit_page(request, "field/words.html", site=site, bus=bus, unit=unit, profile=profile)


async def _unit_page(
    request: Request, template: str, *, site: str, bus: str, unit: int, profile: str
) -> Response:
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        node, found = await get_bus(conn, site, bus, now)
    known = next((meter for meter in found.meters if meter.meter.unit_id == unit), None)
    names = profile_names()
    chosen = profile if profile in names else ""
    return page(
        request,
        template,
        node=node,
        bus=found,
        unit=unit,
        known=known,
        profile=chosen,
        profiles=names,
        registers=_first_counters(number_registers(chosen)) if chosen else (),
        form_key=secrets.token_urlsafe(12),
    )


def _first_counters(names: tuple[str, ...]) -> tuple[str, ...]:
    """The numbers that a display shows stand first: counters, then what else a person may compare."""
    return tuple(sorted(names, key=lambda name: ("counter" not in name and "energy" not in name, name)))
