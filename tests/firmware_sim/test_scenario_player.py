"""A script is played on a real fleet, one at a time."""

import asyncio

import pytest

from firmware_sim.fleet import Fleet
from firmware_sim.scenario import InvalidScenario, parse_scenario
from firmware_sim.scenario_player import ScenarioPlayer, ScenarioRuns
from tests.firmware_sim.parts import TOWN, VENDING_KEYS, find
from token_engine.software_vault import write_key_file

SCRIPT = parse_scenario(
    """
    [[step]]
    at_s = 0
    do = "burn"
    meter = "electricity/keypad/0"
    units = 100000
    [[step]]
    at_s = 0.05
    do = "node_power"
    node = "SS-1"
    on = false
    [[step]]
    at_s = 0.1
    do = "keypad"
    meter = "electricity/keypad/0"
    digits = "11111111111111111111"
    [[step]]
    at_s = 0.15
    do = "node_power"
    node = "SS-1"
    on = true
    [[step]]
    at_s = 0.2
    do = "fault"
    meter = "electricity/keypad/0"
    name = "tamper"
    seconds = 0
    [[step]]
    at_s = 0.25
    do = "button"
    meter = "electricity/keypad/0"
    [[step]]
    at_s = 0.3
    do = "power"
    meter = "electricity/keypad/0"
    on = false
    """
)


@pytest.fixture
def fleet(store, tmp_path):
    write_key_file(tmp_path / "keys.json", VENDING_KEYS)
    made = Fleet(TOWN, store, 1)
    made.build(tmp_path / "keys.json")
    return made


async def test_every_step_is_done_in_its_turn(fleet):
    player = ScenarioPlayer(fleet)
    player.play("script", SCRIPT)
    assert player.face() == {"playing": "script", "steps_done": 0}
    with pytest.raises(ScenarioRuns):
        player.play("again", SCRIPT)
    for _ in range(300):
        await asyncio.sleep(0.01)
        if not player.face()["playing"]:
            break
    state = fleet.devices[find(link="keypad").drn].state
    assert player.face() == {"playing": "", "steps_done": 7}
    assert (state.credit, state.reason, state.tamper) == (0, "tamper", True)
    assert state.token_count == 0  # nobody can type in the dark
    assert not state.supply


async def test_a_script_for_another_town_is_refused(fleet):
    player = ScenarioPlayer(fleet)
    with pytest.raises(InvalidScenario):
        player.play("x", parse_scenario('[[step]]\nat_s = 0\ndo = "node_power"\nnode = "X"\non = true\n'))
    assert player.face()["playing"] == ""


async def test_a_stop_breaks_off(fleet):
    player = ScenarioPlayer(fleet)
    player.play("script", SCRIPT)
    await asyncio.sleep(0.02)
    player.stop()
    await asyncio.sleep(0.02)
    assert player.face()["playing"] == ""
