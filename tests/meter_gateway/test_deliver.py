import dataclasses

import pytest

from meter_gateway.bus import modbus_link
from meter_gateway.bus.modbus_link import BusLink, MeterWire, NoAnswer, Refused, Stranger
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.edge.deliver import FREEZE_LOOK_S, SLOW_LOOK_S, TRACE_MS, Delivery
from meter_gateway.edge.mailbox import is_verified
from meter_gateway.edge.outbox_store import OutboxStore
from meter_gateway.profile import load_profile
from meter_gateway.topics import Command, Progress
from tests.meter_gateway.device import PROFILE, Bus, Meter
from token_engine.token_result import TokenResult

DRN = "06000000029"
T0 = 1_800_000_000_000


class Bench:
    def __init__(self, bus, store):
        self.bus, self.store, self.now_ms = bus, store, T0
        self.meter = bus.meters[1]
        link = BusLink(BusAddress("b", "tcp", "127.0.0.1", bus.port, "", 9600, 0.15, 0.0))
        self.wire = MeterWire(link, 1, PROFILE, DRN)
        self.delivery = Delivery(store, lambda: self.now_ms)

    def accept(self, kind="token", command=7, expires_ms=T0 + 60_000):
        argument = "1" * 20 if kind == "token" else ""
        self.store.accept(Command(command, DRN, kind, argument, T0, expires_ms), self.now_ms)

    async def step(self, command=7):
        return (await self.delivery.carry_out(self.wire, self.store.get_entry(command))).look_s

    def told(self):
        messages = [self.store.find_message(key) for key in self.store.list_keys(100)]
        return [one.state for message in messages for one in message.records if isinstance(one, Progress)]

    @property
    def writes(self):
        return [frame[2] for frame in self.bus.frames].count(16)


@pytest.fixture
async def bench(tmp_path):
    async with Bus({1: Meter(DRN)}, "tcp") as bus:
        store = OutboxStore(tmp_path / "gateway.sqlite")
        made = Bench(bus, store)
        yield made
        made.wire.link.close()
        store.close()


async def test_a_token_is_written_once_and_verified(bench):
    bench.accept()
    assert await bench.step() is None
    assert bench.meter.runs == [7]
    assert bench.told() == ["ACCEPTED", "WRITTEN", "VERIFIED"]
    assert bench.store.get_entry(7).detail == {
        "result": "ACCEPT",
        "tid": 1007,
        "credit": 15_000,
        "relay": 1,
        "load": 800,
    }


async def test_a_relay_order_is_carried_out(bench):
    bench.accept("relay_open")
    assert await bench.step() is None
    assert (bench.store.get_entry(7).state, bench.meter.values["relay"]) == ("VERIFIED", 0)
    assert bench.store.get_entry(7).detail["relay"] == 0


@pytest.mark.parametrize(("result", "state"), [("USED_ERROR", "VERIFIED"), ("OLD_ERROR", "REJECTED")])
async def test_the_meters_word_decides(bench, result, state):
    bench.meter.result = result
    bench.accept()
    await bench.step()
    assert (bench.store.get_entry(7).state, bench.store.get_entry(7).detail["result"]) == (state, result)


async def test_no_answer_to_the_write_is_settled_by_reading_not_by_writing(bench):
    bench.accept()
    await bench.wire.read(["serial"])
    bench.bus.delays = [0.0, 0.4]
    with pytest.raises(NoAnswer):
        await bench.step()
    assert bench.told() == ["ACCEPTED"]
    assert await bench.step() is None
    assert (bench.writes, bench.meter.runs) == (1, [7])
    assert bench.told() == ["ACCEPTED", "VERIFIED"]


async def test_killed_after_the_write_before_the_answer(bench):
    bench.accept()
    bench.store.mark_writing(7, T0)
    bench.meter.run(7, "token")
    assert await bench.step() is None
    assert (bench.writes, bench.store.get_entry(7).state) == (0, "VERIFIED")


async def test_killed_before_the_write_reached_the_meter(bench):
    bench.accept()
    bench.store.mark_writing(7, T0)
    assert await bench.step() == 0.5, "it may still be on its way"
    bench.now_ms += TRACE_MS
    assert await bench.step() is None
    assert (bench.writes, bench.meter.runs) == (1, [7])


