"""A whole demo for browser tests, started as a person would and stopped when they are over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raseed import processes

READY = "Raseed is ready at "
START_S = 180  # a first start makes a database and seeds a year of readings; a busy machine takes its time
STOP_S = 30


@dataclass(frozen=True)
class DemoTown:
    """The address of a running demo."""

    url: str


@contextmanager
def running_town() -> Iterator[DemoTown]:
    """A demo that runs as long as it is needed, for it takes a third of a processor; or the one at RASEED_TEST_TOWN_URL.

    Raises RuntimeError with what the demo said when it does not become ready.
    """
    given = os.environ.get("RASEED_TEST_TOWN_URL")
    if given:
        yield DemoTown(given.rstrip("/"))
        return
    data = Path(tempfile.mkdtemp(prefix="raseed-town-"))
    log = data.with_name(f"{data.name}.log")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "raseed", "demo", "--data", str(data), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=processes.die_with_parent(signal.SIGINT),
        )
    try:
        yield _wait_ready(process, log)
    finally:
        _stop(process)
        shutil.rmtree(data, ignore_errors=True)
        log.unlink(missing_ok=True)


def _wait_ready(process: subprocess.Popen[str], log: Path) -> DemoTown:
    assert process.stdout is not None
    watchdog = threading.Timer(START_S, process.kill)
    watchdog.start()
    said = []
    for line in process.stdout:
        said.append(line)
        if READY in line:
            watchdog.cancel()
            # The pipe is read on, else a talkative demo would stand still when it is full.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return DemoTown(line.split(READY, 1)[1].split()[0].rstrip("/"))
    watchdog.cancel()
    process.wait()
    raise RuntimeError(f"the demo did not start:\n{''.join(said)}{log.read_text()[-4000:]}")


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
