import asyncio
import itertools
import signal
import sqlite3
from datetime import UTC, datetime

import pytest

from meter_gateway import gateway
from meter_gateway.broker.mqtt_link import Incoming, MqttLink
from meter_gateway.bus.site_file import InvalidSite
from meter_gateway.edge.outbox_file import OutboxFull
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.edge.site_settings import read_site_settings
from meter_gateway.edge.task_journal import TaskJournal
from meter_gateway.edge.watch import CLOCK_MS
from meter_gateway.message_key import to_millis
from meter_gateway.topics import (
    Birth,
    Command,
    Config,
    Death,
    Device,
    Event,
    Progress,
    Reading,
    Rebirth,
    Receipt,
    Uplink,
    decode_up,
    down_topic,
    encode,
)
from tests.meter_gateway.device import Bus, Meter
from tests.meter_gateway.roles import Role, until

DRN, OTHER = "06000000029", "06000000037"
POLL_S = 0.2


def now_ms():
    return to_millis(datetime.now(UTC))


class Platform:
    """What the headend is to a gateway: hears, receipts when it wants to, sends."""

    def __init__(self, url):
        self.link = MqttLink(url, client_id="test-platform", subscriptions=["rsd/1/up/+/+"])
        self.records, self.births, self.deaths, self.seen = [], [], [], set()
        self.receipts = True
        self._task = None

    async def __aenter__(self):
        await self.link.start()
        self._task = asyncio.create_task(self._listen())

        async def is_connected():
            return self.link.connected

        await until(is_connected)
        await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await self.link.stop()

    async def _listen(self):
        while True:
            event = await self.link.next_event()
            if not isinstance(event, Incoming):
                continue
            message = decode_up(event.topic, event.payload)
            self.link.ack(event)
            if isinstance(message, Birth):
                self.births.append(message)
            elif isinstance(message, Death):
                self.deaths.append(message)
            else:
                self._take(message)

    def _take(self, message: Uplink):
        if (message.boot, message.seq) not in self.seen:
            self.records += message.records
        if self.receipts:
            self.seen.add((message.boot, message.seq))
            self.say(Receipt(message.boot, [(message.seq, message.seq)]))

    def say(self, message):
        self.link.publish(down_topic("site-1", type(message)), encode(message))

    def configure(self, devices=None, version=1):
        self.say(Config(version, POLL_S, devices or [Device(DRN, "raseed-prepaid-e1", "b", 1)]))

    def command(self, number, kind="token", seconds=60):
        argument = "1" * 20 if kind == "token" else ""
        self.say(Command(number, DRN, kind, argument, now_ms(), now_ms() + seconds * 1000))

    def readings(self):
        return [one for one in self.records if isinstance(one, Reading)]

    def events(self, code):
        return [one for one in self.records if isinstance(one, Event) and one.code == code]

    def states(self, number):
        return [one.state for one in self.records if isinstance(one, Progress) and one.command == number]


class Site:
    def __init__(self, broker, bus, tmp_path):
        site_file = tmp_path / "site.toml"
        site_file.write_text(
            f'site = "site-1"\n[[bus]]\ncode = "b"\nframer = "tcp"\naddress = "127.0.0.1:{bus.port}"\ntimeout_s = 0.2\n'
        )
        self.broker, self.bus, self.meter = broker, bus, bus.meters[1]
        self.state_dir = tmp_path / "state"
        self.role = Role(
            "gateway", mqtt_url=broker.url, site_file=str(site_file), state_dir=str(self.state_dir)
        )


@pytest.fixture
async def site(broker, tmp_path):
    async with Bus({1: Meter(DRN), 2: Meter(OTHER)}, "tcp") as bus:
        made = Site(broker, bus, tmp_path)
        made.role.start()
        yield made
        made.role.kill()


async def configured(site, platform, devices=None):
    """Wait until the gateway polls."""

    async def polls():
        if not platform.readings():
            platform.configure(devices)
            await asyncio.sleep(0.2)
        return bool(platform.readings())

    await until(polls)


