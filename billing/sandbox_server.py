"""A payment provider to try things out with, as nasty as real ones: late, twice, silent, in two minds.

It is another company: it shares nothing with the platform but the contract in `take_payment` and a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from billing import sandbox_page
from billing.errors import WebhookRejected
from billing.sandbox_store import SILENT_FOR, PaymentUnknown, SandboxStore, Webhook
from billing.take_payment import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    PayLink,
    check_signed,
    read_link,
    webhook_headers,
)

log = logging.getLogger(__name__)

SEND_EVERY_S = 0.25  # how late a due webhook may leave
SEND_TIMEOUT_S = 5.0  # a receiver that takes longer gets it again
MAX_SILENCE_S = 3600.0
BODY_LIMIT = 16 * 1024

NowFn = Callable[[], datetime]


def utc_now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


class _Act(msgspec.Struct):
    behaviour: str
    silent_s: float = SILENT_FOR.total_seconds()


def make_app(
    store: SandboxStore, *, provider_secret: str, wake: asyncio.Event, now_fn: NowFn = utc_now
) -> Starlette:
    """The provider's pages and its JSON interface over one store; `wake` is set when a webhook may be due."""
    provider = _Provider(store, provider_secret, wake, now_fn)
    return Starlette(
        routes=[
            Route("/pay", provider.show, methods=["GET"]),
            Route("/pay", provider.press, methods=["POST"]),
            Route("/payments/{payment_id}/act", provider.act, methods=["POST"]),
            Route("/payments/{payment_id}", provider.status, methods=["GET"]),
            Route("/health", provider.health, methods=["GET"]),
        ]
    )


class _Provider:
    """The routes."""

    def __init__(self, store: SandboxStore, secret: str, wake: asyncio.Event, now_fn: NowFn) -> None:
        self._store = store
        self._secret = secret
        self._wake = wake
        self._now_fn = now_fn

    async def show(self, request: Request) -> Response:
        """The hosted page."""
        params = dict(request.query_params)
        try:
            link = read_link(params, self._secret, self._now_fn())
        except WebhookRejected:
            return _page(sandbox_page.refused_page(params.get("language", "")), status=403)
        self._store.register(link)
        if self._store.is_decided(link.payment_id):
            html = sandbox_page.decided_page(language=link.language, return_url=link.return_url)
        else:
            html = sandbox_page.pay_page(
                language=link.language, amount_minor=link.amount_minor, fields=params
            )
        return _page(html, link=link)

    async def press(self, request: Request) -> Response:
        """A button of the page; then back to the utility."""
        async with request.form(max_files=0, max_fields=20) as form:
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
        try:
            link = read_link(fields, self._secret, self._now_fn())
            self._store.register(link)
            self._store.act(link.payment_id, fields.get("behaviour", ""), self._now_fn())
        except (WebhookRejected, ValueError):
            return _page(sandbox_page.refused_page(fields.get("language", "")), status=403)
        self._wake.set()
        return RedirectResponse(link.return_url, status_code=303)

    async def act(self, request: Request) -> Response:
        """The same for programs."""
        try:
            asked = _read_act(await _body(request))
            payment_id = UUID(request.path_params["payment_id"])
            silent_for = timedelta(seconds=asked.silent_s)
            self._store.act(payment_id, asked.behaviour, self._now_fn(), silent_for=silent_for)
        except PaymentUnknown:
            return JSONResponse({"error": "payment_unknown"}, status_code=404)
        except ValueError as error:
            return JSONResponse({"error": "bad_request", "detail": str(error)}, status_code=422)
        self._wake.set()
        return JSONResponse({"ok": True})

    async def status(self, request: Request) -> Response:
        """How a payment stands, for whoever has the secret."""
        payment_id = request.path_params["payment_id"]
        stamp, mark = request.headers.get(TIMESTAMP_HEADER, ""), request.headers.get(SIGNATURE_HEADER, "")
        try:
            check_signed(stamp, mark, self._secret, self._now_fn(), "status", payment_id)
            found = self._store.standing(UUID(payment_id), self._now_fn())
        except WebhookRejected as error:
            return JSONResponse({"error": error.code}, status_code=401)
        except (PaymentUnknown, ValueError):
            return JSONResponse({"payment_id": payment_id, "status": "unknown"}, status_code=404)
        said = {"status": found.status, "amount_minor": found.amount_minor, "event_id": found.event_id}
        return JSONResponse({"payment_id": payment_id, **said})

    async def health(self, _request: Request) -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "ok"})


