"""The map of link states: nothing is known behind a silent gateway, and silence is not an answer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.field.link_map import KnownMeter, KnownSite, Link, build_map
from tests.portal.small_town import NOW

FRESH = NOW - timedelta(seconds=4)


def site(online=True):
    return KnownSite("s1", "Site", "موقع", 2000, online, FRESH if online is not None else None)


def meter(unit, *, up=True, seen=FRESH, bus="rtu-1"):
    return KnownMeter("s1", bus, unit, f"0400000000{unit}", "electricity", None, None, up, seen)


def only_bus(meters, online=True):
    (node,) = build_map([site(online)], [("s1", "rtu-1", "rtu")], meters, NOW)
    return node.buses[0]


@pytest.mark.parametrize(
    ("up", "seen", "online", "state"),
    [
        (True, FRESH, True, Link.UP),
        (False, FRESH, True, Link.DOWN),
        (True, NOW - timedelta(hours=1), True, Link.UNKNOWN),
        (True, None, True, Link.UNKNOWN),
        (True, FRESH, False, Link.UNKNOWN),
        (False, FRESH, None, Link.UNKNOWN),
    ],
)
def test_a_meter(up, seen, online, state):
    assert only_bus([meter(1, up=up, seen=seen)], online).meters[0].state is state


@pytest.mark.parametrize(
    ("meters", "online", "state"),
    [
        ([meter(1), meter(2, up=False)], True, Link.UP),
        ([meter(1, up=False), meter(2, up=False)], True, Link.DOWN),
        ([meter(1, up=False), meter(2, seen=None)], True, Link.UNKNOWN),
        ([], True, Link.UNKNOWN),
        ([meter(1)], False, Link.UNKNOWN),
    ],
)
def test_a_bus(meters, online, state):
    assert only_bus(meters, online).state is state


def test_a_site_is_in_trouble_when_something_is_known_to_be_down():
    def trouble(online, *meters):
        return build_map([site(online)], [("s1", "rtu-1", "rtu")], meters, NOW)[0].has_trouble

    assert not trouble(True, meter(1))
    assert trouble(True, meter(1), meter(2, up=False))
    assert trouble(False, meter(1))
    assert not trouble(None), "a site that was never started is not broken"


def test_meters_stand_by_unit_on_their_own_bus_and_the_newest_poll_counts():
    meters = [meter(9), meter(2, seen=NOW), meter(3, bus="tcp-1")]
    (node,) = build_map([site()], [("s1", "rtu-1", "rtu"), ("s1", "tcp-1", "tcp")], meters, NOW)
    rtu, tcp = node.buses
    assert [m.meter.unit_id for m in rtu.meters] == [2, 9]
    assert rtu.seen_at == NOW
    assert (node.count("up"), tcp.count("up")) == (3, 1)
