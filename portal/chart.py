"""The geometry of a bar chart: where each bar, gap, line and label stands. Drawing is a template's work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 400  # a phone shows it nearly at this size, so that its numbers stay readable
HEIGHT = 220
START = 44  # room for the numbers of the axis
END = 388  # room for the half of the last label
TOP = 12
BASE = 188
MOST_LINES = 4
MARK = 7  # a triangle that a bar of a week can still carry


@dataclass(frozen=True, slots=True)
class Bar:
    """What one bar says: `value` None is a gap, `text` is its value in words, `label` stands under it."""

    label: str
    title: str
    text: str
    value: int | None
    is_partial: bool = False
    href: str = ""
    is_estimated: bool = False
    suspect_count: int = 0
    note: str = ""  # the same marks in words


@dataclass(frozen=True, slots=True)
class DrawnBar:
    """A bar with its place, in the units of the drawing."""

    bar: Bar
    x: float
    width: float
    y: float
    height: float
    label_x: float
    is_labelled: bool
    mark: str = ""  # the path of a small triangle over a bar that left suspect readings out


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of WIDTH x HEIGHT: bars, and (y, value) of its horizontal lines."""

    bars: tuple[DrawnBar, ...]
    lines: tuple[tuple[float, int], ...]
    width: int = WIDTH
    height: int = HEIGHT
    start: int = START
    end: int = END
    top: int = TOP
    base: int = BASE


def nice_step(most: int) -> int:
    """Return the smallest 1, 2 or 5 times a power of ten that needs at most MOST_LINES lines up to `most`."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power * MOST_LINES >= most:
                return factor * power
        power *= 10


def _mark(middle: float, top: float) -> str:
    """Return the path of a triangle whose tip stands over the middle of a bar, inside the drawing."""
    tip = max(TOP + MARK, top - 3)
    return f"M{middle:.2f} {tip:.2f}l-{MARK / 2:g} -{MARK:g}h{MARK:g}z"


def draw(bars: Sequence[Bar], *, label_every: int, slots: int | None = None) -> Chart:
    """Place the bars; every `label_every`-th from the last one keeps its label.

    With `slots`, places for so many bars are kept and labels count from the first: a day is a day
    though part of it is still to come.
    """
    most = max((bar.value for bar in bars if bar.value is not None), default=0)
    step = nice_step(max(most, 1))
    ceiling = step * max(1, -(-most // step))
    slot = (END - START) / max(1, slots or len(bars))
    labelled_from = 0 if slots else len(bars) - 1
    drawn = []
    for place, bar in enumerate(bars):
        height = (BASE - TOP) * (bar.value or 0) / ceiling if bar.value is not None else float(BASE - TOP)
        drawn.append(
            DrawnBar(
                bar=bar,
                x=round(START + place * slot + slot * 0.12, 2),
                width=round(slot * 0.76, 2),
                y=round(BASE - height, 2),
                height=round(height, 2),
                label_x=round(START + (place + 0.5) * slot, 2),
                is_labelled=(place - labelled_from) % label_every == 0,
                mark=_mark(START + (place + 0.5) * slot, BASE - height) if bar.suspect_count else "",
            )
        )
    lines = tuple(
        (round(BASE - (BASE - TOP) * value / ceiling, 2), value) for value in range(0, ceiling + 1, step)
    )
    return Chart(bars=tuple(drawn), lines=lines)
