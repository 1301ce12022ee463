"""One timeline for a customer or a meter: what each recorded row means to a person, and what is kept from whom."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from markupsafe import Markup

from portal import formats
from portal.i18n import Language, msg

Tone = Literal["ok", "warn", "bad", "info", "quiet"]


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One thing that happened, as its own room recorded it; `is_public` only where the row itself decides."""

    at: datetime
    source: str
    kind: str
    is_public: bool | None
    meter_id: int | None
    detail: dict[str, Any]
    drn: str | None
    commodity: str | None


@dataclass(frozen=True, slots=True)
class Line:
    """A row in a reader's words; `text` is markup and may be empty, `href` leads on where there is more."""

    at: datetime
    source: str
    tone: Tone
    title: str
    text: Markup
    drn: str | None
    href: str
    staff_only: bool


# (source, kind) → tone, English title, and whether the subscriber sees it.
_TITLES: Final[dict[tuple[str, str], tuple[Tone, str, bool]]] = {
    ("payment", "CREATED"): ("info", msg("Payment begun"), True),
    ("payment", "CONFIRMED"): ("ok", msg("Payment received"), True),
    ("payment", "DECLINED"): ("bad", msg("Payment declined"), True),
    ("payment", "EXPIRED"): ("quiet", msg("Payment not completed"), True),
    ("vend", "REQUESTED"): ("quiet", msg("Token requested from the vault"), False),
    ("vend", "VENDED"): ("ok", msg("Sale completed"), False),
    ("vend", "REFUSED"): ("bad", msg("The vault refused the token"), False),
    ("vend", "UNKNOWN"): ("warn", msg("Token delayed: we are asking again"), True),
    ("vend", "REVERSED"): ("info", msg("Sale reversed"), True),
    ("vend", "REFUNDED"): ("info", msg("Payment returned"), True),
    ("token", "credit"): ("ok", msg("Token issued"), True),
    ("token", "test"): ("info", msg("Test token issued"), False),
    ("token", "engineering"): ("info", msg("Engineering token issued"), False),
    ("token", "key_change"): ("info", msg("Key change token issued"), False),
    ("meter", "3.26.0.85"): ("bad", msg("The meter lost its supply"), True),
    ("meter", "3.26.0.216"): ("ok", msg("The meter has supply again"), True),
    ("meter", "3.12.0.257"): ("bad", msg("Tamper alarm: the cover was opened"), True),
    ("meter", "raseed.link_down"): ("warn", msg("The meter stopped answering its gateway"), False),
    ("meter", "raseed.link_up"): ("ok", msg("The meter answers its gateway again"), False),
    ("meter", "raseed.counter_suspect"): (
        "warn",
        msg("The counter contradicts itself: it is kept apart"),
        False,
    ),
    ("meter", "raseed.counter_believed"): ("ok", msg("The counter is believed again"), False),
    ("meter", "raseed.counter_rebased"): ("info", msg("The counter is believed from a new beginning"), False),
    ("meter", "raseed.clock_drift"): ("warn", msg("The meter's clock is wrong"), False),
    ("meter", "raseed.leak"): ("warn", msg("Water never stops: there may be a leak"), True),
    ("meter", "3.26.93.219"): ("warn", msg("Energy or water flows back"), False),
    ("meter", "raseed.removed"): ("info", msg("Meter taken down"), True),
    ("meter", "raseed.unknown_meter"): ("bad", msg("Another meter answers at this address"), False),
    ("meter", "raseed.no_meaning"): (
        "warn",
        msg("The meter shows values that its profile does not know"),
        False,
    ),
    ("meter", "raseed.dropped"): (
        "warn",
        msg("The gateway's disk was over its quota: load readings were given up"),
        False,
    ),
    ("meter", "raseed.outbox_lost"): (
        "bad",
        msg("The gateway's disk failed: readings that were not sent are lost"),
        False,
    ),
    ("meter", "raseed.sequence_gap"): ("bad", msg("Messages of the meter never arrived"), False),
    ("outage", "out"): ("bad", msg("Supply interruption in the area"), True),
    ("outage", "restored"): ("ok", msg("Supply is back after the interruption"), True),
    ("ticket", "opened"): ("info", msg("Request registered"), True),
    ("ticket", "note"): ("quiet", msg("Note"), False),
    ("ticket", "reply"): ("info", msg("Answer to the customer"), True),
    ("ticket", "customer_message"): ("info", msg("Message from the customer"), True),
    ("ticket", "assigned"): ("quiet", msg("Request assigned"), False),
    ("ticket", "attached"): ("quiet", msg("File attached"), True),
    ("ticket", "linked_outage"): ("info", msg("Request joined to a supply interruption"), True),
    ("ticket", "resolved"): ("ok", msg("Request resolved"), True),
    ("ticket", "reopened"): ("warn", msg("Request taken up again"), True),
    ("message", "one_time_code"): ("quiet", msg("SMS: sign-in code"), True),
    ("message", "token"): ("info", msg("SMS: token"), True),
    ("message", "payment"): ("info", msg("SMS: payment"), True),
    ("message", "ticket"): ("info", msg("SMS: request"), True),
    ("message", "leak"): ("info", msg("SMS: water that never stops"), True),
    ("message", "outage"): ("info", msg("SMS: supply interruption"), True),
    ("reveal", "shown"): ("warn", msg("Token shown to staff"), False),
    ("installation", "installed"): ("info", msg("Meter installed"), True),
}

