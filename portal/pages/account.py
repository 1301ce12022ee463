"""Pages of signing in and out, of the language, and the landing page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response

from portal import login_store, rate_limit, rate_limit_store, session_store, sign_in
from portal.access import HOME, SESSION_COOKIE, NotFound, find_viewer
from portal.login_store import LoginRow
from portal.pages.render import language_of, local_path, page, redirect, set_cookie
from portal.rate_limit import Limit
from portal.runtime import runtime_of

router = APIRouter()

OLD_WINDOWS = timedelta(days=1)  # longer than the longest window
PERSONAS = {"subscriber": "subscriber", "engineer": "engineer", "agent": "agent"}
Short = Annotated[str, Form(max_length=64)]
NextField = Annotated[str, Form(alias="next", max_length=2000)]


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def spend(request: Request, now: datetime, *pairs: tuple[Limit, str]) -> None:
    """Count a try in a transaction of its own, so that a failing request is counted too."""
    async with runtime_of(request).pool.connection() as conn:
        counts = await rate_limit_store.spend(conn, now, *pairs)
    rate_limit_store.check_all(counts, now)


@router.get("/")
async def landing(request: Request) -> Response:
    """Show what this is, or the home page of who is signed in."""
    viewer = await find_viewer(request)
    if viewer is not None:
        return redirect(request, HOME[viewer.role])
    return page(request, "landing.html")


@router.get("/sign-in")
async def sign_in_form(
    request: Request, next_path: Annotated[str, Query(alias="next", max_length=2000)] = ""
) -> Response:
    """Ask for the phone."""
    viewer = await find_viewer(request)
    if viewer is not None:
        return redirect(request, local_path(next_path, HOME[viewer.role]))
    return page(request, "account/sign_in.html", next_path=local_path(next_path, ""), phone="", error="")


@router.post("/sign-in")
async def send_code(request: Request, phone: Short = "", next_path: NextField = "") -> Response:
    """Send a one-time code; the answer is the same whether the phone is known or not."""
    now = datetime.now(UTC)
    runtime = runtime_of(request)
    safe_next = local_path(next_path, "")
    try:
        number = sign_in.normalise_phone(phone)
    except sign_in.PhoneInvalid:
        _ = language_of(request)._
        error = _("Enter the eight digits of your Omani number, for example 9123 4567.")
        return page(
            request, "account/sign_in.html", status=422, next_path=safe_next, phone=phone, error=error
        )
    await spend(
        request, now, (rate_limit.CODE_PER_PHONE, number), (rate_limit.CODE_PER_ADDRESS, _address(request))
    )
    async with runtime.pool.connection() as conn:
        await sign_in.send_code(
            conn, phone=number, secret_key=runtime.secret_key, now=now, languages=dict(runtime.languages)
        )
    return page(request, "account/code.html", phone=number, next_path=safe_next, error="")


@router.get("/sign-in/code")
async def code_form(request: Request) -> Response:
    """The code page lives only after its form: a plain visit begins again."""
    return redirect(request, f"/sign-in?{request.url.query}" if request.url.query else "/sign-in")


@router.post("/sign-in/code")
async def check_code(
    request: Request, phone: Short = "", code: Short = "", next_path: NextField = ""
) -> Response:
    """Sign a subscriber in with the code."""
    now = datetime.now(UTC)
    runtime = runtime_of(request)
    number = sign_in.normalise_phone(phone)
    digits = sign_in.normalise_code(code)
    await spend(
        request, now, (rate_limit.CHECK_PER_PHONE, number), (rate_limit.CHECK_PER_ADDRESS, _address(request))
    )
    login = None
    if digits:
        async with runtime.pool.connection() as conn:
            login = await sign_in.check_code(
                conn, phone=number, code=digits, secret_key=runtime.secret_key, now=now
            )
    if login is None:
        _ = language_of(request)._
        error = _("This code is wrong or has expired. Check the latest message, or ask for a new code.")
        return page(
            request,
            "account/code.html",
            status=422,
            phone=number,
            next_path=local_path(next_path, ""),
            error=error,
        )
    return await _begin_session(request, login, now, next_path)


@router.get("/sign-in/staff")
async def staff_form(
    request: Request, next_path: Annotated[str, Query(alias="next", max_length=2000)] = ""
) -> Response:
    """Ask staff for name and password."""
    return page(request, "account/staff.html", next_path=local_path(next_path, ""), username="", error="")


@router.post("/sign-in/staff")
async def staff_sign_in(
    request: Request,
    username: Short = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    next_path: NextField = "",
) -> Response:
    """Sign staff in; a wrong name and a wrong password look and take alike."""
    now = datetime.now(UTC)
    name = username.strip().lower()
    await spend(
        request, now, (rate_limit.STAFF_PER_NAME, name), (rate_limit.STAFF_PER_ADDRESS, _address(request))
    )
    async with runtime_of(request).pool.connection() as conn:
        login = await login_store.find_staff(conn, name)
    if not await sign_in.password_matches(login, password) or login is None:
        _ = language_of(request)._
        return page(
            request,
            "account/staff.html",
            status=422,
            next_path=local_path(next_path, ""),
            username=username,
            error=_("The name or the password is wrong."),
        )
    return await _begin_session(request, login, now, next_path)


@router.post("/demo/sign-in/{persona}")
async def demo_sign_in(request: Request, persona: str, next_path: NextField = "") -> Response:
    """Sign in with one click as one of the demo's people; there only in demo mode."""
    if not runtime_of(request).demo or persona not in PERSONAS:
        raise NotFound
    async with runtime_of(request).pool.connection() as conn:
        if persona == "subscriber":
            customer = await login_store.find_demo_customer(conn)
            login = await login_store.get_subscriber_login(conn, customer.id) if customer else None
        else:
            login = await login_store.find_first_of_role(conn, PERSONAS[persona])
    if login is None:
        raise NotFound
    return await _begin_session(request, login, datetime.now(UTC), next_path)


async def _begin_session(request: Request, login: LoginRow, now: datetime, next_path: str) -> Response:
    """Open a session under a new secret, ending the one that the browser came with."""
    async with runtime_of(request).pool.connection() as conn:
        old = request.cookies.get(SESSION_COOKIE, "")
        if old:
            await session_store.delete_session(conn, old)
        opened = await sign_in.open_session(conn, login, now)
        # Whoever signs in sweeps: both tables stay small without a clock of their own.
        await session_store.delete_expired_sessions(conn, now)
        await rate_limit_store.delete_old_windows(conn, now - OLD_WINDOWS)
    response = redirect(request, local_path(next_path, HOME[login.role]))
    life_s = int((opened.expires_at - now).total_seconds())
    set_cookie(request, response, SESSION_COOKIE, opened.secret, life_s)
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session on both sides."""
    cookie = request.cookies.get(SESSION_COOKIE, "")
    viewer = await find_viewer(request)
    async with runtime_of(request).pool.connection() as conn:
        await session_store.delete_session(conn, cookie)
    response = redirect(request, "/")
    response.delete_cookie(SESSION_COOKIE)
    if viewer is not None and viewer.may("field.view"):
        # Pages that the browser kept by itself; those of the worker and this person's drafts the page itself takes
        # away (static/field.js), as "storage" would take other people's unsent drafts too.
        response.headers["Clear-Site-Data"] = '"cache"'
    return response
