"""`python -m tests.soak --minutes 30 --meters 10000 --modbus 500 [--report docs/soak.md]`."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.house import Size
from tests.soak.report import write_report
from tests.soak.run import soak


def main() -> int:
    """Run a soak; 0 when the rule held."""
    parser = argparse.ArgumentParser(prog="tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--meters", type=int, default=10_000)
    parser.add_argument("--modbus", type=int, default=500)
    parser.add_argument("--telemetry", type=float, default=60, help="seconds between a meter's readings")
    parser.add_argument("--poll", type=float, default=15, help="seconds between polls of a Modbus meter")
    parser.add_argument(
        "--kill-every", type=float, help="seconds between kills (a sixtieth of the run, at least 3)"
    )
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard, hard)
    )  # the broker inherits it: a socket for each meter
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True)

    run_s = options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="raseed-soak-") as folder:
        result = asyncio.run(
            soak(
                Path(folder),
                Size(options.meters, options.modbus, options.telemetry, options.poll),
                run_s=run_s,
                every_s=options.kill_every or max(3.0, run_s / 60),
                seed=options.seed,
                say=say,
            )
        )
    report = write_report(result)
    if options.report:
        options.report.write_text(report, encoding="utf-8")
    print(report)
    for example in result.found.examples:
        print(example)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
