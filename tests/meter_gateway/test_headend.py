import asyncio
import signal
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from meter_gateway import command, command_store
from meter_gateway.broker.mqtt_link import Connected, Incoming, MqttLink
from meter_gateway.message_key import to_millis
from meter_gateway.topics import (
    Birth,
    Command,
    Config,
    Progress,
    Reading,
    Rebirth,
    Receipt,
    Uplink,
    decode_down,
    down_filter,
    encode,
    up_topic,
)
from tests.meter_gateway.places import make_modbus_meter, make_mqtt_meter, make_site
from tests.meter_gateway.roles import Role, until

DRN = "06000000011"


def now_ms():
    return to_millis(datetime.now(UTC))


class Edge:
    """An MQTT meter of the test: says what it is told, keeps what it hears."""

    def __init__(self, url, name=DRN):
        self.name = name
        self.link = MqttLink(url, client_id=f"test-{name}", subscriptions=[down_filter(name)])
        self.heard = []
        self.receipted = set()
        self._task = None

    async def __aenter__(self):
        await self.link.start()
        self._task = asyncio.create_task(self._listen())

        async def is_connected():
            return self.link.connected

        await until(is_connected)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await self.link.stop()

    async def _listen(self):
        while True:
            event = await self.link.next_event()
            if isinstance(event, Connected) or not isinstance(event, Incoming):
                continue
            message = decode_down(event.topic, event.payload)
            self.link.ack(event)
            if isinstance(message, Receipt):
                for first, last in message.ranges:
                    self.receipted |= {(message.boot, seq) for seq in range(first, last + 1)}
            else:
                self.heard.append(message)

    def say(self, seq, *records, boot=1):
        topic = up_topic(self.name, Uplink)
        return self.link.publish(topic, encode(Uplink(self.name, boot, seq, now_ms(), list(records))))

    def birth(self, kind="meter", session=1):
        message = Birth(self.name, kind, 1, session, now_ms())
        self.link.publish(up_topic(self.name, Birth), encode(message))


@pytest.fixture
async def headend(database_url, broker):
    role = Role("headend", database_url=database_url, mqtt_url=broker.url, name="headend-t")
    role.start()
    yield role
    role.kill()


@pytest.fixture
async def meter(conn):
    made = await make_mqtt_meter(conn)
    await conn.commit()
    return made


async def hello(conn, edge):
    """Wait until the headend hears: it may still be starting."""

    async def is_heard():
        edge.birth()
        await asyncio.sleep(0.1)
        return await count(conn, "edge") == 1

    await until(is_heard)


async def count(conn, what="reading"):
    rows = await (await conn.execute(f"SELECT count(*) FROM meter_gateway.{what}")).fetchone()
    await conn.commit()
    return rows[0]


async def test_killed_three_times_mid_stream_nothing_is_lost_and_nothing_doubled(
    conn, broker, meter, headend
):
    total = 1500
    start = now_ms() - total
    async with Edge(broker.url) as edge:

        async def stream():
            """As an edge does: whatever is not receipted is said again."""
            for seq in range(total):
                while not edge.say(seq, Reading(DRN, "credit", start + seq, seq)):
                    await asyncio.sleep(0.05)
                if seq % 5 == 0:
                    await asyncio.sleep(0.01)

        stored = 0

        async def more_arrived():
            return await count(conn) > stored

        await hello(conn, edge)
        talking = asyncio.create_task(stream())
        for _ in range(3):
            await until(more_arrived)
            headend.kill()
            stored = await count(conn)
            headend.start()
        await talking

        async def all_arrived():
            missing = [seq for seq in range(total) if (1, seq) not in edge.receipted]
            for seq in missing[:200]:
                edge.say(seq, Reading(DRN, "credit", start + seq, seq))
            await asyncio.sleep(0.3)
            return not missing

        await until(all_arrived, seconds=30)

        async def the_last_one_is_up():
            edge.say(total, Reading(DRN, "credit", start + total, total))
            await asyncio.sleep(0.1)
            return (1, total) in edge.receipted

        # All may have been stored before it was started: it must be there to be stopped politely.
        await until(the_last_one_is_up, seconds=30)
    assert (await count(conn), await count(conn, "edge_message")) == (total + 1, total + 1)
    assert (await count(conn, "dead_letter"), await count(conn, "reading_conflict")) == (0, 0)
    assert headend.kill(signal.SIGTERM) == 0, "a polite stop is a clean one"


async def test_poison_and_strangers_do_not_stop_the_stream(conn, broker, meter, headend):
    async with Edge(broker.url) as edge:
        await hello(conn, edge)
        for _ in range(3):
            edge.link.publish(f"rsd/1/up/{DRN}/data", b"\x00not json")
        edge.say(1, Reading("06000000099", "credit", now_ms(), 1))
        edge.say(2, Reading(DRN, "credit", now_ms(), 2))

        async def arrived():
            return await count(conn) == 1 and await count(conn, "dead_letter") == 4

        await until(arrived)
        assert headend.pss_kb() < 60 * 1024


