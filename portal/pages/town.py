"""The demo's town: what this is, its people, its meters with their keypads, its switches and its messages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response

from portal import sale_store, town_store
from portal.access import NotFound, find_viewer
from portal.control_link import ControlLink, Face, MeterDark, NotInTown, SimulatorUnavailable
from portal.formats import latin_digits
from portal.i18n import msg
from portal.pages.render import FlashKind, language_of, page, redirect
from portal.runtime import runtime_of
from portal.sale import Outcome, Progress, Stage
from portal.town_store import NodeRow, PlaceRow

router = APIRouter()

KEYPAD_LENGTH = 40  # twice a token: a person sees what is too much instead of losing it
ALL = "all"
SHELF = "shelf"
# The parts of the page that refresh themselves where scripts run; each is a block of the template.
PARTS = frozenset({"sale", "network", "meters"})
Show = Annotated[str, Query(max_length=40)]

# What a meter's answer means, by token_engine.token_result.TokenResult.
RESULT_WORDS: dict[str, str] = {
    "accept": msg("The meter accepted the token."),
    "first_kct": msg("The meter took the first key-change token. Type the second one now."),
    "second_kct": msg("The meter took the second key-change token."),
    "third_kct": msg("The meter took the third key-change token."),
    "fourth_kct": msg("The meter took the fourth key-change token."),
    "overflow_error": msg("The meter cannot hold that much. Use some credit first: the token stays valid."),
    "key_type_error": msg("The token was made with a kind of key that this meter does not have."),
    "format_error": msg("This is not a token: check the 20 digits and type them again."),
    "range_error": msg("The token carries a value that this meter does not allow."),
    "function_error": msg("This meter cannot do what the token asks for."),
    "old_error": msg("The token is older than those that the meter remembers, so it cannot be used."),
    "used_error": msg("This token was already used. Nothing was added and nothing was lost."),
    "key_expired_error": msg("The meter's key has expired. It needs a key change first."),
    "ddtk_error": msg("The meter still has its factory key, which takes no credit."),
    "crc_error": msg("The digits do not fit this meter. Check them, and check that it is the right meter."),
    "mfr_code_error": msg("The token is for a meter of another maker."),
    "locked_out": msg("Too many wrong tries: the keypad is locked for a while."),
}
OTHER_RESULT = msg("The meter did not take the digits.")


STAGE_WORDS: dict[Stage, str] = {
    Stage.QUOTED: msg("Quoted: every rial explained"),
    Stage.PAID: msg("Paid: the provider confirmed it"),
    Stage.VENDED: msg("The token was made in the vault"),
    Stage.SENT: msg("Sent to the meter and by SMS"),
    Stage.DELIVERED: msg("Arrived at the meter's line or on the phone"),
    Stage.APPLIED: msg("The meter itself says that the credit is in it"),
    Stage.POWER: msg("The supply is on"),
}
# Outcomes in which the sale goes no further by itself.
STOPPED_WORDS: dict[Outcome, str] = {
    Outcome.DECLINED: msg("The payment was declined. Nothing was taken."),
    Outcome.EXPIRED: msg("The payment was not finished in time. Nothing was taken."),
    Outcome.UNKNOWN: msg("The vault does not answer. It is asked again; there will be one token, never two."),
    Outcome.REFUSED: msg("No token can be made. The money is held for the customer."),
    Outcome.REFUNDED: msg("The money was given back."),
    Outcome.REVERSED: msg("The sale was taken back."),
    Outcome.REJECTED: msg("The meter refused the token."),
    Outcome.KEY_REFUSED: msg("The meter refuses its new key. The token is held back until it has it."),
}


@dataclass(frozen=True, slots=True)
class SaleStep:
    """One line of the last sale; `look` is the class of the list's component: done, now, bad or empty."""

    words: str
    at: datetime | None
    look: str


def sale_steps(progress: Progress) -> list[SaleStep]:
    """The stages that were reached, what is awaited next, and the word on a sale that stopped."""
    found = []
    awaited = True
    for line in progress.stages:
        if line.at is not None:
            found.append(SaleStep(STAGE_WORDS[line.stage], line.at, "done"))
            continue
        if progress.outcome in STOPPED_WORDS:
            found.append(SaleStep(STOPPED_WORDS[progress.outcome], None, "bad"))
            break
        found.append(SaleStep(STAGE_WORDS[line.stage], None, "now" if awaited else ""))
        awaited = False
    return found


