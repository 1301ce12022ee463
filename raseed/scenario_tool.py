"""`raseed simulate scenario`: play a script of faults and deeds on a running simulator, or on a town of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from firmware_sim.faults import FAULTS
from firmware_sim.scenario import (
    DEED_MEANINGS,
    DEEDS,
    InvalidScenario,
    Scenario,
    Step,
    describe,
    load_scenario,
    parse_scenario,
    scenario_names,
)
from raseed.outage import CONTROL_TIMEOUT_S
from raseed.settings import Settings

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
MAX_FILE: Final = 1024 * 1024
Say = Callable[[str], None]


class ControlRefused(Exception):
    """The simulator cannot be reached, or does not do what it was asked."""


def add_command(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `scenario` to `raseed simulate`."""
    command = what.add_parser(
        "scenario",
        help="play a script of what goes wrong (RASEED_CONTROL_URL, a running demo, or --alone)",
        epilog=_catalogue(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "script", nargs="?", help="a TOML file, or the name of one that comes along; none lists them"
    )
    command.add_argument("--dry-run", action="store_true", help="check it and list its deeds, play nothing")
    command.add_argument("--alone", action="store_true", help="start a broker and a town of its own for it")
    command.add_argument(
        "--stay", type=float, default=0.0, metavar="S", help="with --alone: leave it up so long after"
    )
    command.add_argument(
        "--data", type=Path, default=Path(".demo"), help="data folder of the running demo (.demo)"
    )
    command.set_defaults(run=run)


def _catalogue() -> str:
    lines = ["scripts that come along:"]
    lines += [f"  {name:<16} {load_scenario(name).title}" for name in scenario_names()]
    lines += ["", "deeds of a [[step]], each with at_s (seconds after the start) and do:"]
    lines += [f"  {name:<12} {', '.join(DEEDS[name]):<22} {DEED_MEANINGS[name]}" for name in DEEDS]
    lines += ["", "faults (those marked ! happen once, the others last):"]
    lines += [f"  {name:<14}{' ' if kind.lasts else '!'} {kind.meaning}" for name, kind in FAULTS.items()]
    lines += [
        "",
        "a meter is its number, or commodity/wire/place: electricity/mqtt/0, water/tcp/2, electricity/rtu-1/0",
    ]
    return "\n".join(lines)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Play, list or check; 0 when every deed was done."""
    if not options.script:
        print(_catalogue())
        return 0
    try:
        scenario = open_script(options.script)
    except InvalidScenario as error:
        print(f"raseed simulate scenario: {options.script}: {error}", file=sys.stderr)
        return EXIT_USAGE
    if options.dry_run:
        print(f"{scenario.title or options.script}: {len(scenario.steps)} deeds in {scenario.length_s:g} s")
        for step in scenario.steps:
            print(f"{step.at_s:8.1f} s  {describe(step)}")
        return 0
    try:
        if options.alone:
            return asyncio.run(_play_alone(scenario, settings, options.stay))
        return play(scenario, ControlPort(_url(options, settings)), print)
    except ControlRefused as error:
        print(f"raseed simulate scenario: {error}", file=sys.stderr)
        return EXIT_FAILED


def open_script(name: str) -> Scenario:
    """A script of the package by name, or of a file. Raises InvalidScenario."""
    path = Path(name)
    if name in scenario_names() and not path.exists():
        return load_scenario(name)
    try:
        if path.stat().st_size > MAX_FILE:
            raise InvalidScenario("too large for a script")
        return parse_scenario(path.read_text("utf-8"))
    except UnicodeDecodeError:
        raise InvalidScenario("not UTF-8 text") from None
    except OSError as error:
        known = ", ".join(scenario_names())
        raise InvalidScenario(f"{error.strerror}; scripts that come along are {known}") from None


def _url(options: argparse.Namespace, settings: Settings) -> str:
    if settings.control_url:
        return settings.control_url
    try:
        ports = json.loads((options.data / "ports.json").read_text(encoding="utf-8"))
        return f"http://127.0.0.1:{ports['control']}"
    except (OSError, ValueError, KeyError):
        raise ControlRefused(
            f"no demo is running in {options.data}. Start one (raseed demo), name a simulator "
            "(RASEED_CONTROL_URL), or add --alone"
        ) from None


class ControlPort:
    """The simulator's control port: who its meters are, and what to ask of them."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str) -> Any:
        """Return the JSON answer. Raises ControlRefused."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the JSON answer. Raises ControlRefused."""
        return self._ask("POST", path, body)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        import httpx

        try:
            answer = httpx.request(
                method,
                f"{self._url}{path}",
                json=body,
                headers={"X-Raseed-Control": "1"},
                timeout=CONTROL_TIMEOUT_S,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ControlRefused(
                f"the simulator at {self._url} does not answer ({type(error).__name__})"
            ) from None
        found = answer.json()
        if answer.status_code != httpx.codes.OK:
            raise ControlRefused(str(found.get("error", answer.status_code)))
        return found


def find_face(faces: Sequence[dict[str, Any]], selector: str) -> dict[str, Any]:
    """The meter of a selector, as the simulator's own player finds it. Raises ControlRefused."""
    for face in faces:
        if face["drn"] == selector:
            return face
    commodity, _, rest = selector.partition("/")
    wire, _, number = rest.partition("/")
    found = [
        face
        for face in faces
        if face["usage_point"] is not None
        and face["commodity"] == commodity
        and wire
        and str(face["bus"] or face["link"]).startswith(wire)
    ]
    if not number.isdigit() or int(number) >= len(found):
        raise ControlRefused(f"there is no meter {selector!r} in this town; it has {len(found)} of that kind")
    return found[int(number)]


def play(
    scenario: Scenario,
    town: ControlPort,
    say: Say,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Do each deed at its second and say so; 0 when all were done, 1 when the town refused one.

    Raises ControlRefused before the first deed when the script does not fit this town.
    """
    faces = town.get("/meters")
    numbers = {
        step.arguments["meter"]: find_face(faces, step.arguments["meter"])["drn"]
        for step in scenario.steps
        if "meter" in step.arguments
    }
    nodes = {node["code"] for node in town.get("/network")}
    for step in scenario.steps:
        if "node" in step.arguments and step.arguments["node"] not in nodes:
            raise ControlRefused(f"there is no network node {step.arguments['node']!r} in this town")
    refused = 0
    began = clock()
    for step in scenario.steps:
        sleep(max(0.0, began + step.at_s - clock()))
        path, body = request_of(step, numbers)
        try:
            town.post(path, body)
            note = ""
        except ControlRefused as error:
            refused += 1
            note = f"   REFUSED: {error}"
        number = numbers.get(str(step.arguments.get("meter", "")), "")
        say(f"{clock() - began:8.1f} s  {describe(step)}{f'  [{number}]' if number else ''}{note}")
    done = len(scenario.steps) - refused
    say(f"{done} of {len(scenario.steps)} deeds done")
    return EXIT_FAILED if refused else 0


def request_of(step: Step, numbers: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The control port's path and body for a deed; `numbers` turns selectors into meter numbers."""
    told = dict(step.arguments)
    if step.deed == "node_power":
        return f"/network/{told['node']}/power", {"on": told["on"]}
    if step.deed == "broker_loss":
        return "/broker_loss", told
    number = numbers[told.pop("meter")]
    return f"/meters/{number}/{step.deed}", told


async def _play_alone(scenario: Scenario, settings: Settings, stay_s: float) -> int:
    """Play on a town that lives as long as the script does."""
    from firmware_sim.town import build_town
    from raseed.demo_folder import DemoFolder, choose_ports, keep_test_keys, write_site_file
    from raseed.embedded_broker import EmbeddedBroker
    from raseed.seed import SITE
    from raseed.supervisor import ChildSpec, Supervisor, role_argv

    with tempfile.TemporaryDirectory(prefix="raseed-scenario-") as path:
        folder = DemoFolder(Path(path))
        folder.prepare()
        ports = choose_ports(folder, 0)
        town = build_town(settings.town_seed)
        keep_test_keys(folder, town)
        write_site_file(folder, ports, SITE)
        broker = EmbeddedBroker(folder.broker, ports["mqtt"])
        control = ControlPort(f"http://127.0.0.1:{ports['control']}")
        mqtt_url = settings.mqtt_url or broker.mqtt_url
        env = {
            "MQTT_URL": mqtt_url,
            "RASEED_SITE_FILE": str(folder.site_file),
            "RASEED_STATE_DIR": str(folder.state_of("simulate")),
            "RASEED_VAULT_FILE": str(folder.vault_file),
            "RASEED_CONTROL_PORT": str(ports["control"]),
            "RASEED_TOWN_SEED": str(settings.town_seed),
            "RASEED_LOG_LEVEL": "WARNING",
        }

        async def ready() -> None:
            while True:
                try:
                    await asyncio.to_thread(control.get, "/health")
                except ControlRefused:
                    await asyncio.sleep(0.2)
                else:
                    return

        code = EXIT_FAILED
        async with Supervisor(folder.path) as supervisor:
            if not settings.mqtt_url:
                await supervisor.start(broker.child_spec())
            await supervisor.start(
                ChildSpec(name="simulate", argv=role_argv("simulate"), env=env, ready=ready)
            )
            buses = ", ".join(
                f"{code} at 127.0.0.1:{ports[code]}" for code in sorted(ports) if code.startswith("tcp")
            )
            print(f"a town of {len(town.meters)} meters: MQTT {mqtt_url}; Modbus TCP {buses}")
            code = await asyncio.to_thread(play, scenario, control, print)
            await asyncio.sleep(max(0.0, stay_s))
        return code
