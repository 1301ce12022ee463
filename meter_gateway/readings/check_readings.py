"""The sweep of validation: open what is found in readings, close what is over; twice is as good as once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meter_gateway.message_key import instant
from meter_gateway.readings import vee, vee_store, vee_window_store
from meter_gateway.readings.estimate import SHAPED_FROM, fill_gap
from meter_gateway.readings.validation import KnownCounter
from meter_gateway.readings.vee import Found, Judgment, Kind, Over
from meter_gateway.readings.vee_store import ClosedFinding
from meter_gateway.topics import Reading

log = logging.getLogger(__name__)

# A sweep a minute: what it finds has lasted for hours or waits for a person.
CHECK_EVERY_S: Final = 60.0
# The first one soon after the start, when what edges kept meanwhile has arrived.
FIRST_CHECK_S: Final = 10.0
# No check may hold up the database for longer; a sweep of 10,000 meters takes a hundredth of it.
LONGEST_CHECK: Final = "20s"
# Meters whose windows are measured in one sweep: 10,000 come round in 34 minutes, which 48-hour rules can bear.
TURN: Final = 300
# Events, parked readings, gaps and doubts of one sweep; the rest waits a minute for the next.
BATCH: Final = 1_000
# Gaps of one sweep that are estimated by habit (two weeks of readings each); the others get a straight line.
HABITS: Final = 50


@dataclass(slots=True)
class Checked:
    """What one sweep changed, and what failed in it."""

    opened: int = 0
    closed: int = 0
    estimated: int = 0
    faults: list[Exception] = field(default_factory=list)


Check = Callable[[psycopg.AsyncConnection, datetime, Checked], Awaitable[None]]
Measure = Callable[[psycopg.AsyncConnection, Sequence[int], datetime, Checked], Awaitable[None]]


async def run(pool: AsyncConnectionPool, *, clock: Callable[[], datetime]) -> None:
    """Sweep each minute until cancelled; sweeps that fail in a row are told once, and the next one comes."""
    is_failing = False
    wait_s = FIRST_CHECK_S
    while True:
        await asyncio.sleep(wait_s)
        wait_s = CHECK_EVERY_S
        try:
            checked = await check_readings(pool, clock())
        except PoolTimeout as error:
            checked = Checked(faults=[error])
        if checked.faults and not is_failing:
            for fault in checked.faults:
                _log_fault(fault)
        if is_failing and not checked.faults:
            log.info("readings are checked again")
        is_failing = bool(checked.faults)
        if checked.opened or checked.closed:
            log.info("findings in readings: %d opened, %d over", checked.opened, checked.closed)


def _log_fault(fault: Exception) -> None:
    if isinstance(fault, psycopg.OperationalError | PoolTimeout):
        log.warning("readings are not checked: %s", type(fault).__name__)
    else:
        log.error("readings are not checked", exc_info=fault)


async def check_readings(pool: AsyncConnectionPool, now: datetime) -> Checked:
    """Sweep once, each check in a transaction of its own; a check that another headend is at is left to it.

    A check that fails is among the faults and keeps no other from its work. Raises PoolTimeout.
    """
    checked = Checked()
    for check in CHECKS:
        try:
            async with pool.connection() as conn:
                await conn.execute(f"SET LOCAL statement_timeout = '{LONGEST_CHECK}'")
                if await vee_store.lock_checks(conn):
                    await check(conn, now, checked)
        except PoolTimeout:
            raise  # the next one would wait as long
        except Exception as fault:  # noqa: BLE001 - told by the caller; the other checks do their work
            checked.faults.append(fault)
    return checked


async def _apply(
    conn: psycopg.AsyncConnection,
    judged: Sequence[Judgment | None],
    now: datetime,
    checked: Checked,
    *,
    is_said: bool = False,
) -> list[ClosedFinding]:
    """Open and close in the order given, neighbours of a kind in one statement."""
    closed: list[ClosedFinding] = []
    known = [one for one in judged if one is not None]
    for _, run in groupby(known, key=type):
        batch = list(run)
        found = [one for one in batch if isinstance(one, Found)]
        checked.opened += await vee_store.insert_findings(conn, found, now, is_said=is_said)
        over = [one for one in batch if isinstance(one, Over)]
        closed += await vee_store.mark_over(conn, over, now, is_said=is_said)
    checked.closed += len(closed)
    return closed


async def check_events(conn: psycopg.AsyncConnection, now: datetime, checked: Checked) -> None:
    """Turn what edges and ingest told into findings: counters in doubt, strangers, tamper, clocks."""
    after = await vee_store.find_mark(conn, "events")
    events, mark = await vee_store.list_heard(conn, after, now, limit=BATCH)
    await _apply(conn, vee.fold_events(events), now, checked)
    if mark != after:
        await vee_store.mark_mark(conn, "events", mark)


async def check_states(conn: psycopg.AsyncConnection, now: datetime, checked: Checked) -> None:
    """Hold findings against what is known of each meter now, and show conflicts to a person."""
    await _apply(conn, await vee_store.list_counter_doubts(conn, limit=BATCH), now, checked)
    await _apply(conn, await vee_store.list_tampered(conn, now, limit=BATCH), now, checked)
    await _apply(conn, await vee_store.list_strangers_gone(conn), now, checked)
    await _apply(conn, await vee_store.list_conflicts(conn, limit=BATCH), now, checked)


async def check_frozen_clocks(conn: psycopg.AsyncConnection, now: datetime, checked: Checked) -> None:
    """Find the clocks that stand still: many values, all dated to one instant."""
    after = await vee_store.find_mark(conn, "conflicts")
    found, mark = await vee_store.list_frozen_clocks(conn, after, limit=BATCH)
    await _apply(conn, found, now, checked, is_said=True)
    if mark != after:
        await vee_store.mark_mark(conn, "conflicts", mark)


async def check_refused_times(conn: psycopg.AsyncConnection, now: datetime, checked: Checked) -> None:
    """Find the clocks that are so wrong that their readings were refused."""
    after = await vee_store.find_mark(conn, "refused times")
    refused = await vee_store.list_refused_times(conn, after, limit=BATCH)
    found: dict[int, Found] = {}
    for one in refused:
        try:
            reading = msgspec.json.decode(one.payload, type=Reading)
        except msgspec.DecodeError:
            continue  # parked by an older build in another form
        seconds = round((instant(reading.at) - one.received_at).total_seconds())
        # The first refused one says since when.
        found.setdefault(
            one.meter_id,
            Found(one.meter_id, Kind.CLOCK, one.received_at, {"seconds": seconds, "active": True}),
        )
    await _apply(conn, list(found.values()), now, checked, is_said=True)
    if refused:
        await vee_store.mark_mark(conn, "refused times", refused[-1].id)


async def check_gaps(conn: psycopg.AsyncConnection, now: datetime, checked: Checked) -> None:
    """Find meters that fell silent; estimate what is missing once they speak again."""
    closed = await _apply(conn, await vee_window_store.list_ended_gaps(conn, limit=BATCH), now, checked)
    habits = HABITS
    for gap in await vee_window_store.list_gaps_to_estimate(conn, [one.id for one in closed]):
        habit = None
        if gap.to_at - gap.from_at >= SHAPED_FROM and habits:
            habits -= 1
            habit = await vee_window_store.find_habit(conn, gap.meter_id, gap.from_at)
        estimates = fill_gap(
            KnownCounter(gap.from_at, gap.from_value),
            KnownCounter(gap.to_at, gap.to_value),
            timedelta(seconds=gap.read_every_s),
            habit,
        )
        checked.estimated += await vee_window_store.insert_estimates(conn, gap, estimates, now)
    await _apply(conn, await vee_window_store.list_new_gaps(conn, now, limit=BATCH), now, checked)


async def check_windows(conn: psycopg.AsyncConnection, now: datetime, checked: Checked) -> None:
    """Measure the next meters in line: leaks, standstills, reverse flow, clocks.

    What fails is undone by itself: the turn goes on to the next meters whatever is found in these.
    """
    after = await vee_store.find_mark(conn, "turn")
    meters = await vee_window_store.list_turn(conn, after, now, limit=TURN)
    await vee_store.mark_mark(conn, "turn", meters[-1] if len(meters) == TURN else 0)
    for measure in MEASURES:
        try:
            async with conn.transaction():
                await measure(conn, meters, now, checked)
        except Exception as fault:  # noqa: BLE001 - told by the caller; the turn goes on
            checked.faults.append(fault)


async def _measure_flows(
    conn: psycopg.AsyncConnection, meters: Sequence[int], now: datetime, checked: Checked
) -> None:
    flows = await vee_window_store.list_flows(conn, meters, now)
    await _apply(conn, _sorted(vee.judge_flow(one, now) for one in flows), now, checked, is_said=True)


async def _measure_standstills(
    conn: psycopg.AsyncConnection, meters: Sequence[int], now: datetime, checked: Checked
) -> None:
    await _apply(conn, await vee_window_store.list_flats_over(conn), now, checked)
    still = await vee_window_store.list_still_counters(conn, meters, now)
    await _apply(conn, [vee.judge_still(one) for one in still], now, checked)


async def _measure_reverses(
    conn: psycopg.AsyncConnection, meters: Sequence[int], now: datetime, checked: Checked
) -> None:
    reverses = await vee_window_store.list_reverses(conn, meters, now)
    await _apply(conn, _sorted(vee.judge_reverse(one, now) for one in reverses), now, checked, is_said=True)


async def _measure_clocks(
    conn: psycopg.AsyncConnection, meters: Sequence[int], now: datetime, checked: Checked
) -> None:
    clocks = await vee_window_store.list_clock_samples(conn, meters, now)
    judged = _sorted(vee.judge_clock(one.meter_id, one.heard_at, one.ahead_s) for one in clocks)
    await _apply(conn, judged, now, checked, is_said=True)


def _sorted(judged: Iterable[Judgment | None]) -> list[Judgment]:
    """Those of one meter are one: in any order of meters, all that ends in one statement, all that begins in one."""
    return sorted((one for one in judged if one is not None), key=lambda one: isinstance(one, Found))


CHECKS: Final[tuple[Check, ...]] = (
    check_events,
    check_states,
    check_refused_times,
    check_frozen_clocks,
    check_gaps,
    check_windows,
)
MEASURES: Final[tuple[Measure, ...]] = (
    _measure_flows,
    _measure_standstills,
    _measure_reverses,
    _measure_clocks,
)
