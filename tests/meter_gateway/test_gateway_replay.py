"""A site whose broker was away for long: what is true now goes first, history follows at its pace, nothing is lost."""

import sqlite3
import time
from contextlib import closing

import pytest

from meter_gateway.edge.outbox import Quota
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.topics import Config, Device, Event, Progress, Reading
from tests.meter_gateway.device import Bus, Meter
from tests.meter_gateway.roles import until
from tests.meter_gateway.test_gateway import DRN, Platform, Site, configured, now_ms

PER_S = 40


class Listener(Platform):
    """Notes each uplink with its time, and may be slow to receipt."""

    def __init__(self, url):
        super().__init__(url)
        self.uplinks = []

    def _take(self, message):
        self.uplinks.append((time.monotonic(), message))
        super()._take(message)

    def history(self):
        """Each message once: on a busy machine one may be said again before its receipt."""
        first = {}
        for at, one in self.uplinks:
            if one.historical:
                first.setdefault((one.boot, one.seq), (at, one))
        return list(first.values())

    def is_settled(self, total):
        return len({(one.boot, one.seq) for _, one in self.history()}) >= total


@pytest.fixture
async def site(broker, tmp_path):
    async with Bus({1: Meter(DRN)}, "tcp") as bus:
        made = Site(broker, bus, tmp_path)
        file = tmp_path / "site.toml"
        file.write_text(file.read_text() + f"[outbox]\nreplay_per_s = {PER_S}\n")
        yield made
        made.role.kill()


def fill(site, count, quota=None):
    """A night without a broker, as the gateway itself would have stored it."""
    start = now_ms() - 8 * 3_600_000
    path = site.state_dir / "gateway-site-1.sqlite"
    with closing(OutboxStore(path, quota=quota)) as store:
        for step in range(count):
            at = start + 30_000 * step
            store.add([Reading(DRN, "counter", at, 1000 + step), Reading(DRN, "load", at, 5)], at)
        store.save_config(Config(1, 0.2, [Device(DRN, "raseed-prepaid-e1", "b", 1)]))
        store.add([Progress(77, DRN, "VERIFIED", start)], start)
        return store.depth()


async def test_after_a_long_outage_the_present_comes_first_and_history_at_its_pace(site, broker):
    total = fill(site, 60)
    async with Listener(broker.url) as platform:
        site.role.start()

        async def is_settled():
            return platform.is_settled(total)

        await until(is_settled, seconds=20)
        history = platform.history()
        took = history[-1][0] - history[0][0]
        assert took >= (total - PER_S) / PER_S * 0.8, "no faster than it may"
        assert isinstance(history[0][1].records[0], Progress), "an answer waits for no meter reading"
        kinds = [one.records[0].channel for _, one in history[1:]]
        assert kinds == ["counter"] * 60 + ["load"] * 60
        first_live = next(at for at, one in platform.uplinks if not one.historical)
        assert first_live < history[-1][0], "what is true now did not wait for the end of history"
        assert platform.births[-1].backlog <= total
        assert platform.births[0].backlog > 0


async def test_killed_in_the_middle_of_it_nothing_is_lost_and_the_rest_follows(site, broker):
    total = fill(site, 60)
    async with Listener(broker.url) as platform:
        for _ in range(2):
            site.role.start()
            before = len(platform.uplinks)

            async def has_begun(before=before):
                return len(platform.uplinks) > before + 25

            await until(has_begun, seconds=10)
            site.role.kill()
        site.role.start()

        async def is_settled():
            return platform.is_settled(total)

        await until(is_settled, seconds=20)
        values = {one.at for one in platform.readings() if one.channel == "counter"}
        assert len(values) >= 60


async def test_what_was_given_up_is_told_when_the_line_is_back(site, broker):
    fill(site, 200, quota=Quota(messages=300))
    async with Listener(broker.url) as platform:
        site.role.start()

        async def is_told():
            return bool(platform.events("raseed.dropped"))

        await until(is_told, seconds=10)
        (event,) = platform.events("raseed.dropped")
        assert isinstance(event, Event)
        assert (event.meter, event.detail["class"], event.detail["count"]) == (DRN, "telemetry", 101)
        assert event.detail["to"] - event.detail["from"] == 100 * 30_000
        site.role.kill()
    with closing(sqlite3.connect(site.state_dir / "gateway-site-1.sqlite")) as db:
        assert db.execute("SELECT count, told FROM dropped").fetchall() == [(0, 101)]


async def test_a_broken_outbox_is_set_aside_and_each_meter_is_told(site, broker):
    fill(site, 3)
    path = site.state_dir / "gateway-site-1.sqlite"
    path.write_bytes(b"not a database any more" * 500)
    async with Listener(broker.url) as platform:
        site.role.start()
        await configured(site, platform)

        async def is_told():
            return bool(platform.events("raseed.outbox_lost"))

        await until(is_told, seconds=10)
        (event,) = platform.events("raseed.outbox_lost")
        assert (site.state_dir / event.detail["kept_as"]).read_bytes().startswith(b"not a database")
