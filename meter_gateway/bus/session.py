"""The link to one wired meter as a state machine: when to ask, when to leave it alone, when to say it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Three misses in a row are no accident of the bus.
FAILURES_TO_OPEN: Final = 3
# A miss is tried again no later than this: a spoilt frame at a slow site shall not cost a whole period.
RETRY_MAX_S: Final = 10.0
# A silent meter is left alone for so many poll periods at first, doubling up to the last number; capped in
# seconds, so that a slow site still finds a meter that came back within ten minutes.
FIRST_PAUSE_POLLS: Final = 5
LAST_PAUSE_POLLS: Final = 30
FIRST_PAUSE_MAX_S: Final = 30.0
LAST_PAUSE_MAX_S: Final = 600.0


class Breaker(StrEnum):
    """CLOSED: ask at will; OPEN: leave alone; HALF_OPEN: one probe is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Due:
    """The caller would like to ask the meter now."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The meter answered, rightly."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The meter did not answer, or not rightly. `jitter` 0.8..1.2 comes from outside."""

    jitter: float = 1.0


@dataclass(frozen=True, slots=True)
class Ask:
    """Send one request."""


@dataclass(frozen=True, slots=True)
class NextAt:
    """Come back at this instant (seconds of the caller's clock)."""

    at: float


@dataclass(frozen=True, slots=True)
class TellDown:
    """Say once that the meter stopped answering."""


@dataclass(frozen=True, slots=True)
class TellUp:
    """Say once that the meter answers (again)."""


SessionEvent = Due | Answered | Failed
Action = Ask | NextAt | TellDown | TellUp


class Session:
    """State of one meter's link; knows no clock, no wire and no chance."""

    def __init__(self, poll_s: float, *, was_down: bool = False) -> None:
        self.poll_s = poll_s
        self.breaker = Breaker.CLOSED
        self.is_down = was_down
        self._failures = 0
        self._pause_s = 0.0
        self._open_until = 0.0

    def receive(self, event: SessionEvent, now: float) -> list[Action]:
        """Return what to do. An event that makes no sense in this state does nothing."""
        if isinstance(event, Due):
            return self._due(now)
        if isinstance(event, Answered):
            return self._answered(now)
        return self._failed(event, now)

    def _due(self, now: float) -> list[Action]:
        if self.breaker is Breaker.CLOSED:
            return [Ask()]
        if now < self._open_until:
            return [NextAt(self._open_until)]
        # One probe; should its result never come, another one is allowed after the same pause.
        self.breaker = Breaker.HALF_OPEN
        self._open_until = now + self._pause_s
        return [Ask()]

    def _answered(self, now: float) -> list[Action]:
        self.breaker = Breaker.CLOSED
        self._failures = 0
        self._pause_s = 0.0
        actions: list[Action] = [NextAt(now + self.poll_s)]
        if self.is_down:
            self.is_down = False
            actions.append(TellUp())
        return actions

    def _failed(self, event: Failed, now: float) -> list[Action]:
        self._failures += 1
        if self.breaker is Breaker.CLOSED and self._failures < FAILURES_TO_OPEN:
            return [NextAt(now + min(self.poll_s, RETRY_MAX_S))]
        first = min(FIRST_PAUSE_POLLS * self.poll_s, FIRST_PAUSE_MAX_S)
        last = min(LAST_PAUSE_POLLS * self.poll_s, LAST_PAUSE_MAX_S)
        self._pause_s = min(2 * self._pause_s, last) if self._pause_s else first
        self._open_until = now + self._pause_s * event.jitter
        self.breaker = Breaker.OPEN
        actions: list[Action] = [NextAt(self._open_until)]
        if not self.is_down:
            self.is_down = True
            actions.append(TellDown())
        return actions
