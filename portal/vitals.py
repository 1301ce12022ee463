"""What portal and worker can say about their own health: plain values, taken inside their own loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meter_gateway.vitals import PoolVitals


@dataclass(slots=True)
class RoundCounts:
    """Each part of the worker: when it last ended a round in order (epoch s), and how often it fell."""

    rounds: dict[str, float] = field(default_factory=dict)
    falls: dict[str, int] = field(default_factory=dict)

    def ended(self, part: str, now_s: float) -> None:
        """Note the end of a round."""
        self.rounds[part] = now_s

    def fell(self, part: str) -> None:
        """Note a fall."""
        self.falls[part] = self.falls.get(part, 0) + 1


@dataclass(frozen=True, slots=True)
class WorkerVitals:
    """The worker's parts and its pool."""

    rounds: Mapping[str, float]
    falls: Mapping[str, int]
    pool: PoolVitals

    def faults(self, now_s: float, *, silent_s: float) -> list[str]:
        """Return why the worker cannot do its work: parts that ended no round for `silent_s`."""
        if not self.rounds:
            return ["no part has ended a round yet"]
        return [
            f"{part}: no round for {now_s - at:.0f} s"
            for part, at in sorted(self.rounds.items())
            if now_s - at > silent_s
        ]


@dataclass(frozen=True, slots=True)
class PortalVitals:
    """The portal's answers by the first digit of their status (2xx, 4xx …) and its pool."""

    answers: Mapping[str, int]
    pool: PoolVitals

    def faults(self, now_s: float, *, silent_s: float) -> list[str]:  # noqa: ARG002 - every role is asked alike
        """Return nothing: whether the database answers, the portal's own /ready asks it."""
        return []
