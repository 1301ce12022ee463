from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway import topics
from meter_gateway.readings import vee
from meter_gateway.readings.vee import FlowWindow, Found, HeardEvent, Kind, Over, ReverseWindow, StillCounter

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


def heard(code, minutes=0, **detail):
    return HeardEvent(7, code, NOW + timedelta(minutes=minutes), detail)


@pytest.mark.parametrize(
    ("code", "detail", "kind", "begins"),
    [
        (topics.COUNTER_SUSPECT, {"value": 0}, Kind.COUNTER, True),
        (topics.COUNTER_BELIEVED, {}, Kind.COUNTER, False),
        (topics.UNKNOWN_METER, {"found": "04999999994"}, Kind.STRANGER, True),
        (topics.TAMPER, {"active": True}, Kind.TAMPER, True),
        (topics.TAMPER, {}, Kind.TAMPER, True),
        (topics.TAMPER, {"active": False}, Kind.TAMPER, False),
        (topics.CLOCK_DRIFT, {"active": True, "seconds": 400}, Kind.CLOCK, True),
        (topics.CLOCK_DRIFT, {"active": False, "seconds": 3}, Kind.CLOCK, False),
        (topics.RELAY, {"relay": 0}, None, None),
        (topics.LAST_GASP, {}, None, None),
    ],
)
def test_what_an_event_begins_or_ends(code, detail, kind, begins):
    judged = vee.fold_events([heard(code, **detail)])
    if kind is None:
        assert judged == []
    else:
        assert judged == [(Found if begins else Over)(7, kind, NOW, detail)]


@given(
    st.lists(st.sampled_from([topics.COUNTER_SUSPECT, topics.COUNTER_BELIEVED, topics.RELAY]), max_size=20)
)
@settings(max_examples=40, deadline=None)
def test_events_keep_their_order(codes):
    judged = vee.fold_events([heard(code, minutes) for minutes, code in enumerate(codes)])
    assert [isinstance(one, Found) for one in judged] == [
        code == topics.COUNTER_SUSPECT for code in codes if code != topics.RELAY
    ]


def flow(hours=48, still=None, longest=0.25, age=0.1, **more):
    last = NOW - age * HOUR
    given = {"intervals": 192, "used": 960_000, "least_per_hour": 9_000} | more
    still_at = None if still is None else NOW - still * HOUR
    return FlowWindow(7, last - hours * HOUR, last, longest * HOUR, still_at=still_at, **given)


@pytest.mark.parametrize(
    ("window", "found"),
    [
        (flow(), True),
        (flow(longest=1.5), True),  # an hourly meter with a late reading
        (flow(still=20), None),
        (flow(hours=40), None),
        (flow(longest=3), None),
        (flow(age=5), None),
    ],
)
def test_a_leak_is_48_hours_without_a_standstill(window, found):
    judged = vee.judge_flow(window, NOW)
    assert isinstance(judged, Found) is bool(found)
    if found:
        assert judged.kind is Kind.LEAK
        assert judged.detail["least_per_hour"] == 9_000


def test_a_standstill_ends_a_leak():
    assert vee.judge_flow(flow(still=2), NOW) == Over(7, Kind.LEAK, NOW - 2 * HOUR)


def still(days, **said):
    given = {"mean_load": None, "credit_fell": None, "daily_before": None, "is_connected": True} | said
    return StillCounter(
        7, said.pop("commodity", "electricity"), 500, NOW - timedelta(days=days), NOW, **given
    )


@pytest.mark.parametrize(
    ("counter", "evidence"),
    [
        (still(3, mean_load=400), {"mean_load": 400}),
        (still(3, mean_load=19), None),
        (still(2.9, mean_load=400), None),
        (still(3, credit_fell=5_000), {"credit_fell": 5_000}),
        (still(3, credit_fell=-90_000), None),  # bought, and used nothing
        (still(3, daily_before=9_000), None),
        (still(7, daily_before=9_000), {"daily_before": 9_000}),
        (still(7, daily_before=900), None),
        (still(7, daily_before=9_000, is_connected=False), None),  # cut off: of course it stands still
        (still(30), None),  # an empty house
    ],
)
def test_a_counter_that_stands_still_needs_evidence(counter, evidence):
    found = vee.judge_still(counter)
    assert (found and found.detail) == (evidence and {"counter": 500, **evidence})


@pytest.mark.parametrize(
    ("rise", "age", "kind"),
    [
        (101, HOUR, Found),
        (100, HOUR, type(None)),
        (1, HOUR, type(None)),  # neither begins nor ends
        (900, 24 * HOUR, Over),
        (0, HOUR, Over),  # told at each poll, and the same all day
        (-5, HOUR, type(None)),
    ],
)
def test_what_runs_back(rise, age, kind):
    window = ReverseWindow(7, "electricity", NOW - 24 * HOUR, 1_000, NOW - age, 1_000 + rise)
    assert type(vee.judge_reverse(window, NOW)) is kind


def test_an_hour_without_rise_is_no_day():
    window = ReverseWindow(7, "electricity", NOW - 2 * HOUR, 900, NOW - HOUR, 900)
    assert vee.judge_reverse(window, NOW) is None


@pytest.mark.parametrize(
    ("ahead_s", "seconds"),
    [
        ([-2, -1, -3, -2, -2], 0),
        ([-600, -601, -602, -603, -600], -600),
        ([250, 250, 249, 251, 250], 251),
        ([-90, -90, -90, -90, -90], None),  # between the two limits nothing changes
        ([-600, -540, -480, -420, -360], None),  # they waited in a queue
        ([-600, -600, -600, -600], None),
    ],
)
def test_a_clock_is_judged_by_readings_that_agree(ahead_s, seconds):
    judged = vee.judge_clock(7, NOW, ahead_s)
    if seconds is None:
        assert judged is None
    elif seconds:
        assert judged == Found(7, Kind.CLOCK, NOW, {"seconds": seconds, "active": True})
    else:
        assert isinstance(judged, Over)


@given(st.lists(st.integers(-100_000, 100_000), min_size=5, max_size=5), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_a_clock_is_never_both(ahead_s, delay):
    """A delay on the way may silence the rule, and never makes a right clock wrong."""
    judged = vee.judge_clock(7, NOW, ahead_s)
    if isinstance(judged, Found):
        assert all(abs(one) > vee.DRIFT_BEGINS_S - vee.DRIFT_SPREAD_S for one in ahead_s)
    right = vee.judge_clock(7, NOW, [-delay] * 5)
    assert isinstance(right, Over)