async def test_a_clock_that_was_set_back_after_a_write_does_not_hold_the_line(bench):
    bench.accept()
    bench.store.mark_writing(7, T0 + 40_000)
    assert await bench.step() is None
    assert (bench.writes, bench.meter.runs) == (1, [7])


async def test_an_answer_that_another_command_replaced_is_fetched_without_running_twice(bench):
    bench.accept()
    bench.store.mark_writing(7, T0)
    bench.meter.run(7, "token")
    bench.meter.run(8, "token")
    bench.now_ms += TRACE_MS
    assert await bench.step() is None
    assert (bench.meter.runs, bench.store.get_entry(7).state) == ([7, 8], "VERIFIED")


async def test_too_late_and_never_written_is_expired_without_touching_the_wire(bench):
    bench.accept()
    bench.now_ms = T0 + 60_000
    assert await bench.step() is None
    assert (bench.bus.frames, bench.told()) == ([], ["ACCEPTED", "EXPIRED"])


async def test_written_and_silent_past_the_deadline_is_unknown_until_read(bench):
    bench.accept()
    bench.store.mark_writing(7, T0)
    bench.meter.run(7, "token")
    bench.bus.silent = {1}
    bench.now_ms = T0 + 60_000
    for _ in range(2):
        with pytest.raises(NoAnswer):
            await bench.step()
    assert bench.told() == ["ACCEPTED", "UNKNOWN"]
    bench.bus.silent = set()
    assert await bench.step() is None
    assert bench.told() == ["ACCEPTED", "UNKNOWN", "VERIFIED"]
    assert bench.writes == 0


async def test_a_write_that_never_arrived_before_the_deadline_is_expired(bench):
    bench.accept()
    bench.store.mark_writing(7, T0)
    bench.now_ms = T0 + 60_000
    assert await bench.step() is None
    assert (bench.writes, bench.told()) == (0, ["ACCEPTED", "UNKNOWN", "EXPIRED"])


async def test_a_meter_that_works_on_it_is_asked_again(bench):
    bench.meter.result = "PENDING"
    bench.accept()
    assert await bench.step() == 0.5
    assert await bench.step() == 0.5
    bench.meter.values["token_result"] = "ACCEPT"
    assert await bench.step() is None
    assert (bench.writes, bench.told()) == (1, ["ACCEPTED", "WRITTEN", "VERIFIED"])


async def test_a_meter_that_works_on_it_past_the_deadline_is_waited_for(bench, monkeypatch):
    """It shows the id with PENDING, and lists it among those that ran only when it is done."""
    values = bench.meter.values

    def receive(command, _kind, _number=0):
        values.update(token_echo=command, token_result="PENDING")

    monkeypatch.setattr(bench.meter, "run", receive)
    bench.accept()
    assert await bench.step() == 0.5
    bench.now_ms = T0 + 60_000
    assert await bench.step() == SLOW_LOOK_S
    bench.now_ms += TRACE_MS
    assert await bench.step() == SLOW_LOOK_S
    assert bench.told() == ["ACCEPTED", "WRITTEN", "UNKNOWN"]
    values["token_result"] = "ACCEPT"
    assert await bench.step() is None
    assert (bench.writes, bench.told()[-1]) == (1, "VERIFIED")


@pytest.mark.parametrize("has_run", [True, False])
async def test_of_a_command_that_comes_late_to_a_new_journal_the_meter_has_the_word(bench, has_run):
    """Its file was lost after the write, and the platform asks for its UNKNOWN: only the meter knows."""
    if has_run:
        bench.meter.run(7, "token")
        bench.meter.run(8, "token")  # its answer is no longer in the mailbox
    bench.now_ms = T0 + 60_000
    bench.accept()
    assert await bench.step() == 0.5
    bench.now_ms += TRACE_MS
    assert await bench.step() is None
    told = bench.told()
    assert (told[0], told[-1]) == ("UNKNOWN", "VERIFIED" if has_run else "EXPIRED")
    assert bench.meter.runs == ([7, 8] if has_run else [])


async def test_a_meter_whose_list_does_not_reach_back_settles_nothing(bench):
    for command in range(8, 17):
        bench.meter.run(command, "token")
    bench.now_ms = T0 + 60_000
    bench.accept()
    bench.now_ms += TRACE_MS
    assert await bench.step() is None, "nothing is to be found out now"
    assert bench.told() == ["UNKNOWN"]
    assert bench.writes == 0


