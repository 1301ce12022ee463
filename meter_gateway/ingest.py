"""From MQTT to the database: batches are stored once, then acknowledged, then receipted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from zlib import adler32

import msgspec
import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meter_gateway import command, edge_store, event_store, projection, reading_store, state_store
from meter_gateway.broker.mqtt_link import Connected, Incoming, MqttLink
from meter_gateway.command_state import CommandEvent
from meter_gateway.edge_store import SpokenMeter
from meter_gateway.errors import CommandNotFound
from meter_gateway.event_store import DeadLetter, NewEvent
from meter_gateway.message_key import instant, make_ranges, message_key
from meter_gateway.projection import Told
from meter_gateway.reading_store import StoredReading
from meter_gateway.readings import validation
from meter_gateway.task_reports import store_reports
from meter_gateway.topics import (
    CONTRACT,
    COUNTER_BELIEVED,
    COUNTER_SUSPECT,
    MAX_RANGES,
    TOKEN,
    Birth,
    Death,
    Event,
    MeterRecord,
    PoisonMessage,
    Progress,
    Reading,
    Receipt,
    Up,
    Uplink,
    decode,
    decode_up,
    down_topic,
    encode,
    meter_records,
)
from meter_gateway.vitals import IngestCounts

log = logging.getLogger(__name__)

# Measured (docs/ingest.md): half of this costs a fifth more of processors' time a message, and saves five megabytes.
# 50 ms are not felt by anybody, and under load nobody lingers.
BATCH: Final = 2000
LINGER_S: Final = 0.05
# While the database works for one lane, another reads its messages.
LANES: Final = 2
# Batches begun and not yet acknowledged: one in the database, one behind it.
UNDER_WAY: Final = 2
# While the database is away, the batch waits and with it the queue, which is bounded.
RETRY_MIN_S: Final = 0.2
RETRY_MAX_S: Final = 5.0
# A receipt that finds nobody within this time is useless: the edge sends again and gets another.
RECEIPT_EXPIRY_S: Final = 60

# Faults that lie in a message, not in the database's health: such a message is parked. The two after the first
# (a value too long for an index, or too deep) call themselves operational, as if the database were away.
_FAULTS: Final = (
    psycopg.DataError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
    psycopg.IntegrityError,
    ArithmeticError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

Key = tuple[str, int, int]
_AT: Final = attrgetter("at")
_EDGE: Final = attrgetter("edge")


@dataclass(slots=True)
class Stored:
    """What to say after the commit."""

    receipts: set[Key] = field(default_factory=set)
    births: list[Birth] = field(default_factory=list)
    late_births: list[Birth] = field(default_factory=list)  # of a session before the last one known
    has_progress: bool = False
    readings: int = 0
    events: int = 0
    dead_letters: int = 0
    newest_sent_ms: int = 0  # of what was not queued at its edge

    def add(self, other: Stored) -> None:
        """Take in what another part of the batch says."""
        self.receipts |= other.receipts
        self.births += other.births
        self.late_births += other.late_births
        self.has_progress |= other.has_progress
        self.readings += other.readings
        self.events += other.events
        self.dead_letters += other.dead_letters
        self.newest_sent_ms = max(self.newest_sent_ms, other.newest_sent_ms)


@dataclass(slots=True)
class _Sorted:
    letters: list[DeadLetter] = field(default_factory=list)
    lives: list[Birth | Death] = field(default_factory=list)
    uplinks: dict[Key, tuple[str, Uplink]] = field(default_factory=dict)
    receipts: set[Key] = field(default_factory=set)
    links: dict[str, bool] = field(default_factory=dict)  # what a birth or death says of an edge's meters


def _read(topic: str, payload: bytes) -> Up:
    """Return the message, as decode_up does; the usual one in half its time. Raises PoisonMessage."""
    if topic.endswith("/data"):
        message = decode(payload, Uplink)
        # An edge that keeps the contract, and stands in its place, makes the whole topic one that does.
        if topic == f"{CONTRACT}/up/{message.edge}/data":
            return message
    return decode_up(topic, payload)


def sort_messages(messages: Iterable[tuple[str, bytes]]) -> _Sorted:
    """Decode (topic, payload) pairs; what cannot be read becomes a dead letter, receipted if it names itself."""
    found = _Sorted()
    for topic, payload in messages:
        try:
            message = _read(topic, payload)
        except PoisonMessage as error:
            found.letters.append(DeadLetter(topic, payload, str(error)))
            key = message_key(topic, payload)
            if key is not None:
                # Otherwise its edge would send it again for ever.
                found.receipts.add(key)
            continue
        if isinstance(message, Uplink):
            found.uplinks.setdefault((message.edge, message.boot, message.seq), (topic, message))
        else:
            found.lives.append(message)
    return found


async def store_batch(
    conn: psycopg.AsyncConnection, messages: Sequence[tuple[str, bytes]], now: datetime
) -> Stored:
    """Store a batch of (topic, payload) in the caller's transaction and say what to answer."""
    batch = sort_messages(messages)
    stored = Stored(receipts=batch.receipts | batch.uplinks.keys())
    # Rows are locked in one order, whoever else stores: edges, the ledger, commands, meter states.
    if batch.lives:
        await edge_store.lock_edges(conn, {life.edge for life in batch.lives})
    for life in sorted(batch.lives, key=_EDGE):
        await _store_life(conn, life, batch, stored, now)
    if batch.uplinks:
        fresh = await edge_store.insert_messages(conn, sorted(batch.uplinks), now)
        await _store_records(
            conn,
            [uplink for key, uplink in batch.uplinks.items() if key in fresh],
            now,
            batch,
            stored,
        )
        # What was queued says nothing about who is there now, nor what was said before a death.
        live = [uplink for _, uplink in batch.uplinks.values() if not uplink.historical]
        await edge_store.mark_seen(conn, sorted({uplink.edge for uplink in live} - batch.links.keys()), now)
        stored.newest_sent_ms = max((uplink.sent for uplink in live), default=0)
    await state_store.mark_links(conn, batch.links, now)
    await event_store.insert_dead_letters(conn, batch.letters)
    stored.dead_letters = len(batch.letters)
    return stored


