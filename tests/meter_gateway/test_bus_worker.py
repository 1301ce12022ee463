import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from firmware_sim.register_map import RegisterMap
from meter_gateway.bus.bus_worker import BusWorker, make_meters
from meter_gateway.bus.modbus_link import BusLink, NoAnswer, Stranger
from meter_gateway.bus.session import Breaker
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.edge.outbox_file import OutboxFull
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.edge.watch import Memory
from meter_gateway.profile import load_profile, profile_names
from meter_gateway.stop_signal import end_tasks, stop_on_signals
from meter_gateway.topics import Command, Device, Event
from tests.firmware_sim.parts import find, fresh
from tests.meter_gateway.device import Bus, Meter
from tests.meter_gateway.roles import until

DRNS = [f"0600000{number:04d}" for number in range(4)]
T0 = 1_800_000_000_000


def devices(profile="raseed-prepaid-e1"):
    return [Device(drn, profile, "b", unit) for unit, drn in enumerate(DRNS, 1)]


def address(port=1):
    return BusAddress("b", "tcp", "127.0.0.1", port, "", 9600, 0.1, 0.0)


def made(where, listed, store, *, poll_s, now_ms=lambda: T0):
    return BusWorker(where, listed, store=store, poll_s=poll_s, now_ms=now_ms, on_stored=lambda: None)


def test_first_polls_are_spread_and_memory_is_used():
    meters = make_meters(BusLink(address()), devices(), {DRNS[1]: Memory(is_down=True)}, 2.0, 100.0)
    assert [meter.next_at for meter in meters.values()] == [100.0, 100.5, 101.0, 101.5]
    assert [meter.session.is_down for meter in meters.values()] == [False, True, False, False]


def test_a_profile_that_is_not_known_is_not_guessed():
    assert make_meters(BusLink(address()), devices("of-next-year"), {}, 2.0, 0.0) == {}


async def test_commands_go_before_polls_and_a_dead_meter_does_not_hold_the_others(tmp_path):
    async with Bus({unit: Meter(drn) for unit, drn in enumerate(DRNS, 1)}, "tcp") as bus:
        bus.silent = {1}
        store = OutboxStore(tmp_path / "g.sqlite")
        worker = made(address(bus.port), devices(), store, poll_s=0.1)
        task = asyncio.create_task(worker.run())
        try:
            entry = store.accept(Command(5, DRNS[3], "relay_open", "", T0, T0 + 60_000), T0)
            worker.submit(entry)
            worker.submit(entry)

            async def carried_out():
                return bus.meters[4].runs == [5]

            await until(carried_out, seconds=2)
            await asyncio.sleep(1.5)
            asked = [frame[1] for frame in bus.frames]
            assert asked.count(1) < asked.count(2) / 2
            assert asked.count(2) > 5
        finally:
            await end_tasks([task])
            store.close()


async def test_a_fault_of_ours_does_not_end_the_bus(tmp_path):
    async with Bus({1: Meter(DRNS[0])}, "tcp") as bus:
        store = OutboxStore(tmp_path / "g.sqlite")
        times = iter([RuntimeError("a bug")])

        def now_ms():
            for error in times:
                raise error
            return T0

        worker = made(address(bus.port), devices()[:1], store, poll_s=0.1, now_ms=now_ms)
        task = asyncio.create_task(worker.run())

        async def polls_again():
            return store.depth() > 0

        await until(polls_again, seconds=5)
        await end_tasks([task])
        store.close()


async def test_a_counter_that_is_zero_for_one_reading_is_read_again(tmp_path):
    async with Bus({1: Meter(DRNS[0])}, "tcp") as bus:
        store = OutboxStore(tmp_path / "g.sqlite")
        worker = made(address(bus.port), devices()[:1], store, poll_s=0.1)
        meter = worker.meters[DRNS[0]]
        await worker._poll(meter)
        true_word = bus.meters[1].word
        zeros = [4]  # the four words of one reading of the counter

        def word(place):
            if 0x1080 <= place < 0x1084 and zeros[0]:
                zeros[0] -= 1
                return 0
            return true_word(place)

        bus.meters[1].word = word
        await worker._poll(meter)
        assert zeros == [0]
        assert meter.memory.counter == 70_000
        worker._link.close()
        store.close()