@dataclass(frozen=True, slots=True)
class Branch:
    """A node of the network with its own switch, whether power or water reaches it, and its meters."""

    node: NodeRow
    is_on: bool
    is_fed: bool
    meters: int
    alive: int


def branches(nodes: list[NodeRow], power: dict[str, bool], faces: list[Face]) -> list[Branch]:
    """Walk the network from its sources down; `nodes` has each node after its parent."""
    children: dict[str | None, list[NodeRow]] = {}
    for node in nodes:
        children.setdefault(node.parent_code, []).append(node)
    found: list[Branch] = []

    def walk(node: NodeRow, is_fed_above: bool) -> tuple[int, int]:
        is_on = power.get(node.code, True)
        is_fed = is_on and is_fed_above
        place = len(found)
        own = [face for face in faces if face.network_node == node.code]
        meters, alive = len(own), sum(face.powered for face in own)
        found.append(Branch(node, is_on, is_fed, meters, alive))
        for child in children.get(node.code, ()):
            below, below_alive = walk(child, is_fed)
            meters, alive = meters + below, alive + below_alive
        found[place] = Branch(node, is_on, is_fed, meters, alive)
        return meters, alive

    for source in children.get(None, ()):
        walk(source, is_fed_above=True)
    return found


def chosen(faces: list[Face], show: str) -> list[Face]:
    """The faces of one filter: all, a commodity, the shelf, or the code of a transformer or zone."""
    if show == ALL:
        return faces
    if show == SHELF:
        return [face for face in faces if not face.network_node]
    return [face for face in faces if show in (face.commodity, face.network_node)]


@dataclass(frozen=True, slots=True)
class Streets:
    """What the simulator shows of the town; `away` when it does not answer."""

    faces: list[Face]
    power: dict[str, bool]
    away: bool


async def look_at_streets(link: ControlLink) -> Streets:
    """Ask for all faces and switches at once; a silent simulator is a fact to show, not a failure."""
    try:
        faces, power = await asyncio.gather(link.list_faces(), link.list_power())
    except SimulatorUnavailable:
        return Streets([], {}, away=True)
    return Streets(faces, power, away=False)


def _link(request: Request) -> ControlLink:
    return ControlLink(runtime_of(request).control_url)


@router.get("/")
@router.get("/town")
async def town_page(request: Request, show: Show = ALL, part: Show = "") -> Response:
    """The whole town on one page."""
    await find_viewer(request)
    streets = await look_at_streets(_link(request))
    async with runtime_of(request).pool.connection() as conn:
        nodes = await town_store.list_nodes(conn)
        first = await town_store.find_first_place(conn)
        newest = await town_store.find_newest_vend(conn)
        sale = await sale_store.get_sale(conn, vend_id=newest, customer_id=None) if newest else None
    known = {ALL, SHELF, "electricity", "water"} | {node.code for node in nodes}
    show = show if show in known else ALL
    return page(
        request,
        "town/town.html",
        block=part if part in PARTS else None,
        streets=streets,
        sale=sale,
        steps=sale_steps(sale.progress) if sale else [],
        faces=chosen(streets.faces, show),
        show=show,
        branches=branches(nodes, streets.power, streets.faces),
        first=first,
        leaves=sorted(
            (node for node in nodes if node.kind in ("transformer", "zone")), key=lambda node: node.code
        ),
    )


@router.get("/demo/meters/{drn}")
async def meter_page(
    request: Request, drn: str, digits: Annotated[str, Query(max_length=KEYPAD_LENGTH)] = ""
) -> Response:
    """One meter as large as life, with its keypad."""
    await find_viewer(request)
    return await _meter(request, drn, digits=_typed(digits))


