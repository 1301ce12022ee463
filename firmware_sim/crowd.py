"""A crowd: a town of as many MQTT and Modbus meters as asked for, to load a platform with."""

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
UNITS_A_BUS: Final = 20  # behind one converter


def build_crowd(size: int, seed: int = 1, *, modbus: int = 0) -> Town:
    """A town of `size` radio and `modbus` wired electricity meters, each with its customer; same seed, same crowd.

    Wired ones hang on buses tcp-1, tcp-2 …, UNITS_A_BUS each. Raises ValueError when they are together not
    1 to MAX_CROWD.
    """
    total = size + modbus
    if size < 0 or modbus < 0 or not 1 <= total <= MAX_CROWD:
        raise ValueError(f"a crowd is 1 to {MAX_CROWD} meters, not {size} and {modbus}")
    dice = random.Random(f"crowd:{seed}")
    nodes = [node for node in build_town(seed).nodes if node.kind in ("substation", "feeder")]
    nodes += [
        NetworkNode(f"CX-{n + 1}", "electricity", "transformer", "FD-1", f"Crowd {n + 1}", f"حشد {n + 1}")
        for n in range(-(-total // METERS_A_TRANSFORMER))
    ]
    return Town(
        seed,
        tuple(nodes),
        tuple(ServiceLocation(f"K-{n}", f"House {n}", f"منزل {n}") for n in range(total)),
        tuple(
            UsagePoint(f"UP-K-{n}", f"K-{n}", f"CX-{n // METERS_A_TRANSFORMER + 1}", "electricity")
            for n in range(total)
        ),
        tuple(_meter(n, dice, None if n < size else n - size) for n in range(total)),
        tuple(
            TownCustomer(f"K-{n}", f"Customer {n}", f"مشترك {n}", f"+96891{n:06d}", "ar", (f"UP-K-{n}",))
            for n in range(total)
        ),
    )


def crowd_buses(modbus: int) -> tuple[str, ...]:
    """Codes of the buses that so many wired meters hang on."""
    return tuple(f"tcp-{n + 1}" for n in range(-(-modbus // UNITS_A_BUS)))


def _meter(n: int, dice: random.Random, place: int | None) -> TownMeter:
    """Meter `n`; `place` counts the wired ones."""
    body = f"08{n:08d}"
    mean = dice.randrange(18_000, 62_000)
    wired = place is not None
    return TownMeter(
        drn=str(Drn(body + luhn_digit(body))),
        commodity="electricity",
        model="Raseed E2 Modbus" if wired else "Raseed E1 NB",
        link="modbus" if wired else "mqtt",
        profile="raseed-prepaid-e1" if wired else None,
        bus=None if place is None else f"tcp-{place // UNITS_A_BUS + 1}",
        unit=None if place is None else place % UNITS_A_BUS + 1,
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