async def test_signals_ask_to_stop():
    import os
    import signal

    stop = stop_on_signals()
    assert not stop.is_set()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stop.wait(), 2)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_a_task_that_loses_a_cancellation_is_told_again():
    lost = []

    async def stubborn():
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if len(lost) == 2:
                    raise
                lost.append(1)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(end_tasks([task]), 5)
    assert task.cancelled()
    assert len(lost) == 2


@asynccontextmanager
async def serving(tmp_path, bus, listed, poll_s=0.1, timeout_s=0.1):
    store = OutboxStore(tmp_path / "g.sqlite")
    where = replace(address(bus.port), timeout_s=timeout_s)
    worker = made(where, listed, store, poll_s=poll_s)
    task = asyncio.create_task(worker.run())
    try:
        yield worker, store
    finally:
        await end_tasks([task])
        store.close()


def asked(bus, unit):
    return [frame[1] for frame in bus.frames].count(unit)


async def test_a_new_config_touches_only_what_differs(tmp_path):
    """Neither the connection, nor a breaker, nor the place in line of who stays; who leaves is not asked again."""
    async with Bus({unit: Meter(drn) for unit, drn in enumerate(DRNS, 1)}, "tcp") as bus:
        bus.silent = {1}
        first, second, third, fourth = devices()
        async with serving(tmp_path, bus, [first, second, third]) as (worker, _store):

            async def gave_up():
                return worker.meters[DRNS[0]].session.breaker is not Breaker.CLOSED

            await until(gave_up)
            dead, stays = worker.meters[DRNS[0]], worker.meters[DRNS[2]]
            connection = worker._link._transport
            await worker.change([first, third, fourth], 0.1)
            seconds = asked(bus, 2)

            async def polls_the_new_one():
                return asked(bus, 4) > 1

            await until(polls_the_new_one)
            assert list(worker.meters) == [DRNS[0], DRNS[2], DRNS[3]]
            assert (worker.meters[DRNS[0]], worker.meters[DRNS[2]]) == (dead, stays)
            assert dead.session.breaker is not Breaker.CLOSED
            assert asked(bus, 2) == seconds
            assert worker._link._transport is connection
            assert len(bus.clients) == 1


async def test_a_command_waits_through_a_config_that_moves_its_meter(tmp_path):
    async with (
        Bus({9: Meter(DRNS[0])}, "tcp") as bus,
        serving(tmp_path, bus, devices()[:1]) as (worker, store),
    ):
        worker.submit(store.accept(Command(5, DRNS[0], "relay_open", "", T0, T0 + 60_000), T0))

        async def tried():
            return asked(bus, 1) > 0

        await until(tried)
        assert bus.meters[9].runs == []
        await worker.change([Device(DRNS[0], "raseed-prepaid-e1", "b", 9)], 0.1)

        async def carried_out():
            return store.get_entry(5).state == "VERIFIED"

        await until(carried_out)
        assert bus.meters[9].runs == [5]
        assert list(worker.meters) == [DRNS[0]]


async def test_a_config_does_not_overtake_a_write(tmp_path):
    """Whoever takes a meter over must find the write either not begun or done."""
    async with (
        Bus({1: Meter(DRNS[0])}, "tcp") as bus,
        serving(tmp_path, bus, devices()[:1], poll_s=60, timeout_s=2.0) as (worker, store),
    ):
        meter = worker.meters[DRNS[0]]
        meter.next_at += 60
        worker.submit(store.accept(Command(5, DRNS[0], "relay_open", "", T0, T0 + 60_000), T0))
        bus.delays = [0.0, 0.0, 0.3]  # the serial number, the mailbox, then the write

        async def writes():
            return bus.meters[1].runs == [5]

        await until(writes)
        assert store.get_entry(5).state == "WRITING"
        await worker.let_go([DRNS[0]])
        assert store.get_entry(5).state == "VERIFIED"
        assert (worker.meters, worker._gone, meter.waiting) == ({}, {}, [])


