"""An MQTT meter on a real broker keeps the contract, through cuts, kills and repeats."""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from firmware_sim.device import Device
from firmware_sim.mqtt_connection import Endpoint
from firmware_sim.mqtt_device import MqttMeter
from meter_gateway.topics import (
    Birth,
    Command,
    Death,
    Event,
    PoisonMessage,
    Progress,
    Reading,
    Rebirth,
    Uplink,
)
from tests.firmware_sim.parts import TOWN, find, fresh, token

E = find()
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def quick_radio(monkeypatch):
    monkeypatch.setattr("firmware_sim.mqtt_device.FIRST_TELEMETRY_MS", 1)
    monkeypatch.setattr("firmware_sim.mqtt_device.FIRST_RETRY_S", 0.05)
    monkeypatch.setattr("firmware_sim.mqtt_device.RESTORE_JITTER_S", 0.1)
    monkeypatch.setattr("firmware_sim.mqtt_device.GASP_S", 0.2)


def make(store, url, threads):
    state = store.find_meter(E.drn) or fresh(E, credit=900)
    device = Device(TOWN, E, state, store)
    device.start()
    return device, MqttMeter(device, store, Endpoint.parse(url), threads, random.Random(1))


@asynccontextmanager
async def running(store, url):
    with ThreadPoolExecutor(1) as threads:
        device, radio = make(store, url, threads)
        radio.start()

        async def tick():
            while True:
                radio.measure()
                radio.tick()
                await asyncio.sleep(0.05)

        ticking = asyncio.create_task(tick())
        try:
            yield device, radio
        finally:
            ticking.cancel()
            radio.stop()
            await asyncio.sleep(0.05)


def now_ms():
    return time.time_ns() // 1_000_000


def order(command, kind="token", argument="", expires=HOUR_MS):
    now = now_ms()
    return Command(command, E.drn, kind, argument, now, max(now + expires, 0))


async def test_birth_then_readings_then_silence_under_receipts(store, broker, ear):
    async with running(store, broker.url) as (device, _):
        birth = (await ear.until(lambda: ear.of(Birth)))[0]
        assert (birth.edge, birth.kind, birth.boot, birth.session) == (E.drn, "meter", device.state.boot, 1)
        assert [one.drn for one in birth.meters] == [E.drn]
        up = (await ear.until(lambda: ear.of(Uplink)))[0]
        assert {r.channel: r.value for r in up.records} == {
            "counter": device.state.counter,
            "credit": 900,
            "load": device.state.load,
            "relay": 1,
        }
        await ear.until(lambda: not store.list_uplinks(E.drn))


async def test_a_token_order_is_run_once_and_answered_again(store, broker, ear):
    digits = token(E)
    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: radio.online)
        await asyncio.sleep(0.1)
        ear.send(E.drn, order(501, argument=digits))
        await ear.until(lambda: len(ear.records(Progress)) >= 3)
        states = [one.state for one in ear.records(Progress)]
        assert states == ["ACCEPTED", "WRITTEN", "VERIFIED"]
        final = ear.records(Progress)[-1]
        assert final.detail == {
            "result": "ACCEPT",
            "tid": device.state.token.tids[-1],
            "credit": 900 + 12_500,
            "relay": 1,
            "load": 0,
        }
        ear.send(E.drn, order(501, argument=token(E, minutes=9)))
        await ear.until(lambda: len(ear.records(Progress)) == 4)
        assert ear.records(Progress)[-1] == final
        ear.send(E.drn, order(502, argument=digits))
        await ear.until(lambda: len(ear.records(Progress)) == 7)
        assert (ear.records(Progress)[-1].state, ear.records(Progress)[-1].detail["result"]) == (
            "VERIFIED",
            "USED_ERROR",
        )
        assert device.state.credit == 900 + 12_500
        told = [e.detail["result"] for e in ear.records(Event) if e.code == "raseed.token"]
        assert told == ["ACCEPT", "USED_ERROR"]