@router.post("/demo/meters/{drn}/keypad")
async def press_keypad(
    request: Request,
    drn: str,
    digits: Annotated[str, Form(max_length=200)] = "",
    key: Annotated[str, Form(max_length=8)] = "",
) -> Response:
    """One press: a digit is added, `clear` empties the line, anything else enters it."""
    await find_viewer(request)
    typed = _typed(digits)
    if key == "clear":
        return await _meter(request, drn, digits="")
    if key.isascii() and key.isdigit():
        return await _meter(request, drn, digits=(typed + key)[:KEYPAD_LENGTH])
    _ = language_of(request)._
    if not typed:
        return await _meter(request, drn, problem=_("Type the digits of a token first."), status=422)
    try:
        answer = await _link(request).press_keypad(drn, typed)
    except NotInTown:
        raise NotFound from None
    except MeterDark:
        dark = _("The meter has no power: nobody can type at it now.")
        return await _meter(request, drn, digits=typed, problem=dark, status=409)
    except SimulatorUnavailable:
        return await _meter(request, drn, digits=typed)
    words = RESULT_WORDS.get(answer.result.lower(), OTHER_RESULT)
    return await _meter(request, drn, answer=answer, words=_(words), entered=typed)


@router.post("/demo/meters/{drn}/button")
async def press_button(request: Request, drn: str) -> Response:
    """A hand at the meter: closes a relay that is ready for reconnection."""
    _ = language_of(request)._
    try:
        await _link(request).press_button(drn)
    except NotInTown:
        raise NotFound from None
    except MeterDark:
        flash: tuple[FlashKind, str] = ("error", _("The meter has no power: nobody can type at it now."))
    except SimulatorUnavailable:
        flash = ("error", _("The simulated meters do not answer."))
    else:
        flash = ("ok", _("The button was pressed."))
    return redirect(request, f"/demo/meters/{drn}", flash=flash)


@router.post("/demo/meters/{drn}/hang")
async def hang(request: Request, drn: str) -> Response:
    """Put a meter onto the wall where the books have it: the engineer's form moves no screwdriver."""
    _ = language_of(request)._
    async with runtime_of(request).pool.connection() as conn:
        place = await town_store.find_place(conn, drn)
    if place is None or place.usage_point is None:
        raise NotFound
    try:
        await _link(request).hang(drn, place.usage_point)
    except NotInTown:
        raise NotFound from None
    except SimulatorUnavailable:
        flash: tuple[FlashKind, str] = ("error", _("The simulated meters do not answer."))
    else:
        flash = ("ok", _("The meter hangs on its wall now."))
    return redirect(request, f"/demo/meters/{drn}", flash=flash)


def _typed(digits: str) -> str:
    """What a keypad makes of an entry: digits of any script, nothing else."""
    return "".join(sign for sign in latin_digits(digits) if sign.isascii() and sign.isdigit())[:KEYPAD_LENGTH]


async def _meter(request: Request, drn: str, *, status: int = 200, **context: Any) -> Response:
    face: Face | None = None
    try:
        face = await _link(request).get_face(drn)
    except NotInTown:
        raise NotFound from None
    except SimulatorUnavailable:
        status = 503
    async with runtime_of(request).pool.connection() as conn:
        place: PlaceRow | None = await town_store.find_place(conn, drn)
    if face is None and place is None:
        raise NotFound
    shown = {"digits": "", "answer": None, "words": "", "entered": "", "problem": ""} | context
    return page(request, "town/meter.html", status=status, drn=drn, face=face, place=place, **shown)


@router.post("/demo/network/{code}/power")
async def switch(request: Request, code: str, power: Annotated[str, Form(pattern="^(on|off)$")]) -> Response:
    """Cut or restore everything under a part of the network."""
    _ = language_of(request)._
    try:
        await _link(request).set_power(code, on=power == "on")
    except NotInTown:
        raise NotFound from None
    except SimulatorUnavailable:
        return redirect(request, "/town#network", flash=("error", _("The simulated meters do not answer.")))
    done = _("Restored.") if power == "on" else _("Cut. Watch the meters below, and the outage at the desk.")
    return redirect(request, "/town#network", flash=("ok", done))


@router.get("/demo/sms")
async def messages_page(request: Request, part: Show = "") -> Response:
    """The messages that the town's phones received."""
    await find_viewer(request)
    async with runtime_of(request).pool.connection() as conn:
        messages = await town_store.list_newest_messages(conn)
    block = "messages" if part == "messages" else None
    return page(request, "town/sms.html", block=block, messages=messages)
