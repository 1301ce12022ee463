"""The web application: routers, security headers, request limits, and a page for everything that fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import psycopg
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from psycopg_pool import AsyncConnectionPool
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter_gateway.vitals import PublishVitals, pool_vitals
from portal import errors
from portal.access import NotSignedIn, check_csrf, find_viewer
from portal.i18n import load_languages
from portal.pages import (
    account,
    desk,
    field,
    field_add,
    field_change,
    field_commission,
    field_drafts,
    field_offline,
    field_sites,
    field_tasks,
    field_use,
    my,
    my_buy,
    my_tickets,
    my_token,
    readings,
    town,
    webhooks,
)
from portal.pages.render import STATIC_DIR, error_page, make_templates
from portal.rate_limit import TooManyAttempts
from portal.runtime import Pool, Runtime, runtime_of
from portal.vitals import PortalVitals

log = logging.getLogger(__name__)

BODY_LIMIT = 12 * 1024 * 1024  # five attachments of 2 MiB and their form
CONNECT_TIMEOUT_S = 3.0  # a page says "not available" after this, long before a person gives up
# A failed connection is tried again after 1, 2, 4, ... s up to this, then at the next page: with the pool's own
# five minutes, a database that was away for two would stay unfound for two more.
RECONNECT_S = 5.0
POOL_MAX = 12  # a page holds a connection for milliseconds; PostgreSQL's default allows 100 in all
STATIC_AGE = "public, max-age=31536000, immutable"

ROUTERS = (
    account.router,
    my_tickets.router,
    my.router,
    my_buy.router,
    my_token.router,
    desk.router,
    field.router,
    field_add.router,
    field_change.router,
    field_commission.router,
    field_drafts.router,
    field_offline.router,
    field_sites.router,
    field_tasks.router,
    field_use.router,
    readings.router,
    webhooks.router,
)


def make_app(
    *,
    database_url: str,
    secret_key: str,
    demo: bool,
    public_url: str,
    provider_url: str,
    provider_secret: str,
    control_url: str,
    publish_vitals: PublishVitals | None = None,
) -> FastAPI:
    """Build the portal. It starts, and says so politely, when the database is not there yet."""
    if len(secret_key) < 16:
        raise ValueError("the secret key needs at least 16 characters")
    languages = load_languages()
    pool: Pool = AsyncConnectionPool(
        database_url,
        min_size=1,
        max_size=POOL_MAX,
        timeout=CONNECT_TIMEOUT_S,
        reconnect_timeout=RECONNECT_S,
        check=AsyncConnectionPool.check_connection,
        open=False,
        name="portal",
    )

    answers: dict[str, int] = {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await pool.open(wait=False)
        if publish_vitals is not None:
            publish_vitals(lambda: PortalVitals(dict(answers), pool_vitals(pool.get_stats())))
        yield
        await pool.close(timeout=2)

    app = FastAPI(
        title="Raseed",
        lifespan=lifespan,
        openapi_url=None,
        dependencies=[Depends(check_csrf)],
    )
    app.state.runtime = Runtime(
        pool=pool,
        secret_key=secret_key,
        demo=demo,
        public_url=public_url.rstrip("/"),
        provider_url=provider_url.rstrip("/"),
        provider_secret=provider_secret,
        control_url=control_url.rstrip("/"),
        languages=languages,
        templates=make_templates(languages),
    )
    if demo:
        app.include_router(town.router)  # first, so that its town is the front page
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/health", health, methods=["GET"], include_in_schema=False)
    app.add_api_route("/ready", ready, methods=["GET"], include_in_schema=False)
    app.mount("/static", CachedFiles(directory=STATIC_DIR), name="static")
    _handle_errors(app)
    app.add_middleware(Guard, form_targets=_form_targets(provider_url), answers=answers)
    return app


async def health() -> JSONResponse:
    """Say that the process answers."""
    return JSONResponse({"status": "ok"})


async def ready(request: Request) -> JSONResponse:
    """Say whether the database answers and is migrated."""
    try:
        async with runtime_of(request).pool.connection() as conn:
            cur = await conn.execute("SELECT to_regclass('portal.login') IS NOT NULL")
            row = await cur.fetchone()
    except psycopg.OperationalError:
        return JSONResponse({"status": "no database"}, status_code=503)
    if row is None or not row[0]:
        return JSONResponse({"status": "not migrated"}, status_code=503)
    return JSONResponse({"status": "ok"})


class CachedFiles(StaticFiles):
    """Static files; those asked for with the hash of their content may be kept for ever."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """Add the cache header that the address allows."""
        response: Response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        scope = args[2] if len(args) > 2 else kwargs.get("scope")
        hashed = isinstance(scope, dict) and b"v=" in scope.get("query_string", b"")
        response.headers["Cache-Control"] = STATIC_AGE if hashed else "public, max-age=3600"
        return response


def _form_targets(provider_url: str) -> str:
    """Return what forms may lead to: ourselves, and the provider that paying redirects to."""
    parts = urlsplit(provider_url)
    return f"'self' {parts.scheme}://{parts.netloc}" if parts.netloc else "'self'"


class TooLarge(HTTPException):
    """A request's body passes BODY_LIMIT."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


