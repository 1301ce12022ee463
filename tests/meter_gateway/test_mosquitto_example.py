"""deploy/mosquitto/mosquitto.conf: a broker starts with it, and what it says is what it does."""

import asyncio
import re
import shutil
import signal
import subprocess

import pytest

from meter_gateway.broker.mqtt_link import QUEUE_BYTES, Incoming, MqttLink
from meter_gateway.headend import RECEIVE_MAXIMUM
from meter_gateway.ingest import BATCH, LANES
from meter_gateway.topics import MAX_MESSAGE_BYTES
from tests.benchmarks import ingest_bench
from tests.meter_gateway.roles import until
from tests.meter_gateway.secure_broker import EXAMPLE, TOP, SecureBroker


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    made = SecureBroker(tmp_path_factory.mktemp("broker"), ["site-1"])
    made.start()
    yield made
    made.kill()


async def connected(link):
    await link.start()

    async def is_connected():
        return link.connected

    await until(is_connected, seconds=5)
    await asyncio.sleep(0.1)


def test_every_limit_is_set_on_purpose_and_none_is_zero():
    found = dict(re.findall(r"^(max_\w+|message_size_limit) (\d+)$", EXAMPLE.read_text(), re.MULTILINE))
    assert found.keys() >= {
        "max_queued_messages",
        "max_queued_bytes",
        "max_inflight_messages",
        "message_size_limit",
        "max_packet_size",
        "max_connections",
    }
    assert all(int(value) > 0 for value in found.values())
    assert int(found["message_size_limit"]) > MAX_MESSAGE_BYTES


def test_the_file_its_page_and_the_code_say_the_same_numbers():
    lines = EXAMPLE.read_text().splitlines()
    page = (TOP / "docs/ingest.md").read_text()
    told = page.split("## What mosquitto needs")[1].split("```")[1].split("\n")[1:-1]
    assert told
    assert set(told) <= set(lines)
    assert f"max_inflight_messages {RECEIVE_MAXIMUM}" in told
    assert f"holds at most {BATCH:,} messages and {QUEUE_BYTES >> 20} MiB" in page
    assert f"At most {BATCH:,} a batch" in page
    assert f"{BATCH:,} a batch, so {BATCH // LANES:,} a lane" in page
    assert f"max_inflight_messages {RECEIVE_MAXIMUM}\n" in ingest_bench.CONF


def test_nobody_speaks_without_a_name_or_without_tls(broker):
    ca = str(broker.folder / "ca.crt")
    for argv in (
        ["-p", str(broker.password_port), "--cafile", ca],
        ["-p", str(broker.port), "--cafile", ca],
        ["-p", str(broker.port)],
        ["-p", str(broker.password_port)],
    ):
        done = subprocess.run(
            [
                "mosquitto_pub",
                "-V",
                "5",
                "-q",
                "1",
                "-h",
                "localhost",
                "-t",
                "rsd/1/up/site-1/data",
                "-m",
                "x",
                *argv,
            ],
            capture_output=True,
            timeout=10,
            check=False,
        )
        assert done.returncode != 0, argv
    assert not (broker.folder / "passwords").read_bytes()


async def test_a_message_of_the_contract_passes_and_a_larger_one_does_not(broker):
    platform = MqttLink(
        broker.url, client_id="h", subscriptions=["rsd/1/up/+/+"], login=broker.login("headend-1")
    )
    edge = MqttLink(broker.url, client_id="e", subscriptions=[], login=broker.login("site-1"))
    await connected(platform)
    await connected(edge)
    try:
        assert edge.publish("rsd/1/up/site-1/data", b"x" * (MAX_MESSAGE_BYTES + 20_000))
        assert edge.publish("rsd/1/up/site-1/data", b"y" * MAX_MESSAGE_BYTES)
        while not isinstance(event := await asyncio.wait_for(platform.next_event(), 10), Incoming):
            pass
        assert event.payload == b"y" * MAX_MESSAGE_BYTES
        platform.ack(event)
    finally:
        await platform.stop()
        await edge.stop()


async def test_a_queue_outlives_a_restart_in_order(broker):
    login = broker.login("site-1")
    asleep = MqttLink(broker.url, client_id="e", subscriptions=["rsd/1/down/site-1/+"], login=login)
    await connected(asleep)
    await asleep.stop()
    headend = MqttLink(broker.url, client_id="h", subscriptions=[], login=broker.login("headend-1"))
    await connected(headend)
    assert headend.publish("rsd/1/down/site-1/command", b"while it slept")
    await asyncio.sleep(0.3)
    await headend.stop()
    broker.process.send_signal(signal.SIGTERM)
    assert broker.process.wait(10) == 0
    broker.start()
    awake = MqttLink(broker.url, client_id="e", subscriptions=[], login=login)
    await connected(awake)
    try:
        while not isinstance(event := await asyncio.wait_for(awake.next_event(), 5), Incoming):
            pass
        assert event.payload == b"while it slept"
    finally:
        await awake.stop()
