"""The map that a meter shows is the one that the gateway's profile reads."""

import pytest

from firmware_sim.meter import enter_token, run_command
from firmware_sim.modbus_frame import ModbusRefusal
from firmware_sim.register_map import ARM_KEY, NO_TID, Order, RegisterMap, register_values
from meter_gateway.profile import load_profile, profile_names
from tests.firmware_sim.parts import NOW_MS, find, fresh, token

E, W = find(link="modbus"), find("water", "modbus")
MAPS = {meter.commodity: RegisterMap(load_profile(meter.profile)) for meter in (E, W)}


def read_all(state, faults=(), now_ms=NOW_MS):
    layout = MAPS[state.commodity]
    profile = layout.profile
    image = {}
    for read in profile.plan(profile.registers):
        words = layout.read((read.fc, read.address, read.count), state=state, now_ms=now_ms, faults=faults)
        image |= {(read.fc, read.address + n): word for n, word in enumerate(words)}
    return profile.decode(profile.registers, image)


def refused(layout, address, words):
    with pytest.raises(ModbusRefusal) as refusal:
        layout.order(address, words)
    return refusal.value.code


@pytest.mark.parametrize("meter", [E, W], ids=["electricity", "water"])
def test_the_profile_reads_what_the_meter_holds(meter):
    state, _, _ = enter_token(fresh(meter), token(meter), "keypad", NOW_MS)
    shown = read_all(state)
    assert (shown["serial"], shown["credit"], shown["counter"]) == (meter.drn, state.credit, state.counter)
    assert (shown["relay"], shown["relay_reason"], shown["tamper"]) == (1, "none", 0)
    assert (shown["last_result"], shown["last_carrier"]) == ("ACCEPT", "keypad")
    assert shown["last_tid"] == shown["log_1_tid"] == state.token.tids[-1]
    assert (shown["token_count"], shown["log_2_number"], shown["log_2_tid"]) == (1, 0, None)
    assert shown["clock"] == NOW_MS // 1000


def test_every_register_of_the_map_has_a_value_that_fits():
    for meter in (E, W):
        profile = MAPS[meter.commodity].profile
        values = register_values(fresh(meter), profile.version, NOW_MS)
        assert set(values) <= set(profile.registers) | {"voltage", "battery", "power_limit", "frequency"}


def test_a_token_through_the_mailbox_and_its_result():
    layout = MAPS["electricity"]
    address, words = layout.profile.encode_write({"token": token(E), "token_submit_id": 2**40 + 5})
    order = layout.order(address, words)
    assert order == Order(2**40 + 5, "token", token(E))
    state, answer, _ = run_command(fresh(E), order.command, order.kind, order.argument, NOW_MS)
    shown = read_all(state)
    assert (shown["token_echo"], shown["token_result"]) == (2**40 + 5, "ACCEPT")
    assert shown["token_tid"] == answer.tid
    assert shown["run_id_1"] == 2**40 + 5
    assert shown["token"] == "0" * 20  # a token that was written is never shown again


def test_a_relay_order_through_the_mailbox_and_its_result():
    layout = MAPS["electricity"]
    address, words = layout.profile.encode_write(
        {
            "command_id": 9,
            "command_opcode": "relay_open",
            "command_argument": 0,
            "arm_key": ARM_KEY,
            "arm_complement": ARM_KEY ^ 0xFFFF,
        }
    )
    assert layout.order(address, words) == Order(9, "relay_open")
    state, _, _ = run_command(fresh(E, credit=70), 9, "relay_open", "", NOW_MS)
    shown = read_all(state)
    assert (shown["command_echo"], shown["command_status"], shown["command_balance"]) == (9, "DONE", 70)
    assert (shown["relay"], shown["relay_reason"]) == (0, "order")
    state, _, _ = run_command(fresh(E, credit=0), 10, "relay_close", "", NOW_MS)
    shown = read_all(state)
    assert (shown["command_status"], shown["command_detail"]) == ("REFUSED", "no_credit")


