"""The commissioning checklist of a meter: what is done, what is open, and what nobody may do here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

# A consent is for this visit: who allowed it yesterday may have guests today.
CONSENT_LIFE: Final = timedelta(hours=24)
# A phone's clock may be wrong by this much before what it says is not believed.
CLOCK_SLACK: Final = timedelta(minutes=5)
# A draft that waited longer than this is not a fact of this installation any more.
DRAFT_LIFE: Final = timedelta(days=30)
# A register of this distance in time was read beside the display; a counter between two of REACH is bounded by them.
BESIDE: Final = timedelta(minutes=15)
REACH: Final = timedelta(hours=24)
# Nobody could compare the display: it is to be entered again, nothing is wrong yet.
NOT_COMPARED: Final = frozenset({"no_register", "no_register_then"})
# The display counts whole units and the register was read a moment before: one unit of difference is none.
DISPLAY_TOLERANCE: Final = MappingProxyType({"electricity": 1_000, "water": 1_000_000})  # Wh, mL
RELAY_CLOSED: Final = 1
# An order of these states never reached the relay.
NEVER_ACTED: Final = (None, "EXPIRED", "REJECTED", "CANCELLED")
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class Mark(StrEnum):
    """How an item stands."""

    DONE = "done"
    FAILED = "failed"
    OPEN = "open"
    SKIPPED = "skipped"
    NOT_NEEDED = "not_needed"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a person recorded; `occurred_at` by the phone, `recorded_at` by us."""

    item: str
    outcome: str
    detail: Mapping[str, Any]
    occurred_at: datetime
    recorded_at: datetime
    by_en: str
    by_ar: str


@dataclass(frozen=True, slots=True)
class Register:
    """What a meter's counter was at an instant; Wh or mL."""

    at: datetime
    value: int


@dataclass(frozen=True, slots=True)
class Consent:
    """What a customer allowed."""

    given_by: str
    method: str
    given_at: datetime
    recorded_at: datetime
    by_en: str
    by_ar: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the checklist is made of. `orders` are the newest states of the orders of this installation."""

    link: str  # mqtt, modbus, keypad
    is_critical: bool
    tamper: bool
    has_identity: bool
    installed_at: datetime | None
    last_seen_at: datetime | None
    link_up: bool
    key_change: str | None  # state of a change under way, or stock_key; None: the meter has its own key
    test_state: str | None  # newest test token over the link
    test_at: datetime | None
    open_state: str | None  # newest order to open the relay for its exercise
    close_state: str | None
    relay_at: datetime | None
    photos: int
    entries: Sequence[Entry] = ()
    consent: Consent | None = None
    relay: int | None = None  # as the meter told it last; RELAY_CLOSED: connected
    other_opened: bool = False  # somebody else ordered it open after this installation's own order

    @property
    def must_close(self) -> bool:
        """Whether the exercise may have opened the relay, and nothing says that it was closed again."""
        return self.open_state not in NEVER_ACTED and self.close_state != "VERIFIED" and not self.other_opened

    @property
    def has_link(self) -> bool:
        """Whether orders reach it by wire."""
        return self.link != "keypad"


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist; `reason` is a stable code that the page has words for."""

    code: str
    mark: Mark
    required: bool
    reason: str = ""
    at: datetime | None = None
    by_en: str = ""
    by_ar: str = ""
    detail: Mapping[str, Any] = field(default_factory=lambda: _NONE)


def relay_refusal(facts: Facts, now: datetime) -> str | None:
    """Why the next half of the relay's exercise may not be ordered now, None when it may.

    Never opened at a critical customer, after tamper, where it is not closed now, or without the customer's consent
    of this visit. What the exercise opened is closed whatever else came up since, except tamper.
    """
    if facts.must_close:
        return "tamper" if facts.tamper else None if facts.has_link else "no_link"
    if facts.is_critical:
        return "critical_customer"
    if facts.tamper:
        return "tamper"
    if not facts.has_link:
        return "no_link"
    if facts.installed_at is None:
        return "not_installed"
    if not facts.link_up:
        return "link_down"
    if facts.relay != RELAY_CLOSED:
        return "not_closed"  # opened by an order, by the credit or by hand: not ours to close
    if facts.consent is None or facts.consent.given_at < now - CONSENT_LIFE:
        return "no_consent"
    return None


def judge_display(
    display: int, made_at: datetime, registers: Sequence[Register], commodity: str
) -> str | None:
    """Why a display is not proven to be the register's counter; None when it is (both Wh, or both mL).

    It lies between the last register before it and the first after it, or is the same as one read beside it in time.
    Reasons: no_register_then (nobody knows), display_differs.
    """
    before = max((r for r in registers if r.at <= made_at), key=lambda r: r.at, default=None)
    after = min((r for r in registers if r.at > made_at), key=lambda r: r.at, default=None)
    around = [r for r in (before, after) if r is not None]
    if len(around) < 2:  # one side only: what was used in between is not known
        around = [r for r in around if abs(r.at - made_at) <= BESIDE]
    if not around:
        return "no_register_then"
    values = [r.value for r in around]
    slack = DISPLAY_TOLERANCE[commodity]
    return None if min(values) - slack <= display <= max(values) + slack else "display_differs"