def _read_act(body: bytes) -> _Act:
    try:
        asked = msgspec.json.decode(body, type=_Act)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if not 0 <= asked.silent_s <= MAX_SILENCE_S:
        raise ValueError(f"silent_s is 0 to {MAX_SILENCE_S:g}")
    return asked


async def _body(request: Request) -> bytes:
    # A page of another site cannot send this type without asking first.
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ValueError("send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise ValueError("too large")
    return bytes(body)


def _page(html: str, *, link: PayLink | None = None, status: int = 200) -> HTMLResponse:
    headers = {
        "Content-Security-Policy": sandbox_page.content_policy(link.return_url if link else ""),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return HTMLResponse(html, status_code=status, headers=headers)


class Sender:
    """Sends webhooks until they are taken, each attempt signed anew."""

    def __init__(
        self,
        store: SandboxStore,
        client: httpx.AsyncClient,
        *,
        webhook_url: str,
        provider_secret: str,
        now_fn: NowFn = utc_now,
    ) -> None:
        self._store = store
        self._client = client
        self._url = webhook_url
        self._secret = provider_secret
        self._now_fn = now_fn
        self._failing = False

    async def send_due(self) -> int:
        """Send what is due, all at once, as two webhooks of one event would come; gives how many were taken."""
        due = self._store.list_due(self._now_fn())
        return sum(await asyncio.gather(*(self._send(webhook) for webhook in due)))

    async def _send(self, webhook: Webhook) -> bool:
        headers = webhook_headers(self._secret, webhook.body, self._now_fn())
        try:
            answer = await self._client.post(
                self._url, content=webhook.body, headers=headers, timeout=SEND_TIMEOUT_S
            )
            taken, why = answer.is_success, str(answer.status_code)
        except httpx.HTTPError as error:
            taken, why = False, type(error).__name__
        if taken:
            self._store.mark_taken(webhook.id, self._now_fn())
        else:
            self._store.mark_failed(webhook, self._now_fn())
        if taken == self._failing:
            log.warning("webhooks are %s", "taken again" if taken else f"not taken: {why}")
            self._failing = not taken
        return taken


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run`, so that the process ends with code 0."""
        yield


def check_loopback(host: str) -> None:
    """Refuse to serve anybody but this machine: who reaches it can pay with a click. Raises ValueError."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(f"the sandbox provider serves this machine only, not {host}")


async def run(*, host: str, port: int, state_dir: Path, webhook_url: str, provider_secret: str) -> None:
    """Serve until SIGTERM or SIGINT. Raises ValueError for a host beyond loopback."""
    check_loopback(host)
    store = SandboxStore.in_folder(state_dir)
    wake = asyncio.Event()
    app = make_app(store, provider_secret=provider_secret, wake=wake)
    server = _Server(uvicorn.Config(app, host=host, port=port, log_level="warning", server_header=False))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    # The receiver is on this machine or inside our own network: no proxy stands between.
    async with httpx.AsyncClient(trust_env=False) as client:
        sender = Sender(store, client, webhook_url=webhook_url, provider_secret=provider_secret)
        sending = asyncio.create_task(_send_forever(sender, wake))
        try:
            await server.serve()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            store.close()


async def _send_forever(sender: Sender, wake: asyncio.Event) -> None:
    while True:
        wake.clear()
        await sender.send_due()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEND_EVERY_S):
                await wake.wait()
