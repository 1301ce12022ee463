"""One table from a domain error to an answer: its HTTP status and what the person is told."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from billing import errors as billing
from meter_gateway import errors as gateway
from portal.access import CsrfRejected, NotAllowed, NotFound
from portal.contact_centre.open_ticket import TicketKeyReused
from portal.contact_centre.reference import InvalidReference
from portal.contact_centre.ticket import TicketRefused
from portal.field.install import InstallRefused
from portal.formats import money_text
from portal.i18n import Language, msg
from portal.outages.outage import OutageRefused
from portal.rate_limit import TooManyAttempts
from portal.sign_in import PhoneInvalid, StaffInvalid
from token_engine import errors as token_engine


@dataclass(frozen=True, slots=True)
class Answer:
    """What a page says about an error: status, headline and advice as English msgids."""

    status: int
    headline: str
    advice: str


NOT_FOUND = Answer(
    404,
    msg("This page is not here"),
    msg("The address may be mistyped, or the page may have moved."),
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
NOT_POSSIBLE = Answer(
    409,
    msg("This is not possible at the moment"),
    msg("Nothing was changed. Go back, look at the page again and decide anew."),
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
    billing.BillingError: NOT_POSSIBLE,
    billing.NotFound: NOT_FOUND,
    billing.InvalidQuantity: BAD_INPUT,
    billing.ProviderUnavailable: Answer(
        502,
        msg("The payment provider does not answer"),
        msg("We keep asking. You are not charged twice: look at the payment again in a few minutes."),
    ),
    billing.BooksBroken: SERVER_FAULT,
    gateway.MeterGatewayError: NOT_POSSIBLE,
    gateway.MeterNotFound: NOT_FOUND,
    gateway.CommandNotFound: NOT_FOUND,
    InstallRefused: NOT_POSSIBLE,
    InvalidReference: NOT_FOUND,
    OutageRefused: NOT_POSSIBLE,
    TicketRefused: NOT_POSSIBLE,
    TicketKeyReused: NOT_POSSIBLE,
    token_engine.TokenEngineError: NOT_POSSIBLE,
    token_engine.InvalidTokenText: BAD_INPUT,
    # A form in a charset that is none, or with halves of characters that no database keeps.
    UnicodeError: BAD_INPUT,
    psycopg.DataError: BAD_INPUT,
    psycopg.IntegrityError: NOT_POSSIBLE,
    psycopg.OperationalError: DATABASE_AWAY,
    psycopg.InterfaceError: DATABASE_AWAY,  # a connection that was cut between two words of ours
}
_BY_STATUS = {
    400: BAD_INPUT,
    404: NOT_FOUND,
    405: Answer(405, msg("This cannot be done here"), msg("Go back and use the buttons of the page.")),
    413: Answer(413, msg("What you sent is too large"), msg("Send a smaller file.")),
    422: BAD_INPUT,
}

# What a form says beside its field, by the stable code of the error.
_WORDS: dict[str, str] = {
    "quantity_empty": msg("Enter an amount."),
    "quantity_not_a_number": msg("Enter the amount in rials with digits, for example 5 or 5.250."),
    "quantity_not_positive": msg("The amount must be above zero."),
    "quantity_too_precise": msg("A rial has 1000 baisa: at most three digits after the point."),
    "quantity_too_large": msg("This amount is too large."),
    "amount_below_minimum": msg("The smallest amount for this meter is %(minimum)s."),
    "amount_above_maximum": msg("The largest amount for this meter is %(maximum)s."),
    "amount_buys_nothing": msg("After deductions this amount buys less than a tenth of a unit. Enter more."),
    "meter_cannot_take_tokens": msg("This meter cannot take units yet. Please contact us."),
    "meter_not_commissioned": msg("This meter cannot take units yet. Please contact us."),
    "meter_key_refused": msg("This meter cannot take units yet. Please contact us."),
    "meter_key_expired": msg("This meter needs a new key before it can take units. Please contact us."),
    "quote_expired": msg("This offer has expired. Here is a fresh page: enter the amount again."),
    "quote_outdated": msg("Another purchase has changed your deductions. Enter the amount again."),
    "letter": msg("A token has digits only. Check what you typed."),
    "too_short": msg("A token has 20 digits. Some are missing."),
    "too_long": msg("A token has 20 digits. There are too many."),
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


def field_error(error: Exception, language: Language) -> str:
    """Say in words beside a field what is wrong; errors without words of their own get their page's advice."""
    code = getattr(error, "code", "")
    if isinstance(error, token_engine.InvalidTokenText):
        code = error.reason
    facts = getattr(error, "facts", {})
    values = {
        place: money_text(facts[name], language.code)
        for place, name in (("minimum", "minimum_minor"), ("maximum", "maximum_minor"))
        if isinstance(facts.get(name), int)
    }
    words = _WORDS.get(code)
    if words is None or ("%(" in words and not values):
        return language._(answer_for(error).advice)
    return language._(words, **values)