async def test_it_polls_what_it_is_told_and_remembers_it_through_a_kill(site, broker):
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        values = {one.channel: one.value for one in platform.readings()}
        assert values == {"counter": 70_000, "credit": 5_000, "load": 800, "relay": 1}
        first_boot = platform.births[-1].boot
        assert first_boot > CLOCK_MS // 1000, "a new disk names its messages as no lost one did"
        assert platform.births[-1].config_version == 1
        assert [one.drn for one in platform.births[-1].meters] == [DRN]
        assert site.role.pss_kb() < 60 * 1024
        site.role.kill()

        async def is_dead():
            return len(platform.deaths) == 1

        await until(is_dead)
        site.role.start()
        site.meter.values["credit"] = 6_000

        async def tells_news():
            return any(one.value == 6_000 for one in platform.readings())

        await until(tells_news)
        assert (platform.births[-1].boot, platform.births[-1].config_version) == (first_boot + 1, 1)
        births = len(platform.births)
        platform.say(Rebirth("test"))

        async def is_born_again():
            return len(platform.births) > births

        await until(is_born_again)
        platform.say(Rebirth("a later start is known", boot=first_boot + 70))
        births += 1
        await until(is_born_again)
        assert platform.births[-1].boot == first_boot + 71
        assert site.role.kill(signal.SIGTERM) == 0

        async def says_goodbye():
            return platform.deaths[-1] == Death("site-1", first_boot + 71, platform.births[-1].session)

        await until(says_goodbye)


async def test_a_repeated_command_runs_once_and_is_answered_each_time(site, broker):
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        for _ in range(3):
            platform.command(7)

        async def answered():
            return platform.states(7).count("VERIFIED") >= 1

        await until(answered)
        before = platform.states(7).count("VERIFIED")
        platform.command(7)

        async def answered_again():
            return platform.states(7).count("VERIFIED") > before

        await until(answered_again)
        assert site.meter.runs == [7]
        final = [one for one in platform.records if isinstance(one, Progress) and one.state == "VERIFIED"]
        assert final[0].detail == final[-1].detail
        assert final[0].detail["result"] == "ACCEPT"
        assert {one.detail["carrier"] for one in platform.events("raseed.token")} == {"remote"}


async def test_killed_at_any_moment_no_command_runs_twice_or_loses_its_result(site, broker):
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        site.bus.delays = list(itertools.islice(itertools.cycle([0.02, 0.0, 0.1]), 400))
        numbers = list(range(10, 16))

        async def all_settled():
            return all("VERIFIED" in platform.states(number) for number in numbers)

        async def ask():
            """The headend's part: said again until answered."""
            for number in itertools.cycle(numbers):
                if not platform.states(number):
                    platform.command(number)
                await asyncio.sleep(0.03)

        asking = asyncio.create_task(ask())
        for pause in (0.35, 0.55, 0.8):
            await asyncio.sleep(0.9 + pause)  # its start takes most of a second
            site.role.kill()
            site.role.start()
        await until(all_settled, seconds=30)
        asking.cancel()
        assert sorted(site.meter.runs) == numbers
        assert site.meter.values["credit"] == 5_000 + 10_000 * len(numbers)


async def test_a_broker_killed_with_its_queues_costs_nothing(site, broker):
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        platform.receipts = False
        broker.kill()
        site.meter.type_token("keypad", 555)
        await asyncio.sleep(3 * POLL_S)
        broker.start()
        platform.receipts = True

        async def token_arrived():
            return [one.detail["tid"] for one in platform.events("raseed.token")] == [555]

        await until(token_arrived, seconds=30)
        assert platform.events("raseed.token")[0].detail["carrier"] == "keypad"
        site.role.kill(signal.SIGTERM)

        def waiting():
            with sqlite3.connect(site.state_dir / "gateway-site-1.sqlite") as db:
                return db.execute("SELECT count(*) FROM message").fetchone()[0]

        assert waiting() < 5, "what is receipted leaves the disk"


async def test_tokens_typed_while_the_gateway_was_dead_are_told(site, broker):
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        site.role.kill()
        site.meter.type_token("keypad", 1)
        site.meter.values |= {
            "log_1_number": 2,
            "log_2_number": 1,
            "log_2_tid": 1,
            "log_2_result": "ACCEPT",
            "log_2_carrier": "keypad",
        }
        site.meter.type_token("keypad", 2)
        site.role.start()

        async def both_told():
            return [one.detail["tid"] for one in platform.events("raseed.token")] == [1, 2]

        await until(both_told)


async def test_a_silent_meter_is_told_once_and_its_return_too(site, broker):
    async with Platform(broker.url) as platform:
        await configured(
            site,
            platform,
            [Device(DRN, "raseed-prepaid-e1", "b", 1), Device(OTHER, "raseed-prepaid-e1", "b", 2)],
        )
        site.bus.silent = {1}

        async def down():
            return bool(platform.events("raseed.link_down"))

        await until(down)
        site.meter.values["credit"] = 9_000
        site.bus.silent = set()

        async def up():
            return bool(platform.events("raseed.link_up"))

        await until(up)
        assert {one.meter for one in platform.events("raseed.link_down")} == {DRN}
        assert platform.events("raseed.link_down")[0].detail == {"cause": "silence"}
        assert len(platform.events("raseed.link_down")) == len(platform.events("raseed.link_up")) == 1


