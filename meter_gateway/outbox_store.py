"""SQLite of a gateway: unsent records, the command journal, what it remembers of its meters."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from meter_gateway.outbox import MessageKey
from meter_gateway.topics import MAX_RECORDS, Command, Config, Progress, Reading, Record
from meter_gateway.watch import Memory

# A year of four readings each half minute from 30 meters is 4 million messages at worst; long before that
# the plain load curve goes first, counters, credits and answers never.
MAX_MESSAGES: Final = 200_000
# Trimmed in slices, so that one call stays short.
TRIM_SLICE: Final = 1_000
# Answers are kept for repeats this long after they were given.
KEEP_SETTLED_MS: Final = 40 * 86_400_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS message (
  boot INTEGER NOT NULL, seq INTEGER NOT NULL, made_ms INTEGER NOT NULL, droppable INTEGER NOT NULL,
  records BLOB NOT NULL, PRIMARY KEY (boot, seq)) STRICT;
CREATE INDEX IF NOT EXISTS message_droppable ON message (boot, seq) WHERE droppable = 1;
CREATE TABLE IF NOT EXISTS command (
  place INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER NOT NULL UNIQUE, meter TEXT NOT NULL, kind TEXT NOT NULL,
  argument TEXT NOT NULL, expires_ms INTEGER NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '{}',
  at_ms INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS command_open ON command (place) WHERE state NOT IN ('VERIFIED', 'REJECTED', 'EXPIRED');
CREATE TABLE IF NOT EXISTS memory (drn TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
SETTLED: Final = frozenset({"VERIFIED", "REJECTED", "EXPIRED"})
_RECORDS: Final = msgspec.json.Decoder(list[Record])


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that waits for its receipt."""

    boot: int
    seq: int
    made_ms: int
    records: list[Record]


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

    def __repr__(self) -> str:
        """Leave the argument out: it may be a token."""
        return f"JournalEntry({self.id}, {self.meter}, {self.kind}, {self.state})"

    @property
    def progress(self) -> Progress:
        """What to tell the platform about it."""
        told = "ACCEPTED" if self.state == "WRITING" else self.state
        return Progress(self.id, self.meter, told, self.at_ms, self.detail)  # type: ignore[arg-type]


