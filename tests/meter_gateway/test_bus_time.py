import pytest

from meter_gateway.bus.bus_time import read_s, sweep_s
from meter_gateway.meter_map import Read


@pytest.mark.parametrize(
    ("count", "baud", "ms"), [(40, 9600, 107 + 8), (1, 9600, 25), (125, 2400, 1237), (40, 115200, 9.5)]
)
def test_a_read_takes_its_bytes_and_two_silences(count, baud, ms):
    assert read_s(count, baud, 0) * 1000 == pytest.approx(ms, rel=0.02)


def test_a_second_read_costs_as_much_as_twenty_to_fifty_registers():
    saved = sweep_s([Read(3, 0, 10), Read(3, 30, 10)], 9600, 0.02) - read_s(20, 9600, 0.02)
    assert 15 < saved / (2 * 11 / 9600) < 50