async def test_a_command_for_a_meter_that_was_taken_off_ends_with_its_deadline(tmp_path):
    async with Bus({1: Meter(DRNS[0])}, "tcp") as bus:
        bus.silent = {1}
        async with serving(tmp_path, bus, devices()[:1]) as (worker, store):
            worker.submit(store.accept(Command(5, DRNS[0], "relay_open", "", T0, T0 + 60_000), T0))
            await worker.change([], 0.1)
            assert store.get_entry(5).state == "ACCEPTED"
            worker._now_ms = worker._delivery._now_ms = lambda: T0 + 60_000

            async def expired():
                return store.get_entry(5).state == "EXPIRED"

            await until(expired)


def test_who_missed_its_time_asks_after_those_whose_time_has_come(tmp_path):
    store = OutboxStore(tmp_path / "g.sqlite")
    worker = made(address(), devices(), store, poll_s=2.0)
    for place, meter in enumerate(worker.meters.values()):
        meter.next_at = 100.0 + place
    missed = worker.meters[DRNS[0]]
    missed.is_retry = True
    assert worker._next_poll(99.9) is None
    assert worker._next_poll(100.5) is missed, "nobody else is due"
    assert worker._next_poll(101.5) is worker.meters[DRNS[1]]
    assert worker._next_poll(102.0) is missed, "a period later it counts as due"
    store.close()


class Line:
    """A bus without a wire: simulated registers of one meter, spoilt while `faults` says so."""

    def __init__(self, profile):
        electricity, water = find(link="modbus"), find("water", "modbus")
        self.meter = water if profile.commodity == "water" else electricity
        self.state = fresh(self.meter, counter=1_234_000, load=900)
        self.faults = ()
        self.asked = 0
        self._layout = RegisterMap(profile)

    async def read(self, _unit, read, _gap_s):
        self.asked += 1
        span = (read.fc, read.address, read.count)
        return self._layout.read(span, state=self.state, now_ms=T0, faults=self.faults)


def watching(tmp_path, profile, line):
    """A worker with this one meter, and that meter as it polls it."""
    store = OutboxStore(tmp_path / "g.sqlite")
    device = Device(line.meter.drn, profile.name, "b", 1)
    worker = made(address(), [device], store, poll_s=2.0)
    meter = worker.meters[line.meter.drn]
    meter.wire.link = line
    return worker, meter, store


@pytest.mark.parametrize(
    "name", [name for name in profile_names() if load_profile(name).has("counter")], ids=str
)
async def test_at_every_meter_a_counter_that_fell_is_read_again(tmp_path, name):
    profile = load_profile(name)
    line = Line(profile)
    worker, meter, store = watching(tmp_path, profile, line)
    await worker._poll(meter)
    counter = meter.memory.counter
    assert counter == 1_234_000
    polling, polled = line.asked, len(profile.plan(profile.names_of((*profile.fast, *profile.slow))))
    line.faults = {"counter_zero"}
    first = meter.wire.read

    async def read(names):
        values = await first(names)
        line.faults = ()
        return values

    meter.wire.read = read
    await worker._poll(meter)
    assert line.asked >= polling + polled + 1, "a second look"
    assert meter.memory.counter == counter
    store.close()


async def test_a_plain_meter_with_nothing_to_tell_costs_no_writing(tmp_path):
    profile = load_profile("eastron-sdm120")
    worker, meter, store = watching(tmp_path, profile, Line(profile))
    saved = []
    keep = store.save
    store.save = lambda *told: saved.append(told) or keep(*told)
    for _ in range(3):
        await worker._poll(meter)
    assert len(saved) == 1
    assert list(store.list_memories()) == [meter.drn]
    store.close()


async def test_a_value_without_meaning_is_told_and_the_meter_stays(tmp_path):
    profile = load_profile("chint-dtsu666")
    line = Line(profile)
    worker, meter, store = watching(tmp_path, profile, line)
    layout, spoilt = line._layout.read, [True]

    def without_ratio(span, **about):
        words = layout(span, **about)
        return [0] * len(words) if spoilt[0] and span[1] < 0x1000 else words

    line._layout.read = without_ratio
    for _ in range(4):
        await worker._poll(meter)
    spoilt[0] = False
    await worker._poll(meter)
    told = [one for key in store.list_keys(100) for one in store.find_message(key).records]
    events = [one for one in told if isinstance(one, Event)]
    assert [(one.code, one.detail["active"]) for one in events] == [
        ("raseed.no_meaning", True),
        ("raseed.no_meaning", False),
    ]
    assert "counter" in events[0].detail["registers"]
    assert (meter.memory.is_down, meter.memory.counter) == (False, 1_234_000)
    store.close()