@pytest.mark.parametrize(
    ("made", "state", "detail"),
    [
        (lambda: order(1, argument="0" * 20), "REJECTED", "result"),
        (lambda: order(1, "relay_open"), "VERIFIED", "relay"),
        (lambda: order(1, "read_now"), "VERIFIED", "registers"),
        (lambda: order(1, argument=token(E), expires=-1), "EXPIRED", None),
        (lambda: Command(1, "04999999994", "read_now", "", 0, now_ms() + HOUR_MS), "REJECTED", "result"),
    ],
)
async def test_the_last_word_on_each_order(store, broker, ear, made, state, detail):
    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: radio.online)
        await asyncio.sleep(0.1)
        ear.send(E.drn, made())
        final = (await ear.until(lambda: [p for p in ear.records(Progress) if p.state == state]))[0]
        assert detail is None or detail in final.detail
        assert (device.state.credit, final.command) == (900, 1)


async def test_without_a_receipt_a_message_comes_again(store, broker, ear, monkeypatch):
    monkeypatch.setattr("firmware_sim.mqtt_outbox.FIRST_REPEAT_MS", 300)
    ear.receipts = False
    async with running(store, broker.url):
        ups = await ear.until(lambda: len(ear.of(Uplink)) >= 2 and ear.of(Uplink))
        assert (ups[0].boot, ups[0].seq, ups[0].records) == (ups[1].boot, ups[1].seq, ups[1].records)
        assert store.list_uplinks(E.drn)


async def test_what_happens_while_the_broker_is_down_comes_later_once(store, broker, ear):
    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: ear.of(Uplink) and not store.list_uplinks(E.drn))
        broker.kill()
        await ear.until(lambda: not radio.online)
        device.type_token(token(E))
        assert len(store.list_uplinks(E.drn)) == 1
        broker.start()
        await ear.until(lambda: [e for e in ear.records(Event) if e.code == "raseed.token"])
        await ear.until(lambda: not store.list_uplinks(E.drn))
        assert radio._session > 1
        assert device.state.token_count == 1


async def test_a_message_survives_the_process_and_keeps_its_name(store, broker, ear):
    with ThreadPoolExecutor(1) as threads:
        device, _radio = make(store, broker.url, threads)  # never connected: the process dies before
        device.type_token(token(E))
        boot = device.state.boot
    async with running(store, broker.url) as (device, _):
        assert device.state.boot == boot + 1
        up = (await ear.until(lambda: [u for u in ear.of(Uplink) if u.boot == boot]))[0]
        assert up.seq == 1
        assert up.records[0].detail["result"] == "ACCEPT"


async def test_a_dying_meter_gasps_then_its_will_is_read_and_it_comes_back(store, broker, ear):
    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: ear.of(Uplink))
        boot = device.state.boot
        device.power(False)
        await ear.until(lambda: [e for e in ear.records(Event) if e.code == "3.26.0.85"])
        death = (await ear.until(lambda: ear.of(Death)))[0]
        assert (death.boot, death.session) == (boot, 1)
        await ear.until(lambda: not radio.online)
        ear.heard.clear()
        await asyncio.sleep(0.4)
        assert ear.heard == []
        device.power(True)
        birth = (await ear.until(lambda: ear.of(Birth)))[0]
        assert (birth.boot, birth.session) == (boot + 1, 1)
        await ear.until(lambda: [e for e in ear.records(Event) if e.code == "3.26.0.216"])


async def test_a_rebirth_is_answered(store, broker, ear):
    async with running(store, broker.url) as (_, radio):
        await ear.until(lambda: ear.of(Birth))
        await ear.until(lambda: radio.online)
        await asyncio.sleep(0.1)
        ear.send(E.drn, Rebirth("test"))
        births = await ear.until(lambda: len(ear.of(Birth)) == 2 and ear.of(Birth))
        assert births[0].session == births[1].session


