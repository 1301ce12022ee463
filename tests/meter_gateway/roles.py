"""Starts the real roles as processes of their own, so that a test can kill them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


class Role:
    """One role in a child process; `kill` is SIGKILL."""

    def __init__(self, module: str, **arguments: str) -> None:
        loop = "uvloop" if module == "gateway" else "asyncio"  # each as `raseed` starts it
        self.code = (
            f"import {loop} as loop, logging; logging.basicConfig(level=logging.INFO);"
            f"from meter_gateway import {module} as role; loop.run(role.run(**{arguments!r}))"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.code],
            cwd=TOP,
            env={**os.environ, "PYTHONPATH": str(TOP)},
            stderr=subprocess.DEVNULL,
        )

    def kill(self, how: int = signal.SIGKILL) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(how)
        code = self.process.wait(timeout=15)
        self.process = None
        return code

    def pss_kb(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise RuntimeError("no Pss")


async def until(check, *, seconds: float = 20.0) -> None:
    """Wait until an async check answers true; fails the test when it does not in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if await check():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"did not happen within {seconds} s: {check.__name__}")
