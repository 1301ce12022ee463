"""Entering a token for one's own meter, and the answer that the meter gives."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import Response

from meter_gateway.command import order_command
from meter_gateway.command_store import get_command
from portal import my_store, rate_limit
from portal.access import NotFound, Viewer, require
from portal.errors import field_error
from portal.my_store import OwnMeter
from portal.pages.account import spend
from portal.pages.render import language_of, page, redirect
from portal.runtime import runtime_of
from portal.token_words import result_words
from token_engine.errors import InvalidTokenText
from token_engine.token_text import normalise_digits

router = APIRouter()
Typist = Annotated[Viewer, Depends(require("my.token"))]

COMMAND_LIFE = timedelta(minutes=30)  # a person waits for minutes; later the keypad is the better way
FINAL = frozenset({"VERIFIED", "REJECTED", "EXPIRED", "CANCELLED"})


def _form(
    request: Request, meter: OwnMeter, *, typed: str = "", error: str = "", digits: str = ""
) -> Response:
    return page(
        request,
        "my/token.html",
        status=422 if error else 200,
        meter=meter,
        typed=typed,
        error=error,
        digits=digits,
        form_key=secrets.token_urlsafe(12),
    )


@router.get("/my/meters/{drn}/token")
async def token_form(request: Request, drn: str, viewer: Typist) -> Response:
    """Ask for the 20 digits."""
    async with runtime_of(request).pool.connection() as conn:
        meter = await my_store.get_meter(conn, viewer.subscriber_id, drn)
    return _form(request, meter)


@router.post("/my/meters/{drn}/token")
async def send_token(
    request: Request,
    drn: str,
    viewer: Typist,
    form_key: Annotated[str, Form(min_length=8, max_length=64)],
    token: Annotated[str, Form(max_length=400)] = "",
) -> Response:
    """Check the digits, then send them to the meter; for a meter without a link show them in its groups."""
    now = datetime.now(UTC)
    pool = runtime_of(request).pool
    async with pool.connection() as conn:
        meter = await my_store.get_meter(conn, viewer.subscriber_id, drn)
    try:
        digits = normalise_digits(token)
    except InvalidTokenText as problem:
        return _form(request, meter, typed=token, error=field_error(problem, language_of(request)))
    await spend(request, now, (rate_limit.TOKEN_TYPE_PER_METER, drn))
    async with pool.connection() as conn:
        other = await my_store.find_meter_of_token(conn, viewer.subscriber_id, digits)
    if other is not None and other != drn:
        _ = language_of(request)._
        error = _("This token was made for your other meter, %(drn)s.", drn=other)
        return _form(request, meter, typed=token, error=error)
    if meter.link == "keypad":
        return _form(request, meter, typed=token, digits=digits)
    async with pool.connection() as conn:
        command = await order_command(
            conn,
            meter_id=meter.meter_id,
            kind="token",
            argument=digits,
            idempotency_key=f"typed:{meter.meter_id}:{form_key}",
            requested_by=viewer.actor,
            now=now,
            expires_at=now + COMMAND_LIFE,
        )
    return redirect(request, f"/my/meters/{drn}/token/{command.id}")


@router.get("/my/meters/{drn}/token/{command_id}")
async def token_answer(request: Request, drn: str, command_id: int, viewer: Typist) -> Response:
    """Show what the meter says to a token that was entered here."""
    async with runtime_of(request).pool.connection() as conn:
        meter = await my_store.get_meter(conn, viewer.subscriber_id, drn)
        command = await get_command(conn, command_id)
    if command.meter_id != meter.meter_id or command.requested_by != viewer.actor:
        raise NotFound
    result = str(command.result.get("result") or "").lower()
    return page(
        request,
        "my/token_answer.html",
        block="answer",
        meter=meter,
        state=command.state,
        result=result,
        words=result_words(result),
        is_moving=command.state not in FINAL,
    )
