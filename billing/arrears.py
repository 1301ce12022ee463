"""What is taken from a purchase before energy: an order that is data, a cap, and a floor under energy."""

from __future__ import annotations

from dataclasses import dataclass

from billing.errors import BooksBroken

# field.md 4.6.5: channel fee, overdue emergency credit, arrears, fixed charge; tax and energy share the rest.
DEDUCTION_ORDER = ("channel_fee", "emergency_credit", "arrears", "fixed_charge")
# A buyer must always get something for the lamp: never less than half of what was paid.
ENERGY_FLOOR_PERCENT = 50


@dataclass(frozen=True, slots=True)
class Claims:
    """What a purchase owes before energy, all in baisa; of `debt` (all arrears) a cap is taken."""

    debt: int = 0
    channel_fee: int = 0
    emergency_credit: int = 0
    fixed_charge: int = 0
    weekly_cap_left: int | None = None


@dataclass(frozen=True, slots=True)
class Deduction:
    """One line of the preview: its name in DEDUCTION_ORDER and baisa."""

    name: str
    amount_minor: int


def take_deductions(amount_minor: int, claims: Claims, *, cap_percent: int) -> tuple[Deduction, ...]:
    """Deductions of a purchase in their order, without the zero ones; the rest is energy and tax.

    Arrears are min(debt, floor(cap % x (P - fee)), rest of the weekly cap); all lines together stop at the
    floor under energy. Raises BooksBroken for negative claims or a cap outside 0-100.
    """
    if amount_minor < 0 or not 0 <= cap_percent <= 100:
        raise BooksBroken("arrears_rule", f"cap {cap_percent} % of {amount_minor} makes no sense")
    wanted = {
        "channel_fee": claims.channel_fee,
        "emergency_credit": claims.emergency_credit,
        "arrears": _arrears(amount_minor, claims, cap_percent),
        "fixed_charge": claims.fixed_charge,
    }
    if min(wanted.values()) < 0:
        raise BooksBroken("arrears_rule", "a claim is below zero")
    # Rounded in favour of energy.
    room = amount_minor - -(-amount_minor * ENERGY_FLOOR_PERCENT // 100)
    lines = []
    for name in DEDUCTION_ORDER:
        taken = min(wanted[name], room)
        room -= taken
        if taken:
            lines.append(Deduction(name, taken))
    return tuple(lines)


def arrears_of(amount_minor: int, debt_minor: int, *, cap_percent: int) -> int:
    """Arrears in baisa taken from a purchase that has no other claim on it."""
    lines = take_deductions(amount_minor, Claims(debt=max(0, debt_minor)), cap_percent=cap_percent)
    return sum(line.amount_minor for line in lines)


def _arrears(amount_minor: int, claims: Claims, cap_percent: int) -> int:
    cap = cap_percent * (amount_minor - claims.channel_fee) // 100
    limits = [claims.debt, cap] + ([] if claims.weekly_cap_left is None else [claims.weekly_cap_left])
    return min(limits)
