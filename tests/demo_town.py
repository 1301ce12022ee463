"""One whole demo for all browser tests of a run, started as a person would and stopped at the end."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

READY = "Raseed is ready at "
START_S = 180  # a first start makes a database and seeds a year of readings; a busy machine takes its time
STOP_S = 30


@dataclass(frozen=True)
class DemoTown:
    """The address of a running demo."""

    url: str


_running: DemoTown | None = None


def demo_town() -> DemoTown:
    """The demo of this run: started at the first call, or the one at RASEED_TEST_TOWN_URL.

    Raises RuntimeError with what the demo said when it does not become ready.
    """
    global _running
    if _running is None:
        given = os.environ.get("RASEED_TEST_TOWN_URL")
        _running = DemoTown(given.rstrip("/")) if given else _start()
    return _running


def _start() -> DemoTown:
    data = Path(tempfile.mkdtemp(prefix="raseed-town-"))
    log = (data.parent / f"{data.name}.log").open("w+b")
    process = subprocess.Popen(
        [sys.executable, "-m", "raseed", "demo", "--data", str(data), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    atexit.register(_stop, process, data, log.name)
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
    raise RuntimeError(f"the demo did not start:\n{''.join(said)}{Path(log.name).read_text()[-4000:]}")


def _stop(process: subprocess.Popen[str], data: Path, log: str) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(data, ignore_errors=True)
    Path(log).unlink(missing_ok=True)
