"""What went over a bus, told in plain words: who was asked for what, and what came back. Shows no contents. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

# What a person reads through; the counts go on.
MAX_LINES: Final = 400
_READS: Final = {3: "registers", 4: "input registers", 1: "coils", 2: "inputs"}
_WRITE_ONE: Final = 6
_WRITE_MANY: Final = 16
_EXCEPTION: Final = 0x80
# Modbus Application Protocol 1.1b3, 7.
EXCEPTIONS: Final = {
    1: "it does not know this function",
    2: "it has no register at this address",
    3: "it does not take this count or value",
    4: "it failed while doing it",
    5: "it works on it and will be ready later",
    6: "it is busy",
    8: "its memory is damaged",
    10: "the converter has no way to it",
    11: "nobody answers behind the converter",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes that left us, or that came, at an instant (UTC epoch milliseconds)."""

    at_ms: int
    is_sent: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One thing that happened; `kind` asked, written, answer, exception, silence, garbled, wrong_unit."""

    at_ms: int
    kind: str
    unit: int
    text: str
    ms: int | None = None

    def told(self) -> dict[str, Any]:
        """As it stands in a trace's result."""
        return {"at": self.at_ms, "kind": self.kind, "unit": self.unit, "text": self.text, "ms": self.ms}


@dataclass(frozen=True, slots=True)
class _Bare:
    unit: int
    pdu: bytes


def crc16(data: bytes) -> bytes:
    """Return the two bytes that end an RTU frame (Modbus serial line 2.5.1.2)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def describe(frames: Iterable[Frame], *, is_rtu: bool) -> list[TraceLine]:
    """Return what happened, in order; what came is told with the question before it."""
    lines: list[TraceLine] = []
    question: Frame | None = None
    heard: list[Frame] = []
    for frame in frames:
        if frame.is_sent:
            lines += _answered(question, heard, is_rtu=is_rtu)
            question, heard = frame, []
            lines.append(_asked(frame, is_rtu=is_rtu))
        else:
            heard.append(frame)
    return lines + _answered(question, heard, is_rtu=is_rtu)


def summary(lines: Sequence[TraceLine], unit: int = 0) -> dict[str, Any]:
    """Return a trace's result: the lines (of one unit, 0: of all), how many of each kind, how many left out."""
    wanted = [line for line in lines if not unit or line.unit == unit]
    counts: dict[str, int] = {}
    for line in wanted:
        counts[line.kind] = counts.get(line.kind, 0) + 1
    shown = wanted[:MAX_LINES]
    return {
        "lines": [line.told() for line in shown],
        "counts": counts,
        "dropped": len(wanted) - len(shown),
    }


def _bare(data: bytes, *, is_rtu: bool) -> _Bare | None:
    """Return unit and PDU of a frame; None when it is no whole frame."""
    if is_rtu:
        whole = len(data) >= 4 and crc16(data[:-2]) == data[-2:]
        return _Bare(data[0], data[1:-2]) if whole else None
    whole = len(data) >= 8 and len(data) == 6 + int.from_bytes(data[4:6], "big")
    return _Bare(data[6], data[7:]) if whole else None


def _asked(frame: Frame, *, is_rtu: bool) -> TraceLine:
    bare = _bare(frame.data, is_rtu=is_rtu)
    if bare is None or len(bare.pdu) < 5:
        return TraceLine(frame.at_ms, "asked", 0, f"sent {len(frame.data)} bytes that are no Modbus")
    function = bare.pdu[0]
    address, count = int.from_bytes(bare.pdu[1:3], "big"), int.from_bytes(bare.pdu[3:5], "big")
    if function in (_WRITE_ONE, _WRITE_MANY):
        many = count if function == _WRITE_MANY else 1
        text = f"wrote {many} register{'s' * (many != 1)} of unit {bare.unit} from 0x{address:04X} (contents not shown)"
        return TraceLine(frame.at_ms, "written", bare.unit, text)
    what = _READS.get(function, f"things by function {function}")
    return TraceLine(
        frame.at_ms, "asked", bare.unit, f"asked unit {bare.unit} for {count} {what} from 0x{address:04X}"
    )


def _answered(question: Frame | None, heard: Sequence[Frame], *, is_rtu: bool) -> list[TraceLine]:
    if not heard:
        if question is None:
            return []
        asked = _bare(question.data, is_rtu=is_rtu)
        unit = asked.unit if asked else 0
        return [TraceLine(question.at_ms, "silence", unit, f"unit {unit} did not answer in time")]
    data = b"".join(frame.data for frame in heard)
    at_ms = heard[-1].at_ms
    if question is None:
        return [TraceLine(at_ms, "garbled", 0, f"{len(data)} bytes came that nobody asked for")]
    return [_judged(question, data, at_ms, is_rtu=is_rtu)]


def _judged(question: Frame, data: bytes, at_ms: int, *, is_rtu: bool) -> TraceLine:
    asked, came = _bare(question.data, is_rtu=is_rtu), _bare(data, is_rtu=is_rtu)
    ms = max(0, at_ms - question.at_ms)
    size = f"{len(data)} bytes, {ms} ms"
    unit = asked.unit if asked else 0
    if asked is None or came is None:
        why = "the checksum is wrong or the frame is not whole" if is_rtu else "the frame is not whole"
        return TraceLine(at_ms, "garbled", unit, f"an answer that cannot be read, {size}: {why}", ms)
    if came.unit != asked.unit:
        text = f"unit {came.unit} answered though unit {unit} was asked, {size}"
        return TraceLine(at_ms, "wrong_unit", came.unit, text, ms)
    if came.pdu[0] == asked.pdu[0] | _EXCEPTION and len(came.pdu) > 1:
        code = came.pdu[1]
        meaning = EXCEPTIONS.get(code, "a code without a common meaning")
        return TraceLine(
            at_ms, "exception", unit, f"unit {unit} refused with exception {code}: {meaning}, {ms} ms", ms
        )
    if came.pdu[0] != asked.pdu[0]:
        text = f"unit {unit} answered with function {came.pdu[0]} instead of {asked.pdu[0]}, {size}"
        return TraceLine(at_ms, "garbled", unit, text, ms)
    wanted = 2 * int.from_bytes(asked.pdu[3:5], "big")
    if asked.pdu[0] in (3, 4) and len(came.pdu) != wanted + 2:
        text = f"unit {unit} answered {max(0, len(came.pdu) - 2)} bytes of values instead of {wanted}, {size}"
        return TraceLine(at_ms, "garbled", unit, text, ms)
    return TraceLine(at_ms, "answer", unit, f"answer of unit {unit}, {size}", ms)
