"""Rules for the broker: as text, and on a real mosquitto with devices that try what they must not."""

import asyncio
import shutil
from contextlib import AsyncExitStack

import pytest

from meter_gateway.broker.broker_acl import InvalidAcl, make_acl
from meter_gateway.broker.broker_login import BrokerLogin
from meter_gateway.broker.mqtt_link import Incoming, MqttLink
from meter_gateway.topics import shared_uplinks
from tests.meter_gateway.roles import until
from tests.meter_gateway.secure_broker import SecureBroker

METER = "06000000011"


def test_each_edge_has_its_own_topics_and_headends_have_all():
    text = make_acl(["site-2", "site-1", "site-1"], ["headend-1"])
    blocks = dict(block.split("\n", 1) for block in text.split("\n\n") if block.startswith("user "))
    assert list(blocks) == ["user headend-1", "user site-1", "user site-2"]
    assert blocks["user site-1"].split("\n") == [
        "topic read rsd/1/down/site-1/+",
        "topic write rsd/1/up/site-1/+",
    ]
    assert "topic read rsd/1/up/+/data" in blocks["user headend-1"]
    assert "topic write rsd/1/down/+/command" in blocks["user headend-1"]
    assert "topic write rsd/1/up" not in blocks["user headend-1"]


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "site 1", "site-1\nuser x", "é", "x" * 65])
def test_a_name_that_would_be_a_rule_for_others_is_refused(name):
    with pytest.raises(InvalidAcl):
        make_acl([name], ["headend-1"])
    with pytest.raises(InvalidAcl):
        make_acl(["site-1"], [name])


def test_a_headend_that_is_called_like_an_edge_is_refused():
    with pytest.raises(InvalidAcl, match="rename the headend"):
        make_acl(["site-1"], ["site-1"])
    with pytest.raises(InvalidAcl, match="at least one"):
        make_acl(["site-1"], [])


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    made = SecureBroker(
        tmp_path_factory.mktemp("broker"), ["site-1", "site-2", METER], ["headend-1", "headend-2"]
    )
    made.set_password(METER, "a secret")
    made.write("password", b"a secret\n")
    made.start()
    yield made
    made.kill()


class Client:
    """A link that notes what it hears."""

    def __init__(self, broker, name, *subscriptions):
        self.name, self.heard = name, []
        url, login = broker.url, None
        if name == METER:
            url = f"mqtts://localhost:{broker.password_port}"
            files = str(broker.folder / "password"), str(broker.folder / "ca.crt")
            login = BrokerLogin(user=METER, password_file=files[0], ca_file=files[1])
        self.link = MqttLink(
            url,
            client_id=name,
            subscriptions=subscriptions,
            login=login or broker.login(name),
            session_expiry_s=0,
        )

    async def __aenter__(self):
        await self.link.start()
        self._task = asyncio.create_task(self._listen())

        async def is_connected():
            return self.link.connected

        await until(is_connected, seconds=5)
        await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await self.link.stop()

    async def _listen(self):
        while True:
            event = await self.link.next_event()
            if isinstance(event, Incoming):
                self.link.ack(event)
                self.heard.append((event.topic, event.payload))

    def say(self, topic, payload):
        assert self.link.publish(topic, payload)

    async def hears(self, count):
        async def enough():
            return len(self.heard) >= count

        await until(enough, seconds=5)


async def test_who_says_what_to_whom(broker):
    async with AsyncExitStack() as stack:
        headend = await stack.enter_async_context(Client(broker, "headend-1", "rsd/1/up/+/+"))
        mine = await stack.enter_async_context(Client(broker, "site-1", "rsd/1/down/site-1/+"))
        rogue = await stack.enter_async_context(
            Client(broker, "site-2", "rsd/1/down/site-2/+", "rsd/1/down/+/+", "rsd/1/up/+/+", "#")
        )
        meter = await stack.enter_async_context(Client(broker, METER, f"rsd/1/down/{METER}/+"))
        # In a session of its own, a certificate that we signed for a site that is no longer in the books.
        retired = await stack.enter_async_context(Client(broker, "site-9", "rsd/1/down/site-9/+"))
        rogue.say("rsd/1/up/site-1/data", b"forged")
        rogue.say(f"rsd/1/up/{METER}/data", b"forged")
        rogue.say("rsd/1/down/site-1/command", b"forged")
        rogue.say("rsd/1/up/site-2", b"forged")
        retired.say("rsd/1/up/site-9/data", b"forged")
        headend.say("rsd/1/up/site-1/data", b"forged")
        headend.say("rsd/1/down/site-9/command", b"to nobody")
        mine.say("rsd/1/up/site-1/data", b"mine")
        meter.say(f"rsd/1/up/{METER}/birth", b"meter")
        rogue.say("rsd/1/up/site-2/data", b"its own")
        headend.say("rsd/1/down/site-1/command", b"for site-1")
        headend.say(f"rsd/1/down/{METER}/receipt", b"for the meter")
        await headend.hears(3)
        await mine.hears(1)
        await meter.hears(1)
        await asyncio.sleep(0.3)
        assert sorted(headend.heard) == [
            (f"rsd/1/up/{METER}/birth", b"meter"),
            ("rsd/1/up/site-1/data", b"mine"),
            ("rsd/1/up/site-2/data", b"its own"),
        ]
        assert mine.heard == [("rsd/1/down/site-1/command", b"for site-1")]
        assert meter.heard == [(f"rsd/1/down/{METER}/receipt", b"for the meter")]
        assert rogue.heard == retired.heard == []


async def share(broker, *, rogue_group):
    """How many of 40 uplinks two headends hear while a device sits in a group that it may not read."""
    async with AsyncExitStack() as stack:
        headends = [
            await stack.enter_async_context(Client(broker, name, shared_uplinks("our-word")))
            for name in ("headend-1", "headend-2")
        ]
        rogue = await stack.enter_async_context(Client(broker, "site-2", shared_uplinks(rogue_group)))
        edge = await stack.enter_async_context(Client(broker, "site-1"))
        for number in range(40):
            edge.say("rsd/1/up/site-1/data", b"%d" % number)
        await asyncio.sleep(0.6)
        assert rogue.heard == []
        return [len(one.heard) for one in headends]


async def test_headends_share_with_the_read_rule_alone_and_a_device_in_another_group_takes_nothing(broker):
    shares = await share(broker, rogue_group="ingest")
    assert sum(shares) == 40
    assert min(shares) >= 14


async def test_mosquitto_asks_no_rule_at_subscribe_so_a_device_in_our_group_swallows_its_share(broker):
    """Why MQTT_SHARE_GROUP is a word that devices do not know. Should this fail, mosquitto has learnt to refuse."""
    shares = await share(broker, rogue_group="our-word")
    assert sum(shares) < 40


async def test_rules_written_anew_count_after_a_signal(broker):
    names = ["site-1", "site-2", "site-3", METER]
    broker.write("acl", make_acl(names, ["headend-1", "headend-2"]).encode())
    broker.reload()
    async with (
        Client(broker, "headend-1", "rsd/1/up/+/+") as headend,
        Client(broker, "site-3") as fresh,
    ):
        fresh.say("rsd/1/up/site-3/data", b"hello")
        await headend.hears(1)
        # And a site that left the books is heard no more, though its connection is open still.
        broker.write("acl", make_acl(["site-1"], ["headend-1", "headend-2"]).encode())
        broker.reload()
        fresh.say("rsd/1/up/site-3/data", b"again")
        await asyncio.sleep(0.4)
        assert len(headend.heard) == 1
