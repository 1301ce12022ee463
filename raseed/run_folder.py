"""The run files of a demo's data folder: the lock, the table of pids, the logs."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, BinaryIO

from raseed import processes

LOCK_NAME = "demo.lock"
TABLE_NAME = "run.json"
# Enough for days of a quiet demo; a log that outgrows it becomes NAME.log.1, of which there is one.
LOG_CAP_BYTES = 5 * 1024 * 1024
# What of a log a person is shown when a child fails.
LOG_TAIL_LINES = 15
# Another process may take and remove the lock file while we ask for it; more rounds than this is a fault.
LOCK_ROUNDS = 100


class DataFolderBusy(Exception):
    """Another demo runs on this data folder."""


class RunFolder:
    """The run files of one data folder, used by the one supervisor that holds its lock."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir
        self._lock_fd: int | None = None

    def take(self) -> None:
        """Make the folder (0700) and lock it until `release` or the end of this process.

        Ends what a killed predecessor may have left running. Raises DataFolderBusy.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = _lock(self.path / LOCK_NAME)
        table = read_table(self.path)
        for row in table["children"].values() if table else ():
            if processes.is_running(row["pid"], row["ticks"]):
                processes.send_signal(row["pid"], signal.SIGKILL)

    def release(self) -> None:
        """Remove the table and the lock."""
        if self._lock_fd is not None:
            (self.path / TABLE_NAME).unlink(missing_ok=True)
            # Removed while still locked, so that nobody can lock the file that we remove.
            (self.path / LOCK_NAME).unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = None

    def write_table(self, text: str) -> None:
        """Replace run.json in one step, readable by its owner only."""
        if self._lock_fd is None:
            return
        new = self.path / (TABLE_NAME + ".new")
        new.touch(mode=0o600)
        new.write_text(text, encoding="utf-8")
        new.replace(self.path / TABLE_NAME)

    def open_log(self, name: str) -> BinaryIO:
        """The log of child `name`, opened to append, after rotation if it outgrew its cap."""
        path = self._log_path(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_CAP_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def trim_log(self, name: str) -> None:
        """Rotate a log that its child holds open: a copy and a cut, which appending writers survive."""
        path = self._log_path(name)
        with contextlib.suppress(OSError):
            if path.stat().st_size > LOG_CAP_BYTES:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)

    def log_tail(self, name: str) -> str:
        """The last lines of a child's log, empty if there is none."""
        try:
            text = self._log_path(name).read_bytes()[-LOG_CAP_BYTES:].decode("utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    def _log_path(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"


def read_table(data_dir: Path) -> dict[str, Any] | None:
    """The table of a data folder, None if there is none or it cannot be read.

    Shape: {"pid": supervisor, "children": {name: {"pid", "ticks", "restarts", "ready"}}, "facts": {...}}.
    """
    try:
        table = json.loads((data_dir / TABLE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return table if isinstance(table, dict) and isinstance(table.get("children"), dict) else None


def kill_role(data_dir: Path, name: str, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to the child `name` of the demo on `data_dir`, from any process; False if none runs."""
    table = read_table(data_dir)
    row = table["children"].get(name) if table else None
    if row is None or not processes.is_running(row["pid"], row["ticks"]):
        return False
    return processes.send_signal(row["pid"], number)


def _lock(path: Path) -> int:
    for _ in range(LOCK_ROUNDS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have removed the file between our open and our lock: then it guards nothing.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataFolderBusy(
                f"another demo (process {holder}) runs on {path.parent}: stop it or choose another folder"
            ) from None
        except FileNotFoundError:
            pass
        os.close(descriptor)
    raise DataFolderBusy(f"{path} is taken and removed faster than it can be locked")
