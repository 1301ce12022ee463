"""SQLite of a gateway's engineering tasks: what was asked, what was answered; survives a kill."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from meter_gateway.edge.outbox_file import in_our_words, is_full, open_outbox
from meter_gateway.topics import TaskOrder, TaskReport

log = logging.getLogger(__name__)
T = TypeVar("T")

# Repeats come within minutes; this is months of an engineer's work.
KEPT: Final = 500
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS task (
  id INTEGER PRIMARY KEY, asked BLOB NOT NULL, answer BLOB) STRICT;
"""
_ORDERS: Final = msgspec.json.Decoder(TaskOrder)
_REPORTS: Final = msgspec.json.Decoder(TaskReport)


class TaskJournal:
    """One SQLite file with one owner; each call is on disk when it returns.

    A broken file is set aside: tasks only read, and one that is forgotten is asked again. Each call that writes raises
    OutboxFull, and each OutboxBroken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db, _ = open_outbox(path, _prepare)
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            # No room for a new file, and the meters must be read all the same.
            log.error("the disk is full: tasks are remembered until the next start only")  # noqa: TRY400
            self._db = sqlite3.connect(":memory:", isolation_level=None)
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def accept(self, order: TaskOrder) -> TaskReport | None:
        """Keep a task, once; returns the answer that was given to it before, None while there is none."""
        with in_our_words(self._path):
            self._db.execute(
                "INSERT OR IGNORE INTO task (id, asked) VALUES (?, ?)",
                (order.task, msgspec.json.encode(order)),
            )
            self._db.execute(
                "DELETE FROM task WHERE answer IS NOT NULL"
                " AND id NOT IN (SELECT id FROM task ORDER BY id DESC LIMIT ?)",
                (KEPT,),
            )
            row = self._db.execute("SELECT answer FROM task WHERE id = ?", (order.task,)).fetchone()
        return None if row is None or row[0] is None else _decoded(row[0], _REPORTS)

    def settle(self, report: TaskReport) -> None:
        """Keep the answer to a task; the first one stands."""
        with in_our_words(self._path):
            self._db.execute(
                "UPDATE task SET answer = ? WHERE id = ? AND answer IS NULL",
                (msgspec.json.encode(report), report.task),
            )

    def list_open(self) -> list[TaskOrder]:
        """Return the tasks without an answer, oldest first."""
        with in_our_words(self._path):
            rows = self._db.execute("SELECT asked FROM task WHERE answer IS NULL ORDER BY id").fetchall()
        found = [_decoded(row[0], _ORDERS) for row in rows]
        return [order for order in found if order is not None]


def _prepare(db: sqlite3.Connection) -> None:
    db.executescript(_SCHEMA)


def _decoded(text: bytes, decoder: msgspec.json.Decoder[T]) -> T | None:
    """Return what was kept; None when its bits rotted on the disk: the task runs again, and only reads."""
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error("a kept task makes no sense any more, look at the disk: %s", error)  # noqa: TRY400
        return None
