"""What a page of consumption takes from its query, and what it leaves to the page."""

from datetime import date

from portal.pages.period import asked_period
from portal.show_use import Period


def test_what_is_not_asked_is_left_to_the_page() -> None:
    assert asked_period() == Period("days", None, None)
    assert asked_period("hours", date(2026, 11, 22), 6) == Period("hours", date(2026, 11, 22), 6)
