"""A private broker and a listening headend for the radios of this room."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
import threading
import time

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from firmware_sim.fleet_store import FleetStore
from meter_gateway import topics


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    def __init__(self, folder):
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.process = None
        self.start()

    @property
    def url(self):
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(["mosquitto", "-c", self.config], stderr=subprocess.DEVNULL)
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("mosquitto does not answer")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Ear:
    """Hears all uplinks and can answer like a headend."""

    def __init__(self, port):
        self.heard = []
        self.receipts = True
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("rsd/1/up/#", 1)
        self._client.on_message = self._take
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert ready.wait(10)

    def _take(self, client, _data, message):
        try:
            up = topics.decode_up(message.topic, message.payload)
        except topics.PoisonMessage as poison:
            up = poison
        self.heard.append(up)
        if self.receipts and isinstance(up, topics.Uplink):
            self.send(up.edge, topics.Receipt(up.boot, [(up.seq, up.seq)]))

    def send(self, edge, message):
        self._client.publish(topics.down_topic(edge, type(message)), topics.encode(message), 1)

    def of(self, kind, edge=None):
        return [up for up in list(self.heard) if isinstance(up, kind) and edge in (None, up.edge)]

    def records(self, kind, edge=None):
        return [one for up in self.of(topics.Uplink, edge) for one in up.records if isinstance(one, kind)]

    async def until(self, seen, timeout_s=20):
        """Wait until `seen()` gives something, and return it."""
        for _ in range(int(timeout_s / 0.02)):
            found = seen()
            if found:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"not heard in {timeout_s} s: {self.heard[-5:]}")

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path):
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    running = Broker(tmp_path)
    yield running
    running.kill()


@pytest.fixture
def ear(broker):
    listening = Ear(broker.port)
    yield listening
    listening.close()


@pytest.fixture
def store(tmp_path):
    opened = FleetStore(tmp_path / "state")
    yield opened
    opened.close()
