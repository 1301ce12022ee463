"""Rules of store and forward: what each message is worth, how much may wait, and which ones to send now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meter_gateway.topics import MAX_RECORDS, Progress, Reading, Record

# Messages under way without a receipt; the rest waits on disk.
WINDOW: Final = 100
# Of these at most so many are history: a long queue leaves room for what is true now.
HISTORY_WINDOW: Final = 50
# History leaves this fast unless the site file says otherwise, and in proportion from so many meters on: ten times as
# fast as it was made, and 10,000 messages a second from a fleet of 15,000 meters that comes back at once, about what
# two ingest processes store.
HISTORY_PER_S: Final = 20.0
HISTORY_METERS: Final = 30
# A message older than this was queued: its values are history, not the present.
HISTORICAL_MS: Final = 60_000
# Said again after this long without a receipt, doubling: a platform that is down is not flooded.
RESEND_FIRST_S: Final = 5.0
RESEND_MAX_S: Final = 60.0

MessageKey = tuple[int, int]  # (boot, seq)


class Worth(IntEnum):
    """What a message holds, most valuable first; history is said in this order, and only telemetry is given up."""

    ANSWER = 0
    EVENT = 1
    BILLING = 2
    TELEMETRY = 3


# Registers that a bill or a balance rests upon; every other channel is telemetry.
BILLING_CHANNELS: Final = frozenset({"counter", "credit", "relay", "reverse"})


def worth_of(record: Record) -> Worth:
    """Return what one record is worth."""
    if isinstance(record, Progress):
        return Worth.ANSWER
    if isinstance(record, Reading):
        return Worth.BILLING if record.channel in BILLING_CHANNELS else Worth.TELEMETRY
    return Worth.EVENT


def cut(records: Sequence[Record]) -> Iterator[tuple[Worth, Sequence[Record]]]:
    """Cut records into messages: telemetry in messages of its own, which may be given up one day.

    The rest stays together in its order, so that an event travels with the readings of its instant; such a message
    is worth what its most valuable record is.
    """
    kept = [one for one in records if worth_of(one) is not Worth.TELEMETRY]
    telemetry = [one for one in records if worth_of(one) is Worth.TELEMETRY]
    for group in (kept, telemetry):
        for start in range(0, len(group), MAX_RECORDS):
            part = group[start : start + MAX_RECORDS]
            yield min(worth_of(one) for one in part), part


@dataclass(frozen=True, slots=True)
class Quota:
    """How much may wait on disk before telemetry is given up, oldest first; the rest waits whatever it takes."""

    # A day of 30 meters that each say two messages each half minute.
    messages: int = 200_000
    bytes: int = 128 * 2**20
    # The platform refuses readings that are older.
    age_ms: int = 30 * 86_400_000


def history_per_s(meters: int) -> float:
    """Return how many messages of history a site of so many meters sends a second."""
    return HISTORY_PER_S * max(1.0, meters / HISTORY_METERS)


class Pace:
    """A bucket of permissions that fills with `per_s` and holds one second's worth."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._filled = max(1.0, per_s)
        self._at: float | None = None

    def allowed(self, now: float) -> int:
        """Return how many messages may leave now (monotonic seconds)."""
        if self._at is not None:
            more = (now - self._at) * self.per_s
            self._filled = min(self._filled + more, max(1.0, self.per_s))
        self._at = now
        return int(self._filled)

    def spend(self) -> None:
        """Note that one left."""
        self._filled -= 1.0


@dataclass(slots=True)
class _Flight:
    sent_at: float
    patience_s: float
    is_history: bool


class OutboxWindow:
    """Keeps no message, only the keys of those under way; the store holds the rest."""

    def __init__(self) -> None:
        self._flights: dict[MessageKey, _Flight] = {}

    @property
    def room(self) -> int:
        """How many more messages may be under way."""
        return WINDOW - len(self._flights)

    @property
    def history_room(self) -> int:
        """How many more messages of history may be under way."""
        flying = sum(flight.is_history for flight in self._flights.values())
        return max(0, min(self.room, HISTORY_WINDOW - flying))

    def reconnected(self) -> None:
        """Forget what was under way: what was not receipted is sent again."""
        self._flights.clear()

    def sent(self, key: MessageKey, now: float, *, is_history: bool = False) -> None:
        """Note that a message left; again, when it had left before."""
        flight = self._flights.get(key)
        if flight is None:
            self._flights[key] = _Flight(now, RESEND_FIRST_S, is_history)
        else:
            flight.sent_at, flight.patience_s = now, min(2 * flight.patience_s, RESEND_MAX_S)

    def receipted(self, boot: int, ranges: Iterable[tuple[int, int]]) -> None:
        """Note what the platform has stored."""
        for first, last in ranges:
            for key in [key for key in self._flights if key[0] == boot and first <= key[1] <= last]:
                del self._flights[key]

    @property
    def under_way(self) -> Collection[MessageKey]:
        """The keys of what left and waits for its receipt."""
        return self._flights.keys()

    def is_under_way(self, key: MessageKey) -> bool:
        """Whether a message left in this connection and waits for its receipt."""
        return key in self._flights

    def overdue(self, now: float) -> list[MessageKey]:
        """Return the keys to send again, oldest message first."""
        return sorted(
            key for key, flight in self._flights.items() if now - flight.sent_at >= flight.patience_s
        )
