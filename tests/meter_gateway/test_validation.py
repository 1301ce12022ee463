from datetime import timedelta

import pytest

from meter_gateway.readings.validation import KnownCounter, believable, counter_is_suspect, is_tid, refusal
from tests.meter_gateway.places import NOW

KNOWN = KnownCounter(NOW, 1_000_000)
WINDOW = believable(NOW)


@pytest.mark.parametrize(
    ("seconds", "value", "suspect"),
    [
        (30, 1_000_000, False),
        (30, 1_000_500, False),
        (30, 999_999, True),
        (30, 0, True),
        (1, 1_050_000, True),
        (600, 1_050_000, False),
        (-30, 999_000, False),
        (-30, 1_000_001, True),
    ],
)
def test_a_counter_neither_falls_nor_leaps(seconds, value, suspect):
    at = NOW + timedelta(seconds=seconds)
    assert counter_is_suspect(KNOWN, at, value, "electricity") is suspect
    assert counter_is_suspect(None, at, value, "electricity") is False


@pytest.mark.parametrize(
    ("days", "seconds", "refused"),
    [(0, 0, False), (0, 299, False), (0, 301, True), (-29, 0, False), (-31, 0, True)],
)
def test_the_window_of_believable_times(days, seconds, refused):
    at = NOW + timedelta(days=days, seconds=seconds)
    assert (refusal("credit", at, 5, WINDOW) is not None) is refused


@pytest.mark.parametrize(
    ("channel", "value"),
    [("counter", -1), ("load", -1), ("relay", 3), ("credit", 2**60), ("credit", -(2**60))],
)
def test_values_out_of_their_range_are_refused(channel, value):
    assert refusal(channel, NOW, value, WINDOW)


def test_a_credit_may_be_below_zero():
    assert refusal("credit", NOW, -5_000, WINDOW) is None


@pytest.mark.parametrize(
    ("value", "sound"),
    [
        (None, True),
        (0, True),
        (17_000_000, True),
        ("17000000", True),
        ("", False),
        ("-1", False),
        ("١٢", False),
        ("1\n", False),
        ("9" * 17, False),
        (-1, False),
        (2**53 + 1, False),
        (True, False),
        (1.0, False),
        ([1], False),
    ],
)
def test_a_tid_is_a_number_of_minutes(value, sound):
    assert is_tid(value) is sound
