"""One transaction for a batch of messages: sorted, entered once, believed or doubted, and what to answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import msgspec
import psycopg

from meter_gateway import command, edge_store, event_store, projection, reading_store, state_store
from meter_gateway.command_state import CommandEvent
from meter_gateway.edge_store import SpokenMeter
from meter_gateway.errors import CommandNotFound
from meter_gateway.event_store import DeadLetter, NewEvent
from meter_gateway.message_key import instant, message_key
from meter_gateway.projection import Told
from meter_gateway.reading_store import StoredReading
from meter_gateway.readings import validation
from meter_gateway.readings.validation import KnownCounter
from meter_gateway.store_lives import store_lives
from meter_gateway.task_reports import store_reports
from meter_gateway.topics import (
    CONTRACT,
    COUNTER_BELIEVED,
    COUNTER_SUSPECT,
    TOKEN,
    Birth,
    Death,
    Event,
    MeterRecord,
    PoisonMessage,
    Progress,
    Reading,
    Up,
    Uplink,
    decode,
    decode_up,
    encode,
    meter_records,
)

Key = tuple[str, int, int]
_AT: Final = attrgetter("at")
_UP: Final = f"{CONTRACT}/up/"
_EDGE_AT: Final = len(_UP)


@dataclass(slots=True)
class Stored:
    """What to say after the commit."""

    receipts: list[Key] = field(default_factory=list)
    births: list[Birth] = field(default_factory=list)
    late_births: list[Birth] = field(default_factory=list)  # of a session before the last one known
    has_progress: bool = False
    readings: int = 0
    events: int = 0
    dead_letters: int = 0
    newest_sent_ms: int = 0  # of what was not queued at its edge

    def add(self, other: Stored) -> None:
        """Take in what another part of the batch says."""
        self.receipts += other.receipts
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
    parked: dict[Key, DeadLetter] = field(default_factory=dict)  # letters that name themselves


def _read(topic: str, payload: bytes) -> Up:
    """Return the message, as decode_up does; the usual one in half its time. Raises PoisonMessage."""
    if topic.endswith("/data"):
        message = decode(payload, Uplink)
        # An edge that keeps the contract, and stands in its place, makes the whole topic one that does.
        if topic[_EDGE_AT:-5] == message.edge and topic.startswith(_UP):
            return message
    return decode_up(topic, payload)


def sort_messages(messages: Iterable[tuple[str, bytes]]) -> _Sorted:
    """Decode (topic, payload) pairs; what cannot be read becomes a dead letter, receipted if it names itself."""
    found = _Sorted()
    for topic, payload in messages:
        try:
            message = _read(topic, payload)
        except PoisonMessage as error:
            letter, key = DeadLetter(topic, payload, str(error)), message_key(topic, payload)
            if key is None:
                found.letters.append(letter)
            else:
                found.parked.setdefault(key, letter)
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
    # Rows are locked in one order, whoever else stores: edges, the ledger, commands, meter states.
    lives = await store_lives(conn, batch.lives, now)
    batch.letters += [
        DeadLetter("birth", encode(birth), f"no {birth.kind} is called {birth.edge}")
        for birth in lives.strangers
    ]
    # What is parked is receipted, or its edge would send it again for ever; and it came, so it is not missing.
    keys = sorted(batch.uplinks.keys() | batch.parked.keys())
    stored = Stored(keys, lives.births, lives.late_births)
    if keys:
        fresh = await edge_store.insert_messages(conn, keys, now)
        batch.letters += [letter for key, letter in batch.parked.items() if key in fresh]
        # Of one edge in the order in which it spoke.
        uplinks = [batch.uplinks[key] for key in keys if key in fresh and key in batch.uplinks]
        await _store_records(conn, uplinks, now, batch.letters, stored, links=lives.links)
        # What was queued says nothing about who is there now, nor what was said before a death.
        sent = {uplink.edge: uplink.sent for _, uplink in batch.uplinks.values() if not uplink.historical}
        await edge_store.mark_seen(conn, sorted(sent.keys() - lives.links.keys()), now)
        stored.newest_sent_ms = max(sent.values(), default=0)
    await state_store.mark_links(conn, lives.links, now)
    await event_store.insert_dead_letters(conn, batch.letters)
    stored.dead_letters = len(batch.letters)
    return stored


async def park_message(conn: psycopg.AsyncConnection, letter: DeadLetter, now: datetime) -> Stored:
    """Park a message that the database refused, as store_batch does with one that cannot be read."""
    key = message_key(letter.topic, letter.payload)
    keys = [] if key is None else [key]
    if keys and not await edge_store.insert_messages(conn, keys, now):
        return Stored(keys)
    await event_store.insert_dead_letters(conn, [letter])
    return Stored(keys, dead_letters=1)


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
        self._window = validation.believable(now)
        self._instants: dict[int, datetime] = {}
        # What this batch said anew, by meter.
        self.in_doubt: dict[int, bool] = {}
        self._counters: dict[int, KnownCounter] = {}

    def _known(self, meter: SpokenMeter) -> KnownCounter | None:
        """Return the last believed counter of this meter."""
        found = self._counters.get(meter.id)
        if found is None and meter.counter is not None and meter.counter_at is not None:
            found = self._counters[meter.id] = KnownCounter(meter.counter_at, meter.counter)
        return found

    def _instant(self, millis: int) -> datetime:
        """Return the instant; the channels of a poll share theirs."""
        found = self._instants.get(millis)
        if found is None:
            found = self._instants[millis] = instant(millis)
        return found

    def take(self, topic: str, uplink: Uplink, records: Sequence[MeterRecord]) -> None:
        """Sort in what one message says."""
        for record in sorted(records, key=_AT) if len(records) > 1 else records:
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
        reason = validation.refusal(record.channel, at, record.value, self._window)
        if reason is not None:
            self._refuse(topic, record, reason)
            return
        # A clock that its own edge does not trust dates nothing that others may build upon.
        believed = record.quality != "suspect" and uplink.clock_ok
        if record.channel == "counter" and believed:
            known = self._known(meter)
            believed = not validation.counter_is_suspect(known, at, record.value, meter.commodity)
            if known is None or at >= known.at:
                self._note_doubt(uplink, meter, record, believed=believed)
                if believed:
                    self._counters[meter.id] = KnownCounter(at, record.value)
        quality = record.quality if believed else "suspect"
        self.readings.append(StoredReading(meter.id, record.channel, at, record.value, quality))
        self.told.append(Told(meter.id, at, record, believed, not uplink.historical))

    def _note_doubt(self, uplink: Uplink, meter: SpokenMeter, record: Reading, *, believed: bool) -> None:
        """Tell once when counters begin, and cease, to contradict the last believed one."""
        if self.in_doubt.get(meter.id, meter.counter_suspect) == (not believed):
            return
        self.in_doubt[meter.id] = not believed
        known = self._known(meter)
        code = COUNTER_BELIEVED if believed else COUNTER_SUSPECT
        detail = {"value": record.value, "believed": known.value if known else None}
        self.events.append(NewEvent(meter.id, uplink.edge, code, instant(record.at), detail))

    def _take_happening(
        self, topic: str, uplink: Uplink, meter: SpokenMeter, record: Event | Progress
    ) -> None:
        at, detail = instant(record.at), record.detail
        if not uplink.clock_ok or not self._window.first <= at <= self._window.last:
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
    letters: list[DeadLetter],
    stored: Stored,
    *,
    links: Collection[str],
) -> None:
    """Store the records of messages that were not there before, and note what there was.

    `links` names the edges whose meters this transaction will mark besides.
    """
    told = [(topic, uplink, meter_records(uplink)) for topic, uplink in uplinks]
    reports = [(topic, uplink) for topic, uplink, meant in told if len(meant) < len(uplink.records)]
    await store_reports(conn, reports, now, letters)
    drns = {record.meter for _, _, records in told for record in records}
    if not drns:
        return
    rows = _Records(await edge_store.list_spoken_meters(conn, drns), now, letters)
    for topic, uplink, records in told:
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
            letters.append(DeadLetter(heard.topic, msgspec.json.encode(heard.record), str(error)))
    patches = projection.fold(rows.told, now)
    new = set()
    for meter in rows.meters.values():
        patch = patches.get(meter.id)
        if patch is not None:
            # Only what was said anew: what was read above, before any lock, may be of yesterday by now.
            patch.counter_suspect = rows.in_doubt.get(meter.id)
            if not meter.has_state:
                new.add(meter.id)
    await state_store.apply_patches(conn, list(patches.values()), new=new, edges=links)
