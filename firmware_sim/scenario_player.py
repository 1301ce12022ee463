"""Plays a script on a running fleet, one at a time, each step at its second."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from firmware_sim.meter import NoPower
from firmware_sim.meter_state import PER_TENTH
from firmware_sim.scenario import Scenario, Step, check_places, find_meter

if TYPE_CHECKING:
    from firmware_sim.fleet import Fleet

log = logging.getLogger(__name__)


class ScenarioRuns(Exception):
    """Another script is being played."""


class ScenarioPlayer:
    """Holds the script that is being played, if one is."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._task: asyncio.Task[None] | None = None
        self._playing = ""
        self._done = 0

    def face(self) -> dict[str, Any]:
        """What is being played and how many steps are done; an empty name when nothing is."""
        runs = self._task is not None and not self._task.done()
        return {"playing": self._playing if runs else "", "steps_done": self._done}

    def play(self, name: str, scenario: Scenario) -> None:
        """Begin a script. Raises ScenarioRuns, and InvalidScenario when it does not fit this town."""
        if self._task is not None and not self._task.done():
            raise ScenarioRuns(f"{self._playing} is being played")
        check_places(scenario, self._fleet.town)
        self._playing, self._done = name, 0
        self._task = asyncio.create_task(self._play(scenario), name=f"scenario {name}")

    def stop(self) -> None:
        """Break off; what is broken or dark stays so."""
        if self._task:
            self._task.cancel()

    async def _play(self, scenario: Scenario) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for step in scenario.steps:
            await asyncio.sleep(max(0.0, began + step.at_s - loop.time()))
            try:
                self._do(step)
            except (NoPower, ValueError) as error:  # the town is in another state than the script thought
                log.info("scenario %s: %s: %s", self._playing, step.deed, error)
            self._done += 1

    def _do(self, step: Step) -> None:
        told = step.arguments
        if step.deed == "node_power":
            self._fleet.power_node(told["node"], told["on"])
            return
        if step.deed == "broker_loss":
            self._fleet.lose_broker(told["seconds"])
            return
        device = self._fleet.devices[find_meter(self._fleet.town, told["meter"]).drn]
        match step.deed:
            case "fault":
                device.begin_fault(told["name"], told["seconds"])
            case "keypad":
                device.type_token(told["digits"])
            case "burn":
                device.burn(int(told["units"] * 10 * PER_TENTH[device.meter.commodity]))
            case "power":
                self._fleet.power_meter(device, told["on"])
            case "button":
                device.press_button()
