"""What a household draws: seeded, in integers, with seasons, evenings and Friday-Saturday weekends."""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import accumulate

from firmware_sim.town import Town, TownMeter

LOCAL = timezone(timedelta(hours=4))  # Gulf Standard Time, no summer time
HALF_HOURS = 48
HALF_HOUR = timedelta(minutes=30)
_HALF_HOUR_MS = 1_800_000
_WEEKEND = (4, 5)  # Friday, Saturday

# Permille of the yearly mean at the middle of each month: air conditioning makes the summer.
_SEASON = {
    "electricity": (560, 560, 700, 950, 1250, 1440, 1500, 1450, 1290, 1040, 740, 570),
    "water": (880, 880, 940, 1000, 1070, 1120, 1150, 1130, 1060, 1000, 930, 880),
}
_WEEKEND_PERMILLE = {"electricity": 1090, "water": 1180}
# Weight of each hour of the local day, on working days and at the weekend. From one to three at night no tap runs:
# water that never stops would be a leak.
_SHAPE = {
    ("electricity", False): (
        (38, 35, 33, 32, 33, 38, 45, 42, 36, 36, 38, 42, 47, 52, 54, 50, 46, 50, 60, 68, 70, 66, 58, 46)
    ),
    ("electricity", True): (
        (42, 38, 35, 33, 33, 35, 37, 40, 45, 50, 54, 58, 60, 62, 60, 56, 52, 54, 62, 70, 74, 72, 64, 52)
    ),
    ("water", False): (
        (8, 0, 0, 10, 38, 62, 70, 52, 38, 34, 34, 38, 48, 42, 34, 38, 40, 46, 58, 56, 48, 38, 26, 14)
    ),
    ("water", True): (
        (12, 0, 0, 9, 30, 36, 40, 50, 62, 72, 80, 84, 60, 48, 44, 46, 46, 50, 60, 58, 52, 42, 32, 20)
    ),
}


@dataclass(frozen=True, slots=True)
class History:
    """Counters in Wh or mL at UTC instants, ascending; the last half-hourly one is today's counter."""

    daily: tuple[tuple[datetime, int], ...]
    half_hourly: tuple[tuple[datetime, int], ...]


def daily_use(town: Town, meter: TownMeter, day: date) -> int:
    """Wh or mL that this meter's household uses on a local calendar day."""
    dice = random.Random(f"{town.seed}:{meter.drn}:{day.toordinal()}")
    permille = _season_permille(meter.commodity, day) * dice.randrange(840, 1161) // 1000
    if day.weekday() in _WEEKEND:
        permille = permille * _WEEKEND_PERMILLE[meter.commodity] // 1000
    return meter.mean_daily_use * permille // 1000


