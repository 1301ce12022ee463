"""Scripts of what goes wrong in the town and when: read from TOML, checked whole before the first step. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from firmware_sim.faults import check_fault
from firmware_sim.town import Town, TownMeter

MAX_STEPS: Final = 500
MAX_LENGTH_S: Final = 86_400
_FOLDER: Final = Path(__file__).parent / "scenarios"
# What each deed needs besides at_s and do.
DEEDS: Final[dict[str, dict[str, type | tuple[type, ...]]]] = {
    "fault": {"meter": str, "name": str, "seconds": (int, float)},
    "keypad": {"meter": str, "digits": str},
    "burn": {"meter": str, "units": (int, float)},
    "power": {"meter": str, "on": bool},
    "button": {"meter": str},
    "node_power": {"node": str, "on": bool},
    "broker_loss": {"seconds": (int, float)},
}
DEED_MEANINGS: Final = {
    "fault": "let a named fault begin at a meter; 0 seconds for one that happens once",
    "keypad": "type a token at a meter",
    "burn": "use up kWh or m3 at once",
    "power": "cut or restore one house (with a last gasp, or without under the fault no_gasp)",
    "button": "press the button of a meter",
    "node_power": "cut or restore everything under a network node",
    "broker_loss": "no radio meter reaches its broker; who plays may also stop the broker itself",
}
_HEAD: Final = frozenset({"title", "step", "expect"})


class InvalidScenario(ValueError):
    """A script that cannot be played; the text says which step and why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One deed at a time after the start; `arguments` as DEEDS names them."""

    at_s: float
    deed: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A script, its steps in the order of time, and what a test expects of it, as it stands in the file."""

    title: str
    steps: tuple[Step, ...]
    expect: Mapping[str, Any] = field(default_factory=dict)

    @property
    def length_s(self) -> float:
        """When its last deed is done."""
        return self.steps[-1].at_s


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
    for key in data:
        if key not in _HEAD:
            raise InvalidScenario(f"{key!r} means nothing here; a scenario has title, [[step]] and [expect]")
    entries = data.get("step", [])
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_STEPS:
        raise InvalidScenario(f"a scenario has 1 to {MAX_STEPS} steps under [[step]]")
    steps = [_read_step(number, entry) for number, entry in enumerate(entries, 1)]
    expect = data.get("expect", {})
    if not isinstance(expect, dict):
        raise InvalidScenario("[expect] is a table")
    return Scenario(str(data.get("title", "")), tuple(sorted(steps, key=lambda step: step.at_s)), expect)


def _read_step(number: int, entry: Any) -> Step:
    where = f"step {number}"
    if not isinstance(entry, dict):
        raise InvalidScenario(f"{where} is not a table")
    at_s, deed = entry.get("at_s"), entry.get("do")
    if isinstance(at_s, bool) or not isinstance(at_s, int | float) or not 0 <= at_s <= MAX_LENGTH_S:
        raise InvalidScenario(f"{where}: at_s is 0 to {MAX_LENGTH_S}")
    needed = DEEDS.get(str(deed))
    if needed is None:
        raise InvalidScenario(f"{where}: do is one of {', '.join(DEEDS)}")
    arguments = {name: value for name, value in entry.items() if name not in {"at_s", "do"}}
    if set(arguments) != set(needed):
        raise InvalidScenario(f"{where}: {deed} takes {', '.join(needed)}")
    for name, kinds in needed.items():
        is_flag = isinstance(arguments[name], bool)
        if not isinstance(arguments[name], kinds) or (is_flag and kinds is not bool):
            raise InvalidScenario(f"{where}: {name} has the wrong type")
    if deed == "broker_loss" and not 0 < arguments["seconds"] <= MAX_LENGTH_S:
        raise InvalidScenario(f"{where}: seconds is above 0 and at most {MAX_LENGTH_S}")
    if deed == "fault":
        try:
            check_fault(arguments["name"], arguments["seconds"])
        except ValueError as error:
            raise InvalidScenario(f"{where}: {error}") from None
    return Step(at_s, str(deed), arguments)


def describe(step: Step) -> str:
    """One line for a person."""
    told = step.arguments
    match step.deed:
        case "fault":
            lasts = f" for {told['seconds']:g} s" if told["seconds"] else ""
            return f"{told['meter']}: {told['name']}{lasts}"
        case "keypad":
            return f"{told['meter']}: somebody types a token"
        case "burn":
            return f"{told['meter']}: {told['units']:g} units are used up"
        case "button":
            return f"{told['meter']}: somebody presses the button"
        case "broker_loss":
            return f"all radio meters: their broker is gone for {told['seconds']:g} s"
    return f"{told.get('meter', told.get('node'))}: supply {'restored' if told['on'] else 'cut'}"


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
        elif "node" in step.arguments and step.arguments["node"] not in town.node_by_code:
            raise InvalidScenario(f"there is no network node {step.arguments['node']!r}")
