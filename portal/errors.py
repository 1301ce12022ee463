"""One table from a domain error to an answer: its HTTP status and what the person is told."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from portal.access import CsrfRejected, NotAllowed, NotFound
from portal.i18n import msg
from portal.rate_limit import TooManyAttempts
from portal.sign_in import PhoneInvalid, StaffInvalid


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says about an error: status, headline and advice as English msgids."""

    status: int
    headline: str
    advice: str


NOT_FOUND = Answer(
    404, msg("This page is not here"), msg("The address may be mistyped, or the page may have moved.")
)
SERVER_FAULT = Answer(
    500, msg("Something broke on our side"), msg("Nothing was changed. Please try again in a minute.")
)
BAD_INPUT = Answer(
    422, msg("We could not read what was sent"), msg("Go back, check what you entered and send it again.")
)
DATABASE_AWAY = Answer(
    503,
    msg("The service is not available at the moment"),
    msg("We are working on it. Your balance and your payments are safe. Please try again in a few minutes."),
)

ANSWERS: dict[type[Exception], Answer] = {
    NotAllowed: Answer(
        403, msg("This page is not open to you"), msg("Your account does not carry the permission for it.")
    ),
    NotFound: NOT_FOUND,
    CsrfRejected: Answer(
        403,
        msg("The form has expired"),
        msg("For your safety a form is valid only in the session that opened it. Go back and send it again."),
    ),
    TooManyAttempts: Answer(
        429, msg("Too many attempts"), msg("Please wait a few minutes before you try again.")
    ),
    PhoneInvalid: Answer(
        422,
        msg("This is not a phone number that we can use"),
        msg("Enter the eight digits of your Omani number."),
    ),
    StaffInvalid: BAD_INPUT,
    psycopg.DataError: BAD_INPUT,
    psycopg.OperationalError: DATABASE_AWAY,
}
_BY_STATUS = {
    400: BAD_INPUT,
    404: NOT_FOUND,
    405: Answer(405, msg("This cannot be done here"), msg("Go back and use the buttons of the page.")),
    413: Answer(413, msg("What you sent is too large"), msg("Send a smaller file.")),
    422: BAD_INPUT,
}


def answer_for(error: Exception) -> Answer:
    """Return the answer of the nearest class of `error` in the table, else the server fault."""
    for cls in type(error).__mro__:
        if cls in ANSWERS:
            return ANSWERS[cls]
    return SERVER_FAULT


def answer_for_status(status: int) -> Answer:
    """Return the answer of a bare HTTP status."""
    known = _BY_STATUS.get(status)
    if known is not None:
        return known
    if status >= 500:
        return SERVER_FAULT
    return Answer(status, BAD_INPUT.headline, BAD_INPUT.advice)
