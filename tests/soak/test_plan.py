"""Kills come by chance but spare the times of measuring; growth of memory is told from warming up."""

import pytest

from tests.soak.house import VICTIMS
from tests.soak.killer import LEAD_S, plan_kills
from tests.soak.memory import Memory, has_grown

MIB = 1024 * 1024


@pytest.mark.parametrize(("run_s", "every_s"), [(40, 3), (180, 5), (1800, 30)])
def test_a_plan(run_s, every_s):
    quiet = min(60, run_s / 8)
    for seed in range(20):
        kills = plan_kills("abcde", run_s=run_s, every_s=every_s, seed=seed)
        assert {kill.name for kill in kills} == set("abcde")
        assert not [k for k in kills if run_s / 3 - quiet < k.at_s <= run_s / 3 or k.at_s > run_s - quiet]
        assert kills == plan_kills("abcde", run_s=run_s, every_s=every_s, seed=seed)


def test_a_broker_dies_with_full_queues():
    kills = plan_kills(VICTIMS, run_s=40, every_s=3, seed=1)
    brokers = [kill.at_s for kill in kills if kill.name == "broker"]
    assert brokers
    for at_s in brokers:
        assert {kill.name for kill in kills if kill.at_s == at_s - LEAD_S} == {"headend-1", "headend-2"}


@pytest.mark.parametrize(
    ("end", "run_s", "grown"),
    [
        (Memory(109 * MIB, 0), 1800, False),
        (Memory(111 * MIB, 0), 1800, True),
        (Memory(141 * MIB, 32 * MIB), 1800, False),
        (Memory(121 * MIB, 0), 40, False),
        (Memory(123 * MIB, 0), 40, True),
    ],
)
def test_growth(end, run_s, grown):
    assert has_grown(Memory(100 * MIB, 0), end, run_s) is grown
