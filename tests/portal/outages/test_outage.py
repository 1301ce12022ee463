"""Every pair of outage state and event is decided."""

from __future__ import annotations

from itertools import product

import pytest

from portal.outages import outage
from portal.outages.outage import OPEN_STATES, OutageEvent, OutageRefused, OutageState


@pytest.mark.parametrize(("state", "event"), list(product(OutageState, OutageEvent)))
def test_every_pair_is_decided(state, event):
    decided = outage.TABLE[state, event]
    if isinstance(decided, OutageState):
        assert outage.move(state, event) is decided
    else:
        with pytest.raises(OutageRefused) as caught:
            outage.move(state, event)
        assert caught.value.reason == decided


def test_a_closed_outage_stays_closed():
    for (state, _), decided in outage.TABLE.items():
        if state not in OPEN_STATES:
            assert decided not in OPEN_STATES