async def _store_life(
    conn: psycopg.AsyncConnection,
    life: Birth | Death,
    batch: _Sorted,
    stored: Stored,
    now: datetime,
) -> None:
    if isinstance(life, Death):
        if await edge_store.mark_dead(conn, edge=life.edge, boot=life.boot, session=life.session):
            batch.links[life.edge] = False
        return
    if not await edge_store.is_known_edge(conn, life.edge, life.kind):
        batch.letters.append(DeadLetter("birth", encode(life), f"no {life.kind} is called {life.edge}"))
        return
    is_new = await edge_store.mark_born(
        conn,
        edge=life.edge,
        kind=life.kind,
        boot=life.boot,
        session=life.session,
        config_version=life.config_version,
        born_at=now,
        backlog=life.backlog,
    )
    if not is_new:
        stored.late_births.append(life)
    else:
        stored.births.append(life)
        if life.kind == "meter":
            batch.links[life.edge] = True


@dataclass(frozen=True, slots=True)
class _Heard:
    """Progress of a command, with a time that can be believed."""

    topic: str
    meter_id: int
    record: Progress
    at: datetime
    detail: dict[str, Any]


class _Records:
    """Sorts the records of one batch into rows, meter by meter, in the order of time."""

    def __init__(self, meters: dict[str, SpokenMeter], now: datetime, letters: list[DeadLetter]) -> None:
        self.meters = meters
        self.now = now
        self.letters = letters
        self.readings: list[StoredReading] = []
        self.events: list[NewEvent] = []
        self.progress: list[_Heard] = []
        self.told: list[Told] = []
        self._instants: dict[int, datetime] = {}
        self._in_doubt = {meter.id: meter.counter_suspect for meter in meters.values()}
        self.known = {
            meter.id: validation.KnownCounter(meter.counter_at, meter.counter)
            for meter in meters.values()
            if meter.counter is not None and meter.counter_at is not None
        }

    def in_doubt_of(self, meter_id: int) -> bool:
        """Whether the newest counter of this meter contradicts the last believed one."""
        return self._in_doubt[meter_id]

    def _instant(self, millis: int) -> datetime:
        """Return the instant; the channels of a poll share theirs."""
        found = self._instants.get(millis)
        if found is None:
            found = self._instants[millis] = instant(millis)
        return found

    def take(self, topic: str, uplink: Uplink, records: Iterable[MeterRecord]) -> None:
        for record in sorted(records, key=_AT):
            meter = self.meters.get(record.meter)
            if meter is None or not meter.is_spoken_by(uplink.edge):
                self._refuse(
                    topic, record, "no such meter" if meter is None else f"not a meter of {uplink.edge}"
                )
            elif isinstance(record, Reading):
                self._take_reading(topic, uplink, meter, record)
            else:
                self._take_happening(topic, uplink, meter, record)

    def _refuse(self, topic: str, record: Reading | Event | Progress, reason: str) -> None:
        self.letters.append(DeadLetter(topic, msgspec.json.encode(record), reason))

    def _take_reading(self, topic: str, uplink: Uplink, meter: SpokenMeter, record: Reading) -> None:
        at = self._instant(record.at)
        reason = validation.refusal(record.channel, at, record.value, now=self.now)
        if reason is not None:
            self._refuse(topic, record, reason)
            return
        # A clock that its own edge does not trust dates nothing that others may build upon.
        believed = record.quality != "suspect" and uplink.clock_ok
        if record.channel == "counter" and believed:
            known = self.known.get(meter.id)
            believed = not validation.counter_is_suspect(known, at, record.value, meter.commodity)
            if known is None or at >= known.at:
                self._note_doubt(uplink, meter, record, believed=believed)
                if believed:
                    self.known[meter.id] = validation.KnownCounter(at, record.value)
        quality = record.quality if believed else "suspect"
        self.readings.append(StoredReading(meter.id, record.channel, at, record.value, quality))
        self.told.append(Told(meter.id, at, record, believed, not uplink.historical))

    def _note_doubt(self, uplink: Uplink, meter: SpokenMeter, record: Reading, *, believed: bool) -> None:
        """Tell once when counters begin, and cease, to contradict the last believed one."""
        if self._in_doubt[meter.id] == (not believed):
            return
        self._in_doubt[meter.id] = not believed
        known = self.known.get(meter.id)
        code = COUNTER_BELIEVED if believed else COUNTER_SUSPECT
        detail = {"value": record.value, "believed": known.value if known else None}
        self.events.append(NewEvent(meter.id, uplink.edge, code, instant(record.at), detail))

    def _take_happening(
        self, topic: str, uplink: Uplink, meter: SpokenMeter, record: Event | Progress
    ) -> None:
        at, detail = instant(record.at), record.detail
        if not uplink.clock_ok or not self.now - validation.OLDEST <= at <= self.now + validation.NEWEST:
            # A broken clock must not cost us a token's answer: our own time stands in, theirs is kept.
            at, detail = self.now, {**detail, "reported_at": record.at}
        if isinstance(record, Event):
            if record.code == TOKEN and not validation.is_tid(detail.get("tid")):
                self._refuse(topic, record, "a tid that is none")
                return
            self.events.append(NewEvent(meter.id, uplink.edge, record.code, at, detail))
        else:
            self.progress.append(_Heard(topic, meter.id, record, at, detail))
        self.told.append(Told(meter.id, at, record, believed=True, live=not uplink.historical))


