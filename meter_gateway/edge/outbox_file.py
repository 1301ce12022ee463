"""The gateway's SQLite file on its disk: opened by one owner, set aside when broken, with a reserve for a full disk."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

# Given back to the disk when it is full: room for some ten thousand counters and answers until somebody comes.
RESERVE_BYTES: Final = 8 * 2**20
_BROKE_IN_USE: Final = "it broke while it was used"
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# What Python's own reading of a text of bits says; SQLite does not look into values.
_NO_TEXT: Final = "Could not decode to UTF-8"


class OutboxFull(Exception):
    """The disk takes nothing more, not even what must never be given up; the text says what to do."""


class OutboxBroken(Exception):
    """A file of the gateway cannot be trusted: its check or its use found it broken."""


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A file that SQLite could not trust: where it was put, and why."""

    kept_as: str
    reason: str


def is_full(error: sqlite3.Error) -> bool:
    """Whether this error means that there is no room."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_broken(error: sqlite3.Error) -> bool:
    """Whether this error means that the file cannot be trusted."""
    return _code(error) in _BROKEN or str(error).startswith(_NO_TEXT)


def _code(error: sqlite3.Error) -> int:
    # Only errors that SQLite itself raised carry one; the upper bits tell more than we ask.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.is-broken")


def mark_broken(path: Path) -> None:
    """Leave word for the next start to set the file aside, whatever its check says then."""
    with suppress(OSError):
        _marker(path).touch()


@contextmanager
def in_our_words(path: Path) -> Iterator[None]:
    """Raise OutboxFull for SQLite's word for a full disk; for a broken file OutboxBroken, and tell the next start."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if is_broken(error):
            mark_broken(path)
            raise OutboxBroken(f"{path.name} can no longer be trusted: {error}") from error
        if is_full(error):
            raise OutboxFull(f"the disk of {path.name} is full") from error
        raise


def open_outbox(
    path: Path, prepare: Callable[[sqlite3.Connection], None] = lambda _db: None
) -> tuple[sqlite3.Connection, BrokenFile | None]:
    """Open or make the file. One that is broken is set aside, kept for a person, and a new one begun.

    `prepare` makes tables and reads what its owner needs at once: a file in which that finds no sense (ValueError) is
    broken too. It is called again with the new file. A remote site has nobody who could repair it, and meters that must
    be read. Raises sqlite3.OperationalError when another process owns the file, or the disk of a new one is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        db = _open(path, prepare)
    except OutboxBroken as error:
        reason = str(error)
    else:
        if not _marker(path).exists():
            return db, None
        db.close()
        reason = _BROKE_IN_USE
    broken = _set_aside(path, reason)
    log.error(
        "%s is broken (%s). What it held and had no receipt yet is not sent. It is kept as %s: "
        "look at the disk, and try  sqlite3 %s .recover",
        path.name,
        broken.reason,
        broken.kept_as,
        broken.kept_as,
    )
    return _open(path, prepare), broken


def _open(path: Path, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=1.0)
    try:
        # One owner: a second gateway on the same file fails at once, and a killed one leaves no lock.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        _check(db)
        prepare(db)
    except (sqlite3.DatabaseError, ValueError) as error:
        db.close()
        if isinstance(error, sqlite3.DatabaseError) and not is_broken(error):
            raise
        raise OutboxBroken(str(error)) from error
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection) -> None:
    # The whole check: the quick one does not compare an index with its table, and a wrong entry ends us at each use.
    found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise OutboxBroken(f"it fails its own check: {found}"[:200])


def _set_aside(path: Path, reason: str) -> BrokenFile:
    # The word stays until all parts are away: a log left behind by a kill would be read into the new file.
    mark_broken(path)
    kept = path.with_name(f"{path.name}.broken-{time.time_ns() // 1_000_000}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(kept.with_name(kept.name + suffix))
    _marker(path).unlink(missing_ok=True)
    return BrokenFile(kept.name, reason)


class Reserve:
    """A file of no content beside the outbox: letting it go makes room on a full disk."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._most = size
        self.size = size  # of a small disk, less

    def free_bytes(self) -> int:
        """Return what the disk still has for this user."""
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            return 0
        return disk.f_bavail * disk.f_frsize

    @property
    def is_there(self) -> bool:
        """Whether it holds its room."""
        try:
            return self._path.stat().st_size > 0
        except OSError:
            return False

    def take(self) -> bool:
        """Hold the room, a quarter of a small disk's; returns whether it is held. Too little is not worth it."""
        if self.is_there:
            self.size = self._path.stat().st_size
            return True
        size = min(self._most, self.free_bytes() // 4)
        if size < self._most // 8:
            return False
        try:
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        self.size = size
        return True

    def give(self) -> bool:
        """Let the room go; returns whether there was any."""
        had = self._path.exists()
        self._path.unlink(missing_ok=True)
        return had