async def test_without_its_time_a_gateway_sets_no_clock_and_carries_out_no_order(bench):
    """Its clock stands in 2020, as after a start without a network: nothing it knows has a deadline."""
    for command, kind in enumerate(("relay_close", "token", "clock"), 7):
        bench.accept(kind, command)
    bench.now_ms = 1_600_000_000_000
    assert [await bench.step(command) for command in (7, 8, 9)] == [SLOW_LOOK_S, SLOW_LOOK_S, None]
    assert (bench.writes, bench.store.get_entry(9).detail["result"]) == (0, "NO_TIME")
    bench.now_ms = T0 + 59_000
    assert await bench.step(7) is None
    bench.now_ms = T0 + 60_000
    assert await bench.step(8) is None
    assert [bench.store.get_entry(command).state for command in (7, 8, 9)] == [
        "VERIFIED",
        "EXPIRED",
        "REJECTED",
    ]


@pytest.mark.parametrize(("kind", "later"), [("relay_close", "tamper"), ("clock", "frozen")])
async def test_what_forbids_an_order_forbids_its_second_writing(bench, kind, later):
    bench.accept(kind, expires_ms=T0 + 3_600_000)
    bench.store.mark_writing(7, T0)
    bench.now_ms += TRACE_MS
    if later == "tamper":
        bench.meter.values["tamper"] = 1
    else:
        bench.wire.profile = dataclasses.replace(PROFILE, freeze_minutes=frozenset({0}))
    assert await bench.step() == (None if later == "tamper" else FREEZE_LOOK_S)
    assert bench.writes == 0


async def test_a_meter_that_was_swapped_between_two_polls_gets_no_order(bench, monkeypatch):
    await bench.wire.read(PROFILE.names_of(PROFILE.fast))
    bench.meter.values["serial"] = "04999999994"
    monkeypatch.setattr(modbus_link, "IDENTITY_S", 0.0)
    bench.accept("relay_open")
    with pytest.raises(Stranger):
        await bench.step()
    assert (bench.writes, bench.told()) == (0, ["ACCEPTED"])


async def test_the_answer_of_another_meter_is_not_taken(bench, monkeypatch):
    bench.meter.result = "PENDING"
    bench.accept()
    await bench.step()
    bench.meter.values |= {"serial": "04999999994", "token_result": "ACCEPT"}
    monkeypatch.setattr(modbus_link, "IDENTITY_S", 0.0)
    with pytest.raises(Stranger):
        await bench.step()
    assert bench.store.get_entry(7).state == "WRITTEN"


async def test_what_does_not_fit_the_mailbox_is_refused_before_it_is_begun(bench, monkeypatch):
    bench.accept("limits")
    too_large = {"low_1": 2**32 - 1, "low_2": 1}
    monkeypatch.setattr("meter_gateway.edge.mailbox.limits_of", lambda _argument: too_large)
    assert await bench.step() is None
    assert (bench.writes, bench.told()) == (0, ["ACCEPTED", "REJECTED"])
    assert bench.store.get_entry(7).detail["result"] == "INVALID"


@pytest.mark.parametrize("code", [2, 3])
async def test_an_illegal_write_is_a_rejection(bench, code):
    bench.bus.refusal = code
    bench.accept()
    assert await bench.step() is None
    assert bench.store.get_entry(7).detail == {"result": "MODBUS_EXCEPTION", "code": code}


async def test_a_busy_meter_is_tried_again(bench):
    bench.bus.refusal = 6
    bench.accept()
    with pytest.raises(Refused):
        await bench.step()
    bench.bus.refusal = 0
    bench.now_ms += TRACE_MS
    assert await bench.step() is None
    assert bench.meter.runs == [7]


async def test_read_now_tells_the_registers_and_no_token(bench):
    bench.accept("read_now")
    assert await bench.step() is None
    detail = bench.store.get_entry(7).detail
    assert (detail["credit"], detail["counter"], detail["relay"], detail["load"]) == (5000, 70_000, 1, 800)
    assert detail["registers"]["serial"] == DRN
    assert "token" not in detail["registers"]
    assert "emergency_credit" in detail["registers"]


def test_what_counts_as_carried_out():
    good = {name for name in TokenResult.__members__ if is_verified("token", name)}
    assert good == {"ACCEPT", "FIRST_KCT", "SECOND_KCT", "THIRD_KCT", "FOURTH_KCT", "USED_ERROR"}
    assert not is_verified("token", "nonsense")
    assert is_verified("relay_open", "DONE")
    assert not is_verified("relay_open", "REFUSED")