async def _store_records(
    conn: psycopg.AsyncConnection,
    uplinks: Sequence[tuple[str, Uplink]],
    now: datetime,
    batch: _Sorted,
    stored: Stored,
) -> None:
    """Store the records of messages that were not there before, and note what there was."""
    await store_reports(conn, uplinks, now, batch.letters)
    told = [(topic, uplink, meter_records(uplink)) for topic, uplink in uplinks]
    drns = {record.meter for _, _, records in told for record in records}
    if not drns:
        return
    rows = _Records(await edge_store.list_spoken_meters(conn, drns), now, batch.letters)
    for topic, uplink, records in sorted(told, key=lambda one: (one[1].boot, one[1].seq)):
        rows.take(topic, uplink, records)
    stored.readings = await reading_store.insert_readings(conn, rows.readings)
    stored.events = len(rows.events)
    stored.has_progress = bool(rows.progress)
    await event_store.insert_events(conn, rows.events)
    for heard in sorted(rows.progress, key=lambda one: (one.record.command, one.record.at)):
        try:
            await command.apply_event(
                conn,
                heard.record.command,
                CommandEvent(heard.record.state),
                meter_id=heard.meter_id,
                at=heard.at,
                detail=heard.detail,
            )
        except CommandNotFound as error:
            batch.letters.append(DeadLetter(heard.topic, msgspec.json.encode(heard.record), str(error)))
    patches = projection.fold(rows.told, now)
    for patch in patches.values():
        patch.counter_suspect = rows.in_doubt_of(patch.meter_id)
    new = {meter.id for meter in rows.meters.values() if not meter.has_state} & patches.keys()
    await state_store.apply_patches(conn, list(patches.values()), new=new, edges=batch.links)


def lane_of(topic: str) -> int:
    """Return the lane of a topic: all that one edge says goes through one, in its order."""
    # A sum of letters: edges that are numbered in a row take turns.
    return adler32(topic.rpartition("/")[0].encode()) % LANES


