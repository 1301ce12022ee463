"""What goes: whole partitions, after their time, and never what was not downsampled."""

from datetime import UTC, datetime

import pytest

from meter_gateway.time_series.retention import Keep, Partition, cutoff, cutoffs, outlived

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
MONTH = datetime(2026, 10, 31, 20, 0, tzinfo=UTC)  # November on the clock of Muscat


def test_a_cutoff_is_the_start_of_a_month_in_muscat():
    assert cutoff(NOW, 0) == MONTH
    assert cutoff(NOW, 11) == datetime(2025, 11, 30, 20, 0, tzinfo=UTC)
    assert cutoff(NOW, 25) == datetime(2024, 9, 30, 20, 0, tzinfo=UTC)
    assert cutoff(datetime(2026, 12, 31, 21, 0, tzinfo=UTC), 1) == datetime(2026, 11, 30, 20, tzinfo=UTC)


def test_readings_wait_for_history():
    keep = Keep()
    assert cutoffs(keep, NOW, MONTH)["reading"] == cutoff(NOW, 25)
    behind = datetime(2023, 4, 30, 20, tzinfo=UTC)
    assert cutoffs(keep, NOW, behind)["reading"] == behind
    assert "reading" not in cutoffs(keep, NOW, None), "nothing is written: nothing goes"


def test_a_partition_goes_when_all_of_it_has_outlived_its_time():
    edge = datetime(2024, 9, 30, 20, tzinfo=UTC)
    last, next_one = datetime(2024, 9, 1, tzinfo=UTC), datetime(2024, 10, 1, tzinfo=UTC)
    partitions = [
        Partition("reading", "a", last),
        Partition("reading", "b", next_one),
        Partition("other", "c", last),
    ]
    assert [one.name for one in outlived(partitions, {"reading": edge})] == ["a"]


@pytest.mark.parametrize(
    "wrong",
    [{"raw_months": 13}, {"hour_months": 24}, {"day_months": 36}, {"dead_letter_days": 0}],
)
def test_too_short_is_refused(wrong):
    with pytest.raises(ValueError, match="kept"):
        Keep(**wrong)
