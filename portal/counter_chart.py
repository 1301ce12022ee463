"""The geometry of a line of readings in which every point says what it is: measured, in doubt or estimated. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, Literal

from portal.chart import BASE, END, HEIGHT, START, TOP, WIDTH, nice_step
from portal.formats import in_muscat
from portal.readings_store import Point

Look = Literal["measured", "doubt", "estimated"]
# Two readings further apart than this share of the drawing are not joined: what lies between is unknown.
LONGEST_BRIDGE: Final = 0.06
# Labels stand at whole hours and midnights of the local clock, at the smallest of these steps that leaves room.
MOST_LABELS: Final = 5
_HOURS: Final = (1, 3, 6, 12, 24, 48, 96, 168, 336)
# A counter's axis shows so many parts of its range above and below.
_MARGIN: Final = 12


@dataclass(frozen=True, slots=True)
class Mark:
    """One point with its place; `beyond` is -1 or 1 where its value lies below or above the drawing."""

    point: Point
    look: Look
    x: float
    y: float
    beyond: int


@dataclass(frozen=True, slots=True)
class Line:
    """A stretch between two neighbouring points; dashed where it was estimated."""

    x1: float
    y1: float
    x2: float
    y2: float
    is_dashed: bool


@dataclass(frozen=True, slots=True)
class CounterChart:
    """A drawing of WIDTH x HEIGHT: marks, lines, (y, value) of the axis, (x, instant) of labels, shaded (x, x)."""

    marks: tuple[Mark, ...]
    lines: tuple[Line, ...]
    axis: tuple[tuple[float, int], ...]
    labels: tuple[tuple[float, datetime], ...]
    shade: tuple[float, float]
    counts: dict[Look, int]
    width: int = WIDTH
    height: int = HEIGHT
    start: int = START
    end: int = END
    top: int = TOP
    base: int = BASE


def look_of(quality: str) -> Look:
    """Return how a quality is drawn."""
    return "doubt" if quality == "suspect" else "estimated" if quality == "estimated" else "measured"


def draw_counter(
    points: Sequence[Point],
    *,
    since: datetime,
    until: datetime,
    found: tuple[datetime, datetime],
) -> CounterChart | None:
    """Place the points of [since, until]; `found` is the stretch that is shaded. None without a point."""
    if not points or until <= since:
        return None
    low, high, step = _range(points)

    def across(at: datetime) -> float:
        share = (at - since) / (until - since)
        return round(START + (END - START) * min(max(share, 0.0), 1.0), 2)

    def up(value: int) -> float:
        inside = min(max(value, low), high)
        return round(BASE - (BASE - TOP) * (inside - low) / (high - low), 2)

    marks = tuple(
        Mark(
            point,
            look_of(point.quality),
            across(point.at),
            up(point.value),
            (point.value > high) - (point.value < low),
        )
        for point in points
    )
    axis = tuple((up(value), value) for value in range(low, high + 1, step))
    labels = tuple((across(at), at) for at in label_times(since, until))
    counts: dict[Look, int] = {"measured": 0, "doubt": 0, "estimated": 0}
    for mark in marks:
        counts[mark.look] += 1
    return CounterChart(
        marks=marks,
        lines=_lines(marks, (until - since) * LONGEST_BRIDGE),
        axis=axis,
        labels=labels,
        shade=(across(found[0]), across(found[1])),
        counts=counts,
    )


def label_times(since: datetime, until: datetime) -> list[datetime]:
    """Return the instants in [since, until] that get a label: at most five, on whole hours of the local clock."""
    hours = next(
        (step for step in _HOURS if (until - since) // timedelta(hours=step) < MOST_LABELS), _HOURS[-1]
    )
    at = in_muscat(since).replace(hour=0, minute=0, second=0, microsecond=0)
    while at < since:
        at += timedelta(hours=hours)
    found: list[datetime] = []
    while at <= until and len(found) < MOST_LABELS:
        found.append(at)
        at += timedelta(hours=hours)
    return found


def _range(points: Sequence[Point]) -> tuple[int, int, int]:
    """Lowest and highest value of the axis and its step: of what is believed, or of all where nothing is."""
    believed = [point.value for point in points if look_of(point.quality) != "doubt"]
    values = believed or [point.value for point in points]
    lowest, highest = min(values), max(values)
    margin = max((highest - lowest) // _MARGIN, 1)
    step = nice_step(max(highest - lowest + 2 * margin, 1))
    low = (lowest - margin) // step * step
    if lowest >= 0:
        low = max(low, 0)
    high = -(-(highest + margin) // step) * step
    return low, max(high, low + step), step


def _lines(marks: Sequence[Mark], longest: timedelta) -> tuple[Line, ...]:
    """Join what is believed; what is in doubt stands alone."""
    joined = [mark for mark in marks if mark.look != "doubt"]
    return tuple(
        Line(a.x, a.y, b.x, b.y, "estimated" in (a.look, b.look))
        for a, b in pairwise(joined)
        if b.point.at - a.point.at <= longest or "estimated" in (a.look, b.look)
    )
