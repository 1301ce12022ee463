"""What lets the engineer's pages live without a network: the worker, who is signed in, which pages may be kept."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from portal.access import Viewer, require
from portal.pages.render import STATIC_DIR, Assets, page

router = APIRouter()
Engineer = Annotated[Viewer, Depends(require("field.view"))]

KEEP_HEADER: Final = "X-Raseed-Keep"
# What every kept page needs beside itself.
SHELL: Final = (
    "raseed.css",
    "field.css",
    "field.js",
    "icon.svg",
    "vendor/htmx.min.js",
)  # fmt: skip
# Asked for by the stylesheet, without the hash of their content.
FONTS: Final = ("plex-arabic-400", "plex-arabic-600", "plex-latin-400", "plex-latin-600")
# Kept as soon as an engineer is signed in, so that they are there when the network is not.
FIRST_PAGES: Final = ("/field", "/field/drafts", "/field/drafts/new", "/field/offline")


def keep_on_phone(response: Response, viewer: Viewer) -> Response:
    """Allow the phone to keep this page for its own person; a page that shows a token never gets this."""
    response.headers[KEEP_HEADER] = str(viewer.login_id)
    return response


@cache
def worker_text() -> str:
    """The service worker with the list of what it keeps; another list makes another worker."""
    asset = Assets()
    shell = [asset(name) for name in SHELL] + [f"/static/vendor/{name}.woff2" for name in FONTS]
    body = (STATIC_DIR / "field-worker.js").read_text(encoding="utf-8")
    build = hashlib.sha256((body + "".join(shell)).encode()).hexdigest()[:12]
    known = {"BUILD": build, "SHELL": shell, "FIRST_PAGES": FIRST_PAGES}
    return "".join(f"const {name} = {json.dumps(value)};\n" for name, value in known.items()) + body


@router.get("/field/worker.js")
async def worker(_viewer: Engineer) -> Response:
    """The service worker, allowed to stand before /field and nothing else."""
    return Response(
        worker_text(),
        media_type="text/javascript",
        headers={"Service-Worker-Allowed": "/field", "Cache-Control": "no-cache"},
    )


@router.get("/field/me")
async def me(viewer: Engineer) -> Response:
    """Who is signed in, and the secret that a form of this session carries."""
    return JSONResponse(
        {"login": str(viewer.login_id), "csrf": viewer.csrf_token}, headers={"Cache-Control": "no-store"}
    )


@router.get("/field/offline")
async def offline_page(request: Request, viewer: Engineer) -> Response:
    """What stands in for a page that is not on the phone."""
    return keep_on_phone(page(request, "field/offline.html"), viewer)