def parse_display(typed: str, commodity: str) -> int | None:
    """What a display in kWh or m³ shows, as Wh or mL; None when it is no such number. Digits are Latin here."""
    text = typed.strip().replace("\u066b", ".").replace(",", ".").replace(" ", "").replace("\u00a0", "")
    if not text or len(text) > 16 or not set(text) <= set("0123456789."):
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    scaled = value * (1_000 if commodity == "electricity" else 1_000_000)
    return int(scaled) if scaled == scaled.to_integral_value() and scaled < 10**14 else None


def build_checklist(facts: Facts) -> list[Item]:
    """The items in the order of the work; the test token is the last."""
    newest: dict[str, Entry] = {}
    for entry in facts.entries:  # oldest first: a later word on an item takes the place of an earlier
        newest[entry.item] = entry
    return [
        Item("identity", Mark.DONE if facts.has_identity else Mark.FAILED, required=True),
        Item(
            "installed",
            Mark.DONE if facts.installed_at else Mark.OPEN,
            required=True,
            at=facts.installed_at,
        ),
        _by_hand("wiring", newest),
        _link(facts),
        _by_hand("display", newest),
        Item(
            "photo", Mark.DONE if facts.photos else Mark.OPEN, required=False, detail={"count": facts.photos}
        ),
        _by_hand("seal", newest),
        _own_key(facts),
        _relay(facts, newest.get("relay")),
        _test(facts, newest.get("test_token")),
    ]


def may_finish(items: Sequence[Item]) -> bool:
    """True when every required item is done or cannot be asked here, the test token among them."""
    return all(item.mark in (Mark.DONE, Mark.NOT_NEEDED) for item in items if item.required)


def first_open(items: Sequence[Item]) -> Item | None:
    """The next thing to do."""
    return next((item for item in items if item.required and item.mark in (Mark.OPEN, Mark.FAILED)), None)


def _by_hand(code: str, newest: Mapping[str, Entry]) -> Item:
    entry = newest.get(code)
    if entry is None:
        return Item(code, Mark.OPEN, required=True)
    reason = str(entry.detail.get("reason", ""))
    return Item(
        code,
        Mark.OPEN if reason in NOT_COMPARED else Mark(entry.outcome),
        required=True,
        reason=reason,
        at=entry.occurred_at,
        by_en=entry.by_en,
        by_ar=entry.by_ar,
        detail=entry.detail,
    )


def _link(facts: Facts) -> Item:
    if not facts.has_link:
        return Item("link", Mark.NOT_NEEDED, required=True, reason="no_link")
    since = facts.installed_at is not None and facts.last_seen_at is not None
    answers = since and facts.link_up and facts.last_seen_at >= facts.installed_at  # type: ignore[operator]
    return Item("link", Mark.DONE if answers else Mark.OPEN, required=True, at=facts.last_seen_at)


def _own_key(facts: Facts) -> Item:
    if facts.key_change is None:
        return Item("own_key", Mark.DONE if facts.has_identity else Mark.OPEN, required=True)
    reason = "stock_key" if facts.key_change == "stock_key" else "key_change"
    return Item("own_key", Mark.OPEN, required=True, reason=reason)


def _relay(facts: Facts, said: Entry | None) -> Item:
    if facts.must_close:
        return Item(
            "relay",
            Mark.FAILED if facts.close_state == "REJECTED" else Mark.OPEN,
            required=True,  # begun is to be finished: the customer may be without supply
            reason="relay_begun",
            at=facts.relay_at,
        )
    if facts.open_state == "VERIFIED" and facts.close_state == "VERIFIED":
        return Item("relay", Mark.DONE, required=False, at=facts.relay_at)
    if facts.is_critical:
        return Item("relay", Mark.NOT_NEEDED, required=False, reason="critical_customer")
    if not facts.has_link:
        return Item("relay", Mark.NOT_NEEDED, required=False, reason="no_link")
    if facts.open_state == "REJECTED":
        return Item("relay", Mark.FAILED, required=False, reason="relay_refused", at=facts.relay_at)
    if said is not None and said.outcome == "skipped":
        return Item(
            "relay", Mark.SKIPPED, required=False, reason="skipped",
            at=said.occurred_at, by_en=said.by_en, by_ar=said.by_ar, detail=said.detail,
        )  # fmt: skip
    return Item("relay", Mark.OPEN, required=False)


def _test(facts: Facts, said: Entry | None) -> Item:
    if facts.has_link:
        if facts.test_state == "VERIFIED":
            return Item("test_token", Mark.DONE, required=True, at=facts.test_at)
        bad = facts.test_state in ("REJECTED", "EXPIRED", "UNKNOWN")
        reason = "test_failed" if bad else "test_sent" if facts.test_state else ""
        return Item("test_token", Mark.FAILED if bad else Mark.OPEN, required=True, reason=reason)
    if said is None:
        return Item("test_token", Mark.OPEN, required=True, reason="test_typed")
    return Item(
        "test_token", Mark(said.outcome), required=True,
        at=said.occurred_at, by_en=said.by_en, by_ar=said.by_ar,
    )  # fmt: skip
