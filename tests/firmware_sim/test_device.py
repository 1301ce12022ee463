"""A device keeps on disk what it says, draws what its household draws, and suffers its faults."""

import pytest

from firmware_sim.device import HAND_AFTER_MS, Device
from firmware_sim.faults import CLOCK_JUMP_MS, UnknownFault
from firmware_sim.household import use_between
from firmware_sim.meter import NoPower
from tests.firmware_sim.parts import NOW, NOW_MS, TOWN, find, fresh, token

E = find()


class Clock:
    def __init__(self):
        self.ms = NOW_MS

    def __call__(self):
        return self.ms


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def device(store, clock):
    made = Device(TOWN, E, fresh(E, credit=5_000_000, counter=0), store, clock)
    made.start()
    return made


def kept(store):
    return store.find_meter(E.drn)


def test_a_token_is_on_disk_when_the_answer_comes(device, store):
    assert device.type_token(token(E)).result.name == "ACCEPT"
    assert kept(store) == device.state
    assert kept(store).token.tids


def test_a_day_in_ticks_is_a_day_of_use(device, store, clock):
    for _ in range(24 * 6):
        clock.ms += 600_000
        device.tick(1)
    from datetime import timedelta

    assert abs(device.state.counter - use_between(TOWN, E, NOW, NOW + timedelta(days=1))) <= 1
    assert device.state.counter > 1_000
    assert kept(store) == device.state


def test_speed_multiplies_the_use_and_not_the_load(device, store, clock):
    other = Device(TOWN, E, fresh(E, credit=5_000_000, counter=0), store, clock)
    for _ in range(200):
        clock.ms += 1_000
        device.tick(1)
        other.tick(2.5)
    assert abs(other.state.counter - 2.5 * device.state.counter) <= 2.5
    assert other.state.load == device.state.load > 0


def test_a_spare_draws_nothing(store, clock):
    spare = Device(TOWN, TOWN.spares[0], fresh(TOWN.spares[0], credit=500), store, clock)
    clock.ms += 600_000
    spare.tick(1000)
    assert (spare.state.credit, spare.state.load) == (500, 0)


def test_a_machine_that_slept_draws_ten_minutes_at_most(device, clock):
    clock.ms += 86_400_000
    device.tick(1)
    assert device.state.counter < 3_000


def test_someone_goes_to_a_meter_that_waits_for_a_hand(store, clock):
    state = fresh(E, credit=500, relay=0, reason="order", ordered_open=True, hand_closes=True)
    device = Device(TOWN, E, state, store, clock)
    device.run_command(1, "relay_close", "")
    clock.ms += HAND_AFTER_MS - 1
    device.tick(0)
    assert device.state.relay == 2
    clock.ms += 1
    device.tick(0)
    assert device.state.relay == 1


def test_what_a_listener_cannot_write_did_not_happen(device, store):
    def fail(state, events):
        raise OSError("disk full")

    device.listen(fail)
    before = device.state
    with pytest.raises(OSError, match="disk full"):
        device.type_token(token(E))
    assert device.state == before == kept(store)


def test_clock_faults_end_with_their_time(device, store, clock):
    device.begin_fault("clock_jump", 30)
    assert device.state.clock_ms(clock.ms) == clock.ms + CLOCK_JUMP_MS
    clock.ms += 30_000
    device.tick(1)
    assert device.state.clock_ms(clock.ms) == clock.ms
    device.begin_fault("clock_lost", 30)
    assert (device.state.clock_ms(clock.ms), device.state.clock_ok) == (0, False)
    device.clear_faults()
    assert device.state.clock_ok
    assert kept(store) == device.state


def test_reboot_tamper_and_stuck_contacts(device):
    boot = device.state.boot
    device.begin_fault("reboot", 0)
    assert device.state.boot == boot + 1
    device.begin_fault("stuck_relay", 60)
    device.begin_fault("tamper", 0)
    assert (device.state.relay, device.state.reason) == (1, "tamper")
    device.clear_faults()
    device.tick(0)
    assert device.state.relay == 0


def test_a_dead_meter_has_no_keypad(device):
    device.begin_fault("dead", 60)
    with pytest.raises(NoPower):
        device.type_token(token(E))


def test_an_unknown_fault_changes_nothing(device):
    before = device.state
    with pytest.raises(UnknownFault):
        device.begin_fault("sulking", 5)
    assert device.state is before
    assert device.active_faults() == frozenset()


def test_a_clock_that_an_order_set_stays_wrong_and_one_of_a_fault_does_not(device, clock):
    device.begin_fault("clock_slow", 5)
    device.run_command(1, "clock", "1600000000")
    clock.ms += 6_000
    device.tick(1)
    assert device.state.clock_ms(clock.ms) == 1_600_000_006_000
    device.begin_fault("clock_jump", 5)
    clock.ms += 6_000
    device.tick(1)
    assert device.state.clock_offset_ms == 0
