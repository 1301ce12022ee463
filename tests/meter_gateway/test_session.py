import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway.bus.session import Answered, Ask, Breaker, Due, Failed, NextAt, Session, TellDown, TellUp


def fail(session, times, now=0.0):
    return [session.receive(Failed(), now) for _ in range(times)]


def test_a_healthy_meter_is_asked_each_period():
    session = Session(2.0)
    assert session.receive(Due(), 0) == [Ask()]
    assert session.receive(Answered(), 0.1) == [NextAt(2.1)]


def test_three_failures_open_the_breaker_and_are_told_once():
    session = Session(2.0)
    assert fail(session, 3) == [[NextAt(2.0)], [NextAt(2.0)], [NextAt(10.0), TellDown()]]
    assert session.receive(Due(), 9.9) == [NextAt(10.0)]
    assert session.receive(Due(), 10.0) == [Ask()]
    assert session.breaker is Breaker.HALF_OPEN


def test_a_miss_at_a_slow_site_is_tried_again_soon():
    session = Session(3600.0)
    assert fail(session, 2) == [[NextAt(10.0)], [NextAt(10.0)]]
    assert session.receive(Answered(), 10.0) == [NextAt(3610.0)]


def test_the_pause_doubles_to_its_limit_and_jitter_spreads_it():
    session = Session(2.0)
    fail(session, 3)
    pauses = []
    now = 0.0
    for _ in range(5):
        now = session._open_until
        assert session.receive(Due(), now) == [Ask()]
        (step,) = session.receive(Failed(), now)
        pauses.append(step.at - now)
    assert pauses == [20.0, 40.0, 60.0, 60.0, 60.0]
    now = session._open_until
    session.receive(Due(), now)
    assert session.receive(Failed(1.2), now) == [NextAt(now + 72.0)]


def test_slow_sites_find_a_meter_again_within_ten_minutes():
    session = Session(3600.0)
    fail(session, 3)
    for _ in range(20):
        session.receive(Due(), session._open_until)
        session.receive(Failed(), 0.0)
    assert session._open_until <= 600.0


def test_an_answer_closes_and_is_told_once():
    session = Session(2.0)
    fail(session, 4)
    assert session.receive(Answered(), 50.0) == [NextAt(52.0), TellUp()]
    assert session.receive(Answered(), 52.0) == [NextAt(54.0)]
    assert fail(session, 2) == [[NextAt(2.0)], [NextAt(2.0)]], "failures are counted from the last answer"


def test_a_meter_known_to_be_down_is_not_told_again_after_a_restart():
    session = Session(2.0, was_down=True)
    assert all(TellDown() not in actions for actions in fail(session, 5))
    assert TellUp() in session.receive(Answered(), 1.0)


def test_a_probe_without_a_result_does_not_stay_for_ever():
    session = Session(2.0)
    fail(session, 3)
    assert session.receive(Due(), 10.0) == [Ask()]
    assert session.receive(Due(), 11.0) == [NextAt(20.0)]
    assert session.receive(Due(), 20.0) == [Ask()]


@settings(max_examples=80)
@given(st.lists(st.sampled_from([Due(), Answered(), Failed(), Failed(0.8)]), max_size=40))
def test_down_and_up_alternate_whatever_happens(events):
    session = Session(2.0)
    told = []
    for now, event in enumerate(events):
        told += [one for one in session.receive(event, float(now)) if isinstance(one, TellDown | TellUp)]
    assert told == ([TellDown(), TellUp()] * len(told))[: len(told)]


@pytest.mark.parametrize("poll_s", [0.5, 2.0, 60.0])
def test_a_dead_meter_costs_little(poll_s):
    session, now, asked = Session(poll_s), 0.0, 0
    while now < 3600:
        for action in session.receive(Due(), now):
            if action == Ask():
                asked += 1
                now = next(one.at for one in session.receive(Failed(), now) if isinstance(one, NextAt))
            else:
                now = action.at
    assert asked * 0.6 < 0.05 * 3600, "of the bus, with a time-out of 0.6 s"
