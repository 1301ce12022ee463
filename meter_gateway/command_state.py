"""The life of a meter command: which state follows on which event, every pair decided."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class CommandState(StrEnum):
    """Where a command stands. VERIFIED and REJECTED are the meter's own word and final.

    CANCELLED was called back before it left.
    """

    CREATED = "CREATED"
    SENT = "SENT"
    ACCEPTED = "ACCEPTED"
    WRITTEN = "WRITTEN"
    VERIFIED = "VERIFIED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"
    CANCELLED = "CANCELLED"


class CommandEvent(StrEnum):
    """What happens to a command: ours (SEND, DEADLINE, CANCEL), or told by the edge."""

    SEND = "SEND"
    DEADLINE = "DEADLINE"
    CANCEL = "CANCEL"
    EDGE_ACCEPTED = "ACCEPTED"
    EDGE_WRITTEN = "WRITTEN"
    EDGE_VERIFIED = "VERIFIED"
    EDGE_REJECTED = "REJECTED"
    EDGE_EXPIRED = "EXPIRED"
    EDGE_UNKNOWN = "UNKNOWN"


FINAL: Final = frozenset({CommandState.VERIFIED, CommandState.REJECTED})
# States in which a later command of the same meter waits. UNKNOWN does not hold the queue: the edge itself
# reads the mailbox before it writes the next one.
HOLDING: Final = frozenset(
    {CommandState.CREATED, CommandState.SENT, CommandState.ACCEPTED, CommandState.WRITTEN}
)
# None: the event changes nothing (repeated, out of order, or too late).
_S, _E = CommandState, CommandEvent
_TABLE: Final[dict[CommandState, dict[CommandEvent, CommandState | None]]] = {
    _S.CREATED: {
        _E.SEND: _S.SENT,
        _E.DEADLINE: _S.EXPIRED,
        _E.CANCEL: _S.CANCELLED,
        # The answer may overtake the row that says "sent".
        _E.EDGE_ACCEPTED: _S.ACCEPTED,
        _E.EDGE_WRITTEN: _S.WRITTEN,
        _E.EDGE_VERIFIED: _S.VERIFIED,
        _E.EDGE_REJECTED: _S.REJECTED,
        _E.EDGE_EXPIRED: _S.EXPIRED,
        _E.EDGE_UNKNOWN: _S.UNKNOWN,
    },
    _S.SENT: {
        _E.SEND: _S.SENT,
        _E.DEADLINE: _S.EXPIRED,
        _E.CANCEL: None,
        _E.EDGE_ACCEPTED: _S.ACCEPTED,
        _E.EDGE_WRITTEN: _S.WRITTEN,
        _E.EDGE_VERIFIED: _S.VERIFIED,
        _E.EDGE_REJECTED: _S.REJECTED,
        _E.EDGE_EXPIRED: _S.EXPIRED,
        _E.EDGE_UNKNOWN: _S.UNKNOWN,
    },
    _S.ACCEPTED: {
        _E.SEND: None,
        _E.DEADLINE: _S.UNKNOWN,
        _E.CANCEL: None,
        _E.EDGE_ACCEPTED: None,
        _E.EDGE_WRITTEN: _S.WRITTEN,
        _E.EDGE_VERIFIED: _S.VERIFIED,
        _E.EDGE_REJECTED: _S.REJECTED,
        _E.EDGE_EXPIRED: _S.EXPIRED,
        _E.EDGE_UNKNOWN: _S.UNKNOWN,
    },
    _S.WRITTEN: {
        _E.SEND: None,
        _E.DEADLINE: _S.UNKNOWN,
        _E.CANCEL: None,
        _E.EDGE_ACCEPTED: None,
        _E.EDGE_WRITTEN: None,
        _E.EDGE_VERIFIED: _S.VERIFIED,
        _E.EDGE_REJECTED: _S.REJECTED,
        # The edge read the mailbox and found that its write never arrived.
        _E.EDGE_EXPIRED: _S.EXPIRED,
        _E.EDGE_UNKNOWN: _S.UNKNOWN,
    },
    _S.VERIFIED: dict.fromkeys(_E),
    _S.REJECTED: dict.fromkeys(_E),
    _S.EXPIRED: {
        _E.SEND: None,
        _E.DEADLINE: None,
        _E.CANCEL: None,
        # The edge had it after all and its word comes late: until the result is here, nobody knows.
        _E.EDGE_ACCEPTED: _S.UNKNOWN,
        _E.EDGE_WRITTEN: _S.UNKNOWN,
        _E.EDGE_VERIFIED: _S.VERIFIED,
        _E.EDGE_REJECTED: _S.REJECTED,
        _E.EDGE_EXPIRED: None,
        _E.EDGE_UNKNOWN: _S.UNKNOWN,
    },
    _S.CANCELLED: {
        _E.SEND: None,
        _E.DEADLINE: None,
        _E.CANCEL: None,
        # It never left, so nobody can answer it. An edge that does all the same is believed over our books.
        _E.EDGE_ACCEPTED: _S.UNKNOWN,
        _E.EDGE_WRITTEN: _S.UNKNOWN,
        _E.EDGE_VERIFIED: _S.VERIFIED,
        _E.EDGE_REJECTED: _S.REJECTED,
        _E.EDGE_EXPIRED: None,
        _E.EDGE_UNKNOWN: _S.UNKNOWN,
    },
    _S.UNKNOWN: {
        _E.SEND: _S.UNKNOWN,
        _E.DEADLINE: None,
        _E.CANCEL: None,
        _E.EDGE_ACCEPTED: None,
        _E.EDGE_WRITTEN: None,
        _E.EDGE_VERIFIED: _S.VERIFIED,
        _E.EDGE_REJECTED: _S.REJECTED,
        _E.EDGE_EXPIRED: _S.EXPIRED,
        _E.EDGE_UNKNOWN: None,
    },
}


def next_state(state: CommandState, event: CommandEvent) -> CommandState | None:
    """Return the state after the event, or None when the event changes nothing."""
    return _TABLE[state][event]
