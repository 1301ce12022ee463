"""Scripts are checked whole before they are played, and those that come along fit the town."""

import pytest

from firmware_sim.scenario import (
    InvalidScenario,
    Step,
    check_places,
    find_meter,
    load_scenario,
    parse_scenario,
    scenario_names,
)
from tests.firmware_sim.parts import TOWN

STEP = '[[step]]\nat_s = {at}\ndo = "burn"\nmeter = "electricity/mqtt/0"\nunits = 5\n'


@pytest.mark.parametrize("name", scenario_names())
def test_those_that_come_along_fit_the_town(name):
    scenario = load_scenario(name)
    check_places(scenario, TOWN)
    assert scenario.title


def test_there_are_some():
    assert {"summer-storm", "bad-line", "bad-radio"} <= set(scenario_names())


def test_steps_are_put_in_the_order_of_time():
    scenario = parse_scenario('title = "t"\n' + STEP.format(at=9) + STEP.format(at=0.5))
    assert [step.at_s for step in scenario.steps] == [0.5, 9]
    assert scenario.steps[0] == Step(0.5, "burn", {"meter": "electricity/mqtt/0", "units": 5})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no toml",
        "step = 5",
        "step = [5]",
        STEP.format(at=-1),
        STEP.format(at="true"),
        STEP.format(at=1e9),
        STEP.format(at=1).replace("burn", "explode"),
        STEP.format(at=1).replace("units = 5", ""),
        STEP.format(at=1).replace("units = 5", "units = true"),
        STEP.format(at=1) + 'digits = "1"\n',
        '[[step]]\nat_s = 0\ndo = "fault"\nmeter = "x"\nname = "sulking"\nseconds = 5\n',
        '[[step]]\nat_s = 0\ndo = "node_power"\nnode = "TX-1"\non = 1\n',
    ],
)
def test_others_are_refused(text):
    with pytest.raises(InvalidScenario):
        parse_scenario(text)


def test_meters_are_found_by_place_or_number():
    first = find_meter(TOWN, "electricity/mqtt/0")
    assert (first.commodity, first.link) == ("electricity", "mqtt")
    assert find_meter(TOWN, first.drn) is first
    assert find_meter(TOWN, "water/rtu/1").bus.startswith("rtu")


@pytest.mark.parametrize(
    "selector", ["", "electricity", "electricity/mqtt", "electricity/mqtt/99", "gas/mqtt/0"]
)
def test_meters_that_are_not_there(selector):
    with pytest.raises(InvalidScenario):
        find_meter(TOWN, selector)


def test_a_node_that_is_not_there():
    script = parse_scenario('[[step]]\nat_s = 0\ndo = "node_power"\nnode = "TX-9"\non = true\n')
    with pytest.raises(InvalidScenario):
        check_places(script, TOWN)


def test_an_unknown_name():
    with pytest.raises(KeyError):
        load_scenario("../secrets")
