"""Block tariffs: what units cost and what an amount buys, in integers from end to end.

Rounding, stated once: energy is summed exactly in tenths of a micro-OMR and rounded to baisa half up, once
for the whole sale (a step shows the difference of two rounded sums, so that steps add up); VAT is taken on
that rounded energy, half up; units are rounded down to what a token can carry; the rest is the customer's
change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from billing.errors import BooksBroken, InvalidVend
from billing.quantity import BASE_UNITS_PER_TENTH, MICRO_PER_MINOR
from token_engine.fields import MAX_AMOUNT, largest_not_above

# Oman has kept UTC+4 without summer time since 1920 (IANA Asia/Muscat): an offset needs no zone database.
MUSCAT = timezone(timedelta(hours=4), "Asia/Muscat")
BASIS_POINTS = 10_000
_TICKS_PER_MINOR = MICRO_PER_MINOR * 10  # a tick is micro-OMR per tenth of a unit: rate x tenths


@dataclass(frozen=True, slots=True)
class Block:
    """Units of a month up to `up_to_tenths` (None: no end) at `rate_micro` micro-OMR per kWh or m3."""

    up_to_tenths: int | None
    rate_micro: int


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a receipt: units in tenths, rate in micro-OMR per unit, baisa before VAT."""

    units_tenths: int
    rate_micro: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Price:
    """What `units_tenths` cost: energy + VAT in baisa, and the steps that add up to energy."""

    units_tenths: int
    energy_minor: int
    vat_minor: int
    steps: tuple[Step, ...]

    @property
    def total_minor(self) -> int:
        """Energy and VAT together."""
        return self.energy_minor + self.vat_minor


@dataclass(frozen=True, slots=True)
class Tariff:
    """A version of a tariff: ascending blocks whose last has no end, VAT in basis points, limits in baisa.

    Raises BooksBroken at construction when its blocks are not that.
    """

    id: int
    code: str
    version: int
    commodity: str
    name_en: str
    name_ar: str
    blocks: tuple[Block, ...]
    vat_basis_points: int
    arrears_cap_percent: int
    minimum_minor: int
    maximum_minor: int

    def __post_init__(self) -> None:
        ends = [block.up_to_tenths for block in self.blocks]
        bounded = [end for end in ends[:-1] if end is not None]
        if not ends or ends[-1] is not None or len(bounded) != len(ends) - 1:
            raise BooksBroken("tariff_blocks", f"tariff {self.code}: only the last block has no end")
        if sorted(set(bounded)) != bounded or any(block.rate_micro <= 0 for block in self.blocks):
            raise BooksBroken("tariff_blocks", f"tariff {self.code}: ends ascend and rates are above zero")


def read_blocks(commodity: str, rows: Sequence[Mapping[str, Any]]) -> tuple[Block, ...]:
    """Blocks as the tariff table keeps them: `up_to` in Wh or mL a month or null, `rate_micro` per kWh or m3.

    Raises BooksBroken when a limit is no whole tenth of a unit.
    """
    blocks = []
    for row in rows:
        tenths = None
        if row["up_to"] is not None:
            tenths, rest = divmod(int(row["up_to"]), BASE_UNITS_PER_TENTH[commodity])
            if rest:
                raise BooksBroken("tariff_blocks", f"a block ends at whole tenths, not at {row['up_to']}")
        blocks.append(Block(tenths, int(row["rate_micro"])))
    return tuple(blocks)


def price_units(tariff: Tariff, *, month_to_date_tenths: int, units_tenths: int) -> Price:
    """What units cost on top of those that the month has seen already. Raises BooksBroken below zero."""
    if units_tenths < 0 or month_to_date_tenths < 0:
        raise BooksBroken("negative_units", "units are counted from zero up")
    steps: list[Step] = []
    ticks = rounded = 0
    position, left = month_to_date_tenths, units_tenths
    for block in tariff.blocks:
        room = left if block.up_to_tenths is None else max(0, block.up_to_tenths - position)
        taken = min(left, room)
        if not taken:
            continue
        ticks += taken * block.rate_micro
        steps.append(Step(taken, block.rate_micro, _half_up(ticks, _TICKS_PER_MINOR) - rounded))
        rounded = _half_up(ticks, _TICKS_PER_MINOR)
        position += taken
        left -= taken
    vat = _half_up(rounded * tariff.vat_basis_points, BASIS_POINTS)
    return Price(units_tenths, rounded, vat, tuple(steps))


def price_amount(tariff: Tariff, *, month_to_date_tenths: int, amount_minor: int) -> Price:
    """The most that `amount_minor` (after deductions) buys and a token can carry, charged exactly.

    `amount_minor - price.total_minor` is the change, never negative. Raises InvalidVend
    (`amount_buys_nothing`) when it does not reach the first tenth of a unit.
    """
    low, high = 0, MAX_AMOUNT  # low is always affordable; about 24 halvings
    while low < high:
        middle = (low + high + 1) // 2
        price = price_units(tariff, month_to_date_tenths=month_to_date_tenths, units_tenths=middle)
        if price.total_minor <= amount_minor:
            low = middle
        else:
            high = middle - 1
    units = largest_not_above(low)
    if not units:
        raise InvalidVend("amount_buys_nothing", f"{amount_minor} baisa buy less than a tenth of a unit")
    return price_units(tariff, month_to_date_tenths=month_to_date_tenths, units_tenths=units)


def month_start(now: datetime) -> datetime:
    """The instant at which the local (Asia/Muscat) month of `now` began, as aware local time."""
    return now.astimezone(MUSCAT).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _half_up(value: int, divisor: int) -> int:
    return (2 * value + divisor) // (2 * divisor)
