"""From MQTT to the database: batches are stored once, then acknowledged, then receipted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final
from zlib import adler32

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from meter_gateway.broker.mqtt_link import Connected, Incoming, MqttLink
from meter_gateway.event_store import DeadLetter
from meter_gateway.message_key import make_ranges
from meter_gateway.store_batch import Key, Stored, park_message, store_batch
from meter_gateway.topics import MAX_RANGES, Receipt, down_topic, encode
from meter_gateway.vitals import IngestCounts

log = logging.getLogger(__name__)

# Measured (docs/ingest.md): half of this costs a quarter more of processors' time a message.
# 50 ms are not felt by anybody, and under load nobody lingers.
BATCH: Final = 4000
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
                batch, is_session_lost = await self._next_batch()
                last = tasks.create_task(self._serve(batch, last, is_session_lost=is_session_lost))
                last.add_done_callback(lambda _: places.release())

    async def _next_batch(self) -> tuple[list[Incoming], bool]:
        """Return the messages that came, and whether the broker forgot us in between; one of the two at least."""
        while True:
            events = await self._link.next_batch(BATCH, LINGER_S)
            batch = [event for event in events if isinstance(event, Incoming)]
            is_session_lost = any(
                isinstance(event, Connected) and not event.session_present for event in events
            )
            if batch or is_session_lost:
                return batch, is_session_lost

    async def _serve(
        self, batch: Sequence[Incoming], before: asyncio.Task[None] | None, *, is_session_lost: bool
    ) -> None:
        """Store a batch, then say so: acknowledgements in the order of arrival (MQTT 5, 4.6), and receipts."""
        lanes: list[list[Incoming]] = [[] for _ in range(LANES)]
        for message in batch:
            lanes[lane_of(message.topic)].append(message)
        parts = await asyncio.gather(
            *(self._store_in(*pair) for pair in zip(self._lanes, lanes, strict=True))
        )
        if before is not None:
            await asyncio.wait([before])
        if batch:
            self._link.ack_all(batch)
            self._count(len(batch), parts)
            for stored in parts:
                self._send_receipts(stored.receipts)
                self._on_stored(stored)
        if is_session_lost:
            # What edges said meanwhile, their births and deaths too, went to nobody. Not before all that they had said
            # until then is stored: such a birth would be taken for one of the new session.
            self._on_session_lost()

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
                    stored = await park_message(conn, DeadLetter(*pair, reason), self._clock())
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
