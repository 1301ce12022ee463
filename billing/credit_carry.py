"""Credit of a meter that was taken down: how many units of it a token carries, and where it may go."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from billing.quantity import BASE_UNITS_PER_TENTH
from token_engine.fields import MAX_AMOUNT, decode_amount, encode_amount


class CarryState(StrEnum):
    """Where the credit of one removal stands."""

    EMPTY = "EMPTY"  # there was none
    WAITING = "WAITING"  # for the next meter of the place
    HELD = "HELD"  # more than the meter can have held: the office decides
    BOUND = "BOUND"  # to a meter that has yet to get its own key
    RESERVED = "RESERVED"  # its TID is taken, its token is being made
    DONE = "DONE"  # its token is registered
    REFUSED = "REFUSED"  # the vault will not make one: a person decides
    SETTLED = "SETTLED"  # it became the customer's money
    RETURNED = "RETURNED"  # the same meter hangs there again, with its credit in it


class CarryEvent(StrEnum):
    """What happens to it."""

    RELEASE = "RELEASE"
    BIND = "BIND"
    UNBIND = "UNBIND"
    RESERVE = "RESERVE"
    ISSUED = "ISSUED"
    REFUSED = "REFUSED"
    SETTLE = "SETTLE"
    RETURN = "RETURN"


_S, _E = CarryState, CarryEvent
# None: the event changes nothing.
_TABLE: Final[dict[CarryState, dict[CarryEvent, CarryState | None]]] = {
    _S.EMPTY: dict.fromkeys(_E),
    _S.WAITING: {**dict.fromkeys(_E), _E.BIND: _S.BOUND, _E.SETTLE: _S.SETTLED, _E.RETURN: _S.RETURNED},
    _S.HELD: {**dict.fromkeys(_E), _E.RELEASE: _S.WAITING, _E.SETTLE: _S.SETTLED, _E.RETURN: _S.RETURNED},
    # No TID is taken yet: its meter may come down again, or never get its key.
    _S.BOUND: {
        **dict.fromkeys(_E),
        _E.RESERVE: _S.RESERVED,
        _E.REFUSED: _S.REFUSED,
        _E.UNBIND: _S.WAITING,
        _E.SETTLE: _S.SETTLED,
    },
    _S.RESERVED: {**dict.fromkeys(_E), _E.ISSUED: _S.DONE, _E.REFUSED: _S.REFUSED},
    _S.DONE: dict.fromkeys(_E),
    _S.REFUSED: {**dict.fromkeys(_E), _E.SETTLE: _S.SETTLED},
    _S.SETTLED: dict.fromkeys(_E),
    _S.RETURNED: dict.fromkeys(_E),
}


def next_carry_state(state: CarryState, event: CarryEvent) -> CarryState | None:
    """Return the state after the event, None when it changes nothing."""
    return _TABLE[state][event]


def units_of(credit: int, commodity: str) -> int:
    """Tenths of a kWh or m3 that stand for a credit in Wh or mL, as a token carries them; 0 for a debt.

    Rounded up, in the customer's favour: under a tenth of a unit for what a house has on its meter.
    """
    tenths = -(-credit // BASE_UNITS_PER_TENTH[commodity])
    return decode_amount(encode_amount(min(tenths, MAX_AMOUNT))) if tenths > 0 else 0
