"""Take what an engineer's phone sends, once: an installation, a checklist line, a reading, a photo, a consent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg

from meter_gateway import meter_store
from meter_gateway.meter_store import Meter
from portal.field import commissioning_store, install, photo_store
from portal.field.checklist import (
    CLOCK_SLACK,
    CONSENT_LIFE,
    DRAFT_LIFE,
    REACH,
    Register,
    judge_display,
    parse_display,
)
from portal.field.commissioning_store import Place
from portal.field.photo import CleanPhoto
from portal.formats import latin_digits, plain

HAND_ITEMS: Final = frozenset({"wiring", "seal", "relay", "test_token", "note"})
OUTCOMES: Final = frozenset({"done", "failed", "skipped"})
SUBJECTS: Final = frozenset({"plate", "wiring", "seal", "place", "other"})
METHODS: Final = frozenset({"signature", "in_person", "phone", "message"})
# Skipping is for what need not be: nobody skips the proof.
MAY_SKIP: Final = frozenset({"relay"})
MAX_NOTE: Final = 500
MAX_NAME: Final = 120
RELAY_PURPOSE: Final = "relay_exercise"

Conn = psycopg.AsyncConnection[Any]


class DraftRefused(Exception):
    """The draft cannot be taken as it is; `reason` is a stable code, nothing was changed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = reason


class DraftKeyReused(Exception):
    """The key was used for another draft before."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What the phone sends; `made_at` is the phone's time, `photo` is cleaned already, `fields` as they came."""

    key: str
    kind: str
    drn: str
    made_at: datetime
    fields: Mapping[str, str]
    photo: CleanPhoto | None = field(default=None, repr=False)
    upload_hash: str = ""  # of the file as it came: a newer picture library may write other pixels

    @property
    def content_hash(self) -> bytes:
        """What makes this draft another than one of the same key."""
        said = json.dumps([self.kind, self.drn, self.upload_hash, sorted(self.fields.items())])
        return hashlib.sha256(said.encode()).digest()


@dataclass(frozen=True, slots=True)
class DraftAnswer:
    """What came of a draft: a word for the page and the meter that it belongs to. `again`: it was here before."""

    word: str
    drn: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class _Work:
    conn: Conn
    draft: Draft
    meter: Meter
    place: Place | None
    login_id: int
    actor: str
    now: datetime

    @property
    def point_id(self) -> int | None:
        return self.place.usage_point_id if self.place else None


async def take_draft(conn: Conn, draft: Draft, *, login_id: int, actor: str, now: datetime) -> DraftAnswer:
    """Take a draft in the caller's transaction; the same draft again is answered as it was and changes nothing.

    Raises DraftRefused (reasons: kind_unknown, too_old, from_the_future, meter_unknown, not_installed,
    item_unknown, note_missing, reading_unreadable, photo_missing, name_missing, consent_time, and those of
    InstallRefused), DraftKeyReused.
    """
    await commissioning_store.lock_draft_key(conn, draft.key)
    taken = await commissioning_store.find_draft(conn, draft.key)
    if taken is not None:
        if (taken.content_hash, taken.login_id) != (draft.content_hash, login_id):
            raise DraftKeyReused
        return DraftAnswer(taken.answer["word"], taken.answer["drn"], again=True)
    if draft.kind not in _KINDS:
        raise DraftRefused("kind_unknown")
    if draft.made_at > now + CLOCK_SLACK:
        raise DraftRefused("from_the_future")
    if draft.made_at < now - DRAFT_LIFE:
        raise DraftRefused("too_old")
    try:
        drn = install.check_number(draft.drn)
    except install.InstallRefused as refused:
        raise DraftRefused(refused.reason) from None
    meter = await meter_store.find_meter_by_drn(conn, drn)
    if meter is None:
        raise DraftRefused("number_unknown")
    place = await commissioning_store.find_place(conn, meter.id)
    work = _Work(conn, draft, meter, place, login_id, actor, now)
    answer = DraftAnswer(await _KINDS[draft.kind](work), drn)
    await commissioning_store.insert_draft(
        conn,
        key=draft.key,
        login_id=login_id,
        kind=draft.kind,
        content_hash=draft.content_hash,
        made_at=draft.made_at,
        answer={"word": answer.word, "drn": answer.drn},
        now=now,
    )
    return answer


def _text(work: _Work, name: str, limit: int) -> str:
    return plain(work.draft.fields.get(name, ""))[:limit]


