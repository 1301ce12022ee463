"""Register words as a person brings them: decimal, hexadecimal, or a raw RTU frame with its checksum. Pure."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from firmware_sim.modbus_frame import crc16

_READS: Final = (3, 4)
_EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal address",
    3: "illegal value",
    4: "device failure",
    6: "device busy",
    10: "the converter has no way",
    11: "the meter behind the converter is silent",
}
MAX_WORDS: Final = 125


class InvalidWords(ValueError):
    """What was given is no register contents; the text says which part."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words from an address on, read by a function code; the unit only where a frame told it."""

    fc: int
    address: int
    words: tuple[int, ...]
    unit: int | None = None


def split_place(given: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return (FC:ADDRESS or None, the rest) of what was given."""
    if given and re.fullmatch(r"[0-9]+:\w+", given[0]) and len(given[0].partition(":")[0]) == 1:
        return given[0], list(given[1:])
    return None, list(given)


def read_words(given: Sequence[str], at: str | None, *, all_hex: bool = False) -> Words:
    """Return words that stand from `at` (FC:ADDRESS) on. Raises InvalidWords."""
    fc, address = read_place(at)
    words = tuple(_number(text, all_hex=all_hex) for text in given)
    if not 1 <= len(words) <= MAX_WORDS:
        raise InvalidWords(f"give 1 to {MAX_WORDS} words, not {len(words)}")
    for text, word in zip(given, words, strict=True):
        if not 0 <= word <= 0xFFFF:
            raise InvalidWords(f"{text} is no 16-bit word")
    return Words(fc, address, words)


def read_place(at: str | None) -> tuple[int, int]:
    """Return (function code, 0-based address) of a text such as 4:0x0048. Raises InvalidWords."""
    fc, colon, address = (at or "").partition(":")
    if not colon:
        raise InvalidWords("say first where the words stand, as FC:ADDRESS, such as 3:0x1000")
    place = (_number(fc), _number(address))
    if place[0] not in _READS or not 0 <= place[1] <= 0xFFFF:
        raise InvalidWords(f"{at} is no place: the function code is 3 or 4, the address 0 to 0xFFFF")
    return place


def _number(text: str, *, all_hex: bool = False) -> int:
    text = text.strip()
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,8}", text) or (all_hex and re.fullmatch(r"[0-9A-Fa-f]{1,8}", text)):
        return int(text, 16)
    if re.fullmatch(r"[0-9]{1,10}", text):
        return int(text)
    raise InvalidWords(f"{text[:20]!r} is no number: decimal, or hexadecimal as 0x12AB (--hex for all)")


def read_frames(given: Sequence[str], at: str | None, *, all_hex: bool = False) -> Words:
    """Return the words of an RTU answer; its place is `at`, or the question that stands before it.

    Raises InvalidWords for a wrong checksum, an exception answer, or an answer of another length.
    """
    del all_hex  # bytes of a frame always are
    joined = re.sub(r"0[xX]|[\s:\-]", "", " ".join(given))
    if not joined or len(joined) % 2 or not re.fullmatch(r"[0-9A-Fa-f]+", joined):
        raise InvalidWords("a frame is bytes in hexadecimal, such as 01 04 04 43 66 33 34 1B 38")
    data = bytes.fromhex(joined)
    question = data[:8] if len(data) > 8 and _checks(data[:8]) and data[1] in _READS else None
    answer = data[8:] if question else data
    if len(answer) < 5 or not _checks(answer):
        good = crc16(answer[:-2]).hex(" ").upper() if len(answer) > 2 else "?"
        raise InvalidWords(f"the checksum does not fit: {good} would")
    unit, function = answer[0], answer[1]
    if function & 0x80:
        code = answer[2]
        raise InvalidWords(f"unit {unit} answers exception {code}: {_EXCEPTIONS.get(code, 'of its own')}")
    if function not in _READS or answer[2] != len(answer) - 5 or answer[2] % 2:
        raise InvalidWords("this is no whole answer to a read")
    words = struct.unpack(f">{answer[2] // 2}H", answer[3:-2])
    if question is None:
        fc, address = read_place(at or None)
        if fc != function:
            raise InvalidWords(f"the frame answers function {function}, not {fc}")
        return Words(fc, address, words, unit)
    asked_unit, asked_function, address, count = struct.unpack(">BBHH", question[:6])
    if (asked_unit, asked_function, count) != (unit, function, len(words)):
        raise InvalidWords("the answer is not to this question")
    return Words(function, address, words, unit)


def _checks(frame: bytes) -> bool:
    return crc16(frame[:-2]) == frame[-2:]