async def test_text_that_the_database_cannot_hold_parks_only_itself(conn, broker, meter, headend):
    async with Edge(broker.url) as edge:
        await hello(conn, edge)
        bad = (
            b'{"edge":"06000000011","boot":1,"seq":1,"sent":1,"records":[{"type":"event","meter":"06000000011",'
            b'"code":"x","at":%d,"detail":{"a":"\\u0000"}}]}' % now_ms()
        )
        edge.link.publish(f"rsd/1/up/{DRN}/data", bad)
        edge.say(2, Reading(DRN, "credit", now_ms(), 2))

        async def both_receipted():
            return edge.receipted == {(1, 1), (1, 2)}

        await until(both_receipted)
        assert (await count(conn), await count(conn, "dead_letter")) == (1, 1)


async def test_broker_killed_with_its_queues_then_everything_arrives(conn, broker, meter, headend):
    async with Edge(broker.url) as edge:
        await hello(conn, edge)
        edge.say(1, Reading(DRN, "credit", now_ms(), 1))

        async def first():
            return (1, 1) in edge.receipted

        await until(first)
        broker.kill()
        broker.start()

        async def second():
            edge.say(2, Reading(DRN, "credit", now_ms(), 2))
            await asyncio.sleep(0.2)
            return (1, 2) in edge.receipted

        await until(second, seconds=30)


async def test_database_gone_for_a_while_loses_nothing(
    conn, broker, meter, headend, database_url, server_url
):
    name = database_url.rsplit("/", 1)[1].partition("?")[0]
    async with Edge(broker.url) as edge:
        await hello(conn, edge)
        edge.say(0, Reading(DRN, "credit", now_ms(), 0))

        async def first():
            return (1, 0) in edge.receipted

        await until(first)
        async with await psycopg.AsyncConnection.connect(server_url, autocommit=True) as admin:
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            start = now_ms()
            for seq in range(1, 200):
                edge.say(seq, Reading(DRN, "credit", start + seq, seq))
            await asyncio.sleep(1.5)
            assert edge.receipted == {(1, 0)}, "no receipt without a commit"
            assert headend.process.poll() is None
            await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

        async def all_arrived():
            return len(edge.receipted) == 200

        await until(all_arrived, seconds=40)
    async with await psycopg.AsyncConnection.connect(database_url) as again:
        assert await count(again) == 200


async def order(conn, meter, key="k", kind="read_now", seconds=60):
    now = datetime.now(UTC)
    made = await command.order_command(
        conn,
        meter_id=meter.id,
        kind=kind,
        idempotency_key=key,
        requested_by="test",
        now=now,
        expires_at=now + timedelta(seconds=seconds),
    )
    await conn.commit()
    return made


async def state_of(conn, made):
    found = await command_store.get_command(conn, made.id)
    await conn.commit()
    return found.state


async def test_commands_go_out_in_order_and_settle(conn, broker, meter, headend):
    async with Edge(broker.url) as edge:
        first, second = await order(conn, meter, "a"), await order(conn, meter, "b")

        async def heard_one():
            return len(edge.heard) == 1

        await until(heard_one)
        assert [message.command for message in edge.heard] == [first.id]
        edge.say(
            1,
            Progress(first.id, DRN, "ACCEPTED", now_ms()),
            Progress(first.id, DRN, "VERIFIED", now_ms(), {"credit": 4}),
        )

        async def heard_two():
            return [message.command for message in edge.heard] == [first.id, second.id]

        await until(heard_two)
        assert await state_of(conn, first) == "VERIFIED"
        assert isinstance(edge.heard[0], Command)


async def test_a_command_nobody_takes_expires_and_a_late_answer_still_settles_it(
    conn, broker, meter, headend
):
    made = await order(conn, meter, seconds=1)

    async def expired():
        return await state_of(conn, made) == "EXPIRED"

    await until(expired)
    async with Edge(broker.url) as edge:
        edge.say(1, Progress(made.id, DRN, "VERIFIED", now_ms(), {"credit": 4}))

        async def settled():
            return await state_of(conn, made) == "VERIFIED"

        await until(settled)


async def test_a_gateway_gets_its_devices_at_birth_and_when_they_change(conn, broker, headend):
    _, bus_id = await make_site(conn)
    await make_modbus_meter(conn, bus_id)
    await conn.commit()
    async with Edge(broker.url, "site-1") as edge:
        edge.birth("gateway")

        def configs():
            return [message for message in edge.heard if isinstance(message, Config)]

        async def has_config():
            return bool(configs()) and [device.unit for device in configs()[-1].devices] == [1]

        await until(has_config)
        await make_modbus_meter(conn, bus_id, "06000000045", 2)
        await conn.commit()

        async def has_news():
            return [device.unit for device in configs()[-1].devices] == [1, 2]

        await until(has_news)
        known = len(configs())
        edge.birth("gateway", session=2)

        async def told_again():
            return len(configs()) > known

        await until(told_again)


async def test_after_the_broker_forgot_us_every_edge_is_asked_who_it_is(conn, broker, meter, headend):
    async with Edge(broker.url) as edge:
        await hello(conn, edge)
        headend.kill()
        earlier = edge.link._generation
        broker.kill()
        broker.start()

        async def is_there_before_the_headend():
            return edge.link._generation > earlier

        await until(is_there_before_the_headend, seconds=30)
        await asyncio.sleep(0.2)  # its subscription follows its connection
        headend.start()

        async def asked():
            return any(isinstance(message, Rebirth) for message in edge.heard)

        await until(asked, seconds=30)
