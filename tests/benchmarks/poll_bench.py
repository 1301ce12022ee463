"""How fast buses are read, beside libmodbus and beside what a serial line can carry: `make bench WHAT=poll`."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from meter_gateway.bus.modbus_link import BusLink
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.profile import Read
from tests.benchmarks.bench import Case, report_rates
from tests.benchmarks.c_program import NoCompiler, build
from tests.benchmarks.paced_line import PacedLine, silence_s, silences

HERE = Path(__file__).parent
CONNECTIONS = 50
REGISTERS = 40
BAUD = 9600
READ = Read(3, 0, REGISTERS)
WORDS = [(place * 7 + 1) % 65536 for place in range(REGISTERS)]  # what modbus_server.c holds
TCP_ROUND_S = 2.0
RTU_READS = 20  # a round; eight and a half a second is what the line carries
# A question of 8 characters and an answer of 5 + 2 x 40, with a silence before each.
LINE_LIMIT = 1 / ((8 + 5 + 2 * REGISTERS) * 11 / BAUD + 2 * silence_s(BAUD))


@contextmanager
def c_server(*arguments: str) -> Iterator[str]:
    """Our C server on libmodbus; yields what it says when it is ready."""
    child = subprocess.Popen(
        [build(HERE / "modbus_server.c"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


def c_client(port: str) -> float:
    """Reads a second of the C client on libmodbus, one thread a connection."""
    client = build(HERE / "modbus_client.c")
    said = subprocess.run(
        [client, port, str(CONNECTIONS), str(TCP_ROUND_S), str(REGISTERS)],
        capture_output=True,
        text=True,
        check=True,
    )
    reads, seconds = said.stdout.split()
    return int(reads) / float(seconds)


async def read_all(addresses: list[BusAddress]) -> float:
    """Reads a second of one process over all buses, each answer checked."""
    links = [BusLink(address) for address in addresses]
    done = [0] * len(links)
    for link in links:
        await link.read(1, READ)
    end_at = time.monotonic() + TCP_ROUND_S

    async def read_on(place: int, link: BusLink) -> None:
        while time.monotonic() < end_at:
            assert await link.read(1, READ) == WORDS
            done[place] += 1

    began = time.monotonic()
    await asyncio.gather(*(read_on(place, link) for place, link in enumerate(links)))
    took = time.monotonic() - began
    for link in links:
        link.close()
    return sum(done) / took


async def read_line(tty: str) -> float:
    """Reads a second over a serial line."""
    link = BusLink(BusAddress("line", "rtu", "", 0, tty, BAUD, 1.0, 0.5))
    await link.read(1, READ)
    began = time.monotonic()
    for _ in range(RTU_READS):
        assert await link.read(1, READ) == WORDS
    took = time.monotonic() - began
    link.close()
    return RTU_READS / took


def cases(port: str, line: PacedLine) -> list[Case]:
    """Each `work` measures itself: a rate, or the least silence of the round before it."""
    address = BusAddress("tcp", "tcp", "127.0.0.1", int(port), "", BAUD, 1.0, 0.5)
    anchor = f"libmodbus, {CONNECTIONS} threads"
    limit = f"a line of {BAUD} baud"
    least = "3.5 characters"

    def on(loop: Callable[..., object]) -> Callable[[], float]:
        return lambda: loop(read_all([address] * CONNECTIONS))

    def least_silence() -> float:
        return min(silences(line.passed())) * 1000

    return [
        Case(anchor, lambda: c_client(port)),
        Case(f"ours, {CONNECTIONS} TCP buses", on(uvloop.run), anchor=anchor, goal=0.35),
        Case(f"ours, {CONNECTIONS} TCP buses, asyncio's own loop", on(asyncio.run), anchor=anchor),
        Case(limit, lambda: LINE_LIMIT),
        Case("ours, one RTU line", lambda: uvloop.run(read_line(line.near)), anchor=limit, goal=0.95),
        Case(least, lambda: silence_s(BAUD) * 1000, show=milliseconds),
        Case(
            "least silence before a question",
            least_silence,
            anchor=least,
            goal=1.0,
            every_round=True,
            show=milliseconds,
        ),
    ]


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms"


def main() -> int:
    try:
        with c_server("tcp") as port, PacedLine(BAUD) as line, c_server("rtu", line.far):
            return report_rates(
                f"Reads of {REGISTERS} holding registers a second, wall clock", cases(port, line)
            )
    except NoCompiler as error:
        print(f"make bench WHAT=poll needs a C compiler and libmodbus: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
