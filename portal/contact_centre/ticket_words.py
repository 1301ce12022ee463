"""What tickets, their clocks and their refusals are called on a page: English msgids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from portal import formats
from portal.contact_centre.clock import ClockKind, ClockState
from portal.contact_centre.clock_store import ClockRow
from portal.contact_centre.ticket import Channel, TicketKind, TicketState
from portal.i18n import Language, msg

KIND_WORDS: Final = {
    TicketKind.NO_SUPPLY: msg("No supply"),
    TicketKind.TOKEN_PROBLEM: msg("Trouble with a token"),
    TicketKind.ENQUIRY: msg("Enquiry"),
    TicketKind.COMPLAINT: msg("Complaint"),
    TicketKind.SUGGESTION: msg("Suggestion"),
}
CHANNEL_WORDS: Final = {
    Channel.PHONE: msg("Telephone"),
    Channel.WEB: msg("Website"),
    Channel.WALK_IN: msg("At the counter"),
    Channel.LETTER: msg("Letter"),
}
STATE_WORDS: Final = {
    TicketState.OPEN: msg("Waiting for us"),
    TicketState.ASSIGNED: msg("In work"),
    TicketState.WAITING_CUSTOMER: msg("Waiting for the customer"),
    TicketState.RESOLVED: msg("Resolved"),
}
STATE_TONES: Final = {
    TicketState.OPEN: "warn",
    TicketState.ASSIGNED: "info",
    TicketState.WAITING_CUSTOMER: "quiet",
    TicketState.RESOLVED: "ok",
}
CLOCK_WORDS: Final = {
    ClockKind.ACK: msg("Reference given"),
    ClockKind.FIRST_RESPONSE: msg("First answer"),
    ClockKind.RESOLUTION: msg("Resolved"),
}
REFUSAL_WORDS: Final = {
    "subject_empty": msg("Say in a few words what it is about."),
    "body_empty": msg("Describe what happened."),
    "note_empty": msg("The note is empty."),
    "reply_empty": msg("The answer is empty."),
    "message_empty": msg("The message is empty."),
    "resolution_empty": msg("A request is closed only with a written answer that says what was done."),
    "too_long": msg("The text is too long."),
    "not_text": msg("The text holds characters that we cannot keep."),
    "key_invalid": msg("The form has expired. Please send it again."),
    "ticket_resolved": msg("This request is resolved already."),
    "reopen_window_over": msg("This request was resolved more than 14 days ago. Please open a new one."),
    "assignee_unknown": msg("This person does not answer requests."),
    "file_empty": msg("The file is empty."),
    "file_too_big": msg("The file is larger than 2 MB."),
    "file_type": msg("Only photos (JPEG, PNG) and PDF files can be attached."),
    "too_many_files": msg("A request carries at most ten files."),
    "outage_closed": msg("This interruption is closed already."),
    "outage_confirmed": msg("This interruption is confirmed already."),
}


# By itself: an extractor does not look into a call within a call.
_REFUSED: Final = msg("This is not possible now.")


@dataclass(frozen=True, slots=True)
class ClockWords:
    """A promise in words: what, how it stands, and when."""

    label: str
    tone: str
    text: str


def refusal_words(reason: str, language: Language) -> str:
    """The sentence for a refusal's reason."""
    return language._(REFUSAL_WORDS.get(reason, _REFUSED))


def clock_words(clock: ClockRow, now: datetime, language: Language) -> ClockWords:
    """How a promise stands at `now`, in words that need no colour."""
    return ClockWords(language._(CLOCK_WORDS[clock.kind]), *_standing(clock, now, language))


def due_words(
    due_at: datetime, resolved_at: datetime | None, now: datetime, language: Language
) -> ClockWords:
    """How the promise to resolve stands, for a list."""
    late_by = resolved_at or now
    code = language.code
    if resolved_at is not None:
        kept = resolved_at <= due_at
        return ClockWords("", "ok" if kept else "bad", language._("In time") if kept else language._("Late"))
    text = formats.ago_text(due_at, now, code)
    if late_by > due_at:
        return ClockWords("", "bad", language._("Overdue: was due %(when)s", when=text))
    return ClockWords("", "info", language._("Due %(when)s", when=text))


def _standing(clock: ClockRow, now: datetime, language: Language) -> tuple[str, str]:
    code = language.code
    due = formats.when_text(clock.due_at, code)
    match clock.state(now):
        case ClockState.RUNNING:
            left = formats.ago_text(clock.due_at, now, code)
            return "info", language._("due %(when)s (%(left)s)", when=due, left=left)
        case ClockState.BREACHED:
            late = formats.ago_text(clock.due_at, now, code)
            return "bad", language._("overdue: was due %(when)s (%(left)s)", when=due, left=late)
        case ClockState.MET:
            met = formats.when_text(clock.met_at or clock.due_at, code)
            return "ok", language._("kept: %(when)s", when=met)
        case _:
            met = formats.when_text(clock.met_at or clock.due_at, code)
            return "bad", language._("late: %(when)s, was due %(due)s", when=met, due=due)
