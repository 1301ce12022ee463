"""How long a read takes on an RS-485 line: bytes, silences and the meter's turnaround. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from meter_gateway.meter_map import Read

BITS_A_CHARACTER: Final = 11  # start, eight bits, parity or a second stop, stop
# A request of 8 characters, an answer of 5 and two for each register.
REQUEST_CHARACTERS: Final = 8
ANSWER_CHARACTERS: Final = 5
SILENCE_CHARACTERS: Final = 3.5  # before the request and before the answer
TURNAROUND_S: Final = 0.05  # what a meter takes to begin its answer: 20 to 100 ms are usual


def read_s(count: int, baud: int, turnaround_s: float = TURNAROUND_S) -> float:
    """Seconds that one read of `count` registers keeps a line of `baud` busy.

    Source: (8 + 5 + 2n) characters of 11 bits, and 2 x 3.5 characters, and the turnaround.
    """
    characters = REQUEST_CHARACTERS + ANSWER_CHARACTERS + 2 * count + 2 * SILENCE_CHARACTERS
    return characters * BITS_A_CHARACTER / baud + turnaround_s


def sweep_s(reads: Iterable[Read], baud: int, turnaround_s: float = TURNAROUND_S) -> float:
    """Seconds that these reads keep the line busy, one after the other."""
    return sum(read_s(read.count, baud, turnaround_s) for read in reads)
