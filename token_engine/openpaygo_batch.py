"""Many OpenPAYGO tokens at once: SipHash over all devices side by side with numpy.

A chain starts from a code that holds the value, so nothing can be kept between tokens: what can be shared is
the work of one step over many devices.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from token_engine.errors import InvalidField
from token_engine.openpaygo import (
    PaygoDevice,
    PaygoToken,
    PaygoType,
    next_count,
    raw_value,
    write_digits,
)

U64 = npt.NDArray[np.uint64]

MAX_BATCH = 100_000  # rows held side by side; a larger fleet is worked through in parts


def issue_all(
    devices: Sequence[PaygoDevice],
    token_type: PaygoType,
    values: Sequence[int | None],
    counts: Sequence[int],
    *,
    extended: bool = False,
) -> list[PaygoToken]:
    """The same as openpaygo.issue for each row. Raises InvalidField, InvalidAmount for any bad row."""
    if not len(devices) == len(values) == len(counts):
        raise InvalidField("devices, values and counts are as many as each other")
    if len(devices) > MAX_BATCH:
        raise InvalidField(f"a batch has at most {MAX_BATCH} rows")
    if not devices:
        return []
    new_counts = [next_count(token_type, count) for count in counts]
    modulus = 1_000_000 if extended else 1000
    bases = [
        (device.starting_code + raw_value(token_type, value, extended=extended)) % modulus
        for device, value in zip(devices, values, strict=True)
    ]
    starts = [
        device.starting_code - device.starting_code % modulus + base
        for device, base in zip(devices, bases, strict=True)
    ]
    codes = _walk([device.key.reveal() for device in devices], starts, new_counts, extended)
    return [
        PaygoToken(write_digits(code - code % modulus + base, extended, device.restricted), count)
        for device, code, base, count in zip(devices, codes, bases, new_counts, strict=True)
    ]


def _walk(keys: list[bytes], starts: list[int], counts: list[int], extended: bool) -> list[int]:
    """Each code after its own number of steps; rows are sorted so that finished ones drop off the end."""
    order = np.argsort(-np.array(counts, dtype=np.int64), kind="stable")
    sorted_counts = np.array(counts, dtype=np.int64)[order]
    halves = np.frombuffer(b"".join(keys), dtype="<u8").reshape(-1, 2)[order].astype(np.uint64)
    codes = np.array(starts, dtype=np.uint64)[order]
    for step in range(int(sorted_counts[0])):
        active = int(np.searchsorted(-sorted_counts, -step, side="left"))
        codes[:active] = _next_codes(halves[:active, 0], halves[:active, 1], codes[:active], extended)
    out = np.empty_like(codes)
    out[order] = codes
    return [int(code) for code in out]


def _next_codes(k0: U64, k1: U64, codes: U64, extended: bool) -> U64:
    swapped = (
        codes.astype(">u8").view("<u8").astype(np.uint64)
    )  # big-endian bytes read as a little-endian word
    if extended:
        code = _siphash(k0, k1, swapped) >> np.uint64(24)
        wrap, limit = 99_511_627_777, 999_999_999_999
    else:
        digest = _siphash(k0, k1, swapped | swapped >> np.uint64(32))
        code = ((digest >> np.uint64(32)) ^ (digest & np.uint64(0xFFFFFFFF))) >> np.uint64(2)
        wrap, limit = 73_741_825, 999_999_999
    return np.where(code > np.uint64(limit), code - np.uint64(wrap), code)


def _rotate(x: U64, by: int) -> U64:
    return x << np.uint64(by) | x >> np.uint64(64 - by)


def _siphash(k0: U64, k1: U64, word: U64) -> U64:
    """SipHash-2-4 of one 8-byte message per row, given as little-endian words."""
    v0 = k0 ^ np.uint64(0x736F6D6570736575)
    v1 = k1 ^ np.uint64(0x646F72616E646F6D)
    v2 = k0 ^ np.uint64(0x6C7967656E657261)
    v3 = k1 ^ np.uint64(0x7465646279746573)
    length = np.full_like(word, 8 << 56)
    for message in (word, length):
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3 ^ message, 2)
        v0 = v0 ^ message
    v0, v1, v2, v3 = _rounds(v0, v1, v2 ^ np.uint64(0xFF), v3, 4)
    return v0 ^ v1 ^ v2 ^ v3


def _rounds(v0: U64, v1: U64, v2: U64, v3: U64, count: int) -> tuple[U64, U64, U64, U64]:
    for _ in range(count):
        v0, v2 = v0 + v1, v2 + v3
        v1, v3 = _rotate(v1, 13) ^ v0, _rotate(v3, 16) ^ v2
        v0, v2 = _rotate(v0, 32) + v3, v2 + v1
        v1, v3 = _rotate(v1, 17) ^ v2, _rotate(v3, 21) ^ v0
        v2 = _rotate(v2, 32)
    return v0, v1, v2, v3
