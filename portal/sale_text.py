"""What a sale says in a message: plain text for a phone, in the customer's language."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from functools import lru_cache

from portal.formats import money_text, month_text, time_text, token_text, units_text
from portal.i18n import Language, load_languages, msg

# The token stands on a line of its own: easy to copy, and in order in either direction (field rules 4.9).
TOKEN_MESSAGE = msg("Token for meter %(drn)s: %(units)s\n%(token)s\nPaid %(amount)s. Receipt %(receipt)s.")
# Before it, when the meter gets a new key: these first, in this order.
FIRST_TOKENS_MESSAGE = msg(
    "Your meter %(drn)s gets a new key. If you hold an older token, enter that one before all."
    " Then enter these, one after the other:\n%(tokens)s\nOnly then enter your units:"
)
FREE_UNITS_MESSAGE = msg(
    "Your free units of %(month)s for meter %(drn)s: %(units)s\n%(token)s\nThere is nothing to pay."
)
CARRY_MESSAGE = msg(
    "Your meter %(old)s was replaced by meter %(drn)s, and your credit goes along: %(units)s\n%(token)s\n"
    "There is nothing to pay."
)
ARREARS_MESSAGE = msg("Of this, %(arrears)s went to your earlier debt.")
CHANGE_MESSAGE = msg("%(change)s stays as your credit.")
SUSPENSE_MESSAGE = msg(
    "We received %(amount)s for a purchase that had been declined before. No token was issued."
    " We hold the money for you and will contact you."
)
REFUND_MESSAGE = msg("We are returning %(amount)s of receipt %(receipt)s to you by the way you paid.")
LATE_SUBJECT = msg("Paid, and no token yet")
LATE_STORY = msg(
    "%(amount)s were paid at %(time)s for meter %(drn)s (receipt %(receipt)s), and no token could be issued."
    " The money is safe."
)
HELD_SUBJECT = msg("Money without a sale")
HELD_STORY = msg(
    "%(amount)s arrived for meter %(drn)s (receipt %(receipt)s) after the purchase had been declined or could"
    " not be carried out. The money is held for the customer."
)


@lru_cache(maxsize=1)
def languages() -> dict[str, Language]:
    """The languages that messages are written in, read once."""
    return load_languages()


def token_body(
    language: str,
    *,
    drn: str,
    commodity: str,
    digits: str,
    units_tenths: int,
    amount_minor: int,
    arrears_minor: int,
    change_minor: int,
    receipt_number: int,
    first_tokens: Sequence[str] = (),
) -> str:
    """The message that carries a token: units in tenths, money in baisa, groups of four digits.

    `first_tokens` are key-change tokens, to be entered before it in their order.
    """
    spoken = languages()[language]
    lines = [first_tokens_text(language, drn=drn, first_tokens=first_tokens)] if first_tokens else []
    lines += [
        spoken._(
            TOKEN_MESSAGE,
            drn=drn,
            units=units_text(units_tenths, commodity, language),
            token=token_text(digits),
            amount=money_text(amount_minor, language),
            receipt=receipt_number,
        )
    ]
    if arrears_minor:
        lines.append(spoken._(ARREARS_MESSAGE, arrears=money_text(arrears_minor, language)))
    if change_minor:
        lines.append(spoken._(CHANGE_MESSAGE, change=money_text(change_minor, language)))
    return "\n".join(lines)


def first_tokens_text(language: str, *, drn: str, first_tokens: Sequence[str]) -> str:
    """What is said about key-change tokens before the token itself; each stands on a line of its own."""
    tokens = "\n".join(f"• {token_text(digits)}" for digits in first_tokens)
    return languages()[language]._(FIRST_TOKENS_MESSAGE, drn=drn, tokens=tokens)


def free_units_body(
    language: str,
    *,
    drn: str,
    commodity: str,
    digits: str,
    units_tenths: int,
    month: date,
    first_tokens: Sequence[str] = (),
) -> str:
    """The message that carries a month's free units: units in tenths; `first_tokens` as in `token_body`."""
    lines = [first_tokens_text(language, drn=drn, first_tokens=first_tokens)] if first_tokens else []
    lines.append(
        languages()[language]._(
            FREE_UNITS_MESSAGE,
            month=month_text(month, language),
            drn=drn,
            units=units_text(units_tenths, commodity, language),
            token=token_text(digits),
        )
    )
    return "\n".join(lines)


def carry_body(
    language: str,
    *,
    old_drn: str,
    drn: str,
    commodity: str,
    digits: str,
    units_tenths: int,
    first_tokens: Sequence[str] = (),
) -> str:
    """The message that carries the credit of a replaced meter: units in tenths; `first_tokens` as in `token_body`."""
    lines = [first_tokens_text(language, drn=drn, first_tokens=first_tokens)] if first_tokens else []
    lines.append(
        languages()[language]._(
            CARRY_MESSAGE,
            old=old_drn,
            drn=drn,
            units=units_text(units_tenths, commodity, language),
            token=token_text(digits),
        )
    )
    return "\n".join(lines)


def suspense_body(language: str, *, amount_minor: int) -> str:
    """The message about money that came after a no."""
    return languages()[language]._(SUSPENSE_MESSAGE, amount=money_text(amount_minor, language))


def refund_body(language: str, *, amount_minor: int, receipt_number: int) -> str:
    """The message about money that goes back."""
    return languages()[language]._(
        REFUND_MESSAGE, amount=money_text(amount_minor, language), receipt=receipt_number
    )


def late_ticket(
    language: str, *, drn: str, amount_minor: int, receipt_number: int, paid_at: datetime | None
) -> tuple[str, str]:
    """Subject and story of the ticket for a sale that got no token; without `paid_at` its money is in suspense."""
    spoken = languages()[language]
    facts = {"drn": drn, "amount": money_text(amount_minor, language), "receipt": receipt_number}
    if paid_at is None:
        return spoken._(HELD_SUBJECT), spoken._(HELD_STORY, **facts)
    return spoken._(LATE_SUBJECT), spoken._(LATE_STORY, time=time_text(paid_at), **facts)
