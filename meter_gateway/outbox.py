"""Which stored messages to send now: a bounded window, sent again with growing patience until receipted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

# Messages under way without a receipt; the rest waits on disk.
WINDOW: Final = 100
# Said again after this long without a receipt, doubling: a platform that is down is not flooded.
RESEND_FIRST_S: Final = 5.0
RESEND_MAX_S: Final = 60.0

MessageKey = tuple[int, int]  # (boot, seq)


@dataclass(slots=True)
class _Flight:
    sent_at: float
    patience_s: float


class OutboxWindow:
    """Keeps no message, only the keys of those under way; the store holds the rest."""

    def __init__(self) -> None:
        self._flights: dict[MessageKey, _Flight] = {}

    @property
    def room(self) -> int:
        """How many more messages may be under way."""
        return WINDOW - len(self._flights)

    def reconnected(self) -> None:
        """Forget what was under way: what was not receipted is sent again."""
        self._flights.clear()

    def sent(self, key: MessageKey, now: float) -> None:
        """Note that a message left; again, when it had left before."""
        flight = self._flights.get(key)
        patience = RESEND_FIRST_S if flight is None else min(2 * flight.patience_s, RESEND_MAX_S)
        self._flights[key] = _Flight(now, patience)

    def receipted(self, boot: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Note what the platform has stored."""
        for first, last in ranges:
            for key in [key for key in self._flights if key[0] == boot and first <= key[1] <= last]:
                del self._flights[key]

    def is_under_way(self, key: MessageKey) -> bool:
        """Whether a message left in this connection and waits for its receipt."""
        return key in self._flights

    def overdue(self, now: float) -> list[MessageKey]:
        """Return the keys to send again, oldest message first."""
        return sorted(
            key for key, flight in self._flights.items() if now - flight.sent_at >= flight.patience_s
        )