async def test_the_clock_is_set_to_now_and_compared(bench):
    bench.accept("clock")
    assert await bench.step() is None
    entry = bench.store.get_entry(7)
    assert (entry.state, entry.detail["drift_s"], bench.meter.values["clock"]) == ("VERIFIED", 0, T0 // 1000)


async def test_a_clock_is_left_alone_while_its_meter_freezes_its_day(bench):
    bench.wire.profile = dataclasses.replace(PROFILE, freeze_minutes=frozenset({59, 0}))
    bench.accept("clock", expires_ms=T0 + 3_600_000)
    assert T0 % 3_600_000 == 0
    assert await bench.step() == FREEZE_LOOK_S
    assert bench.bus.frames[-1][2] == 3, "nothing is written"
    bench.now_ms += 60_000
    assert await bench.step() is None
    assert bench.store.get_entry(7).state == "VERIFIED"


async def test_limits_are_read_back(bench):
    bench.store.accept(Command(7, DRN, "limits", "power=4000", T0, T0 + 60_000), T0)
    assert await bench.step() is None
    entry = bench.store.get_entry(7)
    assert (entry.state, entry.detail["power_limit"]) == ("VERIFIED", 4000)


async def test_a_tampered_meter_is_not_closed_and_nothing_is_written(bench):
    bench.meter.values["tamper"] = 1
    bench.accept("relay_close")
    assert await bench.step() is None
    assert (bench.writes, bench.store.get_entry(7).state) == (0, "REJECTED")
    assert bench.store.get_entry(7).detail["why"] == "tamper"


async def test_a_meter_without_a_mailbox_is_read_and_its_relay_is_a_register(bench, monkeypatch):
    hiking = load_profile("hiking-dds238")
    bench.meter.values = {"relay": 1, "counter": 50_000, "load": 40}
    monkeypatch.setattr(
        bench.meter, "word", lambda address: hiking.encode(bench.meter.values).get(address, 0)
    )
    monkeypatch.setattr(
        bench.meter, "write", lambda _address, words: bench.meter.values.update(relay=words[0])
    )
    bench.wire.profile = hiking
    for command, kind in enumerate(("relay_open", "relay_close", "read_now", "token"), 7):
        bench.accept(kind, command)
        assert await bench.step(command) is None
    states = [bench.store.get_entry(command).state for command in (7, 8, 9, 10)]
    assert states == ["VERIFIED", "VERIFIED", "VERIFIED", "REJECTED"]
    assert (bench.store.get_entry(7).detail["relay"], bench.store.get_entry(8).detail["relay"]) == (0, 1)
    assert bench.store.get_entry(9).detail["counter"] == 50_000
    assert bench.store.get_entry(10).detail == {"result": "UNSUPPORTED"}
    assert bench.writes == 2


@pytest.mark.parametrize(("relay", "state"), [(0, "VERIFIED"), (1, "EXPIRED")])
async def test_of_an_order_late_at_a_new_journal_a_plain_relay_says_how_it_stands(
    bench, monkeypatch, relay, state
):
    monkeypatch.setattr(bench.meter, "word", lambda address: relay * int(address == 0x1A))
    bench.wire.profile = load_profile("hiking-dds238")
    bench.now_ms = T0 + 60_000
    bench.accept("relay_open")
    if relay:
        assert await bench.step() == 0.5
        bench.now_ms += TRACE_MS
    assert await bench.step() is None
    entry = bench.store.get_entry(7)
    assert (bench.writes, entry.state) == (0, state)
    assert entry.detail.get("reason") in (None, "the relay does not stand as ordered")


async def test_a_relay_that_does_not_follow_is_a_refusal(bench, monkeypatch):
    hiking = load_profile("hiking-dds238")
    monkeypatch.setattr(bench.meter, "word", lambda address: int(address == 0x1A))
    monkeypatch.setattr(bench.meter, "write", lambda _address, _words: None)
    bench.wire.profile = hiking
    bench.accept("relay_open")
    assert await bench.step() == 0.5
    bench.now_ms += TRACE_MS
    assert await bench.step() is None
    assert (bench.writes, bench.store.get_entry(7).state) == (1, "REJECTED")
