"""Readings to look at: what validation found, one meter's chart with its doubts, and what a person decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import psycopg
from fastapi import APIRouter, Depends, Form, Path, Query, Request
from fastapi.responses import Response

from meter_gateway.readings import decide_finding
from meter_gateway.readings.decide_finding import FindingClosed, NotClosable, NothingToBelieve
from meter_gateway.readings.finding_store import FindingNotFound
from meter_gateway.readings.vee import QUIET_KINDS
from portal import formats, readings_store
from portal.access import NotFound, Viewer, require
from portal.counter_chart import CounterChart, draw_counter
from portal.finding_words import CAUSES, CHANNEL_WORDS, GAP_CAUSES, OUTCOMES, WORDS
from portal.i18n import Language, msg
from portal.pages.render import language_of, page, redirect
from portal.readings_store import PAGE_SIZE, ConflictRow, FindingRow, Point
from portal.runtime import runtime_of

router = APIRouter()
Reader = Annotated[Viewer, Depends(require("readings.view"))]
Judge = Annotated[Viewer, Depends(require("readings.decide"))]
FindingId = Annotated[int, Path(ge=1, le=2**62)]
Reason = Annotated[str, Form(max_length=500)]
Conn = psycopg.AsyncConnection[Any]

# A chart shows the finding with a third of its length before it, at least a day, and at most two weeks of it.
BEFORE_LEAST = timedelta(days=1)
SPAN_MOST = timedelta(days=14)
SLOTS = 180
ROWS_OF_TABLE = 60
REFUSALS = {
    "closed": msg("Somebody was faster: this finding is closed. Look again."),
    "needs_decision": msg("This one is ended by a decision about its readings, not by a reason alone."),
    "changed": msg("Other readings came meanwhile. Nothing was changed: look at them and decide again."),
    "reason": msg("Say why, so that others understand it later."),
    "time": msg("The form has expired. Please send it again."),
}


@router.get("/readings")
async def findings_page(
    request: Request,
    _viewer: Reader,
    state: Literal["open", "closed"] = "open",
    kind: Annotated[str, Query(max_length=20)] = "",
    meter: Annotated[str, Query(max_length=40)] = "",
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
) -> Response:
    """List what was found, open findings first, by kind and meter."""
    kind = kind if kind in WORDS else ""
    drn = "".join(digit for digit in meter if digit in "0123456789")
    is_open = state == "open"
    async with runtime_of(request).pool.connection() as conn:
        counts = await readings_store.count_findings(conn, is_open=is_open)
        found = await readings_store.list_findings(
            conn, is_open=is_open, kind=kind, drn=drn, before_id=before
        )
    return page(
        request,
        "readings/list.html",
        found=found,
        counts=counts,
        total=sum(counts.values()),
        state=state,
        kind=kind,
        meter=drn,
        older=found[-1].id if len(found) == PAGE_SIZE else None,
        words=WORDS,
        outcomes=OUTCOMES,
        gap_causes=GAP_CAUSES,
    )


@router.get("/readings/{finding_id}")
async def finding_page(request: Request, finding_id: FindingId, _viewer: Reader) -> Response:
    """Show one finding: what was found, the readings around it, what can be decided, who decided what."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        finding = await _get_finding(conn, finding_id)
        steps = await readings_store.list_steps(conn, finding_id)
        since, until = window_of(finding, now)
        channel = "counter" if finding.channel == "meter" else finding.channel
        points = await readings_store.list_points(
            conn, finding.meter_id, channel, since=since, until=until, slots=SLOTS
        )
        conflicts = (
            await readings_store.list_conflicts(
                conn,
                finding.meter_id,
                finding.channel,
                since=finding.from_at,
                until=finding.closed_at or now,
            )
            if finding.kind == "conflict"
            else []
        )
        undecided = (
            await readings_store.find_undecided(conn, finding.meter_id, finding.channel)
            if finding.kind == "conflict"
            else None
        )
        is_doubt = finding.kind == "counter" and finding.closed_at is None
        restart = await decide_finding.preview_rebase(conn, finding_id) if is_doubt else None
        rebase = await readings_store.find_rebase(conn, finding_id)
    shaded = (finding.from_at, finding.to_at or now)
    if conflicts:
        points = _with_conflicts(points, conflicts)
        shaded = (min(one.occurred_at for one in conflicts), max(one.occurred_at for one in conflicts))
    chart = draw_counter(points, since=since, until=until, found=shaded)
    return page(
        request,
        "readings/finding.html",
        finding=finding,
        words=WORDS[finding.kind],
        steps=steps,
        chart=chart,
        labels=_labels(chart, language_of(request).code) if chart else [],
        since=since,
        until=until,
        channel_words=CHANNEL_WORDS,
        channel=channel,
        notable=_notable(points),
        conflicts=conflicts,
        undecided=undecided,
        quiet_kinds=QUIET_KINDS,
        restart=restart,
        rebase=rebase,
        causes=CAUSES,
        outcomes=OUTCOMES,
        gap_causes=GAP_CAUSES,
        needs_decision=finding.kind in decide_finding.NEEDS_DECISION,
    )