async def test_a_meter_with_a_new_memory_counts_above_the_start_the_platform_knows(store, broker, ear):
    async with running(store, broker.url) as (_, radio):
        await ear.until(lambda: ear.of(Birth))
        await ear.until(lambda: radio.online)
        await asyncio.sleep(0.1)
        ear.send(E.drn, Rebirth("test", boot=500))
        births = await ear.until(lambda: len(ear.of(Birth)) == 2 and ear.of(Birth))
        assert (births[1].boot, births[1].session) == (501, 1)
        assert store.find_meter(E.drn).boot == 501


async def test_relay_changes_and_tamper_are_told_at_once(store, broker, ear):
    async with running(store, broker.url) as (device, _):
        await ear.until(lambda: ear.of(Uplink))
        device.begin_fault("tamper", 0)
        events = await ear.until(lambda: ear.records(Event))
        assert [e.code for e in events] == ["3.12.0.257", "raseed.relay"]
        assert [r.value for r in ear.records(Reading) if r.channel == "relay"][-1] == 0


async def test_radio_faults(store, broker, ear):
    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: ear.of(Uplink))
        device.begin_fault("poison", 0)
        await ear.until(lambda: [one for one in ear.heard if isinstance(one, PoisonMessage)])
        device.begin_fault("twice", 60)
        device.burn(100)
        device.begin_fault("tamper", 0)
        await ear.until(lambda: len([e for e in ear.records(Event) if e.code == "3.12.0.257"]) == 2)
        device.begin_fault("deaf", 60)
        ear.send(E.drn, order(9, "read_now"))
        device.begin_fault("offline", 60)
        await ear.until(lambda: not radio.online)
        assert ear.records(Progress) == []
        device.clear_faults()
        await ear.until(lambda: radio.online)


async def test_what_breaks_the_contract_is_ignored(store, broker, ear):
    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: radio.online)
        await asyncio.sleep(0.1)
        ear._client.publish(f"rsd/1/down/{E.drn}/command", b'{"command": "x"}', 1)
        ear._client.publish(f"rsd/1/down/{E.drn}/nonsense", b"{}", 1)
        ear.send(E.drn, order(3, "read_now"))
        await ear.until(lambda: [p for p in ear.records(Progress) if p.state == "VERIFIED"])
        assert device.state.commands_run == (3,)


async def test_reordered_messages_are_overtaken_and_none_is_lost(store, broker, ear):
    async with running(store, broker.url) as (device, _):
        await ear.until(lambda: ear.of(Uplink))
        device.begin_fault("reordered", 60)
        before = ear.of(Uplink)[-1].seq
        for on in (False, True):  # two messages, one after the other
            device.begin_fault("tamper", 0) if on else device.burn(900)
        await ear.until(lambda: len({up.seq for up in ear.of(Uplink)} - set(range(before + 1))) >= 2)
        order_of_seq = [up.seq for up in ear.of(Uplink) if up.seq > before]
        assert order_of_seq[:2] == sorted(order_of_seq[:2], reverse=True)
        device.clear_faults()
        await ear.until(lambda: not store.list_uplinks(E.drn))


async def test_without_a_last_gasp_only_the_will_tells(store, broker, ear):
    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: ear.of(Uplink))
        device.begin_fault("no_gasp", 60)
        device.power(False)
        await ear.until(lambda: ear.of(Death))
        assert not radio.online
        device.power(True)
        await ear.until(lambda: [one for one in ear.records(Event) if one.code == "3.26.0.216"])
        assert [one.code for one in ear.records(Event)] == ["3.26.0.216"]


async def test_a_dead_connection_leaves_no_ring_behind(store, broker, ear):
    """Ten thousand of them at once, each with its client, would wait for the collector beside their successors."""
    import gc
    import weakref

    async with running(store, broker.url) as (device, radio):
        await ear.until(lambda: radio.online)
        old = weakref.ref(radio._connection._client)
        gc.disable()
        try:
            device.begin_fault("offline", 60)
            await ear.until(lambda: not radio.online)
            await asyncio.sleep(0.1)
            assert old() is None
        finally:
            gc.enable()
