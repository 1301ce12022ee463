"""What the simulator's meters really said, kept for a comparison: messages made, and states that were read.

The journal lies in the file of the state folder and is written in its transactions, so a message stands in it
exactly when the meter made it. It only grows: for test runs, not for towns that stay.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

import msgspec

from firmware_sim.meter_state import MeterState
from meter_gateway.topics import Reading, Record

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS made (
  place INTEGER PRIMARY KEY, drn TEXT NOT NULL, boot INTEGER NOT NULL, seq INTEGER NOT NULL, records BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS made_name ON made (drn, boot, seq);
CREATE TABLE IF NOT EXISTS answered (
  place INTEGER PRIMARY KEY, drn TEXT NOT NULL, at_ms INTEGER NOT NULL, counter INTEGER NOT NULL,
  credit INTEGER NOT NULL, load INTEGER NOT NULL, relay INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS answered_drn ON answered (drn);
"""
_RECORDS: Final = msgspec.json.Decoder(list[Record])


@dataclass(frozen=True, slots=True)
class Made:
    """A reading that a radio meter made, in the message at `place` of the journal."""

    place: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class Answer:
    """What a wired meter's registers held when its bus was asked, by channel, in base units."""

    at_ms: int
    values: dict[str, int]


class Journal:
    """The writing side, on the connection of the state folder."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._answers: list[tuple[str, int, int, int, int, int]] = []
        db.executescript(_SCHEMA)

    def message_made(self, drn: str, boot: int, seq: int, records: bytes) -> None:
        """Write a message down; call inside the transaction that makes it."""
        self._db.execute(
            "INSERT INTO made (drn, boot, seq, records) VALUES (?, ?, ?, ?)", (drn, boot, seq, records)
        )

    def answered(self, state: MeterState, at_ms: int) -> None:
        """Remember what a wired meter answered; `flush` brings it to disk."""
        self._answers.append((state.drn, at_ms, state.counter, state.credit, state.load, state.relay))

    def flush(self) -> None:
        """Write down what was answered since the last time; call inside a transaction."""
        self._db.executemany(
            "INSERT INTO answered (drn, at_ms, counter, credit, load, relay) VALUES (?, ?, ?, ?, ?, ?)",
            self._answers,
        )
        self._answers.clear()


def last_place(file: Path) -> int:
    """Place of the newest message in the journal of a state file, which may be in use; 0 for none."""
    with closing(_open(file)) as db:
        return int(db.execute("SELECT coalesce(max(place), 0) FROM made").fetchone()[0])


def count_unreceipted(file: Path, until_place: int) -> int:
    """How many of the messages up to a place still wait for their receipt."""
    with closing(_open(file)) as db:
        found = db.execute(
            "SELECT count(*) FROM uplink JOIN made USING (drn, boot, seq) WHERE made.place <= ?",
            (until_place,),
        )
        return int(found.fetchone()[0])


def each_meter(file: Path) -> Iterator[tuple[str, list[Made]]]:
    """Every radio meter with all readings that it made, meter by meter, in one pass over the file."""
    with closing(_open(file)) as db:
        rows = db.execute("SELECT drn, place, records FROM made ORDER BY drn, place")
        for drn, group in groupby(rows, key=itemgetter(0)):
            yield (
                drn,
                [
                    Made(place, one)
                    for _, place, records in group
                    for one in _RECORDS.decode(records)
                    if isinstance(one, Reading)
                ],
            )


def list_answers(file: Path, drn: str) -> list[Answer]:
    """All answers of a wired meter, in the order it gave them."""
    with closing(_open(file)) as db:
        rows = db.execute(
            "SELECT at_ms, counter, credit, load, relay FROM answered WHERE drn = ? ORDER BY place", (drn,)
        ).fetchall()
    return [
        Answer(row[0], dict(zip(("counter", "credit", "load", "relay"), row[1:], strict=True)))
        for row in rows
    ]


def _open(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
