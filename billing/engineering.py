"""Engineering tokens: which there are, who may ask for each, which two people must sign, what a value may be."""

from __future__ import annotations

from dataclasses import dataclass

from billing.errors import InvalidVend
from token_engine.encode import (
    ALL_TESTS,
    CLEAR_ALL_REGISTERS,
    CLEAR_CREDIT,
    CLEAR_TAMPER,
    EXTENDED_SET,
    MANAGEMENT,
    SET_POWER_LIMIT,
    SET_TARIFF_RATE,
    SET_UNBALANCE_LIMIT,
    SET_WATER_FACTOR,
    TEST,
)
from token_engine.fields import MAX_AMOUNT, encode_amount

MAX_REASON = 200
_FIELD = frozenset({"engineer", "supervisor", "admin"})
_OFFICE = frozenset({"supervisor", "admin"})
# Who signs what another asked for.
APPROVERS = _OFFICE
# A recode moves a whole supply group: the office asks, and another of the office signs.
PLANNERS = _OFFICE
_BOTH = frozenset({"electricity", "water"})
_ELECTRICITY = frozenset({"electricity"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of engineering token; `largest` bounds the value, `is_amount` says that it is coded as watts."""

    name: str
    token_class: int
    subclass: int
    requesters: frozenset[str]
    four_eyes: bool
    largest: int
    commodities: frozenset[str]
    is_amount: bool = False

    @property
    def needs_vault(self) -> bool:
        """Class 1 tokens are clear: no key makes them."""
        return self.token_class == MANAGEMENT


KINDS = {
    kind.name: kind
    for kind in (
        Kind("power_limit", MANAGEMENT, SET_POWER_LIMIT, _FIELD, False, MAX_AMOUNT, _ELECTRICITY, True),
        Kind("clear_credit", MANAGEMENT, CLEAR_CREDIT, _FIELD, True, CLEAR_ALL_REGISTERS, _BOTH),
        Kind("tariff_rate", MANAGEMENT, SET_TARIFF_RATE, _OFFICE, False, 0xFFFF, _BOTH),
        Kind("clear_tamper", MANAGEMENT, CLEAR_TAMPER, _FIELD, True, 0, _BOTH),
        Kind(
            "phase_unbalance", MANAGEMENT, SET_UNBALANCE_LIMIT, _FIELD, False, MAX_AMOUNT, _ELECTRICITY, True
        ),
        Kind("water_factor", MANAGEMENT, SET_WATER_FACTOR, _OFFICE, False, 0xFFFF, frozenset({"water"})),
        # Index(6) and value(10), or index 63 with a flag (sts.md 3, meanings from one vendor): not for the field.
        Kind("extended_set", MANAGEMENT, EXTENDED_SET, frozenset({"admin"}), False, 0xFFFF, _BOTH),
        # Which form a meter takes depends on its maker's number: two digits or four.
        Kind("test", TEST, 0, _FIELD, False, ALL_TESTS, _BOTH),
        Kind("test_4digit", TEST, 1, _FIELD, False, (1 << 28) - 1, _BOTH),
    )
}
MAX_REGISTER = 7  # ClearCredit names register 0 to 7, or all


def check_request(kind_name: str, *, value: int, commodity: str, role: str, reason: str) -> Kind:
    """The kind that is asked for.

    Raises InvalidVend: `kind_unknown`, `role_may_not`, `reason_missing`, `value_out_of_range`,
    `not_for_this_commodity`.
    """
    kind = KINDS.get(kind_name)
    if kind is None:
        raise InvalidVend("kind_unknown", f"engineering tokens are {', '.join(sorted(KINDS))}")
    if role not in kind.requesters:
        raise InvalidVend("role_may_not", f"a {role} may not ask for {kind.name}")
    if not 0 < len(reason.strip()) <= MAX_REASON:
        raise InvalidVend("reason_missing", f"say why, in up to {MAX_REASON} characters")
    if not 0 <= value <= kind.largest:
        raise InvalidVend("value_out_of_range", f"{kind.name} takes 0 to {kind.largest}")
    if kind.name == "clear_credit" and value > MAX_REGISTER and value != CLEAR_ALL_REGISTERS:
        raise InvalidVend(
            "value_out_of_range", f"a register is 0 to {MAX_REGISTER}, or {CLEAR_ALL_REGISTERS} for all"
        )
    if commodity not in kind.commodities:
        raise InvalidVend("not_for_this_commodity", f"{kind.name} is not for {commodity}")
    return kind


def raw_value(kind: Kind, value: int) -> int:
    """The 16 bits of a class 2 token's value; watts are coded as amounts are (sts.md 4), rounded up."""
    return encode_amount(value) if kind.is_amount else value


def check_decider(*, role: str, requested_by: str, decided_by: str) -> None:
    """Four eyes: another person, of the office. Raises InvalidVend (`role_may_not`, `same_person`)."""
    if role not in APPROVERS:
        raise InvalidVend("role_may_not", f"a {role} may not decide this")
    if decided_by.casefold() == requested_by.casefold():
        raise InvalidVend("same_person", "who asked for it may not decide it: four eyes")
