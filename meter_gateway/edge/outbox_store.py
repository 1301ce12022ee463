"""SQLite of a gateway: unsent records, the command journal, what it remembers of its meters."""

# ruff: noqa: S608 - the only part formatted in is the constant list of columns

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from meter_gateway.edge.outbox import MessageKey, Quota
from meter_gateway.edge.outbox_file import (
    OutboxFull,
    Reserve,
    is_broken,
    is_full,
    mark_broken,
    open_outbox,
)
from meter_gateway.edge.outbox_queue import TRIM_SLICE, OutboxQueue, StoredMessage
from meter_gateway.edge.watch import AHEAD_MS, Memory
from meter_gateway.topics import OUTBOX_LOST, Command, Config, Event, Progress, Record

log = logging.getLogger(__name__)
T = TypeVar("T")

# One call of trim gives up this many slices at most: a fifth of a second, and the buses wait meanwhile.
TRIM_SLICES: Final = 20
# SQLite's own limit.
_MOST_PAGES: Final = 1_073_741_823
# Answers are kept for repeats this long after they were given.
KEEP_SETTLED_MS: Final = 40 * 86_400_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS command (
  place INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL UNIQUE, meter TEXT NOT NULL, kind TEXT NOT NULL,
  argument TEXT NOT NULL, expires_ms INTEGER NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '{}',
  at_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE INDEX IF NOT EXISTS command_open ON command (place) WHERE state NOT IN ('VERIFIED', 'REJECTED', 'EXPIRED');
CREATE TABLE IF NOT EXISTS memory (drn TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
_LATE: Final = '{"reason":"new to the gateway after its deadline"}'
_ENTRY: Final = "id, meter, kind, argument, expires_ms, state, detail, at_ms, created_ms"
# The contract's own limit is 2**62.
MAX_BOOT: Final = 2**62 - 2
SETTLED: Final = frozenset({"VERIFIED", "REJECTED", "EXPIRED"})


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A command as the gateway knows it. State WRITING: the write may or may not have reached the meter."""

    id: int
    meter: str
    kind: str
    argument: str
    expires_ms: int
    state: str
    detail: dict[str, Any]
    at_ms: int
    created_ms: int = 0  # when it was ordered, by the platform's clock; 0: journalled before this was kept

    def __repr__(self) -> str:
        """Leave the argument out: it may be a token."""
        return f"JournalEntry({self.id}, {self.meter}, {self.kind}, {self.state})"

    @property
    def progress(self) -> Progress:
        """What to tell the platform about it."""
        told = "ACCEPTED" if self.state == "WRITING" else self.state
        return Progress(self.id, self.meter, told, self.at_ms, self.detail)  # type: ignore[arg-type]


class OutboxStore:
    """One SQLite file with one owner. Each call is one transaction, on disk (WAL, FULL) when it returns.

    A call that adds raises OutboxFull when the disk takes nothing more; nothing of it is stored then.
    """

    def __init__(
        self,
        path: Path,
        *,
        first_boot: int = 1,
        quota: Quota | None = None,
        max_bytes: int | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        """Open or make the file; `first_boot` numbers the first start of a file that is not there yet.

        `max_bytes` caps the file where the disk is shared with others. Raises sqlite3.OperationalError when another
        process owns the file; a broken file is set aside. On a full disk it starts with what is there.
        """
        self.path = path
        self._quota = quota or Quota()
        self._max_bytes = max_bytes
        self.is_broken = False  # found while it runs: a start anew sets the file aside
        self._db, self._broken = open_outbox(path, self._prepare)
        self._reserve = reserve or Reserve(path.with_suffix(".reserve"))
        known = self._meta("boot")
        self.boot = self.queue.boot = first_boot if known is None else int(known) + 1
        self._is_begun = False
        if not self._reserve.take():
            # The disk was full before we came: what is left is shared with the log.
            self._cap(self._reserve.free_bytes() // 2)
        try:
            self._write(lambda: None)
        except OutboxFull as error:
            # Receipts may make room. What is not kept is not counted on: the clock makes each such start's number new.
            self.boot = self.queue.boot = max(self.boot, first_boot)
            log.error("%s", error)  # noqa: TRY400 - its text says all

    def _prepare(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._page = self._number("page_size")
        self._cap()
        db.executescript(_SCHEMA)
        _add_created(db)
        self.queue = OutboxQueue(db, self._quota)
        int(self._meta("boot") or 0)  # no number: the file is broken

    def _begin(self) -> None:
        """Keep the number of this start, before the first message that bears it."""
        self._set_meta("boot", str(self.boot))
        if self._broken is not None:
            self._set_meta("broken", msgspec.json.encode(self._broken).decode())

    def jump_above(self, boot: int) -> bool:
        """Go on under a number above `boot` when ours is lower: the platform knows a later start, of a disk now lost.

        Returns whether it did. On a full disk the number is kept with the next message that is.
        """
        if self.boot >= boot or boot >= MAX_BOOT:
            return False
        log.warning(
            "the platform knows start %d of this site: this one, %d, goes on above it", boot, self.boot
        )
        self.boot = boot + 1
        self.queue.begin_boot(self.boot)
        self._is_begun = False
        with contextlib.suppress(OutboxFull):
            self._write(lambda: None)
        return True

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self.queue.tally.begin()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_begun:
                self._begin()
            yield
            self._db.execute("COMMIT")
            self._is_begun, self._broken = True, None
        except BaseException as error:
            if isinstance(error, sqlite3.DatabaseError) and is_broken(error):
                self.is_broken = True
                mark_broken(self.path)
            # Its names are free again: a name without a message would look like a loss.
            self.queue.tally.undo(before)
            # SQLite undoes the transaction of a full disk itself.
            with contextlib.suppress(sqlite3.DatabaseError):
                self._db.execute("ROLLBACK")
            raise

    def _write(self, work: Callable[[], T]) -> T:
        """Run `work` in a transaction; on a full disk telemetry goes first, then the reserve, then we say so."""
        for make_room in (None, self._refuse_telemetry, self._give_reserve):
            if make_room is not None:
                make_room()
            try:
                with self._transaction():
                    return work()
            except sqlite3.OperationalError as error:
                if not is_full(error):
                    raise
        raise OutboxFull(
            "the gateway's disk is full: nothing can be stored, so no meter's word is taken and no command accepted."
            " Make room on the disk of the state folder; it goes on by itself then"
        )

    def _refuse_telemetry(self) -> None:
        if not self.queue.refuses_telemetry:
            log.error(
                "the disk is full: telemetry is given up so that counters, events and answers have room"
            )
        self.queue.refuses_telemetry = True
        self._give_up_slice()

    def _give_up_slice(self) -> None:
        with contextlib.suppress(sqlite3.OperationalError), self._transaction():
            self.queue.give_up(TRIM_SLICE)

    def _give_reserve(self) -> None:
        if self._reserve.give():
            log.error("the disk is full: the reserve is used up now, make room soon")
            # Half of it stays for the log: without that not even a receipt could delete anything.
            self._cap(self._reserve.size // 2)
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._give_up_slice()

    def _cap(self, more_bytes: int | None = None) -> None:
        """Let the file grow by so many bytes; None: as far as the site file or the disk allows."""
        if more_bytes is not None:
            pages = self._number("page_count") + more_bytes // self._page
        else:
            pages = _MOST_PAGES if self._max_bytes is None else max(1, self._max_bytes // self._page)
        self._db.execute(f"PRAGMA max_page_count = {pages}")

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])

    @property
    def is_full(self) -> bool:
        """Whether the disk was full and telemetry is refused since."""
        return self.queue.refuses_telemetry

    def breathe(self) -> None:
        """Hold the reserve again, and take telemetry in again, once there is room on the disk or in the file."""
        pages, free = self._number("page_count"), self._number("freelist_count")
        if self._max_bytes is not None and self._page * (pages - free) > self._max_bytes * 3 // 4:
            return
        if self._reserve.take():
            self._cap()
        elif free < pages // 4:
            return
        if self.queue.refuses_telemetry:
            self.queue.refuses_telemetry = False
            log.info("the disk has room again: telemetry is kept again")

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def find_config(self) -> Config | None:
        """Return the devices that the platform sent last."""
        return _decoded(self._meta("config"), Config)

    def save_config(self, config: Config) -> None:
        """Keep the devices for a start without the platform."""
        self._write(lambda: self._set_meta("config", msgspec.json.encode(config).decode()))

    def add(self, records: Sequence[Record], made_ms: int) -> None:
        """Put records on disk to be sent; telemetry in messages of its own, which may be given up one day."""
        self._write(lambda: self.queue.add(records, made_ms))

    def tell_dropped(self, now_ms: int) -> int:
        """Put what was given up since it was last told into the outbox, an event a meter; returns how many."""
        return self._write(lambda: self.queue.tell_dropped(now_ms)) if self.queue.has_dropped() else 0

    def tell_broken(self, meters: Sequence[str], now_ms: int) -> None:
        """Once a broken file was set aside, say so for each meter whose unsent words were in it."""
        text = self._meta("broken")
        if text is None or not meters:
            return

        def work() -> None:
            self._db.execute("DELETE FROM meta WHERE name = 'broken'")
            detail = _decoded(text, dict) or {}
            self.queue.add([Event(meter, OUTBOX_LOST, now_ms, detail) for meter in meters], now_ms)

        self._write(work)

    def list_keys(self, limit: int) -> list[MessageKey]:
        """Return the keys of the oldest messages."""
        return self.queue.list_keys(limit)

    def find_message(self, key: MessageKey) -> StoredMessage | None:
        """Return one message, None when it is receipted; one that rotted goes, and the platform finds its gap."""
        message = self.queue.find_message(key)
        if message is not None and not message.records:
            self.delete_receipted(key[0], [(key[1], key[1])])
            return None
        return message

    def depth(self) -> int:
        """Return how many messages wait."""
        return self.queue.depth()

    def delete_receipted(self, boot: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Let go what the platform has stored."""

        def work() -> None:
            for first, last in ranges:
                self.queue.delete(boot, first, last)

        self._write(work)

    def trim(self, now_ms: int) -> int:
        """Give up some telemetry that is over the quota or too old for the platform; returns how many messages."""
        gone = 0
        # On a disk too full even for that, the next round tries again.
        with _unless_full():
            for _ in range(TRIM_SLICES):
                with self._transaction():
                    went = self.queue.give_up_excess(now_ms)
                if not went:
                    break
                gone += went
        return gone

    def accept(self, command: Command, now_ms: int) -> JournalEntry:
        """Journal a command and tell how far it is: a new one is ACCEPTED, a known one says its state again.

        One that is new to us after its deadline, or while our clock cannot be right, is UNKNOWN: an earlier journal,
        lost since, may have carried it out.
        """
        in_time = command.created - AHEAD_MS <= now_ms < command.expires
        state, detail = ("ACCEPTED", "{}") if in_time else ("UNKNOWN", _LATE)

        def work() -> JournalEntry:
            self._db.execute(
                "INSERT OR IGNORE INTO command"
                " (id, meter, kind, argument, expires_ms, state, detail, at_ms, created_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    command.command,
                    command.meter,
                    command.kind,
                    command.argument,
                    command.expires,
                    state,
                    detail,
                    now_ms,
                    command.created,
                ),
            )
            entry = self._entry(command.command)
            self.queue.add([entry.progress], now_ms)
            return entry

        return self._write(work)

    def _entry(self, command_id: int) -> JournalEntry:
        row = self._db.execute(f"SELECT {_ENTRY} FROM command WHERE id = ?", (command_id,)).fetchone()
        if row is None:
            raise KeyError(command_id)
        return _entry_of(row)

    def list_open(self) -> list[JournalEntry]:
        """Return the commands that are not settled, in the order they came."""
        rows = self._db.execute(
            f"SELECT {_ENTRY} FROM command"
            " WHERE state NOT IN ('VERIFIED', 'REJECTED', 'EXPIRED') ORDER BY place"
        )
        return [_entry_of(row) for row in rows]

    def get_entry(self, command_id: int) -> JournalEntry:
        """Return a journalled command. Raises KeyError."""
        return self._entry(command_id)

    def mark_writing(self, command_id: int, now_ms: int) -> None:
        """Note, before the wire is touched, that the write begins."""
        self._write(
            lambda: self._db.execute(
                "UPDATE command SET state = 'WRITING', at_ms = ? WHERE id = ?", (now_ms, command_id)
            )
        )

    def mark(self, command_id: int, state: str, detail: Mapping[str, Any], now_ms: int) -> None:
        """Note a step and put it into the outbox in the same transaction; a settled command forgets its token."""

        def work() -> None:
            self._db.execute(
                "UPDATE command SET state = ?, detail = ?, at_ms = ?,"
                " argument = CASE WHEN ? THEN '' ELSE argument END WHERE id = ?",
                (state, msgspec.json.encode(detail).decode(), now_ms, state in SETTLED, command_id),
            )
            self.queue.add([self._entry(command_id).progress], now_ms)

        self._write(work)

    def forget_settled(self, now_ms: int) -> None:
        """Forget answers that nobody will ask for again."""
        with _unless_full(), self._transaction():
            self._db.execute(
                "DELETE FROM command WHERE at_ms < ? AND state IN ('VERIFIED', 'REJECTED', 'EXPIRED')",
                (now_ms - KEEP_SETTLED_MS,),
            )

    def list_memories(self) -> dict[str, Memory]:
        """Return what is remembered of each meter."""
        rows = self._db.execute("SELECT drn, value FROM memory")
        found = {drn: _decoded(value, Memory) for drn, value in rows}
        return {drn: memory for drn, memory in found.items() if memory is not None}

    def save(self, drn: str, memory: Memory, records: Sequence[Record], now_ms: int) -> None:
        """Keep a meter's memory and what it had to tell, both or neither: no event is told twice or lost."""

        def work() -> None:
            self._db.execute(
                "INSERT OR REPLACE INTO memory (drn, value) VALUES (?, ?)",
                (drn, msgspec.json.encode(memory).decode()),
            )
            self.queue.add(records, now_ms)

        self._write(work)


def _add_created(db: sqlite3.Connection) -> None:
    """Give a journal of an earlier version the column that it lacks."""
    if "created_ms" not in {row[1] for row in db.execute("PRAGMA table_info(command)")}:
        db.execute("ALTER TABLE command ADD COLUMN created_ms INTEGER NOT NULL DEFAULT 0")


def _entry_of(row: tuple[Any, ...]) -> JournalEntry:
    id_, meter, kind, argument, expires_ms, state, detail, at_ms, created_ms = row
    found = _decoded(detail, dict) or {}
    return JournalEntry(id_, meter, kind, argument, expires_ms, state, found, at_ms, created_ms)


def _decoded(text: str | None, kind: type[T]) -> T | None:
    """Return what a kept text says; None for none, and for one that makes no sense: its bits rotted on the disk."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        log.error("a kept %s makes no sense any more, look at the disk: %s", kind.__name__, error)  # noqa: TRY400
        return None


@contextmanager
def _unless_full() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if not is_full(error):
            raise
