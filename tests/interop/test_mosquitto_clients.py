"""A simulated MQTT meter as a shell user meets it: mosquitto_sub and mosquitto_pub, nothing else."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from firmware_sim.device import Device
from firmware_sim.fleet_store import FleetStore
from firmware_sim.mqtt_connection import Endpoint
from firmware_sim.mqtt_device import MqttMeter
from tests.firmware_sim.conftest import Broker
from tests.firmware_sim.parts import TOWN, find, fresh, token

METER = find()
UP, DOWN = f"rsd/1/up/{METER.drn}", f"rsd/1/down/{METER.drn}"


@pytest.fixture(autouse=True)
def quick_radio(monkeypatch):
    monkeypatch.setattr("firmware_sim.mqtt_device.FIRST_TELEMETRY_MS", 1)


@pytest.fixture
def broker(tmp_path):
    for program in ("mosquitto", "mosquitto_pub", "mosquitto_sub"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    running = Broker(tmp_path)
    yield running
    running.kill()


class Shell:
    """`mosquitto_sub -t 'rsd/1/#' -v` in one window; `mosquitto_pub` in another."""

    def __init__(self, port):
        self._at = ("-h", "127.0.0.1", "-p", str(port), "-V", "mqttv5", "-q", "1")
        self.heard = []

    async def __aenter__(self):
        self._sub = await asyncio.create_subprocess_exec(
            "mosquitto_sub", *self._at, "-t", "rsd/1/#", "-v", stdout=asyncio.subprocess.PIPE
        )
        self._listening = asyncio.create_task(self._listen())
        while not self.heard:  # its first word is heard: it is subscribed
            await self.publish("rsd/1/down/shell/rebirth", {"reason": "is anybody there?"})
            await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_):
        self._sub.terminate()
        await self._sub.wait()
        self._listening.cancel()

    async def _listen(self):
        while line := await self._sub.stdout.readline():
            topic, _, payload = line.decode().partition(" ")
            self.heard.append((topic, json.loads(payload)))

    async def publish(self, topic, message):
        pub = await asyncio.create_subprocess_exec(
            "mosquitto_pub", *self._at, "-t", topic, "-m", json.dumps(message)
        )
        assert await asyncio.wait_for(pub.wait(), 10) == 0

    def of(self, topic):
        return [message for at, message in list(self.heard) if at == topic]

    def records(self, kind):
        return [one for uplink in self.of(f"{UP}/data") for one in uplink["records"] if one["type"] == kind]

    async def until(self, seen):
        async with asyncio.timeout(15):
            while not (found := seen()):
                await asyncio.sleep(0.02)
        return found

    async def command(self, number, kind, argument=""):
        now = time.time_ns() // 1_000_000
        order = {
            "command": number,
            "meter": METER.drn,
            "kind": kind,
            "argument": argument,
            "created": now,
            "expires": now + 60_000,
        }
        await self.publish(f"{DOWN}/command", order)
        return await self.until(
            lambda: [
                one
                for one in self.records("progress")
                if one["command"] == number and one["state"] in ("VERIFIED", "REJECTED", "EXPIRED")
            ]
        )


@asynccontextmanager
async def running_meter(store, url):
    with ThreadPoolExecutor(1) as threads:
        device = Device(TOWN, METER, fresh(METER, credit=900), store)
        device.start()
        radio = MqttMeter(device, store, Endpoint.parse(url), threads, random.Random(1))
        radio.start()

        async def tick():
            while True:
                radio.measure()
                radio.tick()
                await asyncio.sleep(0.05)

        ticking = asyncio.create_task(tick())
        try:
            yield device
        finally:
            ticking.cancel()
            radio.stop()
            await asyncio.sleep(0.05)


@pytest.fixture
async def street(tmp_path, broker):
    store = FleetStore(tmp_path / "state")
    async with Shell(broker.port) as shell, running_meter(store, broker.url) as device:
        yield shell, device, store
    store.close()


async def test_births_and_readings_are_seen_and_a_receipt_lets_go(street):
    shell, device, store = street
    birth = (await shell.until(lambda: shell.of(f"{UP}/birth")))[0]
    assert (birth["edge"], birth["kind"], birth["meters"][0]["drn"]) == (METER.drn, "meter", METER.drn)
    uplink = (await shell.until(lambda: shell.of(f"{UP}/data")))[0]
    values = {one["channel"]: one["value"] for one in uplink["records"] if one["type"] == "reading"}
    assert values == {
        "counter": device.state.counter,
        "credit": 900,
        "load": device.state.load,
        "relay": device.state.relay,
    }
    assert uplink["boot"] == birth["boot"] == device.state.boot
    assert store.list_uplinks(METER.drn), "the broker has it, the platform has not said so"
    last = uplink["seq"] + 100
    await shell.publish(f"{DOWN}/receipt", {"boot": uplink["boot"], "ranges": [[1, last]]})
    await shell.until(lambda: not store.list_uplinks(METER.drn))


async def test_a_token_and_a_switch_by_hand(street):
    shell, device, _ = street
    await shell.until(lambda: shell.of(f"{UP}/birth"))
    digits = token(METER)
    (accepted,) = await shell.command(5, "token", digits)
    assert (accepted["state"], accepted["detail"]["result"]) == ("VERIFIED", "ACCEPT")
    assert accepted["detail"]["credit"] == device.state.credit == 900 + 12_500
    states = [one["state"] for one in shell.records("progress") if one["command"] == 5]
    assert states == ["ACCEPTED", "WRITTEN", "VERIFIED"]
    assert digits not in json.dumps(shell.of(f"{UP}/data")), "a token is not said again on its way up"
    (opened,) = await shell.command(6, "relay_open")
    assert (opened["state"], opened["detail"]["relay"]) == ("VERIFIED", 0)
    (asked,) = await shell.command(7, "read_now")
    assert asked["detail"]["registers"]["serial"] == METER.drn
    before = len(shell.records("progress"))
    await shell.command(5, "token", digits)
    await shell.until(lambda: len(shell.records("progress")) > before)
    assert device.state.token_count == 1, "the same command again fetches its answer"


async def test_what_breaks_the_contract_or_is_too_late_does_nothing(street):
    shell, device, _ = street
    await shell.until(lambda: shell.of(f"{UP}/birth"))
    for topic, message in (
        ("command", {"command": "five"}),
        ("command", [1, 2]),
        ("open-the-door", {}),
        ("receipt", {"boot": -1, "ranges": []}),
    ):
        await shell.publish(f"{DOWN}/{topic}", message)
    late = {
        "command": 8,
        "meter": METER.drn,
        "kind": "relay_open",
        "argument": "",
        "created": 1,
        "expires": 2,
    }
    await shell.publish(f"{DOWN}/command", late)
    progress = await shell.until(lambda: shell.records("progress"))
    assert [(one["command"], one["state"]) for one in progress] == [(8, "EXPIRED")]
    births = len(shell.of(f"{UP}/birth"))
    await shell.publish(f"{DOWN}/rebirth", {"reason": "by hand"})
    await shell.until(lambda: len(shell.of(f"{UP}/birth")) > births)
    assert device.state.commands_run == ()
