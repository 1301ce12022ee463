"""The state folder of the simulator: meters, their unsent messages, orders answered, dark network nodes. SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from firmware_sim.journal import Journal
from firmware_sim.meter_state import MeterState

FILE_NAME: Final = "fleet.sqlite3"
KEPT_ANSWERS: Final = 1000  # orders of one meter; the headend asks again for minutes, not for months
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meter (
  drn TEXT PRIMARY KEY, memory TEXT NOT NULL, credit INTEGER NOT NULL, counter INTEGER NOT NULL,
  load INTEGER NOT NULL, boot INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uplink (
  drn TEXT NOT NULL, boot INTEGER NOT NULL, seq INTEGER NOT NULL, made_ms INTEGER NOT NULL,
  telemetry INTEGER NOT NULL, records BLOB NOT NULL, PRIMARY KEY (drn, boot, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS command (
  drn TEXT NOT NULL, command INTEGER NOT NULL, progress BLOB NOT NULL, PRIMARY KEY (drn, command)
);
CREATE TABLE IF NOT EXISTS dark_node (code TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS placed (drn TEXT PRIMARY KEY, usage_point TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS town (seed INTEGER NOT NULL);
"""


class OtherTown(ValueError):
    """The state folder belongs to a town of another seed."""


@dataclass(frozen=True, slots=True)
class UplinkRow:
    """A message that no receipt covers yet; `telemetry` may be dropped when the disk allowance is used up."""

    boot: int
    seq: int
    made_ms: int
    telemetry: bool
    records: bytes


class FleetStore:
    """One SQLite file, one writer; what `transaction` encloses is on disk when it ends.

    With `journal` it also keeps, for a comparison, all that the meters ever said.
    """

    def __init__(self, folder: Path, *, journal: bool = False) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / FILE_NAME
        path.touch(mode=0o600)  # decoder keys of simulated meters lie in it
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=True)
        self._db.execute("PRAGMA journal_mode=WAL")
        # A token that the meter accepted must survive a power cut of this machine as well.
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA cache_size=-1024")
        self._db.executescript(_SCHEMA)
        self.journal = Journal(self._db) if journal else None
        self._depth = 0

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on disk at the end; an inner one joins the outer."""
        if self._depth == 0:
            self._db.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._db.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._db.execute("COMMIT")

    def claim(self, seed: int) -> None:
        """Bind the folder to a town. Raises OtherTown when it belongs to another one."""
        row = self._db.execute("SELECT seed FROM town").fetchone()
        if row is None:
            self._db.execute("INSERT INTO town VALUES (?)", (seed,))
        elif row[0] != seed:
            raise OtherTown(f"this folder holds the town of seed {row[0]}, not {seed}: choose another folder")

    def find_meter(self, drn: str) -> MeterState | None:
        """The meter as it was last kept, None before its first start. Raises ValueError for a damaged row."""
        row = self._db.execute(
            "SELECT memory, credit, counter, load, boot FROM meter WHERE drn = ?", (drn,)
        ).fetchone()
        if row is None:
            return None
        try:
            memory: dict[str, Any] = json.loads(row[0])
            vital = dict(zip(("credit", "counter", "load", "boot"), row[1:], strict=True))
            return MeterState.from_dict(memory | vital)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the state of meter {drn} is damaged ({type(error).__name__})") from None

    def keep_meter(self, state: MeterState) -> None:
        """Write all that a meter remembers."""
        self._db.execute(
            "INSERT INTO meter VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (drn) DO UPDATE SET memory = excluded.memory,"
            " credit = excluded.credit, counter = excluded.counter, load = excluded.load, boot = excluded.boot",
            (
                state.drn,
                json.dumps(state.to_dict()),
                state.credit,
                state.counter,
                state.load,
                state.boot,
            ),
        )

    def keep_vitals(self, state: MeterState) -> None:
        """Write only what every second changes."""
        self._db.execute(
            "UPDATE meter SET credit = ?, counter = ?, load = ? WHERE drn = ?",
            (state.credit, state.counter, state.load, state.drn),
        )

    def insert_uplink(self, drn: str, row: UplinkRow) -> None:
        """Keep a message until its receipt."""
        self._db.execute(
            "INSERT INTO uplink VALUES (?, ?, ?, ?, ?, ?)",
            (drn, row.boot, row.seq, row.made_ms, row.telemetry, row.records),
        )
        if self.journal:
            self.journal.message_made(drn, row.boot, row.seq, row.records)

    def find_uplink(self, drn: str, boot: int, seq: int) -> UplinkRow | None:
        """A message by its name."""
        row = self._db.execute(
            "SELECT boot, seq, made_ms, telemetry, records FROM uplink WHERE drn = ? AND boot = ? AND seq = ?",
            (drn, boot, seq),
        ).fetchone()
        return None if row is None else UplinkRow(row[0], row[1], row[2], bool(row[3]), row[4])

    def list_uplinks(self, drn: str) -> list[tuple[int, int, bool]]:
        """(boot, seq, telemetry) of all unreceipted messages, oldest first."""
        rows = self._db.execute(
            "SELECT boot, seq, telemetry FROM uplink WHERE drn = ? ORDER BY boot, seq", (drn,)
        )
        return [(boot, seq, bool(telemetry)) for boot, seq, telemetry in rows]

    def delete_uplinks(self, drn: str, keys: Iterable[tuple[int, int]]) -> None:
        """Forget messages: the platform has them, or there is no room."""
        self._db.executemany(
            "DELETE FROM uplink WHERE drn = ? AND boot = ? AND seq = ?",
            [(drn, boot, seq) for boot, seq in keys],
        )

    def find_progress(self, drn: str, command: int) -> bytes | None:
        """The stored final answer of an order that this edge has run."""
        row = self._db.execute(
            "SELECT progress FROM command WHERE drn = ? AND command = ?", (drn, command)
        ).fetchone()
        return None if row is None else row[0]

    def insert_progress(self, drn: str, command: int, progress: bytes) -> None:
        """Keep the final answer of an order, and of each meter only the newest KEPT_ANSWERS."""
        self._db.execute("INSERT INTO command VALUES (?, ?, ?)", (drn, command, progress))
        self._db.execute(
            "DELETE FROM command WHERE drn = ? AND rowid < (SELECT rowid FROM command WHERE drn = ?"
            " ORDER BY rowid DESC LIMIT 1 OFFSET ?)",
            (drn, drn, KEPT_ANSWERS - 1),
        )

    def list_dark_nodes(self) -> set[str]:
        """Codes of the network nodes that are switched off."""
        return {row[0] for row in self._db.execute("SELECT code FROM dark_node")}

    def keep_dark_nodes(self, codes: Iterable[str]) -> None:
        """Write which network nodes are switched off."""
        self._db.execute("DELETE FROM dark_node")
        self._db.executemany("INSERT INTO dark_node VALUES (?)", [(code,) for code in codes])

    def list_placed(self) -> dict[str, str]:
        """Meters that were installed after the town was built: DRN to usage point."""
        return dict(self._db.execute("SELECT drn, usage_point FROM placed").fetchall())

    def keep_placed(self, drn: str, usage_point: str) -> None:
        """Write where a spare meter was installed."""
        self._db.execute(
            "INSERT INTO placed VALUES (?, ?) ON CONFLICT (drn) DO UPDATE SET usage_point = excluded.usage_point",
            (drn, usage_point),
        )
