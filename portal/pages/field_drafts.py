"""Drafts of the engineer's phone: the forms that work without a network, and the place that takes them once."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile

from portal import rate_limit_store
from portal.access import Viewer, require
from portal.field import field_store
from portal.field.checklist import NOT_COMPARED
from portal.field.photo import MAX_UPLOAD_BYTES, CleanPhoto, PhotoRefused, clean_photo
from portal.field.take_draft import Draft, DraftAnswer, DraftKeyReused, DraftRefused, take_draft
from portal.i18n import Language, msg
from portal.pages.field_change import change_words
from portal.pages.field_offline import keep_on_phone
from portal.pages.render import language_of, page, redirect
from portal.rate_limit import Limit
from portal.runtime import runtime_of

router = APIRouter()
Engineer = Annotated[Viewer, Depends(require("field.view"))]
Installer = Annotated[Viewer, Depends(require("field.install"))]

MAX_FIELDS: Final = 20
MAX_FIELD: Final = 2_000
MAX_KEY: Final = 64
MIN_KEY: Final = 8
# A day's work is some fifty photos; a phone that sends more in an hour is not in a hand.
PHOTOS_PER_LOGIN: Final = Limit("field-photo", 200, 3600)
# Pillow unpacks a picture into memory: one at a time is what a small server has room for.
_PHOTO_TURNS: Final = asyncio.Semaphore(1)

TAKEN_WORDS: Final = {
    "installed": msg("The meter is installed. Next: the checklist."),
    "noted": msg("Noted."),
    "display_differs": msg(
        "Noted, but the display and the register differ. Check the word order and the scale before you go on."
    ),
    "no_register": msg(
        "Noted, but no register was read yet. Wait for the link, then enter the display again."
    ),
    "no_register_then": msg(
        "Noted, but no register was read near that time. Enter the display once more while the link answers."
    ),
    "photo_kept": msg("The photo is kept, without the place where it was taken."),
    "consent_kept": msg("The consent is recorded."),
}
REFUSED_WORDS: Final = {
    "hangs_there_already": msg("This meter is installed at this place already: nothing is left to do."),
    "kind_unknown": msg("We do not know this kind of draft. Update the page and enter it again."),
    "from_the_future": msg("The phone's clock is ahead. Set it right, then send the draft again."),
    "too_old": msg("This draft waited over 30 days. Look at the meter again and enter it anew."),
    "not_installed": msg("The meter is not installed anywhere yet. Send the installation first."),
    "item_unknown": msg("This line cannot be recorded so. Open the checklist and choose it there."),
    "meter_says_itself": msg("This meter has a link: it says itself whether it accepted the token."),
    "note_missing": msg("Say in a few words what you saw."),
    "reading_unreadable": msg("Enter the number on the display with digits, for example 1234.5."),
    "photo_missing": msg("Choose a photo."),
    "name_missing": msg("Enter who gave the consent, and how."),
    "critical_customer": msg("A critical customer: the relay is never exercised here."),
    "consent_time": msg("A consent counts for 24 hours. Ask again."),
    "key_reused": msg("Another draft was sent under this number. Enter it again."),
    "photo_empty": msg("Choose a photo."),
    "photo_too_large": msg("The photo is too large: at most 8 MB."),
    "photo_too_many_pixels": msg("The photo has too many pixels. Take it with a smaller size."),
    "photo_unreadable": msg("This is not a photo that we can read. Use JPEG, PNG or WebP."),
}


def refused_words(reason: str, language: Language) -> str:
    """The sentence for the reason of a refusal."""
    return language._(REFUSED_WORDS[reason]) if reason in REFUSED_WORDS else change_words(reason, language)


@router.get("/field/drafts")
async def drafts_page(request: Request, viewer: Engineer) -> Response:
    """What waits on this phone to be sent; the phone itself fills the list."""
    return keep_on_phone(page(request, "field/drafts.html"), viewer)


@router.get("/field/drafts/new")
async def new_draft(
    request: Request, viewer: Installer, drn: Annotated[str, Query(max_length=40)] = ""
) -> Response:
    """All that can be entered without a network, on one page that is on the phone."""
    async with runtime_of(request).pool.connection() as conn:
        points = await field_store.list_free_points(conn)
        spares = await field_store.list_spare_meters(conn)
    return keep_on_phone(
        page(
            request,
            "field/draft_new.html",
            points=points,
            spares=spares,
            drn=drn,
            keys=[secrets.token_urlsafe(12) for _ in range(4)],
        ),
        viewer,
    )


@router.post("/field/drafts")
async def take(request: Request, viewer: Installer) -> Response:
    """Take one draft: from the phone's own sender, which wants JSON, or from a plain form."""
    now = datetime.now(UTC)
    wants_json = "application/json" in request.headers.get("accept", "")
    back = ""
    try:
        fields, upload = await _read_form(request)
        back = _local(fields.pop("back", ""))
        key, kind, number = (fields.pop(name, "") for name in ("form_key", "kind", "drn"))
        photo, upload_hash = await _photo(request, viewer, upload, now)
        made_at = _made_at(key, fields.get("made_at", ""), now)
        draft = Draft(key, kind, number, made_at, fields, photo, upload_hash)
        async with runtime_of(request).pool.connection() as conn:
            answer = await take_draft(conn, draft, login_id=viewer.login_id, actor=viewer.actor, now=now)
    except (DraftRefused, PhotoRefused) as refused:
        return _refused(request, refused.reason, back, wants_json=wants_json)
    except DraftKeyReused:
        return _refused(request, "key_reused", back, wants_json=wants_json)
    return _taken(request, answer, back or f"/field/meters/{answer.drn}/checklist", wants_json=wants_json)