async def test_a_meter_more_costs_the_others_nothing(site, broker):
    """A new config once began all buses anew: connections, breakers and places in line were gone."""
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        site.bus.silent = {1}
        platform.command(7)  # waits in the line of a meter that says nothing

        async def accepted():
            return platform.states(7) == ["ACCEPTED"]

        await until(accepted)
        both = [Device(DRN, "raseed-prepaid-e1", "b", 1), Device(OTHER, "raseed-prepaid-e1", "b", 2)]
        platform.configure(both, version=2)

        async def other_is_polled():
            return any(one.meter == OTHER for one in platform.readings())

        await until(other_is_polled)
        site.bus.silent = set()

        async def carried_out():
            return "VERIFIED" in platform.states(7)

        await until(carried_out)
        assert len(site.bus.clients) == 1
        platform.configure(both[1:], version=3)

        async def is_left_alone():
            before = len(site.bus.frames)
            await asyncio.sleep(3 * POLL_S)
            units = {frame[1] for frame in site.bus.frames[before:]}
            return units == {2}

        await until(is_left_alone)
        assert len(site.bus.clients) == 1


async def test_a_bus_that_is_away_is_told_as_such(site, broker):
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        site.bus._server.close()
        for task in site.bus.clients:
            task.cancel()

        async def down():
            return [one.detail for one in platform.events("raseed.link_down")] == [{"cause": "bus"}]

        await until(down)


async def test_another_meter_at_the_unit_is_told_and_not_believed(site, broker):
    site.bus.meters[1].values["serial"] = "07000000000"
    async with Platform(broker.url) as platform:

        async def told():
            if not platform.births or not platform.births[-1].meters:
                platform.configure()
                await asyncio.sleep(0.2)
            return bool(platform.events("raseed.unknown_meter"))

        await until(told)
        platform.command(7, seconds=1)

        async def expired():
            return "EXPIRED" in platform.states(7)

        await until(expired)
        assert platform.readings() == []
        assert site.meter.runs == []
        assert platform.events("raseed.unknown_meter")[0].detail == {"found": "07000000000"}


async def test_nonsense_from_above_is_survived(site, broker):
    async with Platform(broker.url) as platform:
        await configured(site, platform)
        platform.link.publish("rsd/1/down/site-1/command", b"nonsense")
        platform.link.publish("rsd/1/down/site-1/other", b"{}")
        platform.say(Command(3, "06000000999", "token", "1" * 20, now_ms(), now_ms() + 60_000))
        platform.command(8, "relay_open")

        async def carried_out():
            return "VERIFIED" in platform.states(8)

        await until(carried_out)
        assert site.meter.values["relay"] == 0
        assert platform.states(3) == []

        async def relay_told():
            return bool(platform.events("raseed.relay"))

        await until(relay_told)


async def test_a_wrong_site_file_is_an_error_that_names_it(tmp_path):
    site_file = tmp_path / "site.toml"
    site_file.write_text("site = 3")
    with pytest.raises(InvalidSite):
        await gateway.run(mqtt_url="mqtt://127.0.0.1:1", site_file=site_file, state_dir=tmp_path)


class Ear:
    """A link that hears what a gateway says."""

    connected, session = True, 1

    def __init__(self):
        self.said = []

    def publish(self, topic, payload):
        self.said.append(decode_up(topic, payload))
        return True


async def test_a_config_that_the_disk_did_not_take_is_asked_for_when_there_is_room(tmp_path, monkeypatch):
    site_file = tmp_path / "site.toml"
    site_file.write_text('site = "site-1"\n[[bus]]\ncode = "b"\nframer = "tcp"\naddress = "127.0.0.1:1"\n')
    store, journal = OutboxStore(tmp_path / "g.sqlite"), TaskJournal(tmp_path / "t.sqlite")
    settings = read_site_settings(site_file, mqtt_url="mqtt://127.0.0.1:1", state_dir=str(tmp_path))
    one = gateway.Gateway(settings, store, journal=journal)
    one._link = link = Ear()
    config = encode(Config(2, POLL_S, [Device(DRN, "raseed-prepaid-e1", "b", 1)]))
    message = Incoming(down_topic("site-1", Config), config, 1, 1, 1)

    def full(_config):
        store.queue.refuses_telemetry = True
        raise OutboxFull("full")

    with monkeypatch.context() as disk:
        disk.setattr(store, "save_config", full)
        disk.setattr(store, "breathe", lambda: None)
        with pytest.raises(OutboxFull):
            await one._take(message)
        one._keep_house()
        assert link.said == [], "not while there is no room"
    one._keep_house()
    assert [(type(said), said.config_version) for said in link.said] == [(Birth, 0)]
    one._keep_house()
    assert len(link.said) == 1
    await one._take(message)
    assert link.said[-1].config_version == 2
    journal.close()
    store.close()
