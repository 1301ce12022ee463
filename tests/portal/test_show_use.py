"""The words and ways of a page of consumption."""

from datetime import date, timedelta

import pytest

from portal import i18n
from portal.show_use import Period, show_use
from tests.meter_gateway.places import NOW
from tests.portal.test_my_store import readings

LANGUAGES = i18n.load_languages()


async def shown(conn, language="en", **asked):
    return await show_use(
        conn,
        meter_id=1,
        commodity="electricity",
        period=Period(**asked),
        now=NOW,
        language=LANGUAGES[language],
    )


async def test_each_period_leads_closer_and_to_its_neighbours(conn):
    day = date(2026, 3, 5)
    for view, earlier, later, href in (
        ("hours", "?view=hours&day=2026-03-05&hour=6", "?view=hours&day=2026-03-05&hour=18", ""),
        ("day", "?view=day&day=2026-03-04", "?view=day&day=2026-03-06", "?view=hours&day=2026-03-05&hour=0"),
        ("days", "?view=days&day=2026-01-04", "?view=days&day=2026-05-04", "?view=day&day=2026-01-05"),
        ("year", "?view=year&day=2025-03-02", "?view=year&day=2027-02-28", "?view=days&day=2025-03-08"),
        ("months", "", "", "?view=days&day=2025-03-31"),
    ):
        use = await shown(conn, view=view, day=day)
        assert (use.earlier, use.later, use.chart.bars[0].bar.href) == (earlier, later, href)
        assert [is_open for _query, _label, is_open in use.tabs].count(True) == 1


@pytest.mark.parametrize("view", ["hours", "day", "days", "year", "months"])
async def test_now_has_nothing_later_and_the_first_day_nothing_earlier(conn, view):
    assert (await shown(conn, view=view)).later == ""
    assert (await shown(conn, view=view, day=date(1990, 1, 1), hour=0)).earlier == ""


async def test_marks_are_told_in_words(conn):
    await conn.execute(
        "SELECT meter_gateway.ensure_reading_partitions(%s::date, %s::date)", (NOW.date(), NOW.date())
    )
    hours = NOW.replace(minute=0) - timedelta(hours=8)
    await readings(conn, 1, [(hours + timedelta(hours=n), 1_000 * n) for n in (0, 1, 2, 5)])
    await readings(
        conn, 1, [(hours + timedelta(hours=1, minutes=n), 10**9) for n in (5, 6)], quality="suspect"
    )
    use = await shown(conn, view="day")
    notes = [drawn.bar.note for drawn in use.chart.bars if drawn.bar.value is not None]
    assert notes == ["", "2 doubtful readings left out", "", "estimated", "estimated"]
    assert (use.suspects, use.estimated, use.known) == (2, 2, 5_000)
    assert sum(bool(drawn.mark) for drawn in use.chart.bars) == 1
    arabic = await shown(conn, "ar", view="day")
    assert "استُبعدت قراءتان مشكوك فيهما" in {drawn.bar.note for drawn in arabic.chart.bars}


async def test_periods_are_written_out(conn):
    day = date(2026, 11, 21)
    assert (await shown(conn, view="hours", day=day, hour=20)).period == "21 November 2026, 18:00 to 24:00"
    assert (await shown(conn, view="day", day=day)).period == "21 November 2026"
    assert (await shown(conn, view="months", day=day)).period == "1 November 2025 to 30 November 2026"
    assert (await shown(conn, "ar", view="days", day=day)).period.startswith("من 23 سبتمبر 2026 إلى")
