"""The door of the payment provider: signed messages in, one short JSON answer out."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from billing.errors import BillingError, IdempotencyConflict, NotFound, PaymentMismatch, WebhookRejected
from billing.take_payment import read_webhook
from portal.runtime import runtime_of
from portal.sell import settle_payment

log = logging.getLogger(__name__)
router = APIRouter()

# A webhook has some 200 bytes; whoever sends more than this is not our provider.
BODY_LIMIT = 16 * 1024
_STATUSES: dict[type[BillingError], int] = {
    WebhookRejected: 401,
    NotFound: 404,
    IdempotencyConflict: 409,
    PaymentMismatch: 422,
}
_UNREADABLE = 400


@router.post("/webhooks/sandbox")
async def take_webhook(request: Request) -> JSONResponse:
    """Settle what the provider says; 200 also for a repeat, so that it stops sending."""
    body = await _limited_body(request)
    if body is None:
        return JSONResponse({"error": "webhook_too_large"}, status_code=413)
    runtime = runtime_of(request)
    now = datetime.now(UTC)
    try:
        event = read_webhook(request.headers, body, secret=runtime.provider_secret, now=now)
        # Committed before the answer leaves: a 200 is a promise.
        async with runtime.pool.connection() as conn:
            settlement = await settle_payment(conn, event, now)
    except tuple(_STATUSES) as error:
        log.warning("webhook refused: %s", error.code)
        unreadable = error.code == "webhook_unreadable"
        status = _UNREADABLE if unreadable else _STATUSES[type(error)]
        return JSONResponse({"error": error.code}, status_code=status)
    return JSONResponse({"state": settlement.state, "repeated": settlement.repeated})


async def _limited_body(request: Request) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)
