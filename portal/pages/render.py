"""Rendering: templates in the reader's language, flash messages, redirects and error pages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from portal import formats, i18n
from portal.access import CSRF_COOKIE, HOME, Viewer
from portal.errors import Answer
from portal.i18n import Language
from portal.runtime import Runtime, runtime_of
from portal.token_words import result_words

PORTAL_DIR = Path(__file__).parent.parent
TEMPLATES_DIR = PORTAL_DIR / "templates"
STATIC_DIR = PORTAL_DIR / "static"
FLASH_COOKIE = "raseed_flash"
FLASH_LIFE_S = 60
YEAR_S = 31_536_000
FlashKind = Literal["ok", "info", "warn", "error"]

# What each role sees in its navigation: (path, label, permission).
NAVIGATION: tuple[tuple[str, str, str], ...] = (
    ("/my", i18n.msg("My meters"), "my.view"),
    ("/my/tickets", i18n.msg("My requests"), "my.ticket"),
    ("/desk", i18n.msg("Contact centre"), "desk.view"),
    ("/desk/tickets", i18n.msg("Tickets"), "desk.view"),
    ("/desk/outages", i18n.msg("Outages"), "desk.outage"),
    ("/field", i18n.msg("Field"), "field.view"),
    ("/readings", i18n.msg("Readings"), "readings.view"),
)


class Assets:
    """Addresses of static files with a hash of their content, so that a browser may keep them for ever."""

    def __init__(self, folder: Path = STATIC_DIR) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Return the address of a file below static/."""
        if name not in self._known:
            path = self._folder / name
            if not path.is_file():
                return f"/static/{name}"
            self._known[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return f"/static/{name}?v={self._known[name]}"


def make_templates(languages: dict[str, Language]) -> dict[str, jinja2.Environment]:
    """Build one Jinja environment for each language, with the formats of that language as globals."""
    assets = Assets()
    made: dict[str, jinja2.Environment] = {}
    for code, language in languages.items():
        env = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.i18n"],
        )
        env.install_gettext_callables(  # type: ignore[attr-defined]
            language.translations.gettext, language.translations.ngettext, newstyle=True
        )
        env.globals.update(lang=code, dir=language.direction, asset=assets, **_formats(code))
        made[code] = env
    return made


def _formats(code: str) -> dict[str, Callable[..., Any]]:
    bound = ("money", "quantity", "quantity_text", "unit_name", "units", "load", "rate", "when", "when_text",
             "date_text", "month_text", "duration_text", "money_text")  # fmt: skip
    plain = ("masked_phone", "token_text", "ltr", "time_text", "clock_text", "money_number", "money_plain",
             "percent_text", "quantity_number", "axis_number")  # fmt: skip
    found: dict[str, Callable[..., Any]] = {
        name: partial(getattr(formats, name), language=code) for name in bound
    }
    found |= {name: getattr(formats, name) for name in plain}
    found["format_phone"] = formats.phone
    found["format_token"] = formats.token
    found["result_words"] = result_words
    found["ago"] = lambda moment, now: formats.ago(moment, now, code)
    return found


def language_code(request: Request) -> str:
    """Return the language of this request: ?lang=, cookie, login, browser, Arabic."""
    viewer: Viewer | None = getattr(request.state, "viewer", None)
    return i18n.choose_language(
        query=request.query_params.get("lang"),
        cookie=request.cookies.get(i18n.COOKIE),
        login=viewer.language if viewer else None,
        accept=request.headers.get("accept-language"),
    )


def language_of(request: Request) -> Language:
    """Return the language object of this request."""
    return runtime_of(request).languages[language_code(request)]


def is_secure(runtime: Runtime) -> bool:
    """Say whether cookies must travel over TLS only."""
    return runtime.public_url.startswith("https://")


