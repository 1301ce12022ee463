"""The word-order wizard: one number read in all four orders, and which of them the display agrees with. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from meter_gateway.bus.survey import show
from meter_gateway.profile import Register, Value
from meter_gateway.registers import RegisterError, WordOrder

ORDERS: Final[tuple[WordOrder, ...]] = ("ABCD", "CDAB", "BADC", "DCBA")
# A display rounds or cuts: a step of its last digit. It also counts on while one looks: one per mille more.
STEP: Final = Decimal(1)
DRIFT: Final = Decimal("0.001")
_DIVISORS: Final = {"Wh": 1000, "mL": 1_000_000, "mV": 1000, "mA": 1000, "mHz": 1000, "mL/h": 1000}


@dataclass(frozen=True, slots=True)
class Reading:
    """A register's words in one order; `value` in base units, None where they make no sense."""

    order: WordOrder
    value: Value
    text: str

    def told(self) -> dict[str, Any]:
        """As it stands in a result."""
        return {"order": self.order, "value": self.value, "text": self.text}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the display confirms a profile; `order` is the one that fits, None when none or several do.

    `reason` is confirmed, other_order, no_order, ambiguous.
    """

    is_confirmed: bool
    order: WordOrder | None
    reason: str


def read_orders(register: Register, words: Sequence[int]) -> tuple[Reading, ...]:
    """Return the number in all four orders."""
    found = []
    for order in ORDERS:
        try:
            value = replace(register, order=order).decode(words)
            text = show(value, register.unit)
        except RegisterError:
            value, text = None, "no number"
        found.append(Reading(order, value, text))
    return tuple(found)


def judge_pick(register: Register, words: Sequence[int], picked: WordOrder) -> Verdict:
    """Judge a profile by the order that a person picked: another order with the same value confirms as well."""
    values = {reading.order: reading.value for reading in read_orders(register, words)}
    if values[picked] is None:
        return Verdict(False, None, "no_order")
    if values[picked] == values[register.order]:
        return Verdict(True, register.order, "confirmed")
    return Verdict(False, picked, "other_order")


def judge_display(register: Register, words: Sequence[int], typed: str) -> Verdict:
    """Judge a profile by the number on the display, typed in the display's unit (kWh, m3, V).

    Raises ValueError when it is no number.
    """
    shown = parse_display(typed)
    divisor = Decimal(_DIVISORS.get(register.unit, 1))
    exponent = shown.as_tuple().exponent
    step = STEP.scaleb(exponent if isinstance(exponent, int) else 0)
    tolerance = max(step, abs(shown) * DRIFT) * divisor
    fits = {
        reading.order: reading.value
        for reading in read_orders(register, words)
        if isinstance(reading.value, int) and abs(reading.value - shown * divisor) <= tolerance
    }
    if register.order in fits:
        return Verdict(True, register.order, "confirmed")
    if not fits:
        return Verdict(False, None, "no_order")
    if len(set(fits.values())) > 1:
        return Verdict(False, None, "ambiguous")
    return Verdict(False, next(iter(fits)), "other_order")


def parse_display(typed: str) -> Decimal:
    """Return the number that was typed; commas, blanks and Arabic digits are fine. Raises ValueError."""
    bare = "".join(typed.split()).replace("٫", ".").replace("٬", "").replace(",", ".")
    try:
        number = Decimal(bare)
    except InvalidOperation:
        raise ValueError(f"{typed[:40]!r} is no number") from None
    if not number.is_finite() or abs(number) > 10**15:
        raise ValueError(f"{typed[:40]!r} is no number of a meter")
    return number