def window_of(finding: FindingRow, now: datetime) -> tuple[datetime, datetime]:
    """Return the stretch of time that its chart shows: the finding, some time before it and a little after."""
    begin, end = finding.from_at, finding.to_at or now
    if finding.kind == "conflict" and isinstance(finding.detail.get("first_at"), str):
        begin = datetime.fromisoformat(finding.detail["first_at"])
    if end - begin > SPAN_MOST:
        end = begin + SPAN_MOST
    before = max(BEFORE_LEAST, (end - begin) / 3)
    return begin - before, min(now, end + max(before / 3, timedelta(hours=2)))


def _with_conflicts(points: list[Point], conflicts: list[ConflictRow]) -> list[Point]:
    """The readings with the values beside them that nobody chose."""
    beside = [
        Point(one.occurred_at, one.kept_value if one.verdict == "accept" else one.value, "suspect")
        for one in conflicts
    ]
    return sorted([*points, *beside], key=lambda one: one.at)


def _labels(chart: CounterChart, language: str) -> list[tuple[float, str]]:
    """Hours, and the day at each midnight."""
    return [
        (x, formats.time_text(at) if formats.in_muscat(at).hour else formats.day_month_text(at, language))
        for x, at in chart.labels
    ]


def _refusal(reason: str, language: Language) -> str:
    return language._(REFUSALS[reason])


def _notable(points: list[Point]) -> list[Point]:
    """What is not simply measured, newest first: the table below the chart."""
    return [one for one in reversed(points) if one.quality in ("suspect", "estimated")][:ROWS_OF_TABLE]


async def _get_finding(conn: Conn, finding_id: int) -> FindingRow:
    finding = await readings_store.find_finding(conn, finding_id)
    if finding is None:
        raise NotFound
    return finding


async def _decide(
    request: Request,
    finding_id: int,
    reason: str,
    step: Callable[[Conn, str, datetime], Awaitable[object]],
    done: str,
) -> Response:
    """Carry out one decision in its transaction, and lead back to the finding with what came of it."""
    language, url = language_of(request), f"/readings/{finding_id}"
    said = " ".join(formats.plain(reason).split())
    if not said:
        return redirect(request, url, flash=("error", _refusal("reason", language)))
    refusal = ""
    try:
        async with runtime_of(request).pool.connection() as conn:
            await step(conn, said, datetime.now(UTC))
    except FindingNotFound:
        raise NotFound from None
    except FindingClosed:
        refusal = "closed"
    except NotClosable:
        refusal = "needs_decision"
    except NothingToBelieve:
        refusal = "changed"
    if refusal:
        return redirect(request, url, flash=("error", _refusal(refusal, language)))
    return redirect(request, url, flash=("ok", done))


@router.post("/readings/{finding_id}/explain")
async def explain(request: Request, finding_id: FindingId, viewer: Judge, reason: Reason = "") -> Response:
    """Close a finding with a reason."""

    async def step(conn: Conn, said: str, now: datetime) -> None:
        await decide_finding.explain_finding(conn, finding_id, by=viewer.actor, reason=said, now=now)

    return await _decide(
        request, finding_id, reason, step, language_of(request)._("The finding is closed with your reason.")
    )


@router.post("/readings/{finding_id}/conflicts/{conflict_id}")
async def decide(
    request: Request,
    finding_id: FindingId,
    conflict_id: Annotated[int, Path(ge=1, le=2**62)],
    viewer: Judge,
    *,
    verdict: Annotated[Literal["keep", "accept"], Form()],
    reason: Reason = "",
) -> Response:
    """Choose between two values of one reading."""

    async def step(conn: Conn, said: str, now: datetime) -> None:
        await decide_finding.decide_conflict(
            conn, finding_id, conflict_id, verdict=verdict, by=viewer.actor, reason=said, now=now
        )

    return await _decide(request, finding_id, reason, step, language_of(request)._("Your decision is kept."))


@router.post("/readings/{finding_id}/keep")
async def keep(
    request: Request,
    finding_id: FindingId,
    viewer: Judge,
    *,
    upto_id: Annotated[int, Form(ge=1, le=2**62)],
    reason: Reason = "",
) -> Response:
    """Keep what counts now at all the conflicts that were shown to be waiting."""

    async def step(conn: Conn, said: str, now: datetime) -> None:
        await decide_finding.keep_values(
            conn, finding_id, upto_id=upto_id, by=viewer.actor, reason=said, now=now
        )

    return await _decide(request, finding_id, reason, step, language_of(request)._("Your decision is kept."))


@router.post("/readings/{finding_id}/believe")
async def believe(
    request: Request,
    finding_id: FindingId,
    viewer: Judge,
    *,
    cause: Annotated[Literal["replaced", "reset", "repaired"], Form()],
    from_at: Annotated[str, Form(max_length=40)],
    base_value: Annotated[int, Form(ge=0, le=2**53)],
    reason: Reason = "",
) -> Response:
    """Believe a counter from where it began again, as the preview showed it."""
    language = language_of(request)
    try:
        begun = datetime.fromisoformat(from_at)
    except ValueError:
        begun = None
    if begun is None or begun.tzinfo is None:
        return redirect(request, f"/readings/{finding_id}", flash=("error", _refusal("time", language)))

    async def step(conn: Conn, said: str, now: datetime) -> None:
        await decide_finding.rebase_counter(
            conn,
            finding_id,
            cause=cause,
            from_at=begun,
            base_value=base_value,
            by=viewer.actor,
            reason=said,
            now=now,
        )

    return await _decide(request, finding_id, reason, step, language._("The counter is believed from there."))
