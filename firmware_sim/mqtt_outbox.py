"""Which unreceipted messages of a meter go out now: a window, a patient repeat, and a bound. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

WINDOW: Final = 50  # messages under way at once: a backlog of a day drains in seconds and floods nobody
FIRST_REPEAT_MS: Final = 5_000  # as the contract says
LAST_REPEAT_MS: Final = 60_000  # a platform that is down for an hour is not asked 700 times
MAX_ROWS: Final = (
    2_000  # sixteen hours of readings every 30 s: telemetry beyond that is dropped, oldest first
)

Key = tuple[int, int]  # boot, seq


@dataclass(slots=True)
class _Row:
    telemetry: bool
    sent_ms: int = -1
    repeats: int = 0


class Outbox:
    """Names of messages on disk, oldest first; the bytes stay on disk."""

    def __init__(self, rows: Iterable[tuple[int, int, bool]] = ()) -> None:
        self._rows: dict[Key, _Row] = {(boot, seq): _Row(telemetry) for boot, seq, telemetry in rows}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: Key, *, telemetry: bool) -> list[Key]:
        """Take a new message; returns those that must go from the disk to make room for it."""
        dropped = []
        if len(self._rows) >= MAX_ROWS:
            oldest = next((old for old, row in self._rows.items() if row.telemetry), None)
            if oldest is not None:
                del self._rows[oldest]
                dropped.append(oldest)
        self._rows[key] = _Row(telemetry)
        return dropped

    def receipt(self, boot: int, ranges: Iterable[tuple[int, int]]) -> list[Key]:
        """Forget what the platform has stored; returns the names."""
        spans = [(first, last) for first, last in ranges if first <= last]
        gone = [
            key
            for key in self._rows
            if key[0] == boot and any(first <= key[1] <= last for first, last in spans)
        ]
        for key in gone:
            del self._rows[key]
        return gone

    def reconnected(self) -> None:
        """A new connection: whatever was under way may be lost, so all of it is due again."""
        for row in self._rows.values():
            row.sent_ms, row.repeats = -1, 0

    def due(self, now_ms: int) -> list[Key]:
        """Messages to send now, oldest first; they count as sent from here on."""
        found = []
        for key in islice(self._rows, WINDOW):
            row = self._rows[key]
            wait_ms = min(FIRST_REPEAT_MS << max(row.repeats - 1, 0), LAST_REPEAT_MS)
            if row.sent_ms < 0 or now_ms - row.sent_ms >= wait_ms or now_ms < row.sent_ms:
                row.sent_ms = now_ms
                row.repeats = min(row.repeats + 1, 10)
                found.append(key)
        return found