def _local(path: str) -> str:
    """Only our own pages of the field are ways back."""
    is_ours = path.startswith("/field/") and path.isascii() and path.isprintable() and "\\" not in path
    return path if is_ours else ""


async def _read_form(request: Request) -> tuple[dict[str, str], UploadFile | None]:
    fields: dict[str, str] = {}
    upload: UploadFile | None = None
    # A plain form was read already, when its secret was looked for: its bound is counted here once more.
    form = await request.form(max_files=1, max_fields=MAX_FIELDS)
    items = form.multi_items()
    if len(items) > MAX_FIELDS or sum(isinstance(value, UploadFile) for _name, value in items) > 1:
        raise DraftRefused("kind_unknown")
    for name, value in items:
        if isinstance(value, UploadFile):
            upload = value
        elif name != "csrf_token":
            fields[name[:64]] = value[:MAX_FIELD]
    return fields, upload


def _made_at(key: str, text: str, now: datetime) -> datetime:
    """The phone's time of a draft; a form without script has none and is made now. A draft without a key is none."""
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise DraftRefused("kind_unknown")
    if not text:
        return now
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)  # beyond the year 1 or 9999 it overflows
    except (ValueError, OverflowError):
        pass
    raise DraftRefused("kind_unknown")


async def _photo(
    request: Request, viewer: Viewer, upload: UploadFile | None, now: datetime
) -> tuple[CleanPhoto | None, str]:
    if upload is None or not upload.filename:
        return None, ""
    async with runtime_of(request).pool.connection() as conn:
        counts = await rate_limit_store.spend(conn, now, (PHOTOS_PER_LOGIN, str(viewer.login_id)))
    rate_limit_store.check_all(counts, now)
    content = await upload.read(MAX_UPLOAD_BYTES + 1)
    async with _PHOTO_TURNS:
        return await asyncio.to_thread(clean_photo, content), hashlib.sha256(content).hexdigest()


def _refused(request: Request, reason: str, back: str, *, wants_json: bool) -> Response:
    words = refused_words(reason, language_of(request))
    if wants_json:
        answer: dict[str, Any] = {"state": "refused", "reason": reason, "text": words}
        return JSONResponse(answer, status_code=422, headers={"Cache-Control": "no-store"})
    return redirect(request, back or "/field/drafts/new", flash=("error", words))


def _taken(request: Request, answer: DraftAnswer, back: str, *, wants_json: bool) -> Response:
    words = language_of(request)._(TAKEN_WORDS[answer.word])
    if wants_json:
        told = {"state": "taken", "again": answer.again, "text": words, "href": back}
        return JSONResponse(told, headers={"Cache-Control": "no-store"})
    is_good = answer.word not in (*NOT_COMPARED, "display_differs")
    return redirect(request, back, flash=("ok" if is_good else "warn", words))
