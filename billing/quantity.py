"""Amounts that people type, and the integer units that money and supply are counted in."""

from __future__ import annotations

import re
from typing import NewType

from billing.errors import InvalidQuantity

Minor = NewType("Minor", int)  # baisa: 1 OMR = 1000
Tenths = NewType("Tenths", int)  # tenths of a kWh or m3: what a token counts in
Micro = NewType("Micro", int)  # millionths of an OMR: what a rate is written in

MINOR_PER_OMR = 1000
MICRO_PER_MINOR = 1000
OMR_DECIMALS = 3
MAX_AMOUNT_MINOR = 1_000_000_000  # a million OMR: beyond any sale, and far from any integer's end
MAX_TYPED = 40  # an amount with spaces and marks around it; longer input is not an amount

# Meters count in Wh and mL, tokens in tenths of the trade unit.
BASE_UNITS_PER_TENTH = {"electricity": 100, "water": 100_000}

_DIGITS = {ord(zero) + n: str(n) for zero in "٠۰" for n in range(10)}
# Arabic decimal separator, and what comes along when an amount is copied out of Arabic text.
_SEPARATORS = {ord("٫"): ".", **dict.fromkeys(map(ord, "\u200e\u200f\u061c\u2066\u2067\u2068\u2069"), "")}
_AMOUNT = re.compile(r"([0-9]*)(?:\.([0-9]*))?", re.ASCII)


def parse_amount(text: str, *, maximum_minor: int = MAX_AMOUNT_MINOR) -> Minor:
    """OMR as typed ("5", "5.250", Arabic-Indic or Persian digits) in baisa.

    Raises InvalidQuantity for empty text, letters, signs, zero, a fourth decimal, more than `maximum_minor`.
    Thousands separators are refused, since 1,234 means two different amounts to two readers.
    """
    typed = text.strip().translate(_DIGITS | _SEPARATORS).strip()
    if not typed:
        raise InvalidQuantity("quantity_empty", "an amount is missing")
    negative = typed[0] in "-\u2212"
    match = _AMOUNT.fullmatch(typed[1:] if negative else typed) if len(typed) <= MAX_TYPED else None
    if match is None or not (match[1] or match[2]):
        raise InvalidQuantity("quantity_not_a_number", "an amount is digits with at most one decimal point")
    whole, decimals = match[1] or "0", match[2] or ""
    if len(decimals) > OMR_DECIMALS:
        raise InvalidQuantity(
            "quantity_too_precise", f"an amount has at most {OMR_DECIMALS} decimals", decimals=OMR_DECIMALS
        )
    amount = int(whole) * MINOR_PER_OMR + int(decimals.ljust(OMR_DECIMALS, "0"))
    if negative or amount == 0:
        raise InvalidQuantity("quantity_not_positive", "an amount is above zero")
    if amount > maximum_minor:
        raise InvalidQuantity(
            "quantity_too_large", f"an amount is at most {maximum_minor} baisa", maximum_minor=maximum_minor
        )
    return Minor(amount)


def base_units(commodity: str, tenths: int) -> int:
    """Tenths of a kWh in Wh, or tenths of a m3 in mL. Raises KeyError for an unknown commodity."""
    return tenths * BASE_UNITS_PER_TENTH[commodity]
