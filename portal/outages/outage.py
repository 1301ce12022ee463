"""The life of an outage as one table: what may happen in which state, and what comes of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class OutageState(StrEnum):
    """Where an outage stands."""

    PROBABLE = "probable"
    CONFIRMED = "confirmed"
    RESTORED = "restored"
    CANCELLED = "cancelled"


class OutageEvent(StrEnum):
    """What may happen to an outage."""

    GROW = "grow"
    CONFIRM = "confirm"
    NOTE = "note"
    RESTORE = "restore"
    CANCEL = "cancel"


class OutageRefused(Exception):
    """The event does not fit the outage; `reason` names the rule."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"refused: {reason}")
        self.reason = reason


OPEN_STATES: Final = frozenset({OutageState.PROBABLE, OutageState.CONFIRMED})
_CLOSED: Final = "outage_closed"
_S = OutageState
_E = OutageEvent

# Every pair is decided: the state that follows, or the reason of the refusal.
TABLE: Final[dict[tuple[OutageState, OutageEvent], OutageState | str]] = {
    (_S.PROBABLE, _E.GROW): _S.PROBABLE,
    (_S.PROBABLE, _E.CONFIRM): _S.CONFIRMED,
    (_S.PROBABLE, _E.NOTE): _S.PROBABLE,
    (_S.PROBABLE, _E.RESTORE): _S.RESTORED,
    (_S.PROBABLE, _E.CANCEL): _S.CANCELLED,
    (_S.CONFIRMED, _E.GROW): _S.CONFIRMED,
    (_S.CONFIRMED, _E.CONFIRM): "outage_confirmed",
    (_S.CONFIRMED, _E.NOTE): _S.CONFIRMED,
    (_S.CONFIRMED, _E.RESTORE): _S.RESTORED,
    (_S.CONFIRMED, _E.CANCEL): _S.CANCELLED,
    (_S.RESTORED, _E.GROW): _CLOSED,
    (_S.RESTORED, _E.CONFIRM): _CLOSED,
    (_S.RESTORED, _E.NOTE): _S.RESTORED,
    (_S.RESTORED, _E.RESTORE): _CLOSED,
    (_S.RESTORED, _E.CANCEL): _CLOSED,
    (_S.CANCELLED, _E.GROW): _CLOSED,
    (_S.CANCELLED, _E.CONFIRM): _CLOSED,
    (_S.CANCELLED, _E.NOTE): _S.CANCELLED,
    (_S.CANCELLED, _E.RESTORE): _CLOSED,
    (_S.CANCELLED, _E.CANCEL): _CLOSED,
}


def move(state: OutageState, event: OutageEvent) -> OutageState:
    """The state after `event`. Raises OutageRefused."""
    decided = TABLE[state, event]
    if isinstance(decided, OutageState):
        return decided
    raise OutageRefused(decided)
