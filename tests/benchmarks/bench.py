"""Rates beside an anchor, all in one run on one thread: median of five rounds, spread, ratio and goal."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ROUNDS = 5
ROUND_S = (
    0.2  # of processor time for each case in each round: far above the clock's step, short enough to wait for
)
MAX_CALLS = 1_000_000  # a call that costs nothing measurable shall not be repeated for ever


def pace(rate: float) -> str:
    """A rate as people compare it: 1.23 M/s, 45.6 k/s, 138 /s."""
    for size, unit in ((1e6, "M/s"), (1e3, "k/s")):
        if rate >= size:
            return f"{rate / size:.3g} {unit}"
    return f"{rate:.3g} /s"


@dataclass(frozen=True)
class Case:
    """`work()` makes `items` things. `anchor` names the case it is held against, `goal` the least ratio.

    With `every_round` each round must reach the goal, not their median; `show` writes a figure.
    """

    name: str
    work: Callable[[], object]
    items: int = 1
    anchor: str | None = None
    goal: float | None = None
    every_round: bool = False
    show: Callable[[float], str] = pace


@dataclass
class Measured:
    """Items per second of processor time, one for each round, and the same over the anchor of that round."""

    case: Case
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        """Largest less smallest, as a part of the median."""
        return (max(self.rates) - min(self.rates)) / self.rate

    @property
    def ratio(self) -> float:
        return min(self.ratios) if self.case.every_round else statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        return self.case.goal is None or self.ratio >= self.case.goal


def calls_for(work: Callable[[], object], seconds: float = ROUND_S) -> int:
    """How many calls fill a round. The first call is a warm-up: tables are made, caches filled."""
    work()
    calls = 1
    while calls < MAX_CALLS:
        took = timed(work, calls)
        if took >= seconds / 8:
            return max(1, min(MAX_CALLS, round(calls * seconds / took)))
        calls *= 4
    return MAX_CALLS


def timed(work: Callable[[], object], calls: int) -> float:
    """Processor seconds of this thread: a busy neighbour on the machine lengthens the wait, not the work."""
    gc.collect()
    started = time.thread_time_ns()
    for _ in range(calls):
        work()
    return max(time.thread_time_ns() - started, 1) / 1e9


def measure(cases: Sequence[Case], seconds: float = ROUND_S) -> list[Measured]:
    """Rounds go over all cases in turn, so that a slow spell of the machine meets ours and the anchor alike."""
    calls = {case.name: calls_for(case.work, seconds) for case in cases}
    measured = {case.name: Measured(case) for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            repeats = calls[case.name]
            measured[case.name].rates.append(case.items * repeats / timed(case.work, repeats))
    compare(measured)
    return list(measured.values())


def measure_rates(cases: Sequence[Case]) -> list[Measured]:
    """The same for cases whose `work()` measures itself and returns a rate: several processes, wall clock."""
    measured = {case.name: Measured(case) for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            measured[case.name].rates.append(case.work())
    compare(measured)
    return list(measured.values())


def compare(measured: dict[str, Measured]) -> None:
    """Hold each round against its anchor's of the same round."""
    for one in measured.values():
        if one.case.anchor:
            anchor = measured[one.case.anchor]
            one.ratios = [ours / theirs for ours, theirs in zip(one.rates, anchor.rates, strict=True)]


def table(measured: Sequence[Measured]) -> str:
    """The lines `what | ours | anchor | ratio` with spreads and goals, as Markdown."""
    by_name = {one.case.name: one for one in measured}
    lines = [
        "| what | ours | anchor | ratio | goal |",
        "|---|---|---|---|---|",
    ]
    for one in measured:
        anchor = by_name[one.case.anchor] if one.case.anchor else None
        goal = one.case.goal
        verdict = "" if goal is None else f"≥ {goal:g} {'met' if one.met else 'MISSED'}"
        lines.append(
            f"| {one.case.name} | {one.case.show(one.rate)} ± {one.spread / 2:.0%} "
            f"| {f'{anchor.case.show(anchor.rate)} ({anchor.case.name})' if anchor else ''} "
            f"| {f'{one.ratio:.3g}' if anchor else ''} | {verdict} |"
        )
    return "\n".join(lines)


def report(title: str, cases: Sequence[Case], seconds: float = ROUND_S) -> int:
    """Measure, print, and give the exit status: 1 when a goal is missed."""
    measured = measure(cases, seconds)
    print(f"{title}: Python {platform.python_version()} on {platform.machine()}, one thread, processor time,")
    print(f"median of {ROUNDS} rounds of {seconds} s each, ± half the distance from slowest to fastest\n")
    return conclude(measured)


def report_rates(title: str, cases: Sequence[Case]) -> int:
    """The same for cases that measure themselves."""
    measured = measure_rates(cases)
    print(f"{title}: Python {platform.python_version()} on {platform.machine()},")
    print(f"median of {ROUNDS} rounds, ± half the distance from slowest to fastest\n")
    return conclude(measured)


def conclude(measured: Sequence[Measured]) -> int:
    """Print the table; 1 when a goal is missed."""
    print(table(measured))
    missed = [one.case.name for one in measured if not one.met]
    print(f"\n{len(missed)} goals missed" + (f": {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0
