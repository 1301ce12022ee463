"""What a page needs to show one meter's consumption: bars with their words, the way to other periods, the sums."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import psycopg

from portal import consumption_store, formats
from portal.chart import Bar, Chart, draw
from portal.consumption import HOURS_SHOWN, Bucket, View, bounds_of, buckets_of, part_of_day, reach
from portal.i18n import Language, msg

EARLIEST_DAY: Final = date(2020, 1, 1)
NOON: Final = 12
# How many bars share one label, so that labels do not touch on a phone.
LABEL_EVERY: Final[dict[View, int]] = {"months": 3, "year": 13, "days": 14, "day": 6, "hours": 8}
VIEWS: Final[tuple[tuple[View, str], ...]] = (
    ("hours", msg("6 hours")),
    ("day", msg("Day")),
    ("days", msg("60 days")),
    ("year", msg("Year")),
    ("months", msg("13 months")),
)
OF_A_DAY: Final = frozenset({"day", "hours"})
# Where one can go a step back and forth, by what step.
STEPS: Final[dict[View, timedelta]] = {
    "hours": timedelta(hours=HOURS_SHOWN),
    "day": timedelta(days=1),
    "days": timedelta(days=60),
    "year": timedelta(weeks=52),
}


@dataclass(frozen=True, slots=True)
class Period:
    """What is asked for: a view, a day in it, an hour of that day; None leaves it to the page."""

    view: View = "days"
    day: date | None = None
    hour: int | None = None


@dataclass(frozen=True, slots=True)
class UseChart:
    """A drawing with its words: sums in Wh or mL; links are queries to the same page, "" where there is none."""

    view: View
    period: str
    tabs: tuple[tuple[str, str, bool], ...]  # (query, label, whether it is open)
    earlier: str
    later: str
    chart: Chart
    known: int
    gaps: int
    estimated: int
    suspects: int


async def show_use(
    conn: psycopg.AsyncConnection,
    *,
    meter_id: int,
    commodity: str,
    period: Period,
    now: datetime,
    language: Language,
) -> UseChart:
    """Read and draw the use of one meter; what lies in the future is not shown."""
    view, today = period.view, formats.in_muscat(now)
    shown = min(max(period.day or today.date(), EARLIEST_DAY), today.date())
    usual_hour = today.hour if shown == today.date() else NOON
    part = part_of_day(usual_hour if period.hour is None else period.hour)
    bounds = bounds_of(view, shown, part)
    spans = await consumption_store.list_spans(
        conn, meter_id, view, since=bounds[0] - reach(view), until=bounds[-1] + reach(view)
    )
    found = [one for one in buckets_of(spans, bounds, view, now) if one.start <= now]
    bars = [_bar(one, view, commodity, language) for one in found]
    return UseChart(
        view=view,
        period=_period(view, bounds, language),
        tabs=tuple((_query(key, shown, part), language._(label), key == view) for key, label in VIEWS),
        earlier=_step(view, bounds, -1, now),
        later=_step(view, bounds, 1, now),
        # What is still to come keeps its place on the clock of a day.
        chart=draw(
            bars,
            label_every=LABEL_EVERY[view],
            slots=len(bounds) - 1 if view in OF_A_DAY else None,
        ),
        known=sum(one.used for one in found if one.used is not None),
        gaps=sum(one.used is None for one in found),
        estimated=sum(one.is_estimated for one in found),
        suspects=sum(one.suspect_count for one in found),
    )


def _query(view: View, day: date, hour: int) -> str:
    return f"?view={view}&day={day.isoformat()}" + (f"&hour={hour}" if view == "hours" else "")


def _step(view: View, bounds: list[datetime], sign: int, now: datetime) -> str:
    """Return the query of the period before or after; "" where there is none."""
    if view not in STEPS:
        return ""
    # A day or a part of one is named by its start, a row of bars by what its last one holds.
    named = bounds[0] if view in OF_A_DAY else bounds[-2]
    moved = named + sign * STEPS[view]
    if moved.date() < EARLIEST_DAY or (sign > 0 and bounds[-1] > now):
        return ""
    return _query(view, moved.date(), moved.hour)


def _period(view: View, bounds: list[datetime], language: Language) -> str:
    if view == "day":
        return formats.date_text(bounds[0], language.code)
    if view == "hours":
        return language._(
            "%(day)s, %(start)s to %(end)s",
            day=formats.date_text(bounds[0], language.code),
            start=formats.time_text(bounds[0]),
            end=formats.time_text(bounds[-1]) if bounds[-1].hour else "24:00",
        )
    last = bounds[-1] - timedelta(days=1)
    return language._(
        "%(first)s to %(last)s",
        first=formats.date_text(bounds[0], language.code),
        last=formats.date_text(last, language.code),
    )


def _bar(bucket: Bucket, view: View, commodity: str, language: Language) -> Bar:
    label, title, href = _names(bucket, view, language)
    text = language._("No reading")
    if bucket.used is not None:
        text = formats.quantity_text(bucket.used, commodity, language.code)
    if bucket.used is not None and bucket.is_partial:
        text = language._("%(amount)s so far", amount=text)
    notes = []
    if bucket.has_estimates:
        notes.append(language._("estimated") if bucket.is_estimated else language._("partly estimated"))
    if bucket.suspect_count:
        notes.append(
            language.ngettext(
                "%(num)s doubtful reading left out",
                "%(num)s doubtful readings left out",
                bucket.suspect_count,
                num=bucket.suspect_count,
            )
        )
    return Bar(
        label,
        title,
        text,
        bucket.used,
        bucket.is_partial,
        href,
        is_estimated=bucket.is_estimated,
        suspect_count=bucket.suspect_count,
        note=("، " if language.code == "ar" else ", ").join(notes),
    )


def _names(bucket: Bucket, view: View, language: Language) -> tuple[str, str, str]:
    """Return a bar's label, its title and the query that shows it closer."""
    start, code = formats.in_muscat(bucket.start), language.code
    if view == "hours":
        return formats.time_text(start), formats.time_text(start), ""
    if view == "day":
        return formats.time_text(start), formats.time_text(start), _query("hours", start.date(), start.hour)
    if view == "days":
        return (
            formats.day_month_text(start, code),
            formats.date_text(start, code),
            _query("day", start.date(), 0),
        )
    if view == "year":
        title = language._("Week from %(day)s", day=formats.date_text(start, code))
        return (
            formats.month_text(start, code, short=True),
            title,
            _query("days", start.date() + timedelta(6), 0),
        )
    last_of_month = formats.in_muscat(bucket.end - timedelta(hours=1)).date()
    return (
        formats.month_text(start, code, short=True),
        formats.month_text(start, code),
        _query("days", last_of_month, 0),
    )
