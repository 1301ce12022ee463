"""The whole process on real wires: control port, kills, cuts, and a state that survives them."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from firmware_sim.fleet_store import FleetStore
from meter_gateway.topics import Birth, Death, Event
from tests.firmware_sim.buses import read_result, write_token
from tests.firmware_sim.conftest import free_port
from tests.firmware_sim.parts import TOWN, VENDING_KEYS, find, key_of, token
from token_engine.software_vault import write_key_file

TOP = Path(__file__).resolve().parents[2]
RUN = (
    "import asyncio, sys; from firmware_sim import fleet; a = sys.argv;"
    "asyncio.run(fleet.run(mqtt_url=a[1], site_file=a[2], state_dir=a[3], control_port=int(a[4]),"
    " speed=float(a[5]), town_seed=int(a[6]), vault_file=a[7]))"
)


class Process:
    """The simulator as a child process."""

    def __init__(self, folder, mqtt_url):
        self.folder = folder
        self.state = folder / "fleet"
        self.mqtt_url = mqtt_url
        self.port = free_port()
        self.tcp = {code: free_port() for code in ("tcp-1", "tcp-2", "tcp-3")}
        self.child = None
        self.seed = 1
        write_key_file(folder / "keys.json", VENDING_KEYS)
        lines = ['site = "site-1"']
        lines += [
            f'[[bus]]\ncode = "{code}"\nframer = "tcp"\naddress = "127.0.0.1:{port}"'
            for code, port in self.tcp.items()
        ]
        lines += [
            f'[[bus]]\ncode = "{code}"\nframer = "rtu"\ntty = "{self.state}/{code}"\nbaud = 115200'
            for code in ("rtu-1", "rtu-2")
        ]
        (folder / "site.toml").write_text("\n".join(lines))

    def start(self, speed=1):
        arguments = (
            self.mqtt_url, self.folder / "site.toml", self.state, self.port, speed, self.seed,
            self.folder / "keys.json",
        )  # fmt: skip
        self.child = subprocess.Popen(
            [sys.executable, "-c", RUN, *map(str, arguments)],
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            stderr=subprocess.PIPE,
        )
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:  # the last to open
                    return
            if self.child.poll() is not None:
                return
            time.sleep(0.02)
        raise RuntimeError("the simulator does not start")

    def end(self, how=signal.SIGTERM):
        self.child.send_signal(how)
        self.child.wait(10)
        return self.child.returncode

    def get(self, path):
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5).json()

    def post(self, path, **body):
        return httpx.post(
            f"http://127.0.0.1:{self.port}{path}", json=body, headers={"X-Raseed-Control": "1"}, timeout=5
        )


@pytest.fixture
def process(tmp_path, broker):
    made = Process(tmp_path, broker.url)
    made.start()
    yield made
    if made.child.poll() is None:
        made.end(signal.SIGKILL)
    made.child.stderr.close()


async def test_all_meters_are_there_and_every_radio_is_born(process, ear):
    await ear.until(lambda: process.get("/health")["online"] == 25)
    assert process.get("/health")["meters"] == 65  # with the two that are in nobody's books
    faces = process.get("/meters")
    assert {face["drn"] for face in faces} == {meter.drn for meter in (*TOWN.meters, *TOWN.strangers)}
    assert {"display", "credit", "relay", "lamp", "network_node", "powered", "locked_until_ms"} <= set(
        faces[0]
    )
    assert key_of(find()).reveal().hex() not in str(faces)


def test_a_token_typed_before_a_kill_is_there_after_it(process):
    meter = find(link="keypad")
    digits = token(meter)
    answer = process.post(f"/meters/{meter.drn}/keypad", digits=digits).json()
    assert (answer["result"], answer["code"]) == ("ACCEPT", 1)
    process.end(signal.SIGKILL)
    (process.folder / "keys.json").unlink()  # the vending keys are read at the first start only
    process.start()
    shelf = process.get(f"/meters/{meter.drn}/store")
    assert shelf["tid_store"] == [answer["tid"]]
    assert [(one["tid"], one["amount_tenths"], one["carrier"]) for one in shelf["accepted"]] == [
        (answer["tid"], 125, "keypad")
    ]
    assert shelf["credit"] > answer["credit"] - 2_000
    assert shelf["boot"] == 3
    again = process.post(f"/meters/{meter.drn}/keypad", digits=digits).json()
    assert (again["result"], again["code"]) == ("USED_ERROR", 10)


async def test_a_token_over_each_wire_and_a_kill_in_between(process):
    async def through(meter, client, submit_id):
        await client.connect()
        await write_token(client, meter.unit, token(meter), submit_id)
        result = await read_result(client, meter.unit)
        client.close()
        return result["token_result"]

    tcp = next(m for m in TOWN.installed if m.bus == "tcp-1" and m.commodity == "electricity")
    rtu = next(m for m in TOWN.installed if m.bus == "rtu-1" and m.commodity == "electricity")

    def tcp_line():
        return AsyncModbusTcpClient("127.0.0.1", port=process.tcp["tcp-1"], retries=0, timeout=2)

    def rtu_line():
        return AsyncModbusSerialClient(str(process.state / "rtu-1"), baudrate=115_200, retries=0, timeout=2)

    assert await through(tcp, tcp_line(), 7) == "ACCEPT"
    assert await through(rtu, rtu_line(), 7) == "ACCEPT"
    process.end(signal.SIGKILL)
    process.start()
    assert await through(tcp, tcp_line(), 7) == "ACCEPT"  # the stored answer of id 7
    assert await through(rtu, rtu_line(), 8) == "USED_ERROR"
    for meter in (tcp, rtu):
        assert len(process.get(f"/meters/{meter.drn}/store")["accepted"]) == 1


def test_wrong_entries_lock_the_keypad(process):
    path = f"/meters/{find().drn}"
    for n in range(4):
        process.post(f"{path}/keypad", digits=f"{n + 1:020d}")
    answer = process.post(f"{path}/keypad", digits=token(find())).json()
    assert (answer["result"], answer["code"]) == ("LOCKED_OUT", 15)
    assert process.get(path)["locked_until_ms"] > time.time() * 1000


async def test_a_cut_node_takes_its_meters_and_gives_them_back(process, ear):
    await ear.until(lambda: process.get("/health")["online"] == 25)
    under = TOWN.meters_under("TX-1")
    radios = {m.drn for m in under if m.link == "mqtt"}
    wired = next(m for m in under if m.bus and m.bus.startswith("tcp"))
    client = AsyncModbusTcpClient("127.0.0.1", port=process.tcp[wired.bus], retries=0, timeout=2)
    await client.connect()
    assert process.post("/network/TX-1/power", on=False).json()["meters"] == len(under)
    answer = await client.read_holding_registers(0x1000, count=1, device_id=wired.unit)
    assert answer.exception_code == 0x0B
    await ear.until(lambda: {e.meter for e in ear.records(Event) if e.code == "3.26.0.85"} == radios)
    await ear.until(lambda: {death.edge for death in ear.of(Death)} == radios)
    assert process.post(f"/meters/{wired.drn}/keypad", digits="1" * 20).status_code == 409
    powered = {node["code"]: node["powered"] for node in process.get("/network")}
    assert (powered["TX-1"], powered["TX-2"], powered["FD-1"]) == (False, True, True)
    process.end(signal.SIGKILL)
    process.start()
    assert not process.get(f"/meters/{wired.drn}")["powered"]  # a dark street stays dark
    ear.heard.clear()
    process.post("/network/SS-1/power", on=True)
    await ear.until(lambda: {e.meter for e in ear.records(Event) if e.code == "3.26.0.216"} == radios)
    await ear.until(lambda: radios <= {birth.edge for birth in ear.of(Birth)})
    assert process.get(f"/meters/{wired.drn}")["powered"]
    client.close()


def test_a_dry_water_zone_stops_the_flow_and_not_the_meter(process):
    zone = TOWN.node_of(find("water", "keypad")).code
    process.post(f"/network/{zone}/power", on=False)
    face = process.get(f"/meters/{find('water', 'keypad').drn}")
    assert (face["powered"], face["supply"], face["load"]) == (True, False, 0)
    assert face["display"][-1] == "NO FLOW"


def test_burn_relay_and_lamp(process):
    path = f"/meters/{find(link='keypad').drn}"
    face = process.post(f"{path}/burn", units=100_000).json()
    assert (face["credit"], face["relay"], face["relay_reason"], face["lamp"]) == (0, 0, "no_credit", "red")
    process.post(f"{path}/keypad", digits=token(find(link="keypad")))
    face = process.get(path)
    assert (face["relay"], face["last_token_result"]) == (1, "ACCEPT")


def test_a_spare_can_be_installed_once(process):
    spare, other = TOWN.spares[0], TOWN.spares[1]
    point = TOWN.free_usage_points[0]
    assert process.post(f"/meters/{spare.drn}/install", usage_point=point.code).status_code == 200
    assert process.get(f"/meters/{spare.drn}")["network_node"] == point.node_code
    for drn, place in (
        (other.drn, point.code),
        (spare.drn, TOWN.free_usage_points[1].code),
        (other.drn, "UP-0"),
    ):
        assert process.post(f"/meters/{drn}/install", usage_point=place).status_code == 400
    process.end(signal.SIGKILL)
    process.start()
    assert process.get(f"/meters/{spare.drn}")["usage_point"] == point.code


def test_a_stop_is_clean(process):
    assert process.end() == 0
    assert not (process.state / "rtu-1").is_symlink()
    store = FleetStore(process.state)
    assert all(store.find_meter(meter.drn) for meter in TOWN.meters)
    store.close()


def test_the_folder_of_another_town_is_refused(process):
    process.end()
    process.seed = 2
    process.start()
    assert process.child.wait(10) != 0
    assert b"OtherTown" in process.child.stderr.read()


async def test_speed_multiplies_demand(process):
    meter = max(TOWN.installed, key=lambda m: (m.commodity == "electricity") * m.initial_credit)
    process.end()
    process.start(speed=3600)
    before = process.get(f"/meters/{meter.drn}")["counter"]
    await asyncio.sleep(2.2)
    assert process.get(f"/meters/{meter.drn}")["counter"] - before > 100


def test_scenarios_are_listed_and_played_one_at_a_time(process):
    assert "summer-storm" in process.get("/scenarios")["scenarios"]
    assert process.post("/scenarios/none").status_code == 404
    assert process.post("/scenarios/summer-storm").json()["playing"] == "summer-storm"
    assert process.post("/scenarios/bad-line").status_code == 409
    time.sleep(0.3)
    assert not next(node for node in process.get("/network") if node["code"] == "TX-4")["powered"]
    assert process.end() == 0
