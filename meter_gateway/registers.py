"""Register words to integers and back: types, word orders, decimal scales and sentinels, without a float."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, Literal

RegisterType = Literal["u16", "i16", "u32", "i32", "u64", "i64", "f32", "ascii", "bcd"]
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]

WORDS: Final[dict[str, int]] = {"u16": 1, "i16": 1, "u32": 2, "i32": 2, "u64": 4, "i64": 4, "f32": 2}
_SIGNED: Final = frozenset({"i16", "i32", "i64"})
WORD_ORDERS: Final = frozenset({"ABCD", "CDAB", "BADC", "DCBA"})


class RegisterError(ValueError):
    """Words that hold no value of the asked type, or a value that the words cannot hold."""


def to_bytes(words: Sequence[int], order: WordOrder) -> bytes:
    """Return the words as big-endian bytes: C first (CD..) turns words round, B first turns bytes round."""
    for word in words:
        if not 0 <= word <= 0xFFFF:
            raise RegisterError(f"{word} is no 16-bit word")
    ordered = list(words) if order in ("ABCD", "BADC") else list(reversed(words))
    if order in ("BADC", "DCBA"):
        ordered = [(word & 0xFF) << 8 | word >> 8 for word in ordered]
    return b"".join(word.to_bytes(2, "big") for word in ordered)


def to_words(data: bytes, order: WordOrder) -> list[int]:
    """Return the words that carry these big-endian bytes in the given order."""
    if len(data) % 2:
        raise RegisterError(f"{len(data)} bytes do not fill words")
    words = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    if order in ("BADC", "DCBA"):
        words = [(word & 0xFF) << 8 | word >> 8 for word in words]
    return words if order in ("ABCD", "BADC") else list(reversed(words))


def decode_integer(words: Sequence[int], type_: RegisterType, order: WordOrder = "ABCD") -> int:
    """Return a u16..i64 as it stands in the words. Raises RegisterError on another number of words."""
    if type_ not in WORDS or type_ == "f32":
        raise RegisterError(f"{type_} is no integer type")
    if len(words) != WORDS[type_]:
        raise RegisterError(f"{type_} takes {WORDS[type_]} registers, not {len(words)}")
    return int.from_bytes(to_bytes(words, order), "big", signed=type_ in _SIGNED)


def encode_integer(value: int, type_: RegisterType, order: WordOrder = "ABCD") -> list[int]:
    """Return the words of a u16..i64. Raises RegisterError when the value does not fit."""
    if type_ not in WORDS or type_ == "f32":
        raise RegisterError(f"{type_} is no integer type")
    try:
        data = value.to_bytes(2 * WORDS[type_], "big", signed=type_ in _SIGNED)
    except OverflowError:
        raise RegisterError(f"{value} does not fit {type_}") from None
    return to_words(data, order)


def decode_decimal(words: Sequence[int], type_: RegisterType, order: WordOrder = "ABCD") -> Decimal | None:
    """Return a number as an exact Decimal; None for a float's NaN or infinity (the meter has no value)."""
    if type_ != "f32":
        return Decimal(decode_integer(words, type_, order))
    if len(words) != WORDS["f32"]:
        raise RegisterError(f"f32 takes 2 registers, not {len(words)}")
    (number,) = struct.unpack(">f", to_bytes(words, order))
    exact = Decimal(number)
    # A single holds about 7 decimal digits; what follows is noise of the binary form, not a measurement.
    return Decimal(f"{number:.7g}") if exact.is_finite() else None


def encode_decimal(value: Decimal, type_: RegisterType, order: WordOrder = "ABCD") -> list[int]:
    """Return the words of a raw (already unscaled) number; integers are rounded half to even."""
    if type_ != "f32":
        return encode_integer(int(value.to_integral_value(ROUND_HALF_EVEN)), type_, order)
    try:
        return to_words(struct.pack(">f", value), order)
    except OverflowError:
        raise RegisterError(f"{value} does not fit f32") from None


def to_base_units(raw: Decimal, scale: Decimal) -> int:
    """Return raw x scale as an integer of the base unit (Wh, mL, W), rounded half to even."""
    return int((raw * scale).to_integral_value(ROUND_HALF_EVEN))


def decode_ascii(words: Sequence[int], order: WordOrder = "ABCD") -> str:
    """Return text without its padding of NUL and blanks. Raises RegisterError on other than plain ASCII."""
    data = to_bytes(words, order).rstrip(b"\x00 ")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise RegisterError("text register holds bytes outside ASCII") from None
    if not text.isprintable():
        raise RegisterError("text register holds control characters")
    return text


def encode_ascii(text: str, count: int, order: WordOrder = "ABCD") -> list[int]:
    """Return text padded with NUL to `count` registers."""
    try:
        data = text.encode("ascii")
    except UnicodeEncodeError:
        raise RegisterError("text register takes ASCII only") from None
    if len(data) > 2 * count:
        raise RegisterError(f"{len(data)} characters do not fit {count} registers")
    return to_words(data.ljust(2 * count, b"\x00"), order)


def decode_bcd(words: Sequence[int], order: WordOrder = "ABCD") -> str:
    """Return four decimal digits a register. Raises RegisterError on a nibble above 9."""
    digits = to_bytes(words, order).hex()
    if not digits.isdecimal():
        raise RegisterError("BCD register holds a nibble above 9")
    return digits


def encode_bcd(digits: str, count: int, order: WordOrder = "ABCD") -> list[int]:
    """Return decimal digits as BCD, leading zeros first, in `count` registers."""
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 4 * count:
        raise RegisterError(f"BCD takes at most {4 * count} decimal digits")
    return to_words(bytes.fromhex(digits.rjust(4 * count, "0")), order)
