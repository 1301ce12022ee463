"""`raseed demo --check`: run the whole story by itself on a demo of its own, and say at which step it fails."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from raseed.demo import Demo
from raseed.supervisor import SupervisorError

MAX_MEMORY_MB = 700
MB = 1024 * 1024
Step = Callable[[], Awaitable[str]]


def run_check() -> int:
    """Return 0 when every step held, 1 at the first that did not; its data folder is kept then."""
    data = Path(tempfile.mkdtemp(prefix="raseed-check-"))
    # A check that is told to stop must still stop its children: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    failure = asyncio.run(_run(data))
    if failure:
        print(f"\nFAILED: {failure}\nThe logs are kept in {data}/demo/logs", file=sys.stderr, flush=True)
        return 1
    shutil.rmtree(data, ignore_errors=True)
    print("\nAll steps held.", flush=True)
    return 0


async def _run(data: Path) -> str:
    """Give the failure in words, empty when there is none."""
    from raseed.check_story import Story
    from raseed.check_town import CheckTown

    began = time.monotonic()
    demo = Demo(data / "demo", port=0, host="127.0.0.1", speed=1.0, say=lambda _line: None)
    failure = "it was stopped"
    async with demo.supervisor:
        failure = ""
        try:
            await demo.start()
        except (SupervisorError, OSError) as error:
            return f"start: {error}"
        print(
            f"ok  {'start of every role, from an empty folder':<68} {time.monotonic() - began:6.2f} s",
            flush=True,
        )
        town = CheckTown(demo)
        story = Story(town)
        try:
            for name, step in story.steps():
                failure = await _one(name, step)
                if failure:
                    return failure
            failure = _memory(demo)
        finally:
            await town.close()
        print(f"    {'everything':<68} {time.monotonic() - began:6.2f} s", flush=True)
    return failure


async def _one(name: str, step: Step) -> str:
    from raseed.check_town import CheckFailed
    from raseed.check_visitor import PageUnexpected

    began = time.monotonic()
    try:
        said = await step()
    except (CheckFailed, PageUnexpected) as error:
        return f"{name}: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a step meets is this step's failure
        return f"{name}: {type(error).__name__}: {error}"
    print(f"ok  {name:<68} {time.monotonic() - began:6.2f} s{'  ' + said if said else ''}", flush=True)
    return ""


def _memory(demo: Demo) -> str:
    from raseed import processes

    total = demo.supervisor.pss_bytes() / MB
    parts = []
    for name in demo.supervisor.names():
        pid = demo.supervisor.pid(name)
        if pid is not None:
            parts.append(f"{name} {processes.pss_bytes([pid]) / MB:.0f}")
    print(
        f"    memory of all processes (sum of PSS): {total:.0f} MB of {MAX_MEMORY_MB} ({', '.join(parts)})",
        flush=True,
    )
    return "" if total < MAX_MEMORY_MB else f"memory: {total:.0f} MB is over {MAX_MEMORY_MB} MB"
