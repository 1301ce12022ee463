"""What a line of a sale's timeline says to the customer."""

from __future__ import annotations

from portal.i18n import msg
from portal.my_sale_store import SaleEntry
from portal.token_words import result_words

_WORDS: dict[tuple[str, str], str] = {
    ("payment", "STARTED"): msg("Payment started"),
    ("payment", "CONFIRMED"): msg("Payment confirmed"),
    ("payment", "DECLINED"): msg("Payment declined"),
    ("payment", "EXPIRED"): msg("Payment expired"),
    ("vend", "REQUESTED"): msg("Token asked for"),
    ("vend", "UNKNOWN"): msg("No answer yet, asked again"),
    ("vend", "VENDED"): msg("Token ready"),
    ("vend", "REFUSED"): msg("Token refused"),
    ("vend", "REVERSED"): msg("Purchase taken back"),
    ("vend", "REFUNDED"): msg("Money returned"),
    ("message", "token"): msg("Sent to you by SMS"),
    ("message", "payment"): msg("Message about the payment"),
    ("command", "SENT"): msg("Sent to your meter"),
    ("command", "ACCEPTED"): msg("Reached your meter"),
    ("command", "WRITTEN"): msg("Handed to your meter"),
    ("command", "VERIFIED"): msg("Confirmed by your meter"),
    ("command", "REJECTED"): msg("Refused by your meter"),
    ("command", "EXPIRED"): msg("Your meter was not reached"),
    ("command", "UNKNOWN"): msg("No answer from your meter yet"),
}
_GOOD = frozenset({"CONFIRMED", "VENDED", "VERIFIED", "accept", "used_error"})
_BAD = frozenset({"DECLINED", "REFUSED", "REJECTED"})
_OPEN = frozenset({"UNKNOWN", "EXPIRED"})


def entry_words(entry: SaleEntry) -> str:
    """Return the msgid of a line."""
    if entry.source == "meter":
        return result_words(entry.what)
    return _WORDS.get((entry.source, entry.what), entry.what)


def entry_tone(entry: SaleEntry) -> str:
    """Return the timeline's class of a line."""
    if entry.what in _GOOD:
        return "is-ok"
    if entry.what in _BAD or entry.source == "meter":
        return "is-bad"
    return "is-warn" if entry.what in _OPEN else "is-info"
