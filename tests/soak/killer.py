"""Who is killed when: every victim in each round, in an order by chance, and nobody while memory is measured."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

QUIET_MAX_S = 60.0  # a new process has warmed up within this
QUIET_SHARE = 8  # of the run, where that is less
# A broker that dies with empty queues loses nothing: so both ingests die shortly before it, and it has some.
BEFORE = {"broker": ("headend-1", "headend-2")}
LEAD_S = 0.8


@dataclass(frozen=True, slots=True)
class Kill:
    at_s: float
    name: str


def plan_kills(victims: Sequence[str], *, run_s: float, every_s: float, seed: int) -> list[Kill]:
    """Kills of a run, about `every_s` apart; none in the quiet times before a third of the run and its end."""
    dice = random.Random(f"soak:{seed}")
    quiet_s = min(QUIET_MAX_S, run_s / QUIET_SHARE)
    names = _names(victims, dice)
    kills, at_s = [], 0.0
    while True:
        at_s += every_s * dice.uniform(0.5, 1.5)
        if run_s / 3 - quiet_s < at_s <= run_s / 3 + 1.0:
            at_s = run_s / 3 + 1.0 + dice.uniform(0.0, every_s)
        if at_s > run_s - quiet_s:
            return kills
        name = next(names)
        kills += [Kill(at_s - LEAD_S, before) for before in BEFORE.get(name, ())]
        kills.append(Kill(at_s, name))


def _names(victims: Sequence[str], dice: random.Random) -> Iterator[str]:
    while True:
        yield from dice.sample(list(victims), len(victims))
