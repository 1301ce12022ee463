"""The dispatcher's housekeeping; what it says and to whom is shown with a real broker in test_headend."""

from datetime import timedelta

import pytest

from meter_gateway import dispatch, edge_store
from meter_gateway.dispatch import RAISE_AGAIN, Dispatch
from meter_gateway.store_batch import Stored, store_batch
from meter_gateway.topics import Birth, Rebirth, decode_down, down_topic, encode, up_topic
from tests.meter_gateway.places import NOW, make_modbus_meter, make_site


class NoLink:
    connected = False


async def ledger(pool):
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM meter_gateway.edge_message")
        return (await cursor.fetchone())[0]


async def test_an_old_ledger_goes_slice_after_slice_until_nothing_old_is_left(pool, monkeypatch):
    monkeypatch.setattr(dispatch, "LEDGER_SLICE", 4)
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.edge_message (edge, boot, seq, received_at)"
            " SELECT 'site-1', 1, n, CASE WHEN n <= 10 THEN %s ELSE %s END FROM generate_series(1, 12) n",
            (NOW - timedelta(days=41), NOW),
        )
    one = Dispatch(pool, NoLink(), clock=lambda: NOW)
    left = []
    for _ in range(4):
        await one._keep_house()
        left.append(await ledger(pool))
    assert left == [8, 4, 2, 2]


class Heard:
    """A link that keeps what it is given."""

    connected = True

    def __init__(self):
        self.said, self.heard = [], []
        self.room = 1000

    def publish(self, topic, payload, *, expiry_s):
        if not self.room:
            return False
        self.room -= 1
        self.said.append(topic)
        self.heard.append(decode_down(topic, payload))
        return True


async def test_a_site_with_too_many_devices_does_not_hold_up_the_others(pool, monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "MAX_DEVICES", 1)
    async with pool.connection() as conn:
        _, large = await make_site(conn, "large")
        await make_modbus_meter(conn, large, "06000000029", 1)
        await make_modbus_meter(conn, large, "06000000037", 2)
        _, small = await make_site(conn, "small")
        await make_modbus_meter(conn, small, "06000000045", 1)
    link = Heard()
    one = Dispatch(pool, link, clock=lambda: NOW)
    for _ in range(3):
        await one._send_configs()
    assert link.said == ["rsd/1/down/small/config"]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "large gets no new list of devices: 2 devices at one site, 1 are the most"
    ]


class Site:
    """A gateway as the headend hears it, and a clock."""

    def __init__(self, pool):
        self.pool, self.link, self.now = pool, Heard(), NOW
        self.dispatch = Dispatch(pool, self.link, clock=lambda: self.now)

    async def born(self, *births):
        messages = [
            (
                up_topic("site-1", Birth),
                encode(Birth("site-1", "gateway", boot, session, 0, config_version=0)),
            )
            for boot, session in births
        ]
        async with self.pool.connection() as conn:
            self.dispatch.take_stored(await store_batch(conn, messages, self.now))
        return await self.sweep()

    async def sweep(self):
        self.link.heard.clear()
        await self.dispatch._raise_late()
        await self.dispatch._send_configs()
        return [message.boot if isinstance(message, Rebirth) else "config" for message in self.link.heard]


@pytest.fixture
async def site(pool):
    async with pool.connection() as conn:
        _, bus_id = await make_site(conn)
        await make_modbus_meter(conn, bus_id, "06000000029", 1)
    return Site(pool)


async def test_a_gateway_whose_new_disk_has_a_late_clock_is_raised_and_given_its_devices(site):
    assert await site.born((1_790_000_000, 1)) == ["config"]
    assert await site.born((1_760_000_000, 1)) == [1_790_000_000, "config"]
    assert await site.sweep() == [], "not at each sweep: who does not jump would answer for ever"
    assert await site.born((1_760_000_000, 1)) == ["config"]
    site.now += RAISE_AGAIN
    assert await site.sweep() == [1_790_000_000]
    assert await site.born((1_790_000_001, 1)) == ["config"]
    site.now += RAISE_AGAIN
    assert await site.sweep() == []


@pytest.mark.parametrize("late", [(5, 8), (6, 1)])
async def test_a_birth_that_was_overtaken_on_its_way_costs_one_question_at_most(site, late):
    await site.born((6, 2))
    heard = await site.born(late)
    assert heard == ([6, "config"] if late[0] < 6 else ["config"])
    await site.born((6, 2))
    site.now += RAISE_AGAIN
    assert await site.sweep() == []


async def test_who_was_born_since_the_broker_forgot_us_is_not_asked_for_it(site, pool):
    async with pool.connection() as conn:
        for code in ("site-2", "site-3"):
            await make_site(conn, code)
    await site.born((1, 1))
    site.now += timedelta(seconds=1)
    site.dispatch.ask_who_is_there()
    await site.born((1, 2))
    site.link.said.clear()
    await site.dispatch._watch_edges()
    assert site.link.said == [down_topic(code, Rebirth) for code in ("site-2", "site-3")]
    await site.dispatch._watch_edges()
    assert len(site.link.said) == 2, "asked once"


async def test_who_is_born_while_others_are_asked_is_not_asked_any_more(site, pool, monkeypatch):
    monkeypatch.setattr(dispatch, "DISPATCH_LIMIT", 1)
    async with pool.connection() as conn:
        for code in ("a", "z"):
            await make_site(conn, code)
    site.dispatch.ask_who_is_there()
    for _ in range(3):
        await site.dispatch._watch_edges()
        await site.born((1, 1))
    asked = [topic for topic in site.link.said if topic.endswith("/rebirth")]
    assert asked == [down_topic(code, Rebirth) for code in ("a", "z")]


async def test_whom_the_link_could_not_ask_keeps_his_place(site, pool):
    async with pool.connection() as conn:
        for code in ("site-2", "site-3"):
            await make_site(conn, code)
    site.link.room = 1
    site.dispatch.ask_who_is_there()
    await site.dispatch._watch_edges()
    site.link.room = 1000
    await site.dispatch._watch_edges()
    await site.dispatch._watch_edges()
    assert site.link.said == [down_topic(code, Rebirth) for code in ("site-1", "site-2", "site-3")]


async def test_who_goes_on_above_while_we_look_is_not_told_that_his_disk_was_lost(site, monkeypatch):
    await site.born((6, 1))
    look = edge_store.list_boots

    async def look_slowly(conn, edges):
        site.dispatch.take_stored(Stored(births=[Birth("site-1", "gateway", 7, 1, 0)]))
        return await look(conn, edges)

    monkeypatch.setattr(edge_store, "list_boots", look_slowly)
    assert await site.born((5, 1)) == ["config"]
