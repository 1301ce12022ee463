"""The soak in its 3-minute form: 300 radio and 20 wired meters, everything but the meters killed by chance."""

import pytest

from tests.soak.house import VICTIMS, Size
from tests.soak.report import write_report
from tests.soak.run import soak

# Small, so that it leaves the machine to the tests beside it: most of its three minutes it waits.
SIZE = Size(meters=300, modbus=20, telemetry_s=10.0, poll_s=5.0)


@pytest.mark.demo
async def test_every_reading_that_a_meter_made_is_stored_once_whoever_dies(tmp_path_factory):
    result = await soak(
        tmp_path_factory.mktemp("soak"), SIZE, run_s=180.0, every_s=6.0, seed=20261122, say=print
    )
    print(write_report(result))
    assert result.faults == [], result.found.examples
    assert set(result.kills) == set(VICTIMS)
    assert result.found.made > SIZE.meters * 4 * 14
    assert result.found.answers > SIZE.modbus
