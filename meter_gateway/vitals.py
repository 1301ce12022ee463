"""What a gateway and a headend can say about their own health: plain values, taken inside their own loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BusVitals:
    """One bus: when a meter last answered (epoch s), its meters by breaker state, its queue and its requests."""

    code: str
    framer: str
    last_answer_s: float | None
    breakers: Mapping[str, int]  # closed, open, half_open
    commands_waiting: int
    requests: Mapping[str, int]  # by outcome, since the start


@dataclass(frozen=True, slots=True)
class GatewayVitals:
    """A site's gateway; outbox counts are messages by class, `dropped` is counted since the disk was new."""

    site: str
    broker_connected: bool
    outbox: Mapping[str, int]
    outbox_oldest_s: float
    dropped: Mapping[str, int]
    is_disk_full: bool
    buses: tuple[BusVitals, ...]

    def faults(self, now_s: float, *, silent_s: float) -> list[str]:
        """Return why this gateway cannot do its work, in words; empty when it can.

        A broker that is away is no such reason: readings wait on disk. A bus with meters of which none answered
        for `silent_s` is one, and so is a bus on which nobody ever did.
        """
        said = ["the disk is full"] if self.is_disk_full else []
        for bus in self.buses:
            if not sum(bus.breakers.values()):
                continue
            if bus.last_answer_s is None:
                said.append(f"bus {bus.code}: no meter has answered yet")
            elif now_s - bus.last_answer_s > silent_s:
                said.append(f"bus {bus.code}: no meter answered for {now_s - bus.last_answer_s:.0f} s")
        return said


@dataclass(frozen=True, slots=True)
class PoolVitals:
    """Connections of a database pool: how many there are, are idle, and how many callers wait for one."""

    size: int
    idle: int
    waiting: int


@dataclass(slots=True)
class IngestCounts:
    """What one ingest process did since its start; times are epoch seconds."""

    batches: int = 0
    messages: int = 0
    readings: int = 0
    events: int = 0
    dead_letters: int = 0
    retries: int = 0
    store_s: float = 0.0
    last_commit_s: float | None = None
    lag_s: float = 0.0  # of the newest live message when it was committed
    waits_since_s: float | None = None  # since when a batch cannot be stored


@dataclass(frozen=True, slots=True)
class HeadendVitals:
    """One headend: its broker, its queue in messages, its counts and its pool."""

    name: str
    broker_connected: bool
    queue: int
    counts: IngestCounts
    pool: PoolVitals

    def faults(self, now_s: float, *, silent_s: float) -> list[str]:
        """Return why this headend cannot do its work, in words; empty when it can."""
        said = []
        if not self.broker_connected:
            said.append("the broker is away")
        since = self.counts.waits_since_s
        if since is not None and now_s - since > silent_s:
            said.append(f"the database is away for {now_s - since:.0f} s")
        return said


class Vitals(Protocol):
    """What every role's vitals can tell."""

    def faults(self, now_s: float, *, silent_s: float) -> list[str]:
        """Return why the role cannot do its work; empty when it can."""


# A role hands over how its vitals are taken; called inside the role's own event loop.
PublishVitals = Callable[[Callable[[], Vitals]], None]


def pool_vitals(stats: Mapping[str, int]) -> PoolVitals:
    """Return the vitals of a psycopg pool from its `get_stats()`."""
    return PoolVitals(
        stats.get("pool_size", 0), stats.get("pool_available", 0), stats.get("requests_waiting", 0)
    )
