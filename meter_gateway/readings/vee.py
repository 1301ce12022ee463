"""The rules of validation: what is found in readings, when it is over, and the numbers behind each rule. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from meter_gateway import topics

# Two turns missed: one lost reading is made good by the next, a second one is no accident.
GAP_TURNS: Final = 2
# Water: the span without one interval of standstill (field rules: 48 h of continuous flow is a leak).
LEAK_SPAN: Final = timedelta(hours=48)
# Readings are looked at by quarters of an hour; an interval longer than this may hide a standstill.
LEAK_SLOT: Final = timedelta(minutes=15)
LEAK_LONGEST: Final = timedelta(hours=2)
# The newest reading must be this fresh: what ran until yesterday may stand still by now.
LEAK_FRESH: Final = timedelta(hours=3)
# A counter that stood still this long while the meter itself says that something was drawn.
FLAT_SPAN: Final = timedelta(days=3)
# And this long where only its own past speaks against it: a week covers an absence over a weekend.
FLAT_QUIET_SPAN: Final = timedelta(days=7)
FLAT_FRESH: Final = timedelta(hours=6)
# What a standby device draws, and above a meter's own starting current; water: above a dripping tap.
FLAT_LOAD: Final = {"electricity": 20, "water": 10_000}
# Rounding of credit against counter.
FLAT_CREDIT: Final = {"electricity": 1_000, "water": 20_000}
# A household that used this much a day, and now nothing for a week, is worth a look: 1 kWh, 50 litres.
FLAT_DAILY: Final = {"electricity": 1_000, "water": 50_000}
# What runs back in a day without meaning anything: a motor that brakes, a pipe that empties.
REVERSE_SPAN: Final = timedelta(hours=24)
REVERSE_RISE: Final = {"electricity": 100, "water": 20_000}
# Seconds of a clock: outage logic must not use one that is off by more (field rules), friendly hours neither.
DRIFT_BEGINS_S: Final = 120
DRIFT_ENDS_S: Final = 60
# Newest readings that must agree, and by how much: messages that waited in a queue do not.
DRIFT_READINGS: Final = 5
DRIFT_SPREAD_S: Final = 30
# Ten values of one instant: an edge that repeats itself once or twice is no clock that stands still.
FROZEN_VALUES: Final = 10
# After a person closed a finding with a reason, the same is not found again for this long.
QUIET_AFTER_DECISION: Final = timedelta(days=30)


class Kind(StrEnum):
    """What can be found; docs/validation.md says what a person does about each."""

    COUNTER = "counter"
    GAP = "gap"
    FLAT = "flat"
    CLOCK = "clock"
    STRANGER = "stranger"
    LEAK = "leak"
    REVERSE = "reverse"
    TAMPER = "tamper"
    CONFLICT = "conflict"


# What lasts after it was explained (normal here, known, somebody is on the way), and is not found again at once.
QUIET_KINDS: Final = frozenset({Kind.FLAT, Kind.LEAK, Kind.REVERSE, Kind.CLOCK})
CHANNEL: Final = {
    Kind.COUNTER: "counter",
    Kind.GAP: "counter",
    Kind.FLAT: "counter",
    Kind.CLOCK: "meter",
    Kind.STRANGER: "meter",
    Kind.LEAK: "counter",
    Kind.REVERSE: "reverse",
    Kind.TAMPER: "meter",
}
# What the platform itself says on the meter's timeline when one of these begins and ends.
SAID_AS: Final = {Kind.LEAK: topics.LEAK, Kind.REVERSE: topics.REVERSE, Kind.CLOCK: topics.CLOCK_DRIFT}


@dataclass(frozen=True, slots=True)
class Found:
    """Something found that begins at `from_at`; `to_at` where it is over already."""

    meter_id: int
    kind: Kind
    from_at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    to_at: datetime | None = None
    channel: str = ""

    @property
    def key(self) -> tuple[int, str, str]:
        """What may be open once: meter, kind, channel."""
        return self.meter_id, self.kind.value, self.channel or CHANNEL[self.kind]


@dataclass(frozen=True, slots=True)
class Over:
    """The open finding of this meter and kind, begun before `to_at`, is over by itself."""

    meter_id: int
    kind: Kind
    to_at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


Judgment = Found | Over


@dataclass(frozen=True, slots=True)
class HeardEvent:
    """One event of a meter in the order in which it was stored."""

    meter_id: int
    code: str
    occurred_at: datetime
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FlowWindow:
    """A water meter's last 48 hours by quarters of an hour; volumes in mL, None without two readings."""

    meter_id: int
    first_at: datetime
    last_at: datetime
    longest: timedelta
    intervals: int
    used: int
    still_at: datetime | None  # the end of the newest interval in which the counter did not move
    least_per_hour: int


