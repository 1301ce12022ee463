"""Which readings of a counter that began again can be believed: the newest run that agrees with itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from meter_gateway.readings.validation import KnownCounter, counter_is_suspect

# A single reading may be a glitch of its own; three that agree are a counter.
FEWEST: Final = 3


@dataclass(frozen=True, slots=True)
class Restart:
    """A counter that began again; Wh or mL. `left` earlier readings in doubt stay in doubt."""

    from_at: datetime
    base_value: int
    until_at: datetime
    top_value: int
    believed: int
    left: int


def find_restart(doubted: Sequence[KnownCounter], commodity: str) -> Restart | None:
    """Return the newest run of readings in doubt, oldest first, in which none contradicts the one before it.

    None when fewer than three agree: then there is nothing to believe yet.
    """
    if not doubted:
        return None
    first = len(doubted) - 1
    while first > 0:
        before, after = doubted[first - 1], doubted[first]
        if before.at >= after.at or counter_is_suspect(before, after.at, after.value, commodity):
            break
        first -= 1
    run = doubted[first:]
    if len(run) < FEWEST:
        return None
    return Restart(run[0].at, run[0].value, run[-1].at, run[-1].value, len(run), first)