def half_hour_use(town: Town, meter: TownMeter, day: date) -> tuple[int, ...]:
    """The 48 half-hours of a local day in Wh or mL; their sum is exactly `daily_use`."""
    total = daily_use(town, meter, day)
    dice = random.Random(f"{town.seed}:{meter.drn}:{day.toordinal()}:shape")
    shape = _SHAPE[meter.commodity, day.weekday() in _WEEKEND]
    weights = [shape[half // 2] * (700 + int(dice.random() * 600)) for half in range(HALF_HOURS)]
    whole = sum(weights)
    uses, weight_so_far, use_so_far = [], 0, 0
    for weight in weights:
        weight_so_far += weight
        reached = total * weight_so_far // whole
        uses.append(reached - use_so_far)
        use_so_far = reached
    return tuple(uses)


class DayCurve:
    """One local day of a household, ready for many questions: what it drew by an instant, what it draws now.

    Instants are UTC epoch milliseconds within the day, from `start_ms` up to but not including `end_ms`.
    """

    __slots__ = ("_reached", "end_ms", "start_ms")

    def __init__(self, town: Town, meter: TownMeter, day: date) -> None:
        midnight = datetime(day.year, day.month, day.day, tzinfo=LOCAL)
        self.start_ms = int(midnight.timestamp()) * 1000
        self.end_ms = self.start_ms + HALF_HOURS * _HALF_HOUR_MS
        # Typed and packed: ten thousand households keep a curve each.
        self._reached = array("q", accumulate(half_hour_use(town, meter, day), initial=0))

    @property
    def total(self) -> int:
        """Wh or mL of the whole day."""
        return self._reached[-1]

    def drawn_by(self, at_ms: int, parts: int = 1) -> int:
        """Wh or mL, in `parts` of one, drawn from midnight until then."""
        whole, rest = divmod(at_ms - self.start_ms, _HALF_HOUR_MS)
        reached = self._reached[whole]
        return reached * parts + (self._reached[whole + 1] - reached) * parts * rest // _HALF_HOUR_MS

    def load_at(self, at_ms: int) -> int:
        """What the household draws then, in W or mL/h."""
        half = (at_ms - self.start_ms) // _HALF_HOUR_MS
        return 2 * (self._reached[half + 1] - self._reached[half])


def day_curve(town: Town, meter: TownMeter, at_ms: int) -> DayCurve:
    """The curve of the local day in which an instant lies."""
    return DayCurve(town, meter, datetime.fromtimestamp(at_ms / 1000, LOCAL).date())


def load_at(town: Town, meter: TownMeter, at: datetime) -> int:
    """What the household draws just now, in W or mL/h."""
    at_ms = int(at.timestamp() * 1000)
    return day_curve(town, meter, at_ms).load_at(at_ms)


def use_between(town: Town, meter: TownMeter, start: datetime, end: datetime, parts: int = 1) -> int:
    """Wh or mL, in `parts` of one, drawn from `start` to `end`; pieces add up to the whole without drift."""
    first_ms, last_ms = int(start.timestamp() * 1000), int(end.timestamp() * 1000)
    if last_ms <= first_ms:
        return 0
    first, last = day_curve(town, meter, first_ms), day_curve(town, meter, last_ms)
    use = last.drawn_by(last_ms, parts) - first.drawn_by(first_ms, parts)
    days = (last.start_ms - first.start_ms) // (first.end_ms - first.start_ms)
    begin = datetime.fromtimestamp(first.start_ms / 1000, LOCAL).date()
    return use + parts * sum(daily_use(town, meter, begin + timedelta(days=day)) for day in range(days))


def history(
    town: Town, meter: TownMeter, until: datetime, days: int = 396, half_hour_days: int = 60
) -> History:
    """Counters at each local midnight of `days` days and each half-hour of the last `half_hour_days`.

    Both end so that the counter at the last whole half-hour before `until` is the meter's `initial_counter`.
    """
    end = until.astimezone(LOCAL)
    end = end.replace(minute=end.minute // 30 * 30, second=0, microsecond=0)
    midnight = end.replace(hour=0, minute=0)
    today = (end - midnight) // HALF_HOUR
    counter = meter.initial_counter
    daily: list[tuple[datetime, int]] = []
    halves: list[tuple[datetime, int]] = [(end.astimezone(UTC), counter)]
    for back in range(days + 1):
        start = midnight - timedelta(days=back)
        if back <= half_hour_days:
            uses = half_hour_use(town, meter, start.date())[: today if back == 0 else HALF_HOURS]
            for half in range(len(uses) - 1, -1, -1):
                counter -= uses[half]
                halves.append(((start + half * HALF_HOUR).astimezone(UTC), counter))
        else:
            counter -= daily_use(town, meter, start.date())
        daily.append((start.astimezone(UTC), counter))
    oldest = end.astimezone(UTC) - timedelta(days=half_hour_days)
    return History(tuple(reversed(daily)), tuple(point for point in reversed(halves) if point[0] >= oldest))


def _season_permille(commodity: str, day: date) -> int:
    """Between the middles of two months the season changes in a straight line."""
    season = _SEASON[commodity]
    month = day.month - 1
    if day.day >= 15:
        first, second, step = season[month], season[(month + 1) % 12], day.day - 15
    else:
        first, second, step = season[month - 1], season[month], day.day + 15
    return first + (second - first) * min(step, 30) // 30
