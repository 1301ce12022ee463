"""The embedded PostgreSQL as a throw-away server for the suite, where no other is given."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
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
