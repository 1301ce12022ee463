"""The inference as tables: which element is judged dark from which signals, and what vetoes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.outages.infer import Evidence, MeterView, Rules, infer, is_momentary, is_out, may_close

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
RULES = Rules()
SUBSTATION, FEEDER_1, FEEDER_2, TX_1, TX_2, TX_3, TX_4 = range(1, 8)
PARENTS = {
    SUBSTATION: None,
    FEEDER_1: SUBSTATION,
    FEEDER_2: SUBSTATION,
    TX_1: FEEDER_1,
    TX_2: FEEDER_1,
    TX_3: FEEDER_1,
    TX_4: FEEDER_2,
}


def ago(seconds):
    return NOW - timedelta(seconds=seconds)


def out(meter_id, node, seconds=120, evidence=Evidence.LAST_GASP, *, speaks=True, line=None, alive=None):
    return MeterView(
        meter_id, node, speaks, line, ago(seconds), evidence, None if alive is None else ago(alive)
    )


def fine(meter_id, node, alive=10, *, line=None):
    return MeterView(meter_id, node, True, line, alive_at=ago(alive))


def quiet(meter_id, node, *, speaks=True):
    return MeterView(meter_id, node, speaks)


def judged(*meters, rules=RULES, down=frozenset()):
    found = infer(PARENTS, meters, now=NOW, rules=rules, lines_down=down)
    return [prediction.node_id for prediction in found.predictions]


def test_two_last_gasps_under_a_transformer_are_its_outage():
    (prediction,) = infer(
        PARENTS, [out(1, TX_1, 130), out(2, TX_1, 120), quiet(3, TX_1, speaks=False)], now=NOW, rules=RULES
    ).predictions
    assert (prediction.node_id, prediction.started_at) == (TX_1, ago(130))
    assert prediction.source is Evidence.LAST_GASP
    assert [(m.meter_id, m.out_at, m.evidence) for m in prediction.meters] == [
        (1, ago(130), Evidence.LAST_GASP),
        (2, ago(120), Evidence.LAST_GASP),
        (3, ago(130), Evidence.INFERRED),
    ]


@pytest.mark.parametrize(
    ("meters", "nodes"),
    [
        ([out(1, TX_1)], []),  # one meter is the house's own trouble
        ([out(1, TX_1), out(2, TX_2)], []),  # two houses under two transformers
        # k must reach 30 % of those who can speak: 3 of 10
        ([out(1, TX_1), out(2, TX_1), *[quiet(n, TX_1) for n in range(3, 11)]], []),
        ([out(1, TX_1), out(2, TX_1), out(3, TX_1), *[quiet(n, TX_1) for n in range(4, 11)]], [TX_1]),
        # meters without a link cannot speak, so they are not counted among the silent
        ([out(1, TX_1), out(2, TX_1), *[quiet(n, TX_1, speaks=False) for n in range(3, 11)]], [TX_1]),
    ],
)
def test_enough_children_predict_their_device(meters, nodes):
    assert judged(*meters) == nodes


@pytest.mark.parametrize(
    ("alive", "nodes"),
    [
        (10, []),  # seen well after the cut
        (118, []),  # just after the grace
        (119, [TX_1]),  # within two seconds of the cut two clocks may disagree
        (121, [TX_1]),  # before the cut: it was alive then, as all were
    ],
)
def test_a_child_proven_alive_vetoes(alive, nodes):
    assert judged(out(1, TX_1), out(2, TX_1), fine(3, TX_1, alive)) == nodes


def test_an_old_proof_of_life_lapses():
    cut = 60 * 40
    assert judged(out(1, TX_1, cut), out(2, TX_1, cut), fine(3, TX_1, 60 * 20)) == [TX_1]
    assert judged(out(1, TX_1, cut), out(2, TX_1, cut), fine(3, TX_1, 60 * 14)) == []


def test_two_siblings_climb_to_their_parent_and_one_does_not():
    one = [out(1, TX_1), out(2, TX_1)]
    two = [*one, out(3, TX_2), out(4, TX_2)]
    assert judged(*one) == [TX_1]
    assert judged(*two) == [FEEDER_1]
    assert judged(*two, quiet(5, TX_3)) == [FEEDER_1]


def test_a_living_neighbour_keeps_the_parent_out_of_it():
    two = [out(1, TX_1), out(2, TX_1), out(3, TX_2), out(4, TX_2)]
    assert judged(*two, fine(5, TX_3)) == [TX_1, TX_2]


def test_two_feeders_climb_to_the_substation():
    parents = {**PARENTS, 8: FEEDER_2}
    meters = [out(10 * node + n, node) for node in (TX_1, TX_2, TX_4, 8) for n in range(2)]
    found = infer(parents, meters, now=NOW, rules=RULES)
    assert [p.node_id for p in found.predictions] == [SUBSTATION]
    assert len(found.predictions[0].meters) == 8


@pytest.mark.parametrize(("seconds", "nodes"), [(59, []), (60, [TX_1])])
def test_signals_ripen_before_they_count(seconds, nodes):
    assert judged(out(1, TX_1, seconds), out(2, TX_1, 5)) == nodes


def test_power_that_came_back_is_no_signal():
    assert judged(out(1, TX_1), out(2, TX_1, alive=60)) == []
    assert not is_out(out(1, TX_1, 120, alive=119))
    assert is_out(out(1, TX_1, 120, alive=120))  # a reading of the very instant of the cut proves nothing


def test_words_of_people_yield_to_any_fresh_life_under_the_device():
    calls = [out(1, TX_1, evidence=Evidence.CONTACT), out(2, TX_1, evidence=Evidence.CONTACT)]
    assert judged(*calls) == [TX_1]
    assert judged(*calls, fine(3, TX_1, 60 * 10)) == []
    assert judged(*calls, fine(3, TX_1, 60 * 16)) == [TX_1]


class TestSilence:
    def silent(self, meter_id, node, line="site-1/rtu-1"):
        return out(meter_id, node, evidence=Evidence.SILENCE, line=line)

    def test_meters_that_fell_silent_on_a_living_line_are_an_outage(self):
        assert judged(self.silent(1, TX_1), self.silent(2, TX_1), fine(3, TX_2, line="site-1/rtu-1")) == [
            TX_1
        ]

    def test_a_whole_line_silent_without_last_gasp_is_comms_loss(self):
        meters = [self.silent(1, TX_1), self.silent(2, TX_1), self.silent(3, TX_2), self.silent(4, TX_2)]
        found = infer(PARENTS, meters, now=NOW, rules=RULES)
        assert found.predictions == ()
        assert found.comms_loss == {"site-1/rtu-1"}

    def test_a_water_meter_on_the_line_shows_which_of_the_two_it_is(self):
        meters = [self.silent(1, TX_1), self.silent(2, TX_1), self.silent(3, TX_2), self.silent(4, TX_2)]
        zone = {**PARENTS, 9: None}
        dead = MeterView(5, 9, True, "site-1/rtu-1", is_silent=True)
        found = infer(zone, [*meters, dead], now=NOW, rules=RULES)
        assert (found.predictions, found.comms_loss) == ((), {"site-1/rtu-1"})
        answering = MeterView(5, 9, True, "site-1/rtu-1")
        found = infer(zone, [*meters, answering], now=NOW, rules=RULES)
        assert [p.node_id for p in found.predictions] == [FEEDER_1]

    def test_a_last_gasp_beside_the_silent_line_makes_it_an_outage(self):
        meters = [self.silent(1, TX_1), self.silent(2, TX_1), self.silent(3, TX_2), self.silent(4, TX_2)]
        assert judged(*meters, out(5, TX_1)) == [FEEDER_1]

    def test_a_gateway_that_is_down_says_nothing_about_supply(self):
        assert judged(self.silent(1, TX_1), self.silent(2, TX_1), down=frozenset({"site-1/rtu-1"})) == []
        assert judged(self.silent(1, TX_1), out(2, TX_1), out(3, TX_1), down=frozenset({"site-1/rtu-1"})) == [
            TX_1
        ]


@pytest.mark.parametrize(("minutes", "momentary"), [(1, True), (5, True), (6, False)])
def test_momentary(minutes, momentary):
    assert is_momentary(NOW, NOW + timedelta(minutes=minutes), RULES) is momentary


@pytest.mark.parametrize(
    ("restored", "speaking", "closes"),
    [(0, 0, False), (0, 1, False), (1, 1, True), (18, 19, False), (19, 20, True), (94, 100, False)],
)
def test_an_outage_closes_when_all_or_95_percent_are_alive(restored, speaking, closes):
    assert may_close(restored, speaking) is closes


views = st.lists(
    st.tuples(
        st.sampled_from([TX_1, TX_2, TX_3, TX_4]),
        st.booleans(),
        st.one_of(st.none(), st.tuples(st.integers(0, 3000), st.sampled_from(list(Evidence)[:3]))),
        st.one_of(st.none(), st.integers(0, 3000)),
    ),
    max_size=14,
).map(
    lambda rows: [
        MeterView(
            meter_id,
            node,
            speaks,
            None,
            ago(told[0]) if told else None,
            told[1] if told else None,
            None if alive is None else ago(alive),
        )
        for meter_id, (node, speaks, told, alive) in enumerate(rows)
    ]
)


@settings(max_examples=150, deadline=None)
@given(views)
def test_predictions_never_overlap_and_rest_on_signals(meters):
    predictions = infer(PARENTS, meters, now=NOW, rules=RULES).predictions
    listed = [meter.meter_id for prediction in predictions for meter in prediction.meters]
    assert len(listed) == len(set(listed))
    signals = {meter.meter_id for meter in meters if is_out(meter)}
    for prediction in predictions:
        told = [m for m in prediction.meters if m.evidence is not Evidence.INFERRED]
        assert len(told) >= RULES.k_min
        assert {m.meter_id for m in told} <= signals
        assert prediction.started_at == min(m.out_at for m in told) <= NOW - RULES.debounce


@settings(max_examples=60, deadline=None)
@given(views, st.integers(0, 13))
def test_order_of_arrival_changes_nothing(meters, turn):
    turned = meters[turn:] + meters[:turn]
    assert infer(PARENTS, meters, now=NOW, rules=RULES) == infer(PARENTS, turned, now=NOW, rules=RULES)


def test_thresholds_are_settings():
    assert judged(out(1, TX_1), rules=Rules(k_min=1)) == [TX_1]
    loose = Rules(p=Fraction(1, 10))
    assert judged(out(1, TX_1), out(2, TX_1), *[quiet(n, TX_1) for n in range(3, 11)], rules=loose) == [TX_1]
