"""SQLite of a gateway's engineering tasks: what was asked, what was answered; survives a kill."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import msgspec

from meter_gateway.topics import TaskOrder, TaskReport

# Repeats come within minutes; this is months of an engineer's work.
KEPT: Final = 500
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS task (
  id INTEGER PRIMARY KEY, asked BLOB NOT NULL, answer BLOB) STRICT;
"""
_ORDERS: Final = msgspec.json.Decoder(TaskOrder)
_REPORTS: Final = msgspec.json.Decoder(TaskReport)


class TaskJournal:
    """One SQLite file with one owner; each call is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def accept(self, order: TaskOrder) -> TaskReport | None:
        """Keep a task, once; returns the answer that was given to it before, None while there is none."""
        self._db.execute(
            "INSERT OR IGNORE INTO task (id, asked) VALUES (?, ?)", (order.task, msgspec.json.encode(order))
        )
        self._db.execute(
            "DELETE FROM task WHERE answer IS NOT NULL AND id NOT IN (SELECT id FROM task ORDER BY id DESC LIMIT ?)",
            (KEPT,),
        )
        row = self._db.execute("SELECT answer FROM task WHERE id = ?", (order.task,)).fetchone()
        return None if row is None or row[0] is None else _REPORTS.decode(row[0])

    def settle(self, report: TaskReport) -> None:
        """Keep the answer to a task; the first one stands."""
        self._db.execute(
            "UPDATE task SET answer = ? WHERE id = ? AND answer IS NULL",
            (msgspec.json.encode(report), report.task),
        )

    def list_open(self) -> list[TaskOrder]:
        """Return the tasks without an answer, oldest first."""
        rows = self._db.execute("SELECT asked FROM task WHERE answer IS NULL ORDER BY id")
        return [_ORDERS.decode(row[0]) for row in rows]
