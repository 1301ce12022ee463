"""The ways in which meters and their wires go wrong, by name, and what each does to an answer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal

Place = Literal["answer", "registers", "radio", "meter", "bus"]
LATE_S: Final = 1.5  # longer than a careful master waits (0.3-1 s), shorter than its poll period
SLOW_WRITE_S: Final = 2.5
PENDING_MS: Final = 3_000
BABBLE_EVERY_S: Final = 0.25
FLAP_EVERY_S: Final = 4.0
CLOCK_JUMP_MS: Final = -365 * 86_400_000  # the usual fault: a year back
CLOCK_SLOW_MS: Final = -600_000
LEAK: Final = {"electricity": 30, "water": 30_000}  # W, mL/h
REVERSE_FLOW: Final = {"electricity": 2_000, "water": 200_000}
COUNTER_SPIKE: Final = 53_700_000  # 53.7 MWh, as a user of an energy manager once saw
# What a line in trouble carries; never a whole frame.
NOISE: Final = bytes((0x00, 0xFF, 0x55, 0x13, 0x00, 0x7E, 0xAA))
EXCEPTION_BUSY: Final = 6
MAX_FAULTS: Final = 16  # on one meter at a time
MAX_FAULT_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class FaultKind:
    """Where a fault sits, whether it lasts or happens once, and what it looks like from outside."""

    place: Place
    lasts: bool
    meaning: str


FAULTS: Final[dict[str, FaultKind]] = {
    "late": FaultKind("answer", True, "answers 1.5 s late, into the next question"),
    "short": FaultKind("answer", True, "the answer misses its last bytes"),
    "doubled": FaultKind("answer", True, "every answer comes twice"),
    "corrupt": FaultKind("answer", True, "a bit of the answer is turned over"),
    "garbage": FaultKind("answer", True, "noise stands before the answer"),
    "wrong_unit": FaultKind("answer", True, "the answer carries another unit's number"),
    "wrong_count": FaultKind("answer", True, "the answer holds one register fewer than asked, and checks"),
    "busy": FaultKind("answer", True, "answers exception 6, device busy"),
    "slow_write": FaultKind("answer", True, "carries a write out and confirms it 2.5 s late"),
    "mute_write": FaultKind("answer", True, "carries a write out and never confirms it"),
    "dead": FaultKind("answer", True, "says nothing on any wire"),
    "pending": FaultKind("registers", True, "shows PENDING in the result for 3 s after a write"),
    "counter_zero": FaultKind("registers", True, "the counter reads zero"),
    "counter_spike": FaultKind("registers", True, "the counter reads 53.7 MWh (or kL) too high"),
    "wrong_serial": FaultKind("registers", True, "another meter's number is read, as after a silent swap"),
    "swapped_words": FaultKind("registers", True, "the low word comes first"),
    "babbling": FaultKind("bus", True, "throws noise on its bus every quarter second"),
    "offline": FaultKind("radio", True, "the radio link is down"),
    "flapping": FaultKind("radio", True, "the radio link breaks every 4 s"),
    "mute": FaultKind("radio", True, "stays connected and publishes nothing"),
    "deaf": FaultKind("radio", True, "hears neither orders nor receipts"),
    "twice": FaultKind("radio", True, "publishes every message twice"),
    "reordered": FaultKind("radio", True, "publishes each message after the one that follows it"),
    "poison": FaultKind("radio", False, "publishes a message that breaks the contract"),
    "stuck_relay": FaultKind("meter", True, "the contacts are welded, or the valve is jammed"),
    "clock_jump": FaultKind("meter", True, "the clock is a year back and the meter does not know"),
    "clock_slow": FaultKind("meter", True, "the clock is ten minutes back and the meter does not know"),
    "clock_lost": FaultKind("meter", True, "the clock shows 1970 and the meter knows"),
    "leak": FaultKind("meter", True, "a pipe behind the meter leaks 30 L/h, or a cable 30 W"),
    "reverse_flow": FaultKind("meter", True, "2 kW, or 200 L/h, flow back into the network"),
    "no_gasp": FaultKind("meter", True, "when its power goes it says no last word"),
    "reboot": FaultKind("meter", False, "starts again"),
    "tamper": FaultKind("meter", False, "somebody opens the lid"),
}


class UnknownFault(ValueError):
    """A fault that no meter here can have."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes for the wire and how long to wait before they go out."""

    delay_s: float
    data: bytes


def check_fault(name: str, seconds: float) -> FaultKind:
    """The kind of a fault by name. Raises UnknownFault, also for a time that is not 0 to a day."""
    kind = FAULTS.get(name)
    if kind is None:
        raise UnknownFault(f"no fault is called {name!r}; there are {', '.join(FAULTS)}")
    if not 0 <= seconds <= MAX_FAULT_S:
        raise UnknownFault(f"a fault lasts 0 to {MAX_FAULT_S} s, not {seconds}")
    return kind


@dataclass(frozen=True, slots=True)
class FaultBook:
    """Which faults a meter has now: name to the epoch millisecond at which it ends."""

    until_ms: tuple[tuple[str, int], ...] = ()

    def at(self, now_ms: int) -> frozenset[str]:
        """The faults that are active now."""
        return frozenset(name for name, end in self.until_ms if end > now_ms)

    def with_fault(self, name: str, end_ms: int, now_ms: int) -> FaultBook:
        """The book with one more fault, or a new end for a known one. Raises UnknownFault when it is full."""
        kept = tuple((old, end) for old, end in self.until_ms if old != name and end > now_ms)
        if len(kept) >= MAX_FAULTS:
            raise UnknownFault(f"a meter has at most {MAX_FAULTS} faults at a time")
        return FaultBook((*kept, (name, end_ms)))


def distort(
    unit: int, pdu: bytes, frame: Callable[[int, bytes], bytes], faults: Collection[str], writing: bool
) -> tuple[Piece, ...]:
    """What really goes onto the wire in place of the answer `pdu` of `unit`; nothing when it stays silent.

    `frame` makes a frame of unit and PDU. Faults combine: they act in the order of the body.
    """
    if "dead" in faults or (writing and "mute_write" in faults):
        return ()
    if "busy" in faults:
        pdu = bytes((pdu[0] | 0x80, EXCEPTION_BUSY))
    if "wrong_count" in faults and pdu[0] in (3, 4) and pdu[1] > 2:
        pdu = bytes((pdu[0], pdu[1] - 2)) + pdu[2:-2]
    data = frame(unit % 247 + 1 if "wrong_unit" in faults else unit, pdu)
    if "corrupt" in faults:
        # Byte 2: in an RTU frame its checksum fails; in a TCP frame it is the protocol number.
        data = data[:2] + bytes((data[2] ^ 0x10,)) + data[3:]
    if "short" in faults:
        data = data[:-3]
    if "garbage" in faults:
        data = NOISE + data
    delay_s = LATE_S * ("late" in faults) + SLOW_WRITE_S * (writing and "slow_write" in faults)
    pieces = [Piece(delay_s, data)]
    if "doubled" in faults:
        pieces.append(Piece(delay_s, data))
    return tuple(pieces)
