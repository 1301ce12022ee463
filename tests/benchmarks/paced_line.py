"""A serial line between two pseudo terminals: it takes its time for each byte, and stamps each.

Run as a program of its own, so that what it measures is not held up by what it measures.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import tty
from collections import deque
from itertools import pairwise
from typing import NamedTuple, Self

CHARACTER_BITS = 11  # Modbus over serial line 2.5.1: start, eight, parity or a second stop, stop
QUESTION, ANSWER = "question", "answer"


class Byte(NamedTuple):
    """When a byte passed. Of a question the first stamp is when it was seen to come in, of an answer's byte the
    moment just before it was handed over: a silence measured from an answer to a question is never too short.
    """

    what: str
    at: float


def silence_s(baud: int) -> float:
    """Three and a half characters."""
    return 3.5 * CHARACTER_BITS / baud


def silences(passed: list[Byte]) -> list[float]:
    """The silence before each question that follows an answer, in seconds."""
    return [
        after.at - before.at
        for before, after in pairwise(passed)
        if (before.what, after.what) == (ANSWER, QUESTION)
    ]


class PacedLine:
    """The line as a child process: `near` is the master's tty, `far` the meters'."""

    def __init__(self, baud: int) -> None:
        self.baud = baud
        self.near = self.far = ""
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, __file__, str(self.baud)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.near, self.far = self._child.stdout.readline().split()
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def passed(self) -> list[Byte]:
        """Every byte that passed since the last call."""
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return [Byte(what, at) for what, at in json.loads(self._child.stdout.readline())]


class _Bridge:
    """Bytes wait here for their place on the line; one speaks at a time."""

    def __init__(self, baud: int) -> None:
        self._character_s = CHARACTER_BITS / baud
        self._silence_s = silence_s(baud)
        self._near, near = os.openpty()
        self._far, far = os.openpty()
        for end in (near, far):
            tty.setraw(end)
        self.names = os.ttyname(near), os.ttyname(far)
        self._free_at = self._turn_at = 0.0
        self._under_way: deque[tuple[float, str, bytes]] = deque()
        self._passed: list[Byte] = []

    def run(self) -> None:
        """Carry bytes until standard input ends; each line of it asks for the stamps."""
        while True:
            wait_s = max(0.0, self._under_way[0][0] - time.monotonic()) if self._under_way else None
            ready, _, _ = select.select([self._near, self._far, sys.stdin], [], [], wait_s)
            self._hand_over()
            if self._near in ready:
                self._take(QUESTION, os.read(self._near, 1024))
            if self._far in ready:
                self._take(ANSWER, os.read(self._far, 1024))
            if sys.stdin in ready:
                if not sys.stdin.readline():
                    return
                print(json.dumps(self._passed), flush=True)
                self._passed = []

    def _take(self, what: str, data: bytes) -> None:
        now = time.monotonic()
        # A meter keeps the silence before its answer; the server behind us may not.
        begins = max(now, self._free_at, self._turn_at if what == ANSWER else 0.0)
        if what == QUESTION:
            self._passed.append(Byte(QUESTION, now))
        for place in range(len(data)):
            self._free_at = begins + (place + 1) * self._character_s
            self._under_way.append((self._free_at, what, data[place : place + 1]))

    def _hand_over(self) -> None:
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            _, what, byte = self._under_way.popleft()
            if what == ANSWER:
                self._passed.append(Byte(ANSWER, time.monotonic()))
                os.write(self._near, byte)
            else:
                os.write(self._far, byte)
                self._turn_at = time.monotonic() + self._silence_s


if __name__ == "__main__":
    bridge = _Bridge(int(sys.argv[1]))
    print(*bridge.names, flush=True)
    bridge.run()
