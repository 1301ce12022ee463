"""The soak in short: 300 radio and 20 wired meters for 40 s, everything but the meters killed by chance."""

import pytest

from tests.soak.house import VICTIMS, Size
from tests.soak.report import write_report
from tests.soak.run import soak

SIZE = Size(meters=300, modbus=20, telemetry_s=5.0, poll_s=3.0)


@pytest.mark.demo
@pytest.mark.xdist_group("demo")
async def test_every_reading_that_a_meter_made_is_stored_once_whoever_dies(tmp_path_factory):
    result = await soak(
        tmp_path_factory.mktemp("soak"), SIZE, run_s=40.0, every_s=3.0, seed=20261122, say=print
    )
    print(write_report(result))
    assert result.faults == [], result.found.examples
    assert set(result.kills) == set(VICTIMS)
    assert result.found.made > SIZE.meters * 4 * 6
    assert result.found.answers > SIZE.modbus