@pytest.mark.parametrize("is_down", [False, True])
async def test_what_the_disk_did_not_take_is_told_when_it_does(tmp_path, is_down):
    profile = load_profile("raseed-prepaid-e1")
    worker, meter, store = watching(tmp_path, profile, Line(profile))
    meter.memory = replace(meter.memory, is_down=is_down)
    meter.session.is_down = is_down
    keep, is_full = store.save, [True]

    def save(*told):
        if is_full[0]:
            raise OutboxFull("full")
        keep(*told)

    store.save = save
    for attempt in range(6):
        is_full[0] = attempt < 4
        with suppress(OutboxFull):
            if is_down:
                worker._answered(meter)
            else:
                worker._failed(meter, NoAnswer("silence"))
    told = [one for key in store.list_keys(100) for one in store.find_message(key).records]
    assert [one.code for one in told] == ["raseed.link_up" if is_down else "raseed.link_down"]
    assert meter.memory.is_down is not is_down
    store.close()


async def test_a_stranger_that_the_disk_did_not_take_is_told_later(tmp_path):
    profile = load_profile("raseed-prepaid-e1")
    worker, meter, store = watching(tmp_path, profile, Line(profile))
    keep = store.save

    def save(*_told):
        raise OutboxFull("full")

    store.save = save
    with pytest.raises(OutboxFull):
        worker._failed(meter, Stranger("04999999994"))
    store.save = keep
    worker._failed(meter, Stranger("04999999994"))
    (key,) = store.list_keys(10)
    assert [one.code for one in store.find_message(key).records] == ["raseed.unknown_meter"]
    store.close()


@pytest.mark.parametrize("reason", ["UNSUPPORTED", "EXPIRED"])
async def test_an_order_that_ends_without_the_wire_says_nothing_of_a_dead_meter(tmp_path, reason):
    profile = load_profile("eastron-sdm120")  # takes no orders
    worker, meter, store = watching(tmp_path, profile, Line(profile))
    for _ in range(3):
        worker._failed(meter, NoAnswer("silence"))
    expires_ms = T0 + 60_000 if reason == "UNSUPPORTED" else T0
    store.accept(Command(5, meter.drn, "relay_open", "", T0 - 1, expires_ms), T0 - 1)
    worker.submit(store.get_entry(5))
    await worker._command(meter)
    entry = store.get_entry(5)
    assert reason in (entry.state, entry.detail.get("result"))
    assert (meter.waiting, worker._link.requests.total(), worker.last_answer_at) == ([], 0, None)
    assert (meter.memory.is_down, meter.session.breaker) == (True, Breaker.OPEN)
    told = [one for key in store.list_keys(100) for one in store.find_message(key).records]
    assert [one.code for one in told if isinstance(one, Event)] == ["raseed.link_down"]
    store.close()


async def test_a_settled_order_is_not_carried_out_again_when_the_disk_is_full_behind_it(tmp_path):
    async with Bus({1: Meter(DRNS[0])}, "tcp") as bus:
        store = OutboxStore(tmp_path / "g.sqlite")
        worker = made(address(bus.port), devices()[:1], store, poll_s=2.0)
        meter = worker.meters[DRNS[0]]
        meter.memory, meter.session.is_down = replace(meter.memory, is_down=True), True
        worker.submit(store.accept(Command(5, DRNS[0], "relay_open", "", T0, T0 + 60_000), T0))

        def save(*_told):
            raise OutboxFull("full")

        store.save = save
        with pytest.raises(OutboxFull):
            await worker._command(meter)
        assert (meter.waiting, store.get_entry(5).state) == ([], "VERIFIED")
        worker._link.close()
        store.close()
