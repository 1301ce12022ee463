from datetime import timedelta

from meter_gateway.projection import Told, fold
from meter_gateway.topics import Event, Progress, Reading
from tests.meter_gateway.places import NOW

DRN = "06000000011"


def told(seconds, record, believed=True, live=True):
    return Told(1, NOW + timedelta(seconds=seconds), record, believed, live)


def folded(*items):
    return fold(items, NOW + timedelta(seconds=100))[1]


def test_the_later_record_wins_whatever_the_order_of_arrival():
    patch = folded(told(5, Reading(DRN, "credit", 0, 5)), told(1, Reading(DRN, "credit", 0, 1)))
    assert (patch.credit, patch.state_at) == (5, NOW + timedelta(seconds=5))


def test_a_counter_that_is_not_believed_is_not_shown():
    patch = folded(
        told(1, Reading(DRN, "counter", 0, 7)), told(2, Reading(DRN, "counter", 0, 0), believed=False)
    )
    assert (patch.counter, patch.counter_at) == (7, NOW + timedelta(seconds=1))


def test_history_says_nothing_about_the_present():
    patch = folded(told(1, Reading(DRN, "credit", 0, 7), live=False))
    assert (patch.link_up, patch.supply_on, patch.credit) == (None, None, 7)


def test_last_gasp_then_power():
    dark = [told(1, Reading(DRN, "load", 0, 900)), told(2, Event(DRN, "3.26.0.85", 0))]
    assert (folded(*dark).supply_on, folded(*dark).link_up, folded(*dark).load) == (False, False, 0)
    bright = folded(*dark, told(3, Event(DRN, "3.26.0.216", 0)))
    assert (bright.supply_on, bright.link_up) == (True, True)


def test_link_down_of_a_wired_meter_says_nothing_about_supply():
    patch = folded(told(2, Event(DRN, "raseed.link_down", 0)))
    assert (patch.link_up, patch.supply_on) == (False, None)


def test_answers_carry_state_and_nonsense_in_them_does_not():
    patch = folded(
        told(1, Progress(1, DRN, "VERIFIED", 0, {"credit": 4, "relay": 2, "load": 0})),
        told(2, Event(DRN, "raseed.relay", 0, {"relay": 9, "credit": "lots", "load": True, "reason": ["x"]})),
    )
    assert (patch.credit, patch.relay, patch.load, patch.relay_reason) == (4, 2, 0, None)


def test_a_clock_that_runs_ahead_does_not_outvote_what_is_heard_later():
    patch = folded(told(290, Reading(DRN, "credit", 0, 7)))
    assert patch.link_at == NOW + timedelta(seconds=100)