async def _take_install(work: _Work) -> str:
    chosen = work.draft.fields.get("usage_point_id", "")
    if not chosen.isascii() or not chosen.isdigit() or len(chosen) > 18:
        raise DraftRefused("point_taken")
    if work.point_id == int(chosen):
        raise DraftRefused("hangs_there_already")
    if work.place is not None:
        raise DraftRefused("meter_or_point_taken")
    try:
        await install.install(
            work.conn,
            meter_id=work.meter.id,
            usage_point_id=int(chosen),
            installed_by=work.actor,
            note=_text(work, "note", MAX_NOTE),
            now=work.now,
        )
    except install.InstallRefused as refused:
        raise DraftRefused(refused.reason) from None
    return "installed"


async def _take_entry(work: _Work) -> str:
    item, outcome = work.draft.fields.get("item", ""), work.draft.fields.get("outcome", "done")
    note = _text(work, "note", MAX_NOTE)
    if item not in HAND_ITEMS or outcome not in OUTCOMES or (outcome == "skipped" and item not in MAY_SKIP):
        raise DraftRefused("item_unknown")
    if item == "test_token" and work.meter.link != "keypad":
        raise DraftRefused("meter_says_itself")  # a meter with a link is believed, nobody else
    if (item == "note" or outcome != "done") and not note:
        raise DraftRefused("note_missing")
    await _record(work, item, outcome, {"note": note} if note else {})
    return "noted"


async def _take_reading(work: _Work) -> str:
    value = parse_display(latin_digits(work.draft.fields.get("display", "")), work.meter.commodity)
    if value is None:
        raise DraftRefused("reading_unreadable")
    detail: dict[str, Any] = {"display": value}
    # A keypad meter has no register to compare with: its display is the opening reading.
    if work.meter.link != "keypad":
        detail |= await _compare(work, value)
    await _record(work, "display", "failed" if "reason" in detail else "done", detail)
    return str(detail.get("reason", "noted"))


async def _compare(work: _Work, display: int) -> dict[str, Any]:
    """The register beside a display, and why it does not prove it; a draft that waited is held against its own time."""
    made_at = min(work.draft.made_at, work.now)
    registers = await commissioning_store.list_registers(work.conn, work.meter.id, at=made_at, reach=REACH)
    state = await meter_store.find_state(work.conn, work.meter.id)
    if state is not None and state.counter is not None:
        registers.append(Register(state.state_at or work.now, state.counter))
    if not registers:
        return {"reason": "no_register"}
    told: dict[str, Any] = {"register": min(registers, key=lambda r: abs(r.at - made_at)).value}
    reason = judge_display(display, made_at, registers, work.meter.commodity)
    return told if reason is None else told | {"reason": reason}


async def _take_photo(work: _Work) -> str:
    subject = work.draft.fields.get("subject", "other")
    if work.draft.photo is None or subject not in SUBJECTS:
        raise DraftRefused("photo_missing")
    await photo_store.insert_photo(
        work.conn,
        meter_id=work.meter.id,
        usage_point_id=work.point_id,
        subject=subject,
        note=_text(work, "note", MAX_NOTE),
        photo=work.draft.photo,
        recorded_by=work.login_id,
        now=work.now,
    )
    return "photo_kept"


async def _take_consent(work: _Work) -> str:
    name, method = _text(work, "given_by", MAX_NAME), work.draft.fields.get("method", "")
    if len(name) < 2 or method not in METHODS:
        raise DraftRefused("name_missing")
    if work.place is None:
        raise DraftRefused("not_installed")
    if work.place.is_critical:
        raise DraftRefused("critical_customer")
    if work.draft.made_at < work.now - CONSENT_LIFE:
        raise DraftRefused("consent_time")
    await commissioning_store.insert_consent(
        work.conn,
        meter_id=work.meter.id,
        usage_point_id=work.place.usage_point_id,
        purpose=RELAY_PURPOSE,
        given_by=name,
        method=method,
        given_at=min(work.draft.made_at, work.now),
        recorded_by=work.login_id,
        now=work.now,
    )
    return "consent_kept"


async def _record(work: _Work, item: str, outcome: str, detail: Mapping[str, Any]) -> None:
    if work.place is None and item != "note":
        raise DraftRefused("not_installed")
    await commissioning_store.insert_entry(
        work.conn,
        meter_id=work.meter.id,
        usage_point_id=work.point_id,
        item=item,
        outcome=outcome,
        detail=detail,
        occurred_at=min(work.draft.made_at, work.now),
        recorded_by=work.login_id,
        now=work.now,
    )


_KINDS: Final[dict[str, Callable[[_Work], Coroutine[Any, Any, str]]]] = {
    "install": _take_install,
    "entry": _take_entry,
    "reading": _take_reading,
    "photo": _take_photo,
    "consent": _take_consent,
}
