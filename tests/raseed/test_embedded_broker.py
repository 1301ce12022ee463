import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from raseed import embedded_broker, processes
from raseed.embedded_broker import MAX_PAYLOAD_BYTES, BrokerUnavailable, EmbeddedBroker
from raseed.supervisor import Supervisor
from tests.raseed.children import started
from tests.raseed.ports import free_port

PATIENCE_S = 20  # two busy cores: far above what a restart takes (a sixth of a second when idle)


class _Client:
    """A paho client for MQTT 5 whose arrivals can be awaited."""

    def __init__(self, broker: EmbeddedBroker, name: str) -> None:
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._connected = asyncio.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv5)
        self._client.on_message = lambda *a: self._later(self.arrived.put_nowait, a[2].payload)
        self._client.on_connect = lambda *_: self._later(self._connected.set)
        self._client.on_subscribe = lambda *_: self._later(self._subscribed.set)
        self._subscribed = asyncio.Event()
        self._port = broker.port

    def _later(self, call, *args) -> None:
        self._loop.call_soon_threadsafe(call, *args)

    async def __aenter__(self) -> Self:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 600
        self._client.connect("127.0.0.1", self._port, clean_start=False, properties=properties)
        self._client.loop_start()
        await asyncio.wait_for(self._connected.wait(), 5)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    async def subscribe(self, topic: str) -> None:
        self._client.subscribe(topic, qos=1)
        await asyncio.wait_for(self._subscribed.wait(), 5)

    async def publish(self, topic: str, payload: bytes) -> None:
        info = self._client.publish(topic, payload, qos=1)
        await asyncio.to_thread(info.wait_for_publish, 5)
        assert info.is_published()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedBroker, Supervisor]]:
    broker = EmbeddedBroker(tmp_path / "broker", free_port())
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(broker.child_spec())
        yield broker, supervisor


async def test_it_speaks_mqtt_5_and_keeps_the_session_of_a_sleeping_client(running) -> None:
    broker, _ = running
    async with _Client(broker, "sleeper") as sleeper:
        await sleeper.subscribe("meter/+")
    async with _Client(broker, "meter") as meter:
        for number in range(5):
            await meter.publish("meter/1", b"%d" % number)
    async with _Client(broker, "sleeper") as sleeper:
        got = [await asyncio.wait_for(sleeper.arrived.get(), 5) for _ in range(5)]
    assert got == [b"0", b"1", b"2", b"3", b"4"]


async def test_it_carries_payloads_of_a_gateways_configuration(running) -> None:
    broker, _ = running
    payload = os.urandom(MAX_PAYLOAD_BYTES - 100)  # the broker's limit counts the whole packet
    async with _Client(broker, "gateway") as gateway, _Client(broker, "headend") as headend:
        await gateway.subscribe("config")
        await headend.publish("config", payload)
        assert await asyncio.wait_for(gateway.arrived.get(), 5) == payload


async def test_only_this_machine_reaches_it(running) -> None:
    broker, supervisor = running
    pid = supervisor.pid("broker")
    sockets = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                listening.add(words[1])
    assert listening == {f"0100007F:{broker.port:04X}"}
    assert broker.mqtt_url == f"mqtt://127.0.0.1:{broker.port}"


async def test_a_killed_broker_comes_back_on_its_port(running) -> None:
    broker, supervisor = running
    async with _Client(broker, "open"):  # with a session open, whose end the kernel remembers for a while
        before = supervisor.pid("broker")
        async with asyncio.timeout(PATIENCE_S):
            supervisor.kill("broker")
            while supervisor.pid("broker") in {None, before}:
                await asyncio.sleep(0.01)
            await broker.wait_ready()


async def test_it_is_small_and_quiet(running, tmp_path: Path) -> None:
    broker, supervisor = running
    async with _Client(broker, "meter") as meter:
        for _ in range(20):
            await meter.publish("meter/1", b"x")
    pid = supervisor.pid("broker")
    assert processes.pss_bytes([pid]) < 40_000_000
    limits = Path(f"/proc/{pid}/limits").read_text()
    files = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert files.split()[3] == files.split()[4]
    log = (tmp_path / "logs" / "broker.log").read_text()
    assert log.splitlines()[1:] == []


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        broker = EmbeddedBroker(tmp_path, server.getsockname()[1])
        with pytest.raises(BrokerUnavailable, match=f"port {broker.port} is in use"):
            await broker.prepare()


async def test_who_does_not_answer_in_time_is_not_ready(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, free_port())
    with pytest.raises(BrokerUnavailable, match="did not serve"):
        await broker.wait_ready(0.1)


async def test_nothing_is_left_in_the_folder_for_temporary_files(tmp_path: Path, monkeypatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    broker = EmbeddedBroker(tmp_path / "broker", free_port())
    async with Supervisor(tmp_path / "data") as supervisor:
        await supervisor.start(broker.child_spec())
    assert list(temporary.iterdir()) == []
    assert [path.name for path in broker.folder.iterdir()] == ["broker.toml"]


def test_it_ends_at_ctrl_c_also_by_hand(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, free_port())
    asyncio.run(broker.prepare())
    with started(broker.argv()) as child:
        asyncio.run(broker.wait_ready())
        child.send_signal(signal.SIGINT)
        assert child.wait(5) == -signal.SIGINT


def test_without_the_wheel_it_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(embedded_broker.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BrokerUnavailable, match="MQTT_URL"):
        embedded_broker.find_native_module()
