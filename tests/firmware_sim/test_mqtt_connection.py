"""The broker's address is read, and a refused connection is told to the speaker."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from firmware_sim.mqtt_connection import Endpoint, MqttConnection
from tests.firmware_sim.conftest import free_port


class Speaker:
    def __init__(self):
        self.told = []

    def connected(self):
        self.told.append("connected")

    def disconnected(self):
        self.told.append("disconnected")

    def heard(self, topic, payload):
        self.told.append((topic, payload))


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("mqtt://127.0.0.1:1884", Endpoint("127.0.0.1", 1884, False, None, None)),
        ("mqtt://h", Endpoint("h", 1883, False, None, None)),
        ("mqtts://a:p%40ss@h", Endpoint("h", 8883, True, "a", "p@ss")),
    ],
)
def test_addresses(url, endpoint):
    assert Endpoint.parse(url) == endpoint


@pytest.mark.parametrize("url", ["http://h", "mqtt://", "h:1883"])
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError, match="mqtt://"):
        Endpoint.parse(url)


def test_an_endpoint_never_shows_its_password():
    assert "p@ss" not in repr(Endpoint.parse("mqtts://a:p%40ss@h"))


async def test_nobody_there_is_told_once():
    speaker = Speaker()
    connection = MqttConnection(
        Endpoint("127.0.0.1", free_port(), False, None, None), "m", ("w", b""), speaker
    )
    with ThreadPoolExecutor(1) as threads:
        await connection.open(threads)
    connection.tend()
    connection.close()
    assert speaker.told == ["disconnected"]


async def test_a_session_hears_and_ends_when_the_broker_dies(broker):
    speaker = Speaker()
    connection = MqttConnection(Endpoint.parse(broker.url), "m", ("will", b"gone"), speaker)

    async def until(wanted):
        for _ in range(500):
            if wanted in speaker.told:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(speaker.told)

    with ThreadPoolExecutor(1) as threads:
        await connection.open(threads)
        await until("connected")
        connection.subscribe("x")
        connection.publish("x", b"hello")
        await until(("x", b"hello"))
        broker.kill()
        await until("disconnected")
