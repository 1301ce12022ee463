from datetime import UTC, datetime, timedelta

import pytest

from portal.days_left import STALE_AFTER, DaysLeft, Word, days_left

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("credit", "used", "span", "expected", "tone"),
    [
        (None, 70_000, WEEK, DaysLeft(Word.NO_DATA), "quiet"),
        (0, 70_000, WEEK, DaysLeft(Word.NO_CREDIT), "bad"),
        (-5, 70_000, WEEK, DaysLeft(Word.NO_CREDIT), "bad"),
        (9_999, 70_000, WEEK, DaysLeft(Word.BELOW_1), "warn"),
        (10_000, 70_000, WEEK, DaysLeft(Word.DAYS, 1), "warn"),
        (39_999, 70_000, WEEK, DaysLeft(Word.DAYS, 3), "warn"),
        (40_000, 70_000, WEEK, DaysLeft(Word.DAYS, 4), "ok"),
        (999_999, 70_000, WEEK, DaysLeft(Word.DAYS, 99), "ok"),
        (1_000_000, 70_000, WEEK, DaysLeft(Word.OVER_99), "ok"),
        (5_000, 0, WEEK, DaysLeft(Word.OVER_99), "ok"),
        (5_000, None, timedelta(), DaysLeft(Word.NO_DATA), "quiet"),
        (5_000, 100, timedelta(hours=5), DaysLeft(Word.NO_DATA), "quiet"),
    ],
)
def test_the_five_words(credit, used, span, expected, tone) -> None:
    found = days_left(credit=credit, state_at=NOW, used=used, span=span, now=NOW)
    assert found == expected
    assert found.tone == tone


def test_old_credit_is_no_data_not_a_guess() -> None:
    at = NOW - STALE_AFTER - timedelta(seconds=1)
    assert days_left(credit=5_000, state_at=at, used=1, span=WEEK, now=NOW) == DaysLeft(Word.NO_DATA)
    assert days_left(credit=5_000, state_at=None, used=1, span=WEEK, now=NOW) == DaysLeft(Word.NO_DATA)
