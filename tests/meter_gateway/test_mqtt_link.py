import asyncio

import pytest

from meter_gateway.broker import mqtt_link
from meter_gateway.broker.mqtt_link import (
    Connected,
    Disconnected,
    Incoming,
    InvalidMqttUrl,
    MqttLink,
    parse_url,
)
from tests.meter_gateway.roles import until


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("mqtt://127.0.0.1", ("127.0.0.1", 1883, False, None, None)),
        ("mqtts://b.example", ("b.example", 8883, True, None, None)),
        ("mqtt://me:p%40ss@h:1", ("h", 1, False, "me", "p@ss")),
    ],
)
def test_urls(url, parts):
    got = parse_url(url)
    assert (got.host, got.port, got.tls, got.user, got.password) == parts


@pytest.mark.parametrize("url", ["", "127.0.0.1:1883", "http://x", "mqtt://", "mqtt://h:port"])
def test_wrong_urls(url):
    with pytest.raises(InvalidMqttUrl):
        parse_url(url)


class Ear:
    def __init__(self, broker, name="ear", **options):
        self.link = MqttLink(broker.url, client_id=name, subscriptions=["t/#"], **options)
        self.events = []
        self.auto_ack = True
        self.task = None

    async def __aenter__(self):
        await self.link.start()
        self.task = asyncio.create_task(self.listen())
        await self.connected()
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await self.link.stop()

    async def connected(self):
        async def is_connected():
            return self.link.connected

        await until(is_connected, seconds=10)
        await asyncio.sleep(0.1)

    async def listen(self):
        while True:
            event = await self.link.next_event()
            self.events.append(event)
            if isinstance(event, Incoming) and self.auto_ack:
                self.link.ack(event)

    def payloads(self):
        return [event.payload for event in self.events if isinstance(event, Incoming)]

    async def heard(self, *payloads):
        async def has_heard():
            return self.payloads() == list(payloads)

        await until(has_heard, seconds=10)


async def test_what_was_not_acked_comes_again_and_what_was_does_not(broker):
    async with Ear(broker) as ear:
        ear.link.publish("t/1", b"acked")
        await ear.heard(b"acked")
        ear.auto_ack = False
        ear.link.publish("t/1", b"not acked")
        await ear.heard(b"acked", b"not acked")
    async with Ear(broker) as again:
        await again.heard(b"not acked")
        assert again.events[0] == Connected(1, True, session=1)


async def test_acks_of_an_earlier_connection_are_dropped(broker):
    async with Ear(broker) as ear:
        ear.auto_ack = False
        ear.link.publish("t/1", b"one")
        await ear.heard(b"one")
        old = next(event for event in ear.events if isinstance(event, Incoming))
        ear.link._client.socket().shutdown(2)
        await ear.heard(b"one", b"one")
        ear.link.ack(old)  # would acknowledge whatever has this number now
    async with Ear(broker) as again:
        await again.heard(b"one")


async def test_the_first_connect_is_retried_and_a_lost_one_comes_back(broker):
    broker.kill()
    ear = Ear(broker)
    await ear.link.start()
    ear.task = asyncio.create_task(ear.listen())
    await asyncio.sleep(0.3)
    assert not ear.link.publish("t/1", b"nobody"), "nothing is kept in memory for later"
    broker.start()
    await ear.connected()
    broker.kill()

    async def lost():
        return any(isinstance(event, Disconnected) for event in ear.events)

    await until(lost)
    broker.start()
    await ear.connected()
    ear.link.publish("t/1", b"back")
    await ear.heard(b"back")
    ear.task.cancel()
    await ear.link.stop()


async def test_the_will_carries_the_number_of_its_connection(broker):
    async with Ear(broker) as ear, Ear(broker, "dying", make_will=lambda n: ("t/will", b"%d" % n)) as dying:
        for number in (1, 2):
            assert dying.link.session == number
            dying.link._client.socket().shutdown(2)

            async def is_back(number=number):
                return dying.link.connected and dying.link.session == number + 1

            await until(is_back)
        await ear.heard(b"1", b"2")
        await dying.link.stop(farewell=("t/bye", b"3"))
        await ear.heard(b"1", b"2", b"3")