class Guard:
    """Security headers on every answer, a ceiling on every body, and a page for what nobody foresaw.

    Counts answers by the first digit of their status in `answers`.
    """

    def __init__(self, app: ASGIApp, form_targets: str, answers: dict[str, int]) -> None:
        self._app = app
        self._answers = answers
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
            " connect-src 'self'; manifest-src 'self'; base-uri 'none'; frame-ancestors 'none';"
            f" form-action {form_targets}"
        )
        self._headers = [
            (b"content-security-policy", policy.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=(self)"),
            (b"cross-origin-opener-policy", b"same-origin"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                kind = f"{message['status'] // 100}xx"
                self._answers[kind] = self._answers.get(kind, 0) + 1
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in self._headers if pair[0] not in present),
                ]
            await send(message)

        read = 0

        async def receive_counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > BODY_LIMIT:
                raise TooLarge
            return message

        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > BODY_LIMIT:
            await error_page(Request(scope), errors.answer_for_status(413))(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, receive_counted, send_guarded)
        except Exception:
            log.exception("a request failed: %s %s", scope["method"], scope["path"])
            if started:
                raise
            await error_page(Request(scope), errors.SERVER_FAULT)(scope, receive, send_guarded)


def _handle_errors(app: FastAPI) -> None:
    """Answer every error of the table, and the framework's own, with a page in the reader's language."""
    for cls in errors.ANSWERS:
        app.add_exception_handler(cls, _domain_error)
    app.add_exception_handler(NotSignedIn, _not_signed_in)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _bad_input)


async def _domain_error(request: Request, error: Exception) -> Response:
    answer = errors.answer_for(error)
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or isinstance(error, psycopg.IntegrityError):
        log.warning("%s answered %s: %s", request.url.path, answer.status, type(error).__name__)
    retry_after_s = error.retry_after_s if isinstance(error, TooManyAttempts) else None
    return error_page(request, answer, retry_after_s=retry_after_s)


async def _not_signed_in(request: Request, _error: Exception) -> Response:
    target = request.url.path
    if request.method != "GET":
        target = "/"
    elif request.url.query:
        target += f"?{request.url.query}"
    return RedirectResponse(f"/sign-in?next={quote(target, safe='')}", status_code=303)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if not hasattr(request.state, "viewer"):
        try:
            await find_viewer(request)
        except psycopg.Error:
            request.state.viewer = None
    return error_page(request, errors.answer_for_status(status))


async def _bad_input(request: Request, _error: Exception) -> Response:
    return error_page(request, errors.BAD_INPUT)
