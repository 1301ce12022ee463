"""Traps of brokers and of paho, on a real mosquitto: its default queue, a stolen client id, many descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from firmware_sim.mqtt_connection import Endpoint, MqttConnection
from meter_gateway.broker import mqtt_link
from meter_gateway.broker.mqtt_link import Incoming, MqttLink
from meter_gateway.stop_signal import end_tasks
from meter_gateway.topics import SHARED_UPLINKS, Reading
from tests.meter_gateway.places import make_mqtt_meter
from tests.meter_gateway.roles import Role, until
from tests.meter_gateway.test_headend import DRN, Edge, count, hello, now_ms

SELECT_LIMIT = 1024


@pytest.fixture
async def headend(conn, database_url, broker):
    await make_mqtt_meter(conn)
    await conn.commit()
    role = Role("headend", database_url=database_url, mqtt_url=broker.url, name="headend-t")
    role.start()
    yield role
    role.kill()


async def test_five_thousand_queued_while_ingest_is_off_all_arrive_though_the_broker_drops_most(
    conn, broker, headend
):
    total = 5_000
    broker.kill()
    broker.config.write_text(f"listener {broker.port} 127.0.0.1\nallow_anonymous true\n")
    broker.start()
    async with Edge(broker.url) as edge:
        await hello(conn, edge)
        assert headend.kill(signal.SIGTERM) == 0
        start = now_ms() - total
        for seq in range(total):
            while not edge.say(seq, Reading(DRN, "credit", start + seq, seq)):
                await asyncio.sleep(0.02)
        await asyncio.sleep(1.0)
        headend.start()

        async def has_begun():
            return await count(conn) > 0

        await until(has_begun, seconds=30)
        await asyncio.sleep(1.5)
        assert await count(conn) < total, "the broker acknowledged them all and kept a thousand"

        async def all_arrived():
            missing = [seq for seq in range(total) if (1, seq) not in edge.receipted]
            for seq in missing[:500]:
                edge.say(seq, Reading(DRN, "credit", start + seq, seq))
            await asyncio.sleep(0.5)
            return not missing

        await until(all_arrived, seconds=60)
    assert (await count(conn), await count(conn, "edge_message")) == (total, total)


async def test_two_edges_under_one_client_id_take_turns_and_lose_nothing(conn, broker, headend):
    async with Edge(broker.url) as first:
        await hello(conn, first)
        began = time.monotonic()
        async with Edge(broker.url) as second:
            said = {(boot, seq) for boot in (1, 2) for seq in range(20)}
            start = now_ms() - 100

            async def all_arrived():
                heard = first.receipted | second.receipted
                for boot, edge in ((1, first), (2, second)):
                    for seq in range(20):
                        if (boot, seq) not in heard and edge.link.connected:
                            edge.say(seq, Reading(DRN, "credit", start + 20 * boot + seq, seq), boot=boot)
                await asyncio.sleep(0.1)
                return heard >= said

            await until(all_arrived, seconds=40)
            await asyncio.sleep(2.0)
            took_s = time.monotonic() - began
            sessions = first.link.session + second.link.session
    assert sessions >= 4, "the broker gave the name to one at a time"
    assert sessions <= 4 + 2 * took_s / (mqtt_link.RECONNECT_MIN_S * 0.8), "and they did not storm it"
    assert await count(conn) == 40


class Speaker:
    def __init__(self):
        self.said = []

    def connected(self):
        self.said.append("connected")

    def disconnected(self):
        self.said.append("disconnected")

    def heard(self, topic, payload):
        self.said.append(payload)


async def test_a_meter_speaks_on_a_descriptor_that_select_cannot_take(broker):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SELECT_LIMIT + 200
    if hard < wanted:
        pytest.skip("this system allows no more than 1,224 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    held = []
    speaker = Speaker()
    connection = MqttConnection(Endpoint.parse(broker.url), "m-high", ("t/will", b""), speaker)
    try:
        while not held or held[-1] < SELECT_LIMIT:
            held.append(os.open(os.devnull, os.O_RDONLY))
        with ThreadPoolExecutor(1) as threads:
            await connection.open(threads)
            connection.subscribe("t/1")
            assert connection._client.socket().fileno() > SELECT_LIMIT

            async def is_connected():
                return "connected" in speaker.said

            await until(is_connected)
            connection.publish("t/1", b"hello")

            async def heard():
                return b"hello" in speaker.said

            await until(heard)
    finally:
        connection.close()
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_two_ingests_share_the_load_and_each_message_goes_to_one(broker):
    total = 400
    links = [
        MqttLink(broker.url, client_id=f"raseed-headend-{n}", subscriptions=[SHARED_UPLINKS]) for n in (1, 2)
    ]
    edge = MqttLink(broker.url, client_id="edge", subscriptions=[])
    shares = [[], []]

    async def listen(link, share):
        while True:
            event = await link.next_event()
            if isinstance(event, Incoming):
                share.append(event.payload)
                link.ack(event)

    for link in (*links, edge):
        await link.start()
    tasks = [asyncio.create_task(listen(*pair)) for pair in zip(links, shares, strict=True)]

    async def all_connected():
        return all(link.connected for link in (*links, edge))

    await until(all_connected)
    await asyncio.sleep(0.3)  # for the subscriptions
    for number in range(total):
        assert edge.publish(f"rsd/1/up/{DRN}/data", b"%d" % number)

    async def all_heard():
        return sum(map(len, shares)) >= total

    await until(all_heard)
    await end_tasks(tasks)
    for link in (*links, edge):
        await link.stop()
    assert sorted(int(payload) for share in shares for payload in share) == list(range(total))
    assert all(0.35 * total <= len(share) <= 0.65 * total for share in shares)