class Ingest:
    """Takes messages off a link, stores them, acknowledges after the commit, then sends receipts."""

    def __init__(
        self,
        pool: AsyncConnectionPool,
        link: MqttLink,
        *,
        clock: Callable[[], datetime],
        on_stored: Callable[[Stored], None],
        on_session_lost: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._link = link
        self._clock = clock
        self._on_stored = on_stored
        self._on_session_lost = on_session_lost
        self._lanes = [asyncio.Lock() for _ in range(LANES)]
        self.counts = IngestCounts()

    async def run(self) -> None:
        """Work until cancelled."""
        places = asyncio.Semaphore(UNDER_WAY)
        last: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                await places.acquire()
                batch = await self._next_batch()
                last = tasks.create_task(self._serve(batch, last))
                last.add_done_callback(lambda _: places.release())

    async def _next_batch(self) -> list[Incoming]:
        batch: list[Incoming] = []
        while not batch:
            events = await self._link.next_batch(BATCH, LINGER_S)
            batch = [event for event in events if isinstance(event, Incoming)]
            if any(isinstance(event, Connected) and not event.session_present for event in events):
                # What edges said meanwhile, their births and deaths too, went to nobody.
                self._on_session_lost()
        return batch

    async def _serve(self, batch: Sequence[Incoming], before: asyncio.Task[None] | None) -> None:
        """Store a batch, then say so: acknowledgements in the order of arrival (MQTT 5, 4.6), and receipts."""
        lanes: list[list[Incoming]] = [[] for _ in range(LANES)]
        for message in batch:
            lanes[lane_of(message.topic)].append(message)
        parts = await asyncio.gather(
            *(self._store_in(*pair) for pair in zip(self._lanes, lanes, strict=True))
        )
        if before is not None:
            await asyncio.wait([before])
        self._link.ack_all(batch)
        self._count(len(batch), parts)
        for stored in parts:
            self._send_receipts(stored.receipts)
            self._on_stored(stored)

    def _count(self, messages: int, parts: Sequence[Stored]) -> None:
        now_s, counts = self._clock().timestamp(), self.counts
        counts.messages += messages
        counts.last_commit_s = now_s
        newest_ms = 0
        for stored in parts:
            counts.readings += stored.readings
            counts.events += stored.events
            counts.dead_letters += stored.dead_letters
            newest_ms = max(newest_ms, stored.newest_sent_ms)
        if newest_ms:
            counts.lag_s = max(0.0, now_s - newest_ms / 1000)

    async def _store_in(self, lane: asyncio.Lock, batch: Sequence[Incoming]) -> Stored:
        """Store what one lane has of a batch; who came first goes first."""
        if not batch:
            return Stored()
        async with lane:
            began = time.monotonic()
            stored = await self._store(batch)
            self.counts.batches += 1
            self.counts.store_s += time.monotonic() - began
            return stored

    async def _store(self, batch: Sequence[Incoming]) -> Stored:
        """Store, waiting for the database as long as it takes; the queue behind us is bounded."""
        wait = 0.0
        while True:
            try:
                stored = await self._store_once(batch)
            except psycopg.errors.DeadlockDetected:
                # At once: the database has waited a second for us before it said so.
                self.counts.retries += 1
                log.warning("deadlock, %d messages are stored again", len(batch))
            except (psycopg.Error, PoolTimeout) as error:
                self.counts.retries += 1
                if self.counts.waits_since_s is None:
                    self.counts.waits_since_s = self._clock().timestamp()
                if not wait:
                    log.warning("database is away, %d messages wait: %s", len(batch), type(error).__name__)
                wait = min(max(RETRY_MIN_S, 2 * wait), RETRY_MAX_S)
                await asyncio.sleep(wait)
            else:
                if wait:
                    log.info("database is back")
                self.counts.waits_since_s = None
                return stored

    async def _store_once(self, batch: Sequence[Incoming]) -> Stored:
        pairs = [(message.topic, message.payload) for message in batch]
        try:
            async with self._pool.connection() as conn:
                return await store_batch(conn, pairs, self._clock())
        except _FAULTS as error:
            # The database refuses something in the batch: one by one, so that only the culprit is parked.
            log.warning("batch of %d refused: %s", len(batch), type(error).__name__)
        return await self._store_singly(pairs)

    async def _store_singly(self, pairs: Sequence[tuple[str, bytes]]) -> Stored:
        total = Stored()
        for pair in pairs:
            try:
                async with self._pool.connection() as conn:
                    stored = await store_batch(conn, [pair], self._clock())
            except _FAULTS as error:
                reason = f"cannot be stored: {type(error).__name__}"
                async with self._pool.connection() as conn:
                    await event_store.insert_dead_letters(conn, [DeadLetter(*pair, reason)])
                key = message_key(*pair)
                stored = Stored(receipts=set() if key is None else {key}, dead_letters=1)
            total.add(stored)
        return total

    def _send_receipts(self, keys: Iterable[Key]) -> None:
        receipts = [
            (down_topic(edge, Receipt), encode(Receipt(boot, ranges[start : start + MAX_RANGES])))
            for (edge, boot), ranges in make_ranges(keys).items()
            for start in range(0, len(ranges), MAX_RANGES)
        ]
        # At most once: an edge that hears none says its message again, and gets another.
        self._link.send_all(receipts, expiry_s=RECEIPT_EXPIRY_S)