def test_partial_and_unarmed_writes_are_refused():
    layout = MAPS["electricity"]
    _, words = layout.profile.encode_write({"token": token(E), "token_submit_id": 5})
    assert refused(layout, 0x1050, words[:5]) == 3
    assert refused(layout, 0x1055, words[5:]) == 3
    assert refused(layout, 0x1050, [*words, 0]) == 3
    assert refused(layout, 0x1010, [0, 0, 0, 1]) == 2  # a new balance is not written, ever
    assert refused(layout, 0x1050, [0xAAAA, *words[1:]]) == 3  # no decimal digits
    assert refused(layout, 0x1050, [*words[:5], 0, 0, 0, 0]) == 3  # no id
    command = [0, 0, 0, 9, 1, 0, 0, 0, 0, ARM_KEY, ARM_KEY ^ 0xFFFF]
    assert layout.order(0x1030, command).kind == "relay_open"
    for place, value in ((9, 0), (10, ARM_KEY), (4, 0), (4, 77), (3, 0)):
        wrong = list(command)
        wrong[place] = value
        assert refused(layout, 0x1030, wrong) == 3


@pytest.mark.parametrize(
    ("span", "code"),
    [((3, 0x0FFF, 2), 2), ((3, 0x10DF, 2), 2), ((4, 0x1000, 1), 2), ((3, 0, 1), 2), ((3, 0x1000, 126), 3)],
)
def test_reads_outside_the_map_are_refused(span, code):
    with pytest.raises(ModbusRefusal) as refusal:
        MAPS["electricity"].read(span, state=fresh(E), now_ms=NOW_MS)
    assert refusal.value.code == code


def test_holes_and_halves_can_be_read():
    layout = MAPS["electricity"]
    state = fresh(E, counter=0x1_0000_0002)
    assert layout.read((3, 0x1027, 1), state=state, now_ms=NOW_MS) == [0]
    assert layout.read((3, 0x1081, 3), state=state, now_ms=NOW_MS) == [1, 0, 2]


def test_register_faults():
    state, _, _ = run_command(fresh(E, counter=900), 5, "token", token(E), NOW_MS)
    assert read_all(state, {"counter_zero"})["counter"] == 0
    assert read_all(state, {"counter_spike"})["counter"] == 900 + 53_700_000
    assert read_all(state, {"wrong_serial"})["serial"] != E.drn
    assert read_all(state, {"pending"})["token_result"] == "PENDING"
    assert read_all(state, {"pending"}, NOW_MS + 3_000)["token_result"] == "ACCEPT"
    assert [read_all(state, {"pending"}, NOW_MS + ms)["run_id_1"] for ms in (0, 3_000)] == [0, 5], (
        "listed once it was processed"
    )
    span = (3, 0x1084, 2)
    load = fresh(E, load=70_000)
    swapped = MAPS["electricity"].read(span, state=load, now_ms=NOW_MS, faults={"swapped_words"})
    assert swapped == MAPS["electricity"].read(span, state=load, now_ms=NOW_MS)[::-1] != [0, 0]


def test_an_answer_without_a_tid_is_all_ones():
    state, _, _ = run_command(fresh(E), 5, "token", "0" * 20, NOW_MS)
    assert register_values(state, 1, NOW_MS)["token_tid"] == NO_TID


@pytest.mark.parametrize("name", profile_names())
def test_any_meter_of_the_package_can_be_simulated(name):
    profile = load_profile(name)
    layout = RegisterMap(profile)
    state = fresh(E if profile.commodity == "electricity" else W, counter=1_234_000, load=900, reverse=7_000)
    image = {}
    names = profile.names_of((*profile.fast, *profile.slow))
    for read in profile.plan(names):
        words = layout.read((read.fc, read.address, read.count), state=state, now_ms=NOW_MS)
        image |= {(read.fc, read.address + n): word for n, word in enumerate(words)}
    shown = profile.decode(names, image)
    expected = {"counter": 1_234_000, "load": 900, "reverse": 7_000}
    per = {"mL/h": 1_000, "W": 1}[profile.registers["load"].unit] if "load" in profile.registers else 1
    for channel in expected.keys() & shown.keys():
        assert abs(shown[channel] - expected[channel]) < (per if channel == "load" else 1), channel


def test_a_relay_without_a_mailbox_is_written_directly():
    layout = RegisterMap(load_profile("hiking-dds238"))
    for word, relay in ((0, 0), (1, 1), (0, 0)):
        order = layout.order(0x001A, [word])
        state, answer, _ = run_command(fresh(E, credit=70), order.command, order.kind, order.argument, NOW_MS)
        assert (state.relay, answer.done, state.answers) == (relay, True, ())
    assert refused(layout, 0x001A, [2])
    assert refused(layout, 0x000A, [0, 0]), "the counters are not cleared by a stray zero"
