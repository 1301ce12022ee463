"""Tasks of a site's gateway on the phone: start one, follow it, judge a word order, stop it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import psycopg
from fastapi import APIRouter, Depends, Form, Path, Request
from fastapi.responses import Response

from meter_gateway import site_task_store
from meter_gateway.bus import word_order
from meter_gateway.bus.word_order import Verdict
from meter_gateway.errors import InvalidTask, TaskConflict
from meter_gateway.order_site_task import cancel_task, order_task
from meter_gateway.profile import load_profile
from meter_gateway.site_task import KINDS
from meter_gateway.site_task_store import SiteTask
from portal.access import NotFound, Viewer, require
from portal.contact_centre import desk_store
from portal.field import field_site_store
from portal.field.link_map import KnownMeter
from portal.field.trace_words import KIND_WORDS, TONES, failure_words, reason_words, trace_words
from portal.formats import latin_digits
from portal.i18n import msg
from portal.pages.field_sites import TASK_STATES, TASK_WORDS, task_refusal
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of

router = APIRouter()
Commander = Annotated[Viewer, Depends(require("field.command"))]
TaskId = Annotated[int, Path(ge=1, le=2**62)]
Short = Annotated[str, Form(max_length=64)]

LEAST_SCORE: Final = 20  # of 100: below it a profile is not worth a look
PROFILES_SHOWN: Final = 4  # the likely one and what is next to it; the rest stands below
VERDICT_WORDS: Final = {
    "confirmed": msg("The display confirms the profile: its word order and scale are right."),
    "other_order": msg(
        "The display fits another order: %(order)s. This profile is not the right one for this meter."
    ),
    "no_order": msg(
        "No order fits the display. Another register, scale or meter: read the plate and probe again."
    ),
    "ambiguous": msg("More than one order fits. Choose a larger number, or another register."),
    "unreadable": msg("Enter the number on the display with digits, for example 1234.5."),
}

Conn = psycopg.AsyncConnection[Any]


@router.post("/field/sites/{site}/buses/{bus}/tasks")
async def start(
    request: Request,
    *,
    site: Annotated[str, Path(max_length=64)],
    bus: Annotated[str, Path(max_length=64)],
    viewer: Commander,
    kind: Short,
    form_key: Annotated[str, Form(min_length=8, max_length=64)],
) -> Response:
    """Start a task; the same form sent twice leads to the same task."""
    form = await request.form()
    try:
        async with runtime_of(request).pool.connection() as conn:
            task = await order_task(
                conn,
                site=site,
                bus=bus,
                kind=kind,
                argument=_argument(kind, {name: form.getlist(name) for name in form}),
                idempotency_key=f"field:{viewer.login_id}:{form_key}",
                requested_by=viewer.actor,
                now=datetime.now(UTC),
            )
    except InvalidTask as refused:
        if refused.reason == "bus_unknown":
            raise NotFound from None
        back = f"/field/sites/{site}/buses/{bus}"
        return redirect(request, back, flash=("error", task_refusal(refused, request)))
    except TaskConflict:
        text = language_of(request)._("The form has expired. Please send it again.")
        return redirect(request, f"/field/sites/{site}/buses/{bus}", flash=("error", text))
    return redirect(request, f"/field/tasks/{task.id}")


def _argument(kind: str, form: dict[str, list[Any]]) -> dict[str, Any]:
    """What a form says of a task, in the shapes that check_argument wants; it judges the rest."""
    if kind not in KINDS:
        raise InvalidTask("kind_unknown", "no such task")
    text = {name: str(values[-1])[:64] for name, values in form.items()}
    found: dict[str, Any] = {}
    for name in ("first", "last", "unit", "seconds"):
        if text.get(name):
            found[name] = _whole(text[name])
    if kind == "scan":
        found["bauds"] = [_whole(str(value)) for value in form.get("baud", [])][:10]
        found["parities"] = [str(value)[:1] for value in form.get("parity", [])][:3]
    if kind == "probe" and text.get("profile"):
        found["profiles"] = [text["profile"]]
    if kind in ("registers", "words"):
        found["profile"] = text.get("profile", "")
    if kind == "words":
        found["register"] = text.get("register", "")
    return found


def _whole(text: str) -> int:
    bare = latin_digits(text).strip()
    if not bare.isascii() or not bare.isdigit() or len(bare) > 9:
        raise InvalidTask("not_a_number", "a whole number is wanted")
    return int(bare)


async def _get_task(conn: Conn, task_id: int) -> SiteTask:
    task = await site_task_store.find_task(conn, task_id)
    if task is None:
        raise NotFound
    return task


@router.get("/field/tasks/{task_id}")
async def task_page(request: Request, task_id: TaskId, _viewer: Commander) -> Response:
    """Follow a task until its gateway has answered, and show what came of it."""
    async with runtime_of(request).pool.connection() as conn:
        task = await _get_task(conn, task_id)
        return await _task_page(request, conn, task)


async def _task_page(
    request: Request, conn: Conn, task: SiteTask, *, verdict: str = "", order: str = "", typed: str = ""
) -> Response:
    language = language_of(request)
    meters = await field_site_store.list_bus_meters(conn, site=task.site, bus=task.bus)
    profiles = task.result.get("profiles") or []
    return page(
        request,
        "field/task.html",
        block="task",
        own_path=f"/field/tasks/{task.id}",
        task=task,
        task_words=TASK_WORDS,
        task_states=TASK_STATES,
        failure=failure_words(task.result, language) if task.state == "FAILED" else "",
        units=await _units(conn, task, meters) if task.kind == "scan" else [],
        unit_meter=_on_unit(meters, task.argument.get("unit", 0)),
        profiles=[
            (one, [(reason_words(why, language), why["points"]) for why in one["reasons"]])
            for one in profiles
        ],
        shown=PROFILES_SHOWN,
        least=LEAST_SCORE,
        lines=[(line, trace_words(line, language)) for line in task.result.get("lines") or []]
        if task.kind == "trace"
        else [],
        kind_words=KIND_WORDS,
        tones=TONES,
        moment=lambda at_ms: datetime.fromtimestamp(at_ms / 1000, UTC),
        verdict=verdict,
        verdict_words=language._(
            VERDICT_WORDS[verdict], **({"order": order} if verdict == "other_order" else {})
        )
        if verdict
        else "",
        typed=typed,
        form_key=secrets.token_urlsafe(12),
    )


def _on_unit(meters: list[KnownMeter], unit: int) -> KnownMeter | None:
    return next((meter for meter in meters if meter.unit_id == unit), None)


async def _units(conn: Conn, task: SiteTask, meters: list[KnownMeter]) -> list[dict[str, Any]]:
    """What a scan found, each with the meter that our books have there, or that has this serial number."""
    found = []
    for unit in task.result.get("units_found") or []:
        known = _on_unit(meters, unit["unit"])
        serial = str(unit.get("serial") or "")
        stock = None
        if known is None and serial.isdigit():
            stock = await desk_store.find_meter(conn, serial)
        differs = known is not None and serial.isdigit() and serial != known.drn
        found.append({**unit, "known": known, "stock": stock, "serial": serial, "differs": differs})
    return found


@router.post("/field/tasks/{task_id}/cancel")
async def stop(request: Request, task_id: TaskId, _viewer: Commander) -> Response:
    """Stop a task that is not done."""
    async with runtime_of(request).pool.connection() as conn:
        await _get_task(conn, task_id)
        await cancel_task(conn, task_id, now=datetime.now(UTC))
    return redirect(request, f"/field/tasks/{task_id}")


@router.post("/field/tasks/{task_id}/judge")
async def judge(
    request: Request, task_id: TaskId, _viewer: Commander, display: Short = "", order: Short = ""
) -> Response:
    """Say whether what the display shows confirms the profile: by the typed number, or by the order picked."""
    async with runtime_of(request).pool.connection() as conn:
        task = await _get_task(conn, task_id)
        if task.kind != "words" or task.state != "DONE":
            raise NotFound
        register = load_profile(task.argument["profile"]).registers[task.argument["register"]]
        words = task.result["words"]
        try:
            verdict = _judged(register, words, latin_digits(display), order)
        except ValueError:
            return await _task_page(request, conn, task, verdict="unreadable", typed=display)
        return await _task_page(
            request, conn, task, verdict=verdict.reason, order=verdict.order or "", typed=display
        )


def _judged(register: Any, words: list[int], display: str, order: str) -> Verdict:
    if display.strip():
        return word_order.judge_display(register, words, display)
    for known in word_order.ORDERS:
        if order == known:
            return word_order.judge_pick(register, words, known)
    raise ValueError("nothing was typed and nothing picked")