# What the same event says when it ends.
_OVER: Final[dict[str, str]] = {
    "3.12.0.257": msg("The tamper alarm was cleared"),
    "raseed.clock_drift": msg("The meter's clock is right again"),
    "raseed.no_meaning": msg("All values of the meter have a meaning again"),
    "raseed.leak": msg("The water stopped: the leak alarm is over"),
    "3.26.93.219": msg("Nothing flows back any more"),
}

_COMMANDS: Final = {
    "token": msg("Token to the meter"),
    "relay_open": msg("Switch off"),
    "relay_close": msg("Switch on"),
    "read_now": msg("Read now"),
    "clock": msg("Set the clock"),
    "limits": msg("Set limits"),
}
_STEPS: Final[dict[str, tuple[Tone, str]]] = {
    "CREATED": ("quiet", msg("ordered")),
    "SENT": ("quiet", msg("sent")),
    "ACCEPTED": ("quiet", msg("taken by the gateway")),
    "WRITTEN": ("quiet", msg("written to the meter")),
    "VERIFIED": ("ok", msg("done, the meter confirms")),
    "REJECTED": ("bad", msg("refused by the meter")),
    "EXPIRED": ("warn", msg("not delivered in time")),
    "UNKNOWN": ("warn", msg("outcome unknown")),
    "CANCELLED": ("quiet", msg("called back before it left")),
}
_OUTCOMES: Final = frozenset({"VERIFIED", "REJECTED", "EXPIRED", "UNKNOWN"})
_RELAY: Final[dict[int, tuple[Tone, str]]] = {
    0: ("bad", msg("The meter switched the supply off")),
    1: ("ok", msg("The meter switched the supply on")),
    2: ("warn", msg("The meter is ready: it waits for its button")),
}
_RELAY_REASONS: Final = {
    "no_credit": msg("No credit left."),
    "order": msg("By order of the utility."),
    "tamper": msg("After a tamper alarm."),
    "overload": msg("Too much load."),
}
# By the names of token_engine.token_result.TokenResult, which meters and gateways send.
TOKEN_RESULTS: Final = {
    "ACCEPT": msg("The meter accepted the token"),
    "FIRST_KCT": msg("The meter took the first key change token and waits for the second"),
    "SECOND_KCT": msg("The meter took the second key change token"),
    "THIRD_KCT": msg("The meter took the third key change token"),
    "FOURTH_KCT": msg("The meter took the fourth key change token"),
    "USED_ERROR": msg("The meter had this token already"),
    "OLD_ERROR": msg("The meter says that the token is too old"),
    "OVERFLOW_ERROR": msg("The meter is too full: use up credit first"),
    "LOCKED_OUT": msg("The keypad is locked: wait before typing again"),
    "CRC_ERROR": msg("The meter could not read the token: a digit may be wrong"),
    "FORMAT_ERROR": msg("The meter could not read the token: a digit may be wrong"),
    "DDTK_ERROR": msg("The meter is not commissioned: it still has its stock key"),
    "KEY_EXPIRED_ERROR": msg("The meter's key has expired"),
    "UNKNOWN": msg("The meter answered the token with a number that nobody knows"),
}
_TOKEN_REFUSED: Final = msg("The meter refused the token")

# Sixteen digits or more in a row, whatever stands between them, are a token or a card: never shown whole.
_LONG_NUMBER: Final = re.compile(
    r"[0-9٠-٩۰-۹](?:[\s\u00a0\u200e\u200f\u2066-\u2069\u202f.\-]{0,3}[0-9٠-٩۰-۹]){15,}"
)
_CODE: Final = re.compile(r"[0-9٠-٩۰-۹](?:[\s\u00a0-]?[0-9٠-٩۰-۹]){3,}")
_HIDDEN: Final = "••••"


def mask_token(digits: str) -> str:
    """A token with only its first and its last group of four to be read."""
    return formats.NO_BREAK_SPACE.join((digits[:4], _HIDDEN, _HIDDEN, _HIDDEN, digits[-4:]))


def mask_body(kind: str, body: str) -> str:
    """An SMS as staff may read it: no token, and no sign-in code at all."""
    if kind == "one_time_code":
        return _CODE.sub(_HIDDEN, body)
    return _LONG_NUMBER.sub(lambda found: mask_token("".join(filter(str.isdigit, found.group()))), body)


def is_public(row: TimelineRow) -> bool:
    """Whether the subscriber sees this row: what concerns their supply and money, not how we work."""
    if row.is_public is not None:
        return row.is_public
    if row.source == "command":
        return row.kind in _OUTCOMES and row.detail.get("command") != "read_now"
    if row.source == "meter" and row.kind in {"raseed.token", "raseed.relay"}:
        return True
    known = _TITLES.get((row.source, row.kind))
    return known is not None and known[2]


