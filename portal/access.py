"""Who may see and do what: one table of roles and permissions, and the dependency that enforces it.

A route takes `viewer: Annotated[Viewer, Depends(require("desk.view"))]`. A route that takes nobody in
particular is listed in PUBLIC; a test walks the routes and refuses one that is neither.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request

from portal import session_store
from portal.runtime import runtime_of

SESSION_COOKIE = "raseed_session"
CSRF_COOKIE = "raseed_csrf"
CSRF_FIELD = "csrf_token"
CSRF_HEADER = "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_SUBSCRIBER = frozenset({"my.view", "my.buy", "my.token", "my.ticket"})
_ENGINEER = frozenset(
    {"field.view", "field.install", "field.command", "field.token", "readings.view", "readings.decide"}
)
_AGENT = frozenset({"desk.view", "desk.ticket", "desk.outage", "desk.command"})
_SUPERVISOR = _AGENT | {
    "desk.restore",
    "desk.report",
    "desk.engineering",
    "field.view",
    "readings.view",
    "readings.decide",
}
PERMISSIONS: dict[str, frozenset[str]] = {
    "subscriber": _SUBSCRIBER,
    "engineer": _ENGINEER,
    "agent": _AGENT,
    "supervisor": frozenset(_SUPERVISOR),
    "admin": frozenset(_SUPERVISOR | _ENGINEER | {"admin.view"}),
}
EVERY_PERMISSION = frozenset().union(*PERMISSIONS.values())
HOME = {"subscriber": "/my", "engineer": "/field", "agent": "/desk", "supervisor": "/desk", "admin": "/desk"}

# Pages that need nobody's name. A prefix ends in "/"; the demo's town is there only in demo mode.
PUBLIC = frozenset(
    {"/", "/health", "/ready", "/sign-in", "/sign-in/code", "/sign-in/staff", "/sign-out",
     "/demo/sign-in/{persona}", "/town"}
)  # fmt: skip
PUBLIC_PREFIXES = ("/webhooks/", "/demo/", "/static/")
# Machines that sign what they send in their own way have no session to ride on.
CSRF_EXEMPT_PREFIXES = ("/webhooks/",)


class NotSignedIn(Exception):
    """The page needs a person and none is signed in."""


class NotAllowed(Exception):
    """The person's role does not carry the permission."""


class NotFound(Exception):
    """There is no such thing, or it is another customer's: both answer alike."""


class CsrfRejected(Exception):
    """A form came without the secret of the session that it claims."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """The person behind a request."""

    login_id: int
    role: str
    customer_id: int | None
    display_name: str
    language: str
    csrf_token: str
    username: str | None = None

    def may(self, permission: str) -> bool:
        """Say whether this person's role carries the permission."""
        return permission in PERMISSIONS[self.role]

    @property
    def subscriber_id(self) -> int:
        """Return the customer that a subscriber is. Raises NotAllowed for staff."""
        if self.customer_id is None:
            raise NotAllowed
        return self.customer_id

    @property
    def actor(self) -> str:
        """Name this person in audit columns: the user name of staff, else `customer:<id>`."""
        return self.username or f"customer:{self.customer_id}"


async def find_viewer(request: Request) -> Viewer | None:
    """Return who is signed in, once read and then kept for the request."""
    if hasattr(request.state, "viewer"):
        known: Viewer | None = request.state.viewer
        return known
    viewer: Viewer | None = None
    cookie = request.cookies.get(SESSION_COOKIE, "")
    if cookie:
        async with runtime_of(request).pool.connection() as conn:
            row = await session_store.find_session(conn, cookie)
        if row is not None:
            viewer = Viewer(
                login_id=row.login_id,
                role=row.role,
                customer_id=row.customer_id,
                display_name=row.name_en if _wants_english(request, row.language) else row.name_ar,
                language=row.language,
                csrf_token=row.csrf_token,
                username=row.username,
            )
    request.state.viewer = viewer
    return viewer


def _wants_english(request: Request, login_language: str) -> bool:
    from portal.i18n import COOKIE, choose_language

    return (
        choose_language(
            query=request.query_params.get("lang"),
            cookie=request.cookies.get(COOKIE),
            login=login_language,
            accept=None,
        )
        == "en"
    )


def require(permission: str) -> Callable[[Request], Awaitable[Viewer]]:
    """Return a dependency that lets in only a person whose role carries `permission`."""
    if permission not in EVERY_PERMISSION:
        raise ValueError(f"no role carries {permission!r}")

    async def allowed_viewer(request: Request) -> Viewer:
        viewer = await find_viewer(request)
        if viewer is None:
            raise NotSignedIn
        if not viewer.may(permission):
            raise NotAllowed
        return viewer

    allowed_viewer.permission = permission  # type: ignore[attr-defined]
    return allowed_viewer


def is_public(path: str) -> bool:
    """Say whether a route's path is on the public list."""
    return path in PUBLIC or path.startswith(PUBLIC_PREFIXES)


async def check_csrf(request: Request) -> None:
    """Learn who is there, and refuse a change without the session's secret (form field or X-CSRF-Token)."""
    if request.url.path.startswith(CSRF_EXEMPT_PREFIXES):
        return
    viewer = await find_viewer(request)
    if request.method in SAFE_METHODS:
        return
    expected = viewer.csrf_token if viewer else request.cookies.get(CSRF_COOKIE, "")
    given = request.headers.get(CSRF_HEADER, "")
    if not given:
        value = (await request.form()).get(CSRF_FIELD, "")
        given = value if isinstance(value, str) else ""
    if not expected or not hmac.compare_digest(expected.encode(), given.encode()):
        raise CsrfRejected
