"""`raseed simulate scenario` on a real control port, with a clock that does not wait."""

import asyncio
from pathlib import Path

import pytest

from firmware_sim.control_server import ControlServer
from firmware_sim.fleet import Fleet
from firmware_sim.fleet_control import FleetControl
from firmware_sim.fleet_store import FleetStore
from firmware_sim.scenario import InvalidScenario, find_meter, load_scenario, parse_scenario, scenario_names
from raseed.cli import main
from raseed.scenario_tool import ControlPort, ControlRefused, find_face, open_script, play
from tests.firmware_sim.parts import TOWN, VENDING_KEYS
from token_engine.software_vault import write_key_file

SCRIPT = """
title = "All deeds"
[[step]]
at_s = 0
do = "fault"
meter = "electricity/mqtt/1"
name = "twice"
seconds = 9
[[step]]
at_s = 5
do = "power"
meter = "electricity/mqtt/2"
on = false
[[step]]
at_s = 6
do = "node_power"
node = "FD-2"
on = false
[[step]]
at_s = 7
do = "broker_loss"
seconds = 3
[[step]]
at_s = 8
do = "burn"
meter = "water/tcp/0"
units = 1
[[step]]
at_s = 9
do = "button"
meter = "electricity/mqtt/2"
"""


@pytest.fixture
async def town(tmp_path):
    write_key_file(tmp_path / "keys.json", VENDING_KEYS)
    store = FleetStore(tmp_path / "state")
    fleet = Fleet(TOWN, store, 1)
    fleet.build(tmp_path / "keys.json")
    server = ControlServer(FleetControl(fleet).handle, 0)
    await server.start()
    yield fleet, f"http://127.0.0.1:{server.port}"
    await server.stop()
    store.close()


async def test_each_deed_is_done_at_its_second_and_told(town):
    fleet, url = town
    now = [100.0]
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    said = []
    code = await asyncio.to_thread(
        play, parse_scenario(SCRIPT), ControlPort(url), said.append, clock=lambda: now[0], sleep=sleep
    )
    assert slept == [0, 5, 1, 1, 1, 1]
    assert code == 1, "nobody can press the button of a dead meter"
    assert "REFUSED: the meter has no power" in said[5]
    assert said[6] == "5 of 6 deeds done"
    meter = find_meter(TOWN, "electricity/mqtt/1")
    assert meter.drn in said[0]
    assert "twice" in fleet.devices[meter.drn].active_faults()
    assert not fleet.devices[find_meter(TOWN, "electricity/mqtt/2").drn].state.supply


async def test_a_script_that_does_not_fit_is_refused_before_its_first_deed(town):
    fleet, url = town
    for bad in ("electricity/mqtt/99", "water/satellite/0"):
        script = parse_scenario(SCRIPT.replace("electricity/mqtt/2", bad))
        with pytest.raises(ControlRefused, match="there is no meter"):
            await asyncio.to_thread(play, script, ControlPort(url), print)
    script = parse_scenario(SCRIPT.replace("FD-2", "FD-99"))
    with pytest.raises(ControlRefused, match="no network node"):
        await asyncio.to_thread(play, script, ControlPort(url), print)
    assert not any(device.active_faults() for device in fleet.devices.values())


async def test_meters_are_found_as_the_simulator_finds_them(town):
    faces = await asyncio.to_thread(ControlPort(town[1]).get, "/meters")
    for selector in ("electricity/mqtt/0", "water/tcp/3", "electricity/rtu-1/1", "electricity/keypad/2"):
        drn = find_meter(TOWN, selector).drn
        assert find_face(faces, selector)["drn"] == find_face(faces, drn)["drn"] == drn


def test_scripts_that_come_along_are_listed_and_shown(capsys):
    assert main(["simulate", "scenario"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*scenario_names(), "no_gasp", "broker_loss"))
    assert main(["simulate", "scenario", "summer-storm", "--dry-run"]) == 0
    assert "FD-2: supply cut" in capsys.readouterr().out


def test_the_scripts_of_the_tests_can_be_shown_too():
    scripts = sorted((Path(__file__).parents[1] / "scenarios").glob("*.toml"))
    assert scripts
    assert all(open_script(str(path)).steps for path in scripts)


def test_what_is_no_script_is_told(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("RASEED_CONTROL_URL", raising=False)
    bad = tmp_path / "bad.toml"
    bad.write_text('[[step]]\nat_s = 0\ndo = "explode"\n')
    assert main(["simulate", "scenario", str(bad)]) == 2
    assert "do is one of fault" in capsys.readouterr().err
    assert main(["simulate", "scenario", "nothing"]) == 2
    assert "summer-storm" in capsys.readouterr().err
    assert main(["simulate", "scenario", "bad-line", "--data", str(tmp_path)]) == 1
    assert "no demo is running" in capsys.readouterr().err
    monkeypatch.setenv("RASEED_CONTROL_URL", "http://127.0.0.1:9")
    assert main(["simulate", "scenario", "bad-line"]) == 1
    assert "does not answer" in capsys.readouterr().err
    with pytest.raises(InvalidScenario, match="means nothing"):
        parse_scenario("colour = 1\n" + SCRIPT)
    assert load_scenario("bad-line").expect == {}
