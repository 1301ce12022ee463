"""Ticket references: R26-000123-C, year, number and a check letter that catches every slip of the tongue.

The check letter is the number formed by year and serial, modulo 23, from an alphabet of 23 letters. 23 is
prime and divides neither the difference of two digits nor nine times it, so every wrong digit and every swap
of two neighbours gives another letter.
"""

from __future__ import annotations

import re
from typing import Final

# No I, O or U: they are read as 1, 0 and V over the telephone.
ALPHABET: Final = "ABCDEFGHJKLMNPQRSTVWXYZ"
MAX_TYPED: Final = 40  # a reference has 11 to 14 characters; with spaces it is still shorter than this
_SHAPE: Final = re.compile(r"R([0-9]{2})([0-9]{6,9})([A-Z])")
_DIGITS: Final = {ord(zero) + value: str(value) for zero in "٠۰" for value in range(10)}
_DROPPED: Final = dict.fromkeys(
    map(ord, " \t-\u00a0\u2010\u2011\u2012\u2013\u2014\u200e\u200f\u2066\u2067\u2068\u2069")
)


class InvalidReference(Exception):
    """What was typed is not a ticket reference; `reason` is `shape` or `check_letter`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a ticket reference: {reason}")
        self.reason = reason


def make_reference(year: int, number: int) -> str:
    """The reference of ticket `number` of `year`. Raises ValueError when they do not fit."""
    if not (2000 <= year <= 2099 and 1 <= number <= 999_999_999):
        raise ValueError("a reference has a year 2000..2099 and a number of 1 to 9 digits")
    digits = f"{year % 100:02d}{number:06d}"
    return f"R{digits[:2]}-{digits[2:]}-{_check_letter(digits)}"


def normalise_reference(text: str) -> str:
    """The reference as we write it, from what a person typed: any case, Arabic digits, spaces for hyphens.

    Raises InvalidReference.
    """
    bare = text[:MAX_TYPED].translate(_DIGITS).translate(_DROPPED).upper()
    match = _SHAPE.fullmatch(bare)
    if match is None or len(text) > MAX_TYPED:
        raise InvalidReference("shape")
    year, number, letter = match.groups()
    if _check_letter(year + number) != letter:
        raise InvalidReference("check_letter")
    return f"R{year}-{number}-{letter}"


def _check_letter(digits: str) -> str:
    return ALPHABET[int(digits) % len(ALPHABET)]
