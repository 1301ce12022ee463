from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter_gateway.readings.rebase import FEWEST, find_restart
from meter_gateway.readings.validation import KnownCounter, counter_is_suspect

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def doubted(*values):
    return [KnownCounter(NOW + timedelta(minutes=place), value) for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "believed", "left"),
    [
        ([], None, None),
        ([5, 6], None, None),
        ([5, 6, 7], [5, 6, 7], 0),
        ([0, 53_700_000, 5, 6, 7], [5, 6, 7], 2),
        ([5, 6, 7, 3], None, None),  # it fell again: wait
        ([5, 6, 7, 3, 4, 4], [3, 4, 4], 3),
        ([0, 0, 0], [0, 0, 0], 0),
    ],
)
def test_the_newest_run_that_agrees_is_believed(values, believed, left):
    restart = find_restart(doubted(*values), "electricity")
    if believed is None:
        assert restart is None
        return
    assert (restart.base_value, restart.top_value) == (believed[0], believed[-1])
    assert (restart.believed, restart.left) == (len(believed), left)
    assert restart.until_at - restart.from_at == timedelta(minutes=len(believed) - 1)


@given(st.lists(st.integers(0, 40_000), max_size=30))
@settings(max_examples=60, deadline=None)
def test_what_is_believed_never_contradicts_itself(values):
    readings = doubted(*values)
    restart = find_restart(readings, "electricity")
    if restart is None:
        return
    run = readings[restart.left :]
    assert len(run) == restart.believed >= FEWEST
    for before, after in pairwise(run):
        assert not counter_is_suspect(before, after.at, after.value, "electricity")
    if restart.left:
        outside = readings[restart.left - 1]
        assert counter_is_suspect(outside, run[0].at, run[0].value, "electricity")