class OutboxStore:
    """One SQLite file with one owner. Each call is one transaction, on disk (WAL, FULL) when it returns."""

    def __init__(self, path: Path, *, first_boot: int = 1) -> None:
        """Open or make the file; `first_boot` numbers the first start of a file that is not there yet."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        # One owner: a second gateway on the same file fails at once, and a killed one leaves no lock.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        with self._transaction():
            known = self._meta("boot")
            self.boot = first_boot if known is None else int(known) + 1
            self._set_meta("boot", str(self.boot))
        self._seq = 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))

    def find_config(self) -> Config | None:
        """Return the devices that the platform sent last."""
        text = self._meta("config")
        return None if text is None else msgspec.json.decode(text, type=Config)

    def save_config(self, config: Config) -> None:
        """Keep the devices for a start without the platform."""
        with self._transaction():
            self._set_meta("config", msgspec.json.encode(config).decode())

    def add(self, records: Sequence[Record], made_ms: int) -> None:
        """Put records on disk to be sent; loads in a message of their own, which may be given up one day."""
        with self._transaction():
            self._add(records, made_ms)

    def _add(self, records: Sequence[Record], made_ms: int) -> None:
        loads = [one for one in records if isinstance(one, Reading) and one.channel == "load"]
        rest = [one for one in records if not (isinstance(one, Reading) and one.channel == "load")]
        for droppable, group in ((0, rest), (1, loads)):
            for start in range(0, len(group), MAX_RECORDS):
                self._seq += 1
                payload = msgspec.json.encode(group[start : start + MAX_RECORDS])
                self._db.execute(
                    "INSERT INTO message (boot, seq, made_ms, droppable, records) VALUES (?, ?, ?, ?, ?)",
                    (self.boot, self._seq, made_ms, droppable, payload),
                )

    def list_keys(self, limit: int) -> list[MessageKey]:
        """Return the keys of the oldest messages."""
        rows = self._db.execute("SELECT boot, seq FROM message ORDER BY boot, seq LIMIT ?", (limit,))
        return [(boot, seq) for boot, seq in rows]

    def find_message(self, key: MessageKey) -> StoredMessage | None:
        """Return one message, None when it is receipted."""
        row = self._db.execute(
            "SELECT boot, seq, made_ms, records FROM message WHERE boot = ? AND seq = ?", key
        ).fetchone()
        return None if row is None else StoredMessage(row[0], row[1], row[2], _RECORDS.decode(row[3]))

    def delete_receipted(self, boot: int, ranges: Sequence[tuple[int, int]]) -> None:
        """Let go what the platform has stored."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM message WHERE boot = ? AND seq BETWEEN ? AND ?",
                [(boot, first, last) for first, last in ranges],
            )

    def depth(self) -> int:
        """Return how many messages wait."""
        return int(self._db.execute("SELECT count(*) FROM message").fetchone()[0])

    def trim(self, limit: int = MAX_MESSAGES) -> int:
        """Give up the oldest load readings when too much waits; returns how many messages went."""
        over = self.depth() - limit
        if over <= 0:
            return 0
        with self._transaction():
            return self._db.execute(
                "DELETE FROM message WHERE (boot, seq) IN"
                " (SELECT boot, seq FROM message WHERE droppable = 1 ORDER BY boot, seq LIMIT ?)",
                (min(over, TRIM_SLICE),),
            ).rowcount

    def accept(self, command: Command, now_ms: int) -> JournalEntry:
        """Journal a command and tell how far it is: a new one is ACCEPTED, a known one says its state again."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO command (id, meter, kind, argument, expires_ms, state, at_ms)"
                " VALUES (?, ?, ?, ?, ?, 'ACCEPTED', ?)",
                (command.command, command.meter, command.kind, command.argument, command.expires, now_ms),
            )
            entry = self._entry(command.command)
            self._add([entry.progress], now_ms)
        return entry

    def _entry(self, command_id: int) -> JournalEntry:
        row = self._db.execute(
            "SELECT id, meter, kind, argument, expires_ms, state, detail, at_ms FROM command WHERE id = ?",
            (command_id,),
        ).fetchone()
        if row is None:
            raise KeyError(command_id)
        return _entry_of(row)

    def list_open(self) -> list[JournalEntry]:
        """Return the commands that are not settled, in the order they came."""
        rows = self._db.execute(
            "SELECT id, meter, kind, argument, expires_ms, state, detail, at_ms FROM command"
            " WHERE state NOT IN ('VERIFIED', 'REJECTED', 'EXPIRED') ORDER BY place"
        )
        return [_entry_of(row) for row in rows]

    def get_entry(self, command_id: int) -> JournalEntry:
        """Return a journalled command. Raises KeyError."""
        return self._entry(command_id)

    def mark_writing(self, command_id: int, now_ms: int) -> None:
        """Note, before the wire is touched, that the write begins."""
        with self._transaction():
            self._db.execute(
                "UPDATE command SET state = 'WRITING', at_ms = ? WHERE id = ?", (now_ms, command_id)
            )

    def mark(self, command_id: int, state: str, detail: Mapping[str, Any], now_ms: int) -> None:
        """Note a step and put it into the outbox in the same transaction; a settled command forgets its token."""
        with self._transaction():
            self._db.execute(
                "UPDATE command SET state = ?, detail = ?, at_ms = ?,"
                " argument = CASE WHEN ? THEN '' ELSE argument END WHERE id = ?",
                (state, msgspec.json.encode(detail).decode(), now_ms, state in SETTLED, command_id),
            )
            self._add([self._entry(command_id).progress], now_ms)

    def forget_settled(self, now_ms: int) -> None:
        """Forget answers that nobody will ask for again."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM command WHERE at_ms < ? AND state IN ('VERIFIED', 'REJECTED', 'EXPIRED')",
                (now_ms - KEEP_SETTLED_MS,),
            )

    def list_memories(self) -> dict[str, Memory]:
        """Return what is remembered of each meter."""
        rows = self._db.execute("SELECT drn, value FROM memory")
        return {drn: msgspec.json.decode(value, type=Memory) for drn, value in rows}

    def save(self, drn: str, memory: Memory, records: Sequence[Record], now_ms: int) -> None:
        """Keep a meter's memory and what it had to tell, both or neither: no event is told twice or lost."""
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO memory (drn, value) VALUES (?, ?)",
                (drn, msgspec.json.encode(memory).decode()),
            )
            self._add(records, now_ms)


def _entry_of(row: tuple[Any, ...]) -> JournalEntry:
    id_, meter, kind, argument, expires_ms, state, detail, at_ms = row
    return JournalEntry(id_, meter, kind, argument, expires_ms, state, msgspec.json.decode(detail), at_ms)
