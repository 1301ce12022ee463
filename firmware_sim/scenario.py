"""Scripts of what goes wrong in the town and when: read from TOML, checked whole before the first step. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from firmware_sim.faults import check_fault
from firmware_sim.town import Town, TownMeter

MAX_STEPS: Final = 500
MAX_LENGTH_S: Final = 86_400
_FOLDER: Final = Path(__file__).parent / "scenarios"
# What each deed needs besides at_s and do.
_DEEDS: Final[dict[str, dict[str, type | tuple[type, ...]]]] = {
    "fault": {"meter": str, "name": str, "seconds": (int, float)},
    "keypad": {"meter": str, "digits": str},
    "burn": {"meter": str, "units": (int, float)},
    "power": {"meter": str, "on": bool},
    "button": {"meter": str},
    "node_power": {"node": str, "on": bool},
}


class InvalidScenario(ValueError):
    """A script that cannot be played; the text says which step and why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One deed at a time after the start; `arguments` as _DEEDS names them."""

    at_s: float
    deed: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script, its steps in the order of time."""

    title: str
    steps: tuple[Step, ...]


def scenario_names() -> tuple[str, ...]:
    """The scripts that come with the simulator."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@cache
def load_scenario(name: str) -> Scenario:
    """A script of the package. Raises KeyError when there is none of that name."""
    if name not in scenario_names():
        raise KeyError(name)
    return parse_scenario((_FOLDER / f"{name}.toml").read_text("utf-8"))


def parse_scenario(text: str) -> Scenario:
    """The checked script of a TOML text. Raises InvalidScenario."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidScenario(f"no TOML: {error}") from None
    entries = data.get("step", [])
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_STEPS:
        raise InvalidScenario(f"a scenario has 1 to {MAX_STEPS} steps under [[step]]")
    steps = [_read_step(number, entry) for number, entry in enumerate(entries, 1)]
    return Scenario(str(data.get("title", "")), tuple(sorted(steps, key=lambda step: step.at_s)))


def _read_step(number: int, entry: Any) -> Step:
    where = f"step {number}"
    if not isinstance(entry, dict):
        raise InvalidScenario(f"{where} is not a table")
    at_s, deed = entry.get("at_s"), entry.get("do")
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s <= MAX_LENGTH_S:
        raise InvalidScenario(f"{where}: at_s is 0 to {MAX_LENGTH_S}")
    needed = _DEEDS.get(str(deed))
    if needed is None:
        raise InvalidScenario(f"{where}: do is one of {', '.join(_DEEDS)}")
    arguments = {name: value for name, value in entry.items() if name not in {"at_s", "do"}}
    if set(arguments) != set(needed):
        raise InvalidScenario(f"{where}: {deed} takes {', '.join(needed)}")
    for name, kinds in needed.items():
        is_flag = isinstance(arguments[name], bool)
        if not isinstance(arguments[name], kinds) or (is_flag and kinds is not bool):
            raise InvalidScenario(f"{where}: {name} has the wrong type")
    if deed == "fault":
        try:
            check_fault(arguments["name"], arguments["seconds"])
        except ValueError as error:
            raise InvalidScenario(f"{where}: {error}") from None
    return Step(at_s, str(deed), arguments)


def find_meter(town: Town, selector: str) -> TownMeter:
    """A meter by DRN, or by `commodity/wire/number` with wire mqtt, tcp, rtu or keypad, counted from 0.

    Raises InvalidScenario when there is none.
    """
    if selector in town.meter_by_drn:
        return town.meter_by_drn[selector]
    commodity, _, rest = selector.partition("/")
    wire, _, number = rest.partition("/")
    found = [
        meter
        for meter in town.installed
        if meter.commodity == commodity and wire and (meter.bus or meter.link).startswith(wire)
    ]
    if not number.isdigit() or int(number) >= len(found):
        raise InvalidScenario(f"there is no meter {selector!r}")
    return found[int(number)]


def check_places(scenario: Scenario, town: Town) -> None:
    """Raise InvalidScenario when a step names a meter or node that this town has not."""
    for step in scenario.steps:
        if "meter" in step.arguments:
            find_meter(town, step.arguments["meter"])
        elif step.arguments["node"] not in town.node_by_code:
            raise InvalidScenario(f"there is no network node {step.arguments['node']!r}")
