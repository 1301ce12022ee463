from datetime import UTC, datetime, timedelta

import pytest

from portal.rate_limit import Limit, TooManyAttempts, check_hits, window_start
from portal.rate_limit_store import bucket_name, check_all, delete_old_windows, spend

NOW = datetime(2026, 11, 22, 9, 7, 11, tzinfo=UTC)
LIMIT = Limit("test", 3, 900)


def test_windows_are_aligned_and_as_long_as_they_say() -> None:
    start = window_start(NOW, LIMIT)
    assert start == datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
    assert window_start(start + timedelta(seconds=899), LIMIT) == start
    assert window_start(start + timedelta(seconds=900), LIMIT) == start + timedelta(seconds=900)


def test_the_last_allowed_try_passes_and_the_next_says_when_to_return() -> None:
    check_hits(3, LIMIT, NOW)
    with pytest.raises(TooManyAttempts) as caught:
        check_hits(4, LIMIT, NOW)
    assert caught.value.retry_after_s == 900 - 431


async def test_tries_are_counted_by_subject_and_window(conn) -> None:
    for expected in (1, 2, 3):
        counts = await spend(conn, NOW, (LIMIT, "one"))
        assert counts == [(LIMIT, expected)]
        check_all(counts, NOW)
    with pytest.raises(TooManyAttempts):
        check_all(await spend(conn, NOW, (LIMIT, "one")), NOW)
    assert await spend(conn, NOW, (LIMIT, "other")) == [(LIMIT, 1)]
    later = NOW + timedelta(seconds=900)
    assert await spend(conn, later, (LIMIT, "one")) == [(LIMIT, 1)]
    assert await delete_old_windows(conn, later - timedelta(seconds=800)) == 2


def test_a_bucket_does_not_hold_the_phone() -> None:
    assert "9123" not in bucket_name(LIMIT, "+96891234567")
    assert bucket_name(LIMIT, "a") != bucket_name(LIMIT, "b")
