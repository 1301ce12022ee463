"""A crowd is as large as asked for, whole, and always the same."""

import pytest

from firmware_sim.crowd import build_crowd, crowd_buses
from token_engine.identifiers import Drn


def test_a_crowd_hangs_together():
    crowd = build_crowd(250)
    assert len({Drn(m.drn) for m in crowd.installed}) == 250
    assert {m.link for m in crowd.meters} == {"mqtt"}
    assert len(crowd.meters_under("SS-1")) == 250
    assert len(crowd.meters_under("CX-3")) == 50
    assert {c.usage_point_codes[0] for c in crowd.customers} == set(crowd.usage_point_by_code)
    assert len({c.phone for c in crowd.customers}) == 250
    assert build_crowd(250) == crowd


@pytest.mark.parametrize("size", [0, 100_001])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="crowd"):
        build_crowd(size)


def test_wired_meters_hang_on_buses_of_twenty():
    crowd = build_crowd(5, modbus=41)
    wired = [m for m in crowd.meters if m.link == "modbus"]
    assert len(wired) == 41
    assert {m.bus for m in wired} == set(crowd_buses(41)) == {"tcp-1", "tcp-2", "tcp-3"}
    assert len({(m.bus, m.unit) for m in wired}) == 41
    assert {m.unit for m in wired} <= set(range(1, 21))
    assert build_crowd(5).meters[:4] == crowd.meters[:4]
