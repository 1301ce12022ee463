"""The messages that wait in a gateway's SQLite file: what they are worth, who goes first, and what was given up."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from meter_gateway.edge.outbox import HISTORICAL_MS, MessageKey, Quota, Worth, cut
from meter_gateway.topics import DROPPED, Event, Record, TaskReport

log = logging.getLogger(__name__)

# Given up in slices, so that one call stays short.
TRIM_SLICE: Final = 200
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS message (
  boot INTEGER NOT NULL, seq INTEGER NOT NULL, made_ms INTEGER NOT NULL, worth INTEGER NOT NULL,
  records BLOB NOT NULL, PRIMARY KEY (boot, seq)) STRICT;
CREATE INDEX IF NOT EXISTS message_worth ON message (worth, boot, seq);
CREATE TABLE IF NOT EXISTS dropped (
  meter TEXT NOT NULL, worth INTEGER NOT NULL, count INTEGER NOT NULL, from_ms INTEGER NOT NULL,
  to_ms INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (meter, worth)) STRICT;
"""
# Files of the first releases knew only what may be given up.
_FROM_FIRST: Final = """
BEGIN;
DROP INDEX message_droppable;
ALTER TABLE message RENAME COLUMN droppable TO worth;
UPDATE message SET worth = CASE worth WHEN 1 THEN 3 ELSE 1 END;
COMMIT;
"""
_RECORDS: Final = msgspec.json.Decoder(list[Record])


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message that waits for its receipt."""

    boot: int
    seq: int
    made_ms: int
    records: list[Record]


@dataclass(slots=True)
class Tally:
    """What waits, kept in memory beside the file: by worth, in bytes, and what is younger than a minute."""

    seq: int = 0
    counts: dict[Worth, int] = field(default_factory=lambda: dict.fromkeys(Worth, 0))
    bytes: int = 0
    dropped: int = 0
    young: dict[int, int] = field(default_factory=dict)  # made_ms by seq of this boot
    gone: dict[int, int] = field(default_factory=dict)  # what the present transaction took out of it

    def begin(self) -> Tally:
        """Return what to go back to when the transaction that begins fails."""
        self.gone.clear()
        return replace(
            self, counts=dict(self.counts)
        )  # its young ones are ours: too many to copy at each write

    def undo(self, before: Tally) -> None:
        """Go back to what `begin` returned."""
        young = sorted((self.young | self.gone).items())
        self.young = {seq: made_ms for seq, made_ms in young if seq <= before.seq}
        self.seq, self.counts = before.seq, before.counts
        self.bytes, self.dropped = before.bytes, before.dropped


class OutboxQueue:
    """Messages in order of (boot, seq). What changes them belongs into a transaction of the file's owner."""

    def __init__(self, db: sqlite3.Connection, quota: Quota) -> None:
        self._db = db
        self._quota = quota
        self.boot = 0
        self.tally = Tally()
        self.refuses_telemetry = False
        columns = [row[1] for row in db.execute("PRAGMA table_info(message)")]
        if "droppable" in columns:
            db.executescript(_FROM_FIRST)
        db.executescript(_SCHEMA)
        for worth, count, size in db.execute(
            "SELECT worth, count(*), sum(length(records)) FROM message GROUP BY worth"
        ):
            self.tally.counts[Worth(worth)] = count
            self.tally.bytes += size
        self.tally.dropped = db.execute("SELECT coalesce(sum(count + told), 0) FROM dropped").fetchone()[0]

    def add(self, records: Sequence[Record], made_ms: int) -> None:
        """Append records as messages; beyond the quota the oldest telemetry goes."""
        self._append(records, made_ms)
        if self._over():
            self.give_up(min(self._over(), TRIM_SLICE))

    def _append(self, records: Sequence[Record], made_ms: int) -> None:
        tally = self.tally
        self._age(made_ms)  # here too: nobody asks what is young while the broker is away
        for worth, part in cut(records):
            if worth is Worth.TELEMETRY and self.refuses_telemetry:
                self._note_dropped(part)
                continue
            payload = msgspec.json.encode(part)
            self._db.execute(
                "INSERT INTO message (boot, seq, made_ms, worth, records) VALUES (?, ?, ?, ?, ?)",
                (self.boot, tally.seq + 1, made_ms, worth, payload),
            )
            tally.seq += 1
            tally.young[tally.seq] = made_ms
            tally.counts[worth] += 1
            tally.bytes += len(payload)

    def give_up(self, limit: int, before_ms: int | None = None) -> int:
        """Drop the oldest telemetry and note whose it was; returns how many messages went."""
        rows = self._db.execute(
            "DELETE FROM message WHERE made_ms < ? AND (boot, seq) IN"
            " (SELECT boot, seq FROM message WHERE worth = ? ORDER BY boot, seq LIMIT ?)"
            " RETURNING boot, seq, worth, records",
            (2**62 if before_ms is None else before_ms, Worth.TELEMETRY, limit),
        ).fetchall()
        for boot, seq, worth, records in rows:
            self._forget(boot, seq, worth, len(records))
            self._note_dropped(_decoded(boot, seq, records) or ())
        return len(rows)

    def _forget(self, boot: int, seq: int, worth: int, size: int) -> None:
        self.tally.counts[Worth(worth)] -= 1
        self.tally.bytes -= size
        if boot == self.boot and seq in self.tally.young:
            self.tally.gone[seq] = self.tally.young.pop(seq)

    def begin_boot(self, boot: int) -> None:
        """Count from one again under a new name; what was said under the old one is history now."""
        self.boot, self.tally.seq = boot, 0
        self.tally.young.clear()
        self.tally.gone.clear()

    def _note_dropped(self, records: Sequence[Record]) -> None:
        self._db.executemany(
            "INSERT INTO dropped AS d (meter, worth, count, from_ms, to_ms) VALUES (?, ?, 1, ?, ?)"
            " ON CONFLICT (meter, worth) DO UPDATE SET count = d.count + 1,"
            " from_ms = iif(d.count, min(d.from_ms, excluded.from_ms), excluded.from_ms),"
            " to_ms = iif(d.count, max(d.to_ms, excluded.to_ms), excluded.to_ms)",
            [
                (one.meter, Worth.TELEMETRY, one.at, one.at)
                for one in records
                if not isinstance(one, TaskReport)
            ],
        )
        self.tally.dropped += len(records)

    def tell_dropped(self, now_ms: int) -> int:
        """Append what was given up since it was last told, an event a meter; returns how many."""
        rows = self._db.execute(
            "SELECT meter, worth, count, from_ms, to_ms FROM dropped WHERE count > 0 ORDER BY meter, worth"
        ).fetchall()
        self._db.execute("UPDATE dropped SET told = told + count, count = 0 WHERE count > 0")
        events = [
            Event(
                meter,
                DROPPED,
                now_ms,
                {"class": Worth(worth).name.lower(), "count": count, "from": first, "to": last},
            )
            for meter, worth, count, first, last in rows
        ]
        self._append(events, now_ms)  # without making room: that would be news again
        return len(events)

    def has_dropped(self) -> bool:
        """Whether something was given up that was not told."""
        return bool(self._db.execute("SELECT EXISTS (SELECT 1 FROM dropped WHERE count > 0)").fetchone()[0])

    def give_up_excess(self, now_ms: int) -> int:
        """Drop a slice of what is over the quota, or too old for the platform; returns how many messages went."""
        self._age(now_ms)
        if self._over():
            return self.give_up(min(self._over(), TRIM_SLICE))
        return self.give_up(TRIM_SLICE, now_ms - self._quota.age_ms)

    def _over(self) -> int:
        """How many messages too many there are; bytes too many count as one message, and then as the next."""
        return max(self.depth() - self._quota.messages, int(self.tally.bytes > self._quota.bytes))

    def delete(self, boot: int, first: int, last: int) -> None:
        """Let messages go, both ends included."""
        for seq, worth, size in self._db.execute(
            "DELETE FROM message WHERE boot = ? AND seq BETWEEN ? AND ? RETURNING seq, worth, length(records)",
            (boot, first, last),
        ).fetchall():
            self._forget(boot, seq, worth, size)

    def list_keys(self, limit: int) -> list[MessageKey]:
        """Return the keys of the oldest messages."""
        rows = self._db.execute("SELECT boot, seq FROM message ORDER BY boot, seq LIMIT ?", (limit,))
        return [(boot, seq) for boot, seq in rows]

    def list_live(self, now_ms: int) -> list[MessageKey]:
        """Return the keys of what was made within the last minute, oldest first."""
        self._age(now_ms)
        return [(self.boot, seq) for seq in self.tally.young]

    def list_history(self, now_ms: int, limit: int, but: Collection[MessageKey]) -> list[MessageKey]:
        """Return keys of older messages, most valuable first, then oldest, without those of `but`."""
        if not limit or not self.backlog(now_ms):
            return []
        first_young = next(iter(self.tally.young), self.tally.seq + 1)
        rows = self._db.execute(
            "SELECT boot, seq FROM message WHERE NOT (boot = ? AND seq >= ?) ORDER BY worth, boot, seq LIMIT ?",
            (self.boot, first_young, limit + len(but)),
        )
        return [(boot, seq) for boot, seq in rows if (boot, seq) not in but][:limit]

    def _age(self, now_ms: int) -> None:
        young = self.tally.young
        while young:
            seq = next(iter(young))
            # A clock set back makes messages of the future: they are history too.
            if abs(now_ms - young[seq]) <= HISTORICAL_MS:
                break
            del young[seq]

    def backlog(self, now_ms: int) -> int:
        """Return how many messages older than a minute wait."""
        self._age(now_ms)
        return self.depth() - len(self.tally.young)

    def find_message(self, key: MessageKey) -> StoredMessage | None:
        """Return one message, None when it is receipted; without records when its bytes make no sense any more."""
        row = self._db.execute(
            "SELECT boot, seq, made_ms, records FROM message WHERE boot = ? AND seq = ?", key
        ).fetchone()
        if row is None:
            return None
        boot, seq, made_ms, records = row
        return StoredMessage(boot, seq, made_ms, _decoded(boot, seq, records) or [])

    def depth(self) -> int:
        """Return how many messages wait."""
        return sum(self.tally.counts.values())

    def oldest_age_ms(self, now_ms: int) -> int:
        """Return the age of the oldest message that waits, 0 when none does."""
        row = self._db.execute("SELECT made_ms FROM message ORDER BY boot, seq LIMIT 1").fetchone()
        return max(0, now_ms - row[0]) if row else 0

    @property
    def counts(self) -> dict[str, int]:
        """How many messages wait, by what they are worth: answer, event, billing, telemetry."""
        return {worth.name.lower(): count for worth, count in self.tally.counts.items()}

    @property
    def dropped(self) -> int:
        """How many values of telemetry were given up since the file was made."""
        return self.tally.dropped

    def oldest_ms(self) -> int | None:
        """Return when the oldest waiting message was made."""
        row = self._db.execute("SELECT made_ms FROM message ORDER BY boot, seq LIMIT 1").fetchone()
        return None if row is None else int(row[0])


def _decoded(boot: int, seq: int, records: bytes) -> list[Record] | None:
    try:
        return _RECORDS.decode(records)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A rotten bit inside a value: SQLite's check cannot see it.
        log.error("message %d of boot %d makes no sense any more, look at the disk: %s", seq, boot, error)  # noqa: TRY400
        return None
