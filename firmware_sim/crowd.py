"""A crowd: a town of nothing but MQTT meters, as many as asked for, to load a platform with."""

from __future__ import annotations

import random
from typing import Final

from firmware_sim.town import (
    SGC,
    TI,
    NetworkNode,
    ServiceLocation,
    Town,
    TownCustomer,
    TownMeter,
    UsagePoint,
    build_town,
)
from token_engine.identifiers import Drn, luhn_digit

MAX_CROWD: Final = 100_000
METERS_A_TRANSFORMER: Final = 100


def build_crowd(size: int, seed: int = 1) -> Town:
    """A town of `size` electricity meters on the radio, each with its customer; same seed, same crowd.

    Raises ValueError when size is not 1 to MAX_CROWD.
    """
    if not 1 <= size <= MAX_CROWD:
        raise ValueError(f"a crowd is 1 to {MAX_CROWD} meters, not {size}")
    dice = random.Random(f"crowd:{seed}")
    nodes = [node for node in build_town(seed).nodes if node.kind in ("substation", "feeder")]
    nodes += [
        NetworkNode(f"CX-{n + 1}", "electricity", "transformer", "FD-1", f"Crowd {n + 1}", f"حشد {n + 1}")
        for n in range(-(-size // METERS_A_TRANSFORMER))
    ]
    return Town(
        seed,
        tuple(nodes),
        tuple(ServiceLocation(f"K-{n}", f"House {n}", f"منزل {n}") for n in range(size)),
        tuple(
            UsagePoint(f"UP-K-{n}", f"K-{n}", f"CX-{n // METERS_A_TRANSFORMER + 1}", "electricity")
            for n in range(size)
        ),
        tuple(_meter(n, dice) for n in range(size)),
        tuple(
            TownCustomer(f"K-{n}", f"Customer {n}", f"مشترك {n}", f"+96891{n:06d}", "ar", (f"UP-K-{n}",))
            for n in range(size)
        ),
    )


def _meter(n: int, dice: random.Random) -> TownMeter:
    body = f"08{n:08d}"
    mean = dice.randrange(18_000, 62_000)
    return TownMeter(
        drn=str(Drn(body + luhn_digit(body))),
        commodity="electricity",
        model="Raseed E1 NB",
        link="mqtt",
        profile=None,
        bus=None,
        unit=None,
        ea="07",
        sgc=SGC["electricity"],
        krn=1,
        ti=TI["electricity"],
        base_date=2014,
        usage_point_code=f"UP-K-{n}",
        initial_credit=dice.randrange(200_000, 900_000),
        initial_counter=mean * 600,
        mean_daily_use=mean,
    )