@dataclass(frozen=True, slots=True)
class StillCounter:
    """A counter that reads now what it read FLAT_SPAN ago, with what else the meter says; Wh, W or mL, mL/h."""

    meter_id: int
    commodity: str
    counter: int
    still_since: datetime
    counter_at: datetime
    mean_load: int | None
    credit_fell: int | None
    daily_before: int | None  # use a day in the four weeks before it stood still
    is_connected: bool


@dataclass(frozen=True, slots=True)
class ReverseWindow:
    """What ran back: the newest reading of the channel and the one before the last day; Wh or mL."""

    meter_id: int
    commodity: str
    old_at: datetime
    old_value: int
    new_at: datetime
    new_value: int


def fold_events(events: Iterable[HeardEvent]) -> list[Judgment]:
    """Return what events say begins and ends, in their order; codes that say neither are passed over."""
    judged: list[Judgment] = []
    for event in events:
        detail, at = dict(event.detail), event.occurred_at
        if event.code == topics.COUNTER_SUSPECT:
            judged.append(Found(event.meter_id, Kind.COUNTER, at, detail))
        elif event.code == topics.COUNTER_BELIEVED:
            judged.append(Over(event.meter_id, Kind.COUNTER, at, detail))
        elif event.code == topics.UNKNOWN_METER:
            judged.append(Found(event.meter_id, Kind.STRANGER, at, detail))
        elif event.code in (topics.TAMPER, topics.CLOCK_DRIFT):
            kind = Kind.TAMPER if event.code == topics.TAMPER else Kind.CLOCK
            is_over = detail.get("active") is False
            judged.append((Over if is_over else Found)(event.meter_id, kind, at, detail))
    return judged


def judge_flow(window: FlowWindow, now: datetime) -> Judgment | None:
    """Say whether water runs without end: 48 h covered, fresh, and no interval of standstill."""
    if window.still_at is not None:
        return Over(window.meter_id, Kind.LEAK, window.still_at)
    covered = window.last_at - window.first_at >= LEAK_SPAN - LEAK_SLOT
    if not covered or window.longest > LEAK_LONGEST or now - window.last_at > LEAK_FRESH:
        return None
    detail = {"least_per_hour": window.least_per_hour, "used": window.used, "intervals": window.intervals}
    return Found(window.meter_id, Kind.LEAK, window.first_at, detail)


def judge_still(still: StillCounter) -> Found | None:
    """Say whether a counter that stands still should not: by load, by credit, or by its own past."""
    span = still.counter_at - still.still_since
    evidence: dict[str, int] = {}
    if span >= FLAT_SPAN:
        if still.mean_load is not None and still.mean_load >= FLAT_LOAD[still.commodity]:
            evidence["mean_load"] = still.mean_load
        if still.credit_fell is not None and still.credit_fell > FLAT_CREDIT[still.commodity]:
            evidence["credit_fell"] = still.credit_fell
    is_sudden = still.daily_before is not None and still.daily_before >= FLAT_DAILY[still.commodity]
    if not evidence and span >= FLAT_QUIET_SPAN and is_sudden and still.is_connected:
        evidence["daily_before"] = still.daily_before or 0
    if not evidence:
        return None
    return Found(still.meter_id, Kind.FLAT, still.still_since, {"counter": still.counter, **evidence})


def judge_reverse(window: ReverseWindow, now: datetime) -> Judgment | None:
    """Say whether something flows back, or has not for a day: nothing told of it, or the same told all day."""
    rise = window.new_value - window.old_value
    if now - window.new_at >= REVERSE_SPAN:
        return Over(window.meter_id, Kind.REVERSE, window.new_at)
    if rise == 0 and now - window.old_at >= REVERSE_SPAN:
        return Over(window.meter_id, Kind.REVERSE, window.old_at)
    if rise > REVERSE_RISE[window.commodity]:
        return Found(
            window.meter_id, Kind.REVERSE, window.old_at, {"rise": rise, "reverse": window.new_value}
        )
    return None


def judge_clock(meter_id: int, at: datetime, ahead_s: Sequence[int]) -> Judgment | None:
    """Judge a meter's clock by how far its newest readings lie ahead of when we heard them, in seconds.

    A message that waited in a queue looks like a slow clock; readings that waited differ from each other,
    those of a slow clock do not. Between the two limits nothing is said.
    """
    if len(ahead_s) < DRIFT_READINGS or max(ahead_s) - min(ahead_s) > DRIFT_SPREAD_S:
        return None
    # The nearest to zero: every delay on the way only makes a clock look slower.
    nearest = max(ahead_s)
    if abs(nearest) > DRIFT_BEGINS_S:
        return Found(meter_id, Kind.CLOCK, at, {"seconds": nearest, "active": True})
    if abs(nearest) < DRIFT_ENDS_S:
        return Over(meter_id, Kind.CLOCK, at, {"seconds": nearest, "active": False})
    return None
