import asyncio
import contextlib
import time
from itertools import pairwise

import pytest

from meter_gateway.bus import modbus_link
from meter_gateway.bus.modbus_link import BusDown, BusLink, MeterWire, NoAnswer, Stranger, WrongAnswer
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.profile import Read
from tests.meter_gateway.device import PROFILE, Bus, Meter

DRN = "06000000029"
ALL = PROFILE.names_of((*PROFILE.fast, *PROFILE.slow))


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request):
    """The gateway runs on uvloop, a tool of an engineer on asyncio's own loop: sleeps round differently."""
    return "asyncio", {"use_uvloop": request.param}


def address(bus, timeout_s=0.2, quiet_s=0.3, baud=9600):
    return BusAddress("b", bus.framer, "127.0.0.1", bus.port, "", baud, timeout_s, quiet_s)


@pytest.fixture(params=["rtu_over_tcp", "tcp"])
async def bus(request):
    async with Bus({1: Meter(DRN), 2: Meter("06000000037")}, request.param) as opened:
        yield opened


@pytest.fixture
async def rtu():
    async with Bus({1: Meter(DRN), 2: Meter("06000000037")}) as opened:
        yield opened


def wire_of(link, unit=1, drn=DRN):
    return MeterWire(link, unit, PROFILE, drn)


async def test_values_by_name(bus):
    link = BusLink(address(bus))
    values = await wire_of(link).read(ALL)
    assert (values["serial"], values["credit"], values["counter"], values["load"]) == (DRN, 5000, 70_000, 800)
    link.close()


async def test_a_late_answer_is_never_taken_for_another(bus):
    """The trap: a naive client returns the registers of the request before, without an error."""
    link = BusLink(address(bus))
    await link.read(1, Read(3, 0x1080, 4))
    bus.delays = [0.35]
    with pytest.raises(NoAnswer):
        await link.read(1, Read(3, 0x1010, 4))
    # The late answer has the same length as this one's: only time, or a number in the frame, tells them apart.
    assert await link.read(1, Read(3, 0x1080, 4)) == [0, 0, 1, 70_000 - 65_536]
    link.close()


async def test_an_answer_later_than_the_quiet_time_is_found_out_by_the_serial_number(rtu):
    link = BusLink(address(rtu, quiet_s=0.05))
    wire = wire_of(link)
    await wire.read(ALL)
    rtu.delays = [0.3, 0.15]
    with pytest.raises(NoAnswer):
        await wire.read(["counter"])
    with pytest.raises(WrongAnswer):
        await wire.read(["credit"])  # asks for the serial first, and gets four words of the counter
    for _ in range(8):
        with contextlib.suppress(WrongAnswer, NoAnswer):
            assert (await wire.read(["credit"]))["credit"] == 5000
            break
    else:
        pytest.fail("the bus does not come to rest")
    link.close()


async def test_an_answer_of_another_length_is_refused(bus):
    link = BusLink(address(bus))
    bus.short = 1
    with pytest.raises(WrongAnswer):
        await link.read(1, Read(3, 0x1010, 4))
    assert len(await link.read(1, Read(3, 0x1010, 4))) == 4
    link.close()


async def test_a_slow_meter_is_written_once(bus):
    link = BusLink(address(bus))
    wire = wire_of(link)
    await wire.read(ALL)
    bus.delays = [0.5]
    with pytest.raises(NoAnswer):
        await wire.write({"token": "1" * 20, "token_submit_id": 5})
    assert [frame[2] for frame in bus.frames].count(16) == 1
    link.close()


async def test_another_meter_at_the_unit_is_a_stranger(bus):
    link = BusLink(address(bus))
    with pytest.raises(Stranger) as caught:
        await wire_of(link, unit=2).read(ALL)
    assert caught.value.serial == "06000000037"
    with pytest.raises(Stranger):
        await wire_of(link, unit=2).write({"token": "1" * 20, "token_submit_id": 5})
    assert bus.meters[2].runs == []
    link.close()


async def test_silence_between_frames(rtu):
    link = BusLink(address(rtu))
    for _ in range(5):
        await link.read(1, Read(3, 0x1010, 4))
    times = [frame[0] for frame in rtu.frames]
    assert min(after - before for before, after in pairwise(times)) >= 0.00401
    link.close()


