"""Run a command beside a real PostgreSQL 17 with TimescaleDB: `python -m tests.timescale pytest tests/billing`.

TimescaleDB is not in Debian bookworm, and its library needs a newer libc, so a small Debian trixie root is
made once in `.cache/` and its server run by chroot (about 50 s and 700 MB). It needs root.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

TOP = Path(__file__).resolve().parent.parent
ROOT = TOP / ".cache" / "timescale-root"
PACKAGES = "postgresql-17,postgresql-17-timescaledb"
BIN = "/usr/lib/postgresql/17/bin"
START_TIMEOUT_S = 60
START_ATTEMPTS = 5
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    # No background workers: one that looks into the template database would forbid to clone it.
    "timescaledb.max_background_workers": "0",
    "max_connections": "120",
    "max_locks_per_transaction": "512",  # a transaction touches every chunk of a year
    "fsync": "off",  # the suite's data is thrown away; the kill tests use the embedded server, with fsync
    "full_page_writes": "off",
}


class TimescaleMissing(Exception):
    """This machine cannot have the server, and why."""


def ensure_root() -> None:
    """Make the Debian root once. Raises TimescaleMissing with what to do."""
    if (ROOT / BIN.lstrip("/") / "postgres").exists():
        return
    if os.geteuid() != 0:
        raise TimescaleMissing("it is run by chroot, which needs root")
    if shutil.which("debootstrap") is None:
        raise TimescaleMissing("debootstrap is not installed: apt-get install debootstrap")
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.parent.mkdir(parents=True, exist_ok=True)
    print("timescale: making a Debian root with PostgreSQL 17 and TimescaleDB, about a minute …", flush=True)
    unfinished = ROOT.with_name("timescale-root.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "trixie", str(unfinished)]
    done = subprocess.run([*command, *_mirror()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TimescaleMissing("debootstrap failed:\n" + done.stdout[-2000:] + done.stderr[-2000:])
    unfinished.rename(ROOT)


def _mirror() -> list[str]:
    """The Debian mirror that this machine's apt uses, or nothing where that cannot be told."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=False
    )
    sites = asked.stdout.split()
    return [site for site in sites if "security" not in site][:1]


@contextmanager
def timescale_server() -> Iterator[str]:
    """Start a fresh server, give the address of its `postgres` database, and stop it at the end."""
    ensure_root()
    data = f"/var/lib/postgresql/raseed-{os.getpid()}"
    run = ["chroot", "--userspec=postgres:postgres", str(ROOT)]
    subprocess.run(
        [
            *run,
            f"{BIN}/initdb",
            "-D",
            data,
            "-U",
            "raseed",
            "-A",
            "trust",
            "-N",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ],
        check=True,
        capture_output=True,
    )
    log = ROOT.parent / f"timescale-{os.getpid()}.log"
    for attempt in range(START_ATTEMPTS):
        port = _free_port()
        settings = {**SETTINGS, "port": str(port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*run, f"{BIN}/postgres", "-D", data, *options], stdout=output, stderr=output
            )
        url = f"postgresql://raseed@127.0.0.1:{port}/postgres"
        try:
            _wait(url, server, log)
        except TimescaleMissing:
            # Somebody's outgoing connection may have taken the port since we looked.
            if server.poll() is None or attempt == START_ATTEMPTS - 1:
                server.kill()
                raise
        else:
            break
    try:
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)
        shutil.rmtree(ROOT / data.lstrip("/"), ignore_errors=True)
        log.unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise TimescaleMissing("the server did not come up:\n" + log.read_text(errors="replace")[-2000:])


def main() -> int:
    """Run the rest of the command line with RASEED_TEST_DATABASE_URL pointing at the server."""
    try:
        with timescale_server() as url:
            env = {**os.environ, "RASEED_TEST_DATABASE_URL": url, "RASEED_EXPECT_TIMESCALE": "1"}
            return subprocess.run(sys.argv[1:], env=env, check=False).returncode
    except TimescaleMissing as reason:
        print(f"timescale: skipped, {reason}", file=sys.stderr)
        # A user's machine may lack it; CI may not.
        return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
