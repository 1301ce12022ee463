"""Which readings to believe: a counter that falls or leaps is kept, marked suspect, and never built upon."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

# Device times outside this window are a broken clock, not a measurement.
OLDEST: Final = timedelta(days=30)
NEWEST: Final = timedelta(minutes=5)
# Ten times what a household's main fuse (3 x 100 A) or its 20 mm pipe lets through, per hour: catches a
# spike, and spares a town whose time runs faster.
MAX_RISE_PER_HOUR: Final = {"electricity": 690_000, "water": 50_000_000}
# What may pass between two readings of the same second: rounding and clock steps.
SLACK: Final = {"electricity": 1_000, "water": 20_000}
_TID: Final = re.compile(r"[0-9]{1,16}")
_LIMITS: Final = {
    "counter": (0, 2**53),
    "credit": (-(2**53), 2**53),
    "load": (0, 2**40),
    "relay": (0, 2),
    "reverse": (0, 2**53),
}


class Window(NamedTuple):
    """The instants, both included, that a device's clock may rightly tell."""

    first: datetime
    last: datetime


class KnownCounter(msgspec.Struct, frozen=True, gc=False):
    """The last counter that was believed, in Wh or mL."""

    at: datetime
    value: int


def believable(now: datetime) -> Window:
    """Return the instants that can be told at `now`."""
    return Window(now - OLDEST, now + NEWEST)


def refusal(channel: str, at: datetime, value: int, window: Window) -> str | None:
    """Return why a reading cannot be stored at all, or None."""
    if at < window.first:
        return "older than 30 days"
    if at > window.last:
        return "from the future"
    low, high = _LIMITS[channel]
    if not low <= value <= high:
        return f"{channel} outside {low}..{high}"
    return None


def is_tid(value: object) -> bool:
    """Whether the `tid` of a token's event is a number of minutes, as such or in digits, or is not told."""
    if isinstance(value, str):
        return _TID.fullmatch(value) is not None
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53)


def counter_is_suspect(known: KnownCounter | None, at: datetime, value: int, commodity: str) -> bool:
    """Whether a counter contradicts the last believed one: it fell, or rose faster than can be."""
    if known is None:
        return False
    if at < known.at:  # a late reading: it must not lie above what came after it
        return value > known.value
    if value < known.value:
        return True
    seconds = (at - known.at).total_seconds()
    allowed = SLACK[commodity] + int(MAX_RISE_PER_HOUR[commodity] * seconds / 3600)
    return value - known.value > allowed