async def test_a_line_that_is_never_silent_is_told_and_not_asked(rtu, monkeypatch):
    """Whoever asks into somebody's noise garbles both; the meters are not to blame."""
    monkeypatch.setattr("meter_gateway.bus.modbus_link.BABBLE_S", 0.1)
    link = BusLink(address(rtu))
    await link.read(1, Read(3, 0x1010, 4))
    asked = len(rtu.frames)

    async def babble():
        while True:
            link._transport.data_received(b"\x00")
            await asyncio.sleep(0)  # each turn of the loop: never late on a busy machine

    noise = asyncio.create_task(babble())
    with pytest.raises(BusDown, match="never silent"):
        await link.read(1, Read(3, 0x1010, 4))
    noise.cancel()
    assert len(rtu.frames) == asked
    assert len(await link.read(1, Read(3, 0x1010, 4))) == 4
    link.close()


async def test_a_dead_meter_does_not_close_the_connection_of_the_others(bus):
    link = BusLink(address(bus, timeout_s=0.02, quiet_s=0.0))
    bus.silent = {1}
    for _ in range(12):
        with pytest.raises(NoAnswer):
            await link.read(1, Read(3, 0x1010, 4))
    opened = link._transport
    assert len(await link.read(2, Read(3, 0x1010, 4))) == 4
    assert link._transport is opened
    link.close()


async def test_a_bus_that_is_away_is_tried_with_patience_and_comes_back():
    async with Bus({1: Meter(DRN)}, "tcp") as bus:
        where = address(bus)
    link = BusLink(where)
    began = time.monotonic()
    for _ in range(50):
        with pytest.raises(BusDown):
            await link.read(1, Read(3, 0x1010, 4))
    assert time.monotonic() - began < 0.4, "an absent bus is not asked each time"
    async with bus:
        link._connect_at = 0.0
        assert len(await link.read(1, Read(3, 0x1010, 4))) == 4
    link.close()


async def test_a_tty_that_is_not_there(tmp_path):
    link = BusLink(BusAddress("r", "rtu", "", 0, str(tmp_path / "none"), 9600, 0.2, 0.2))
    with pytest.raises(BusDown):
        await link.read(1, Read(3, 0, 1))
    assert not (tmp_path / "none").exists()


async def test_before_an_order_the_meter_is_known_again_though_nothing_failed(bus, monkeypatch):
    link = BusLink(address(bus))
    wire = wire_of(link)
    order = {"token": "1" * 20, "token_submit_id": 7}
    await wire.read(ALL)
    asked = len(bus.frames)
    await wire.write(order)
    assert len(bus.frames) == asked + 1, "it was read just now"
    bus.meters[1] = Meter("06000000045")
    monkeypatch.setattr(modbus_link, "IDENTITY_S", 0.0)
    with pytest.raises(Stranger):
        await wire.write(order)
    assert bus.meters[1].runs == []
    link.close()


async def test_a_register_without_meaning_is_no_value_and_silences_nobody(rtu):
    link = BusLink(address(rtu))
    wire = wire_of(link)
    true_word, nonsense = rtu.meters[1].word, {0x102A: 19}  # last_result
    rtu.meters[1].word = lambda place: nonsense.get(place, true_word(place))
    values = await wire.read(ALL)
    assert (values["last_result"], values["credit"], values["counter"]) == (None, 5000, 70_000)
    assert list(wire.meaningless) == ["last_result"]
    await wire.read(["load"])
    assert list(wire.meaningless) == ["last_result"], "it was not read again"
    nonsense.clear()
    await wire.read(ALL)
    assert wire.meaningless == {}
    link.close()


@pytest.mark.parametrize(
    ("place", "names"), [(0x1000, ["serial"]), (0x105D, ["token_echo", "token_result"])], ids=str
)
async def test_a_serial_number_or_an_answer_without_meaning_is_no_answer(rtu, place, names):
    link = BusLink(address(rtu))
    wire = wire_of(link)
    await wire.read(ALL)
    true_word = rtu.meters[1].word
    rtu.meters[1].word = lambda one: 0x0B07 if one == place else true_word(one)
    with pytest.raises(WrongAnswer):
        await wire.read(names)
    link.close()