def describe(
    rows: Iterable[TimelineRow], language: Language, *, public: bool, desk: bool = False
) -> list[Line]:
    """The rows in a reader's words; `public` keeps what is ours from the subscriber, `desk` adds staff links."""
    return [_line(row, language, desk=desk) for row in rows if not public or is_public(row)]


def _line(row: TimelineRow, language: Language, *, desk: bool) -> Line:
    tone, title = _heading(row, language)
    return Line(
        at=row.at,
        source=row.source,
        tone=tone,
        title=title,
        text=_text(row, language),
        drn=row.drn,
        href=_href(row, desk=desk),
        staff_only=not is_public(row),
    )


def _heading(row: TimelineRow, language: Language) -> tuple[Tone, str]:
    if row.source == "command":
        tone, step = _STEPS.get(row.kind, ("quiet", row.kind))
        command = _COMMANDS.get(row.detail.get("command", ""), "")
        return tone, f"{language._(command) if command else ''}: {language._(step)}"
    if (row.source, row.kind) == ("meter", "raseed.relay"):
        tone, title = _RELAY.get(row.detail.get("relay", -1), ("info", msg("The meter's switch moved")))
        return tone, language._(title)
    if (row.source, row.kind) == ("meter", "raseed.token"):
        result = str(row.detail.get("result", ""))
        good = result == "ACCEPT" or result.endswith("_KCT")
        return ("ok" if good else "warn"), language._(TOKEN_RESULTS.get(result, _TOKEN_REFUSED))
    if row.source == "meter" and row.kind in _OVER and row.detail.get("active") is False:
        return "ok", language._(_OVER[row.kind])
    known = _TITLES.get((row.source, row.kind))
    if known is None:
        return "quiet", f"{row.source} {row.kind}"
    return known[0], language._(known[1])


def _text(row: TimelineRow, language: Language) -> Markup:
    """What belongs to the title; each part is isolated, so that Arabic and Latin parts keep their places."""
    return Markup(" · ").join(Markup("<bdi>{}</bdi>").format(part) for part in _parts(row, language) if part)


def _parts(row: TimelineRow, language: Language) -> tuple[str | Markup, ...]:
    detail, code = row.detail, language.code
    match row.source:
        case "payment":
            return (formats.money(int(detail["amount_minor"]), code),)
        case "vend" if detail.get("receipt"):
            return (language._("Receipt %(number)s", number=detail["receipt"]),)
        case "token":
            units = detail.get("units_tenths")
            carries = (
                formats.units(int(units), row.commodity, code) if units is not None and row.commodity else ""
            )
            return carries, formats.ltr(mask_token(str(detail["digits"])))
        case "command":
            result = detail.get("result") or {}
            words = str(result.get("result", "")) if detail.get("command") == "token" else ""
            told = language._(TOKEN_RESULTS.get(words, _TOKEN_REFUSED)) if words else ""
            return told, _credit(result, row, language)
        case "meter":
            return _meter_parts(row, language)
        case "outage":
            return (str(detail["node_ar" if code == "ar" else "node_en"]),)
        case "ticket":
            body = mask_body("ticket", str(detail.get("text") or "")) or str(detail["subject"])
            return formats.ltr(str(detail["reference"])), str(detail.get("actor") or ""), body
        case "message":
            return (mask_body(row.kind, str(detail["text"])),)
        case "reveal":
            return formats.ltr(mask_token(str(detail["digits"]))), str(detail["actor"]), str(detail["why"])
        case "installation":
            return (formats.ltr(str(detail.get("usage_point") or "")),)
    return ()


def _credit(told: dict[str, Any], row: TimelineRow, language: Language) -> str:
    if not isinstance(told.get("credit"), int) or not row.commodity:
        return ""
    amount = formats.quantity_text(told["credit"], row.commodity, language.code)
    return language._("Credit %(amount)s", amount=amount)


def _meter_parts(row: TimelineRow, language: Language) -> tuple[str, ...]:
    if row.kind == "raseed.relay":
        reason = _RELAY_REASONS.get(str(row.detail.get("reason")))
        return (language._(reason),) if reason else ()
    if row.kind == "raseed.token":
        typed = row.detail.get("carrier") == "keypad"
        carrier = language._("Typed at the meter") if typed else language._("Sent over the link")
        return carrier, _credit(row.detail, row, language)
    if row.kind == "raseed.removed" and isinstance(row.detail.get("counter"), int) and row.commodity:
        counter = formats.quantity_text(row.detail["counter"], row.commodity, language.code)
        return language._("Final reading %(amount)s", amount=counter), _credit(row.detail, row, language)
    return ()


def _href(row: TimelineRow, *, desk: bool) -> str:
    if row.source == "ticket":
        return f"{'/desk' if desk else '/my'}/tickets/{row.detail['reference']}"
    if row.source == "outage" and desk:
        return f"/desk/outages/{row.detail['outage_id']}"
    return ""