async def test_a_full_queue_drops_the_connection_not_the_messages(broker, monkeypatch):
    monkeypatch.setattr(mqtt_link, "ROOM_WAIT_S", 0.2)
    async with Ear(broker, queue_size=10) as ear, Ear(broker, "mouth") as mouth:
        ear.task.cancel()
        for number in range(50):
            mouth.link.publish("t/1", b"%d" % number)
        await asyncio.sleep(0.6)
        ear.task = asyncio.create_task(ear.listen())

        async def all_heard():
            return {int(payload) for payload in ear.payloads()} == set(range(50))

        await until(all_heard, seconds=20)


async def test_a_batch_waits_a_little_and_ends_at_its_limit(broker):
    link = MqttLink(broker.url, client_id="batch", subscriptions=["t/#"])
    await link.start()
    assert isinstance((await link.next_batch(10, 0.01))[0], Connected)
    await asyncio.sleep(0.1)
    for number in range(12):
        link.publish("t/1", b"%d" % number)
    await asyncio.sleep(0.3)
    assert [len(await link.next_batch(10, 0.01)) for _ in range(2)] == [10, 2]
    await link.stop()


@pytest.mark.parametrize("bound", [{"queue_size": 3}, {"queue_bytes": 30}])
async def test_the_queue_is_bounded_in_messages_and_in_bytes(broker, monkeypatch, bound):
    monkeypatch.setattr(mqtt_link, "ROOM_WAIT_S", 0.01)
    link = MqttLink(broker.url, client_id="small", subscriptions=[], **bound)
    one_read = [("t/1", b"x" * 10, mid) for mid in range(1, 4)]
    link._take(one_read)
    with pytest.raises(ConnectionError):
        link._take(one_read)
    assert len(await link.next_batch(2, 0.0)) == 2
    link._take(one_read)
    assert [event.mid for event in await link.next_batch(10, 0.0)] == [3, 1, 2, 3]


async def test_what_is_sent_in_one_write_arrives_in_its_order(broker):
    async with Ear(broker) as ear, Ear(broker, "mouth") as mouth:
        mouth.link.send_all([("t/1", b"%d" % number) for number in range(500)], expiry_s=10)
        await ear.heard(*[b"%d" % number for number in range(500)])
        assert {event.qos for event in ear.events if isinstance(event, Incoming)} == {0}


async def test_acks_in_one_write_free_the_broker_of_their_messages(broker):
    async with Ear(broker) as ear:
        ear.auto_ack = False
        for number in range(200):
            ear.link.publish("t/1", b"%d" % number)
        await ear.heard(*[b"%d" % number for number in range(200)])
        ear.link.ack_all([event for event in ear.events if isinstance(event, Incoming)][:150])
        # What comes back of a later word tells that the broker has read the acknowledgements.
        ear.link.publish("t/1", b"last")
        await ear.heard(*[b"%d" % number for number in range(200)], b"last")
    async with Ear(broker) as again:
        await again.heard(*[b"%d" % number for number in range(150, 200)], b"last")


def test_a_connection_that_goes_while_receipts_are_written_ends_nothing():
    class Burst:
        sent = b""

        def send(self, data):
            self.sent += data

    link, burst = MqttLink("mqtt://127.0.0.1:1", client_id="x", subscriptions=[]), Burst()
    link._burst = burst

    def while_it_goes():
        link._burst = None  # as the network thread does
        yield "t/1", b"last"

    link.send_all(while_it_goes(), expiry_s=10)
    assert b"last" in burst.sent
    link.send_all([("t/1", b"later")], expiry_s=10)
    assert b"later" not in burst.sent
