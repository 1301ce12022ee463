"""The life of a ticket as one table: what may happen in which state, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

# A resolved ticket takes up again within this time; after it the same trouble is a new ticket (field.md 4.4).
REOPEN_WINDOW: Final = timedelta(days=14)
MAX_BODY: Final = 8000
MAX_SUBJECT: Final = 200
MAX_ATTACHMENT_BYTES: Final = 2 * 1024 * 1024
MAX_ATTACHMENTS: Final = 10  # a ticket with more evidence than this is two tickets


class TicketKind(StrEnum):
    """What a person came with."""

    ENQUIRY = "enquiry"
    SUGGESTION = "suggestion"
    COMPLAINT = "complaint"
    NO_SUPPLY = "no_supply"
    TOKEN_PROBLEM = "token_problem"  # noqa: S105 - a kind of ticket, no secret


class Channel(StrEnum):
    """How it reached us."""

    PHONE = "phone"
    WEB = "web"
    WALK_IN = "walk_in"
    LETTER = "letter"


class TicketState(StrEnum):
    """Where a ticket stands."""

    OPEN = "open"
    ASSIGNED = "assigned"
    WAITING_CUSTOMER = "waiting_customer"
    RESOLVED = "resolved"


class TicketEvent(StrEnum):
    """What may happen to a ticket."""

    ASSIGN = "assign"
    NOTE = "note"
    REPLY = "reply"
    ASK_CUSTOMER = "ask_customer"
    CUSTOMER_MESSAGE = "customer_message"
    ATTACH = "attach"
    LINK_OUTAGE = "link_outage"
    RESOLVE = "resolve"


class TicketRefused(Exception):
    """The event does not fit the ticket; `reason` names the rule."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Move:
    """The state that follows; `reopens` when a resolved ticket takes up again."""

    state: TicketState
    reopens: bool = False


_S = TicketState
_E = TicketEvent

# Every pair is decided: a Move, or the reason of the refusal.
TABLE: Final[dict[tuple[TicketState, TicketEvent], Move | str]] = {
    (_S.OPEN, _E.ASSIGN): Move(_S.ASSIGNED),
    (_S.OPEN, _E.NOTE): Move(_S.OPEN),
    (_S.OPEN, _E.REPLY): Move(_S.OPEN),
    (_S.OPEN, _E.ASK_CUSTOMER): Move(_S.WAITING_CUSTOMER),
    (_S.OPEN, _E.CUSTOMER_MESSAGE): Move(_S.OPEN),
    (_S.OPEN, _E.ATTACH): Move(_S.OPEN),
    (_S.OPEN, _E.LINK_OUTAGE): Move(_S.OPEN),
    (_S.OPEN, _E.RESOLVE): Move(_S.RESOLVED),
    (_S.ASSIGNED, _E.ASSIGN): Move(_S.ASSIGNED),
    (_S.ASSIGNED, _E.NOTE): Move(_S.ASSIGNED),
    (_S.ASSIGNED, _E.REPLY): Move(_S.ASSIGNED),
    (_S.ASSIGNED, _E.ASK_CUSTOMER): Move(_S.WAITING_CUSTOMER),
    (_S.ASSIGNED, _E.CUSTOMER_MESSAGE): Move(_S.ASSIGNED),
    (_S.ASSIGNED, _E.ATTACH): Move(_S.ASSIGNED),
    (_S.ASSIGNED, _E.LINK_OUTAGE): Move(_S.ASSIGNED),
    (_S.ASSIGNED, _E.RESOLVE): Move(_S.RESOLVED),
    (_S.WAITING_CUSTOMER, _E.ASSIGN): Move(_S.WAITING_CUSTOMER),
    (_S.WAITING_CUSTOMER, _E.NOTE): Move(_S.WAITING_CUSTOMER),
    (_S.WAITING_CUSTOMER, _E.REPLY): Move(_S.WAITING_CUSTOMER),
    (_S.WAITING_CUSTOMER, _E.ASK_CUSTOMER): Move(_S.WAITING_CUSTOMER),
    (_S.WAITING_CUSTOMER, _E.CUSTOMER_MESSAGE): Move(_S.ASSIGNED),
    (_S.WAITING_CUSTOMER, _E.ATTACH): Move(_S.WAITING_CUSTOMER),
    (_S.WAITING_CUSTOMER, _E.LINK_OUTAGE): Move(_S.WAITING_CUSTOMER),
    (_S.WAITING_CUSTOMER, _E.RESOLVE): Move(_S.RESOLVED),
    (_S.RESOLVED, _E.ASSIGN): "ticket_resolved",
    (_S.RESOLVED, _E.NOTE): Move(_S.RESOLVED),
    (_S.RESOLVED, _E.REPLY): "ticket_resolved",
    (_S.RESOLVED, _E.ASK_CUSTOMER): "ticket_resolved",
    (_S.RESOLVED, _E.CUSTOMER_MESSAGE): Move(_S.ASSIGNED, reopens=True),
    (_S.RESOLVED, _E.ATTACH): "ticket_resolved",
    (_S.RESOLVED, _E.LINK_OUTAGE): "ticket_resolved",
    (_S.RESOLVED, _E.RESOLVE): "ticket_resolved",
}


def move(state: TicketState, event: TicketEvent) -> Move:
    """What `event` does to a ticket in `state`. Raises TicketRefused."""
    decided = TABLE[state, event]
    if isinstance(decided, str):
        raise TicketRefused(decided)
    return decided


def check_reopen(resolved_at: datetime, now: datetime) -> None:
    """Refuse a message to a ticket resolved too long ago. Raises TicketRefused with `reopen_window_over`."""
    if now - resolved_at > REOPEN_WINDOW:
        raise TicketRefused("reopen_window_over")


def check_text(text: str, *, limit: int, empty_reason: str) -> str:
    """The trimmed text. Raises TicketRefused with `empty_reason`, or `too_long` past `limit` characters."""
    trimmed = text.replace("\r\n", "\n").strip()
    if not trimmed:
        raise TicketRefused(empty_reason)
    if len(trimmed) > limit:
        raise TicketRefused("too_long")
    if "\x00" in trimmed:
        raise TicketRefused("not_text")  # the database keeps no NUL, and no person types one
    return trimmed


def media_type_of(content: bytes) -> str:
    """The media type by the file's own first bytes, whatever its name says.

    Raises TicketRefused: `file_empty`, `file_too_big` past 2 MiB, `file_type` unless JPEG, PNG or PDF.
    """
    if not content:
        raise TicketRefused("file_empty")
    if len(content) > MAX_ATTACHMENT_BYTES:
        raise TicketRefused("file_too_big")
    for magic, media_type in (
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"%PDF-", "application/pdf"),
    ):
        if content.startswith(magic):
            return media_type
    raise TicketRefused("file_type")


def safe_file_name(name: str, media_type: str) -> str:
    """A file name that is only a name: no folders, no control characters, the suffix its content has."""
    suffix = {"image/jpeg": ".jpg", "image/png": ".png", "application/pdf": ".pdf"}[media_type]
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    stem = last.rsplit(".", 1)[0] if "." in last else last
    kept = "".join(char for char in stem if char.isalnum() or char in " -_()").strip()
    return (kept[:100] or "file") + suffix
