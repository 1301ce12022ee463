"""The embedded PostgreSQL as a throw-away server for the suite, where no other is given."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raseed import processes
from raseed.embedded_postgres import EmbeddedPostgres

# This server's data is thrown away; the demo's own tests run with fsync on.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "120",
    "max_locks_per_transaction": "256",
}


# The template and its clones, some at a time, and the log: a tenth of this at most.
ROOM_BYTES = 2 * 1024**3
MEMORY = Path("/dev/shm")


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is room, for a database made of files is cloned there in a tenth of the time."""
    has_room = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    if has_room:
        # What a run that was killed left behind.
        for old in MEMORY.glob("raseed-tests-*-*"):
            if not Path("/proc", old.name.split("-")[2]).exists():
                shutil.rmtree(old, ignore_errors=True)
    where = MEMORY if has_room else None
    with tempfile.TemporaryDirectory(prefix=f"raseed-tests-{os.getpid()}-", dir=where) as name:
        yield Path(name)


@contextmanager
def embedded_server(folder: Path) -> Iterator[str]:
    """Start a server in `folder`, give the address of its `postgres` database, and stop it at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    postgres = EmbeddedPostgres(folder / "server", port, SETTINGS)
    asyncio.run(postgres.prepare())
    server = subprocess.Popen(
        postgres.argv(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
        preexec_fn=processes.die_with_parent(signal.SIGQUIT),
    )
    try:
        asyncio.run(postgres.wait_ready())
        yield postgres.connection_url.rsplit("/", 1)[0] + "/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)
