"""A customer: names in two languages, and a phone number that is written one way only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from billing.errors import InvalidQuantity

HOME_PREFIX = "+968"  # Oman: a number of 8 digits needs no country code here
_DIGITS = {ord(zero) + n: str(n) for zero in "٠۰" for n in range(10)}
_DROPPED = dict.fromkeys(map(ord, " -()./\u00a0\u200e\u200f\u202a\u202c\u2066\u2067\u2068\u2069"), "")
MAX_TYPED = 40  # a number with separators; longer input is not a phone


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer; `language` is what messages are written in, "ar" or "en"."""

    id: int
    code: str
    name_en: str
    name_ar: str
    phone: str
    language: str

    def name(self, language: str) -> str:
        """The name for a page in `language`."""
        return self.name_ar if language == "ar" else self.name_en


@dataclass(frozen=True, slots=True)
class Agreement:
    """A customer's open agreement on one usage point, with the meter that is installed there now."""

    customer_agreement_id: int
    customer_id: int
    usage_point_id: int
    tariff_code: str
    meter_id: int
    drn: str
    commodity: str


def parse_phone(text: str) -> str:
    """A phone number as typed ("9123 4567", "00968…", Arabic digits) as +968….

    Raises InvalidQuantity (`phone_invalid`) for anything that is not 8 to 15 digits.
    """
    typed = text[: MAX_TYPED + 1].translate(_DIGITS | _DROPPED)
    if typed.startswith("00"):
        typed = "+" + typed[2:]
    if re.fullmatch(r"[0-9]{8}", typed):
        typed = HOME_PREFIX + typed
    elif re.fullmatch(r"968[0-9]{8}", typed):
        typed = "+" + typed
    if len(text) > MAX_TYPED or not re.fullmatch(r"\+[1-9][0-9]{7,14}", typed):
        raise InvalidQuantity("phone_invalid", "a phone number has 8 digits, or + and a country code")
    return typed