def set_cookie(request: Request, response: Response, name: str, value: str, max_age_s: int) -> None:
    """Set a cookie that scripts cannot read and other sites cannot send along."""
    response.set_cookie(
        name, value, max_age=max_age_s, httponly=True, samesite="lax", secure=is_secure(runtime_of(request))
    )


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    block: str | None = None,
    own_path: str | None = None,
    **context: Any,
) -> HTMLResponse:
    """Render a template as a page; with `block`, an htmx request gets that Jinja block alone.

    `own_path` is where a GET finds this page, if not at the request's own path: the language switch leads there.
    """
    code = language_code(request)
    runtime = runtime_of(request)
    found = runtime.templates[code].get_template(template)
    csrf_token, csrf_is_new = _csrf_token(request)
    partly = block is not None and request.headers.get("hx-request") == "true"
    flashes = [] if partly else read_flashes(request)
    values = {
        **_page_context(request, code, runtime, own_path or request.url.path),
        "csrf_token": csrf_token,
        "flashes": flashes,
        **context,
    }
    if partly and block is not None:
        html = "".join(found.blocks[block](found.new_context(values)))
    else:
        html = found.render(values)
    response = HTMLResponse(html, status_code=status)
    response.headers["Content-Language"] = code
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "HX-Request"
    if csrf_is_new:
        set_cookie(request, response, CSRF_COOKIE, csrf_token, YEAR_S)
    if request.query_params.get("lang") in i18n.CODES:
        set_cookie(request, response, i18n.COOKIE, code, YEAR_S)
    if flashes:
        response.delete_cookie(FLASH_COOKIE)
    return response


def _page_context(request: Request, code: str, runtime: Runtime, path: str) -> dict[str, Any]:
    viewer: Viewer | None = getattr(request.state, "viewer", None)
    own = [(href, label) for href, label, permission in NAVIGATION if viewer and viewer.may(permission)]
    current = max(
        (href for href, _ in own if path == href or path.startswith(href + "/")), key=len, default=""
    )
    other = "en" if code == "ar" else "ar"
    rest = [(key, value) for key, value in request.query_params.multi_items() if key != "lang"]
    return {
        "request": request,
        "viewer": viewer,
        "now": datetime.now(UTC),
        "demo": runtime.demo,
        "navigation": [(href, label, href == current) for href, label in own],
        "home": HOME[viewer.role] if viewer else "/",
        "other_language": runtime.languages[other],
        "switch_url": f"{path}?{urlencode([*rest, ('lang', other)])}",
    }


def _csrf_token(request: Request) -> tuple[str, bool]:
    viewer: Viewer | None = getattr(request.state, "viewer", None)
    if viewer is not None:
        return viewer.csrf_token, False
    known = request.cookies.get(CSRF_COOKIE, "")
    if known:
        return known, False
    made: str = getattr(request.state, "new_csrf_token", "") or secrets.token_urlsafe(32)
    request.state.new_csrf_token = made
    return made, True


def _sign(secret_key: str, payload: str) -> str:
    return hmac.new(secret_key.encode(), f"flash:{payload}".encode(), hashlib.sha256).hexdigest()


def add_flash(request: Request, response: Response, kind: FlashKind, text: str) -> None:
    """Leave a message that the next page shows once; `text` is already in the reader's language."""
    payload = base64.urlsafe_b64encode(json.dumps([[kind, text[:500]]]).encode()).decode()
    value = f"{payload}.{_sign(runtime_of(request).secret_key, payload)}"
    set_cookie(request, response, FLASH_COOKIE, value, FLASH_LIFE_S)


def read_flashes(request: Request) -> list[tuple[str, str]]:
    """Return the messages left by the request before; a forged cookie gives none."""
    payload, _, signature = request.cookies.get(FLASH_COOKIE, "").partition(".")
    if not hmac.compare_digest(_sign(runtime_of(request).secret_key, payload).encode(), signature.encode()):
        return []
    return [(kind, text) for kind, text in json.loads(base64.urlsafe_b64decode(payload))]


def redirect(request: Request, url: str, *, flash: tuple[FlashKind, str] | None = None) -> Response:
    """Send the browser on with 303, optionally with a message for the next page."""
    response = RedirectResponse(url, status_code=303)
    wish = request.query_params.get("lang", "")
    if wish in i18n.CODES:
        set_cookie(request, response, i18n.COOKIE, wish, YEAR_S)
    if flash is not None:
        add_flash(request, response, *flash)
    return response


def local_path(text: str | None, default: str) -> str:
    """Return `text` if it is a path of this portal, else `default`: a sign-in link leads nowhere else."""
    if text and text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable():
        return text
    return default


def error_page(request: Request, answer: Answer, *, retry_after_s: int | None = None) -> Response:
    """Render an error for a person, or as JSON for a machine."""
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s is not None else {}
    if request.url.path.startswith(("/webhooks/", "/health", "/ready")):
        return JSONResponse({"error": answer.headline}, status_code=answer.status, headers=headers)
    response = page(request, "error.html", status=answer.status, answer=answer, retry_after_s=retry_after_s)
    response.headers.update(headers)
    return response
