"""The platform beside the meters' own journal: which readings are missing, wrong, or nobody's."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from firmware_sim.journal import Answer, count_unreceipted, each_meter, last_place, list_answers
from meter_gateway.edge.watch import REPORT_MS

# From an answer on the bus to the time that the gateway writes on it: other requests of the same poll.
POLL_TAKES_MS = 5_000
RESTART_MS = 5_000
EXAMPLES = 10
Key = tuple[str, int]  # channel, epoch ms


@dataclass(slots=True)
class Found:
    """Counts of readings; `ok` when every one of the meters' is stored once and nothing else is."""

    made: int = 0
    stored: int = 0
    missing: int = 0
    wrong: int = 0  # another value under the same key
    nobodys: int = 0  # stored, and no meter ever said it
    answers: int = 0  # of wired meters
    uncovered: int = 0  # of these: no stored reading within the gateway's promise
    conflicts: int = 0
    dead_letters: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.made > 0 and not (
            self.missing
            or self.wrong
            or self.nobodys
            or self.uncovered
            or self.conflicts
            or self.dead_letters
        )

    def say(self, text: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(text)


@dataclass(frozen=True, slots=True)
class Wired:
    """What to know for the wired meters: poll period, times of the gateway's deaths, end of the run (epoch ms)."""

    poll_ms: int
    deaths_ms: tuple[int, ...]
    end_ms: int


async def drain(file: Path, limit_s: float) -> tuple[int, int]:
    """Wait until what was made so far is receipted; returns its last place and how much still is not."""
    place = last_place(file)
    end = time.monotonic() + limit_s
    while (left := count_unreceipted(file, place)) and time.monotonic() < end:
        await asyncio.sleep(1.0)
    return place, left


async def compare(file: Path, database_url: str, until_place: int, wired: Wired) -> Found:
    """Compare in one snapshot of the database, taken before the journal is read to its end."""
    found = Found()
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await conn.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        cursor = await conn.execute("SELECT drn, id, link FROM meter_gateway.meter")
        meters = {drn: (id_, link) for drn, id_, link in await cursor.fetchall()}
        radio = {drn for drn, (_, link) in meters.items() if link == "mqtt"}
        for drn, made in each_meter(file):
            radio.discard(drn)
            stored = await _stored(conn, meters[drn][0])
            first: dict[Key, int] = {}
            for one in made:
                key = (one.reading.channel, one.reading.at)
                if one.place <= until_place:
                    found.made += 1
                    if key not in stored:
                        found.missing += 1
                        found.say(f"{drn} {key} = {one.reading.value} is missing")
                    elif stored[key] != one.reading.value:
                        found.wrong += 1
                        found.say(f"{drn} {key} = {one.reading.value} is stored as {stored[key]}")
                first.setdefault(key, one.reading.value)
            found.stored += len(stored)
            for key in stored.keys() - first.keys():
                found.nobodys += 1
                found.say(f"{drn} {key} = {stored[key]} was never made")
        if radio:  # a meter that said nothing in the whole run is a fault of the run
            found.missing += len(radio)
            found.say(f"{len(radio)} meters never spoke, such as {min(radio)}")
        for drn, (id_, link) in meters.items():
            if link == "modbus":
                check_wired(found, drn, await _stored(conn, id_), list_answers(file, drn), wired)
        found.conflicts = await _count(conn, "reading_conflict")
        found.dead_letters = await _count(conn, "dead_letter")
        if found.dead_letters:
            letter = await conn.execute("SELECT topic, reason FROM meter_gateway.dead_letter LIMIT 3")
            found.examples += [f"parked: {topic}: {reason}" for topic, reason in await letter.fetchall()]
    return found


def check_wired(found: Found, drn: str, stored: dict[Key, int], answers: list[Answer], wired: Wired) -> None:
    """Every stored value was on the wire then, and no answer lies further from a stored reading than promised."""
    found.stored += len(stored)
    times = [answer.at_ms for answer in answers]
    for (channel, at), value in stored.items():
        near = answers[bisect_left(times, at - POLL_TAKES_MS) : bisect_left(times, at + 1)]
        if not any(answer.values[channel] == value for answer in near):
            found.nobodys += 1
            found.say(f"{drn} {channel} = {value} at {at} was never on the wire")
    told = sorted(at for channel, at in stored if channel == "counter")
    for at in times:
        deadline = _deadline(at, wired)
        if deadline > wired.end_ms:
            continue
        found.answers += 1
        place = bisect_left(told, at - REPORT_MS - POLL_TAKES_MS)
        if place == len(told) or told[place] > deadline:
            found.uncovered += 1
            found.say(f"{drn}: nothing is stored of what it answered at {at}")
    if not times:
        found.uncovered += 1
        found.say(f"{drn} was never asked")


def _deadline(at: int, wired: Wired) -> int:
    """By when an answer must be told: a gateway that dies before it wrote asks again after its start."""
    late_ms = POLL_TAKES_MS + 2 * wired.poll_ms
    deadline = at + late_ms
    for death in wired.deaths_ms:
        if at <= death <= deadline:
            deadline = death + RESTART_MS + late_ms
    return deadline


async def _stored(conn: psycopg.AsyncConnection, meter_id: int) -> dict[Key, int]:
    cursor = await conn.execute(
        "SELECT channel, occurred_at, value FROM meter_gateway.reading WHERE meter_id = %s", (meter_id,)
    )
    rows = await cursor.fetchall()
    stored = {(channel, _ms(at)): value for channel, at, value in rows}
    assert len(stored) == len(rows), f"meter {meter_id} has a reading twice"
    return stored


def _ms(at: datetime) -> int:
    return round((at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)


async def _count(conn: psycopg.AsyncConnection, table: str) -> int:
    cursor = await conn.execute(f"SELECT count(*) FROM meter_gateway.{table}")
    return int((await cursor.fetchone())[0])
