"""EA07, the STA block cipher: 16 rounds of nibble substitution and bit permutation (sts.md 7).

The tables are a resource, not part of the rule: `SAMPLE` is the set printed in the standard as an example,
`PRODUCTION` the one that reproduces every test vector. Vending for real meters with it is a licensing
matter of the STS Association.
"""

import json
from dataclasses import dataclass
from functools import cache
from struct import Struct

from token_engine.errors import InvalidKey
from token_engine.fields import MASK64

ROUNDS = 16
HALF = 8
# The key bit that picks the substitution of nibble n is bit 4n+3: two bits of each byte.
_SELECT = 0x8888888888888888
_SELECT_LANES = sum(_SELECT << 128 * r for r in range(HALF))
_ROTATIONS = sum(1 << 128 * r + (r - 12) % 64 for r in range(HALF))
_LANE = Struct("8B8x")
_SELECTORS = (0x00, 0x08, 0x80, 0x88)

ByteTable = list[list[int]]
RoundKey = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StaTables:
    """Two substitutions of 16 nibbles and a permutation of 64 bits. Raises InvalidKey when not bijective."""

    s1: tuple[int, ...]
    s2: tuple[int, ...]
    p: tuple[int, ...]

    def __hash__(self) -> int:
        """Of 16 numbers only: the byte tables are looked up by it for each token."""
        return hash(self.s1)

    def __post_init__(self) -> None:
        for table, size in ((self.s1, 16), (self.s2, 16), (self.p, 64)):
            if sorted(table) != list(range(size)):
                raise InvalidKey(f"a cipher table must hold each of 0 to {size - 1} once")

    @classmethod
    def from_text(cls, text: str) -> "StaTables":
        """Read tables from a JSON resource {"s1": [16], "s2": [16], "p": [64]}. Raises InvalidKey."""
        try:
            content = json.loads(text)
            s1, s2, p = (tuple(int(number) for number in content[name]) for name in ("s1", "s2", "p"))
        except (ValueError, KeyError, TypeError):
            raise InvalidKey("cipher tables are JSON with the lists s1, s2 and p") from None
        return cls(s1, s2, p)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


PRODUCTION = StaTables(
    s1=(14, 10, 7, 9, 12, 3, 2, 5, 13, 0, 15, 1, 4, 8, 6, 11),
    s2=(12, 8, 2, 13, 7, 6, 1, 3, 11, 5, 9, 15, 0, 4, 10, 14),
    p=_numbers(
        "55 42 10 18 24 21 44 35 2 22 56 43 27 58 9 50 6 36 12 61 37 38 "
        "53 16 62 3 7 4 32 20 63 25 51 52 54 33 49 19 46 29 48 31 23 30 "
        "41 28 13 5 40 60 39 11 15 17 1 0 57 34 59 8 47 14 45 26"
    ),
)
SAMPLE = StaTables(
    s1=(12, 10, 8, 4, 3, 15, 0, 2, 14, 1, 5, 13, 6, 9, 7, 11),
    s2=(6, 9, 7, 4, 3, 10, 12, 14, 2, 13, 1, 15, 0, 11, 8, 5),
    p=_numbers(
        "29 27 34 9 16 62 55 2 40 49 38 25 33 61 30 23 1 41 21 57 42 15 "
        "5 58 19 53 22 17 48 28 24 39 3 60 36 14 11 52 54 12 31 51 10 26 "
        "0 45 37 43 44 6 59 4 7 35 56 50 13 18 32 47 46 63 20 8"
    ),
)


def _inverse(table: tuple[int, ...]) -> tuple[int, ...]:
    inverse = [0] * len(table)
    for source, target in enumerate(table):
        inverse[target] = source
    return tuple(inverse)


def _spread(byte: int, position: int, p: tuple[int, ...]) -> int:
    """Where the set bits of `byte` at byte `position` of the block go."""
    return sum(1 << p[position * 8 + bit] for bit in range(8) if byte >> bit & 1)


def _substituted(byte: int, selector: int, s1: tuple[int, ...], s2: tuple[int, ...]) -> int:
    low = (s2 if selector & 0x08 else s1)[byte & 15]
    high = (s2 if selector & 0x80 else s1)[byte >> 4]
    return high << 4 | low


@cache
def round_tables(tables: StaTables) -> tuple[ByteTable, ...]:
    """For each of 8 bytes: table[selector][byte] = its bits after substitution and permutation.

    Rows are at 00, 08, 80 and 88: the masked key byte itself is the index, with nothing to shift.
    """

    def rows(position: int) -> ByteTable:
        table: ByteTable = [[] for _ in range(_SELECTORS[-1] + 1)]
        for selector in _SELECTORS:
            table[selector] = [
                _spread(_substituted(byte, selector, tables.s1, tables.s2), position, tables.p)
                for byte in range(256)
            ]
        return table

    return tuple(rows(position) for position in range(8))


@cache
def inverse_tables(tables: StaTables) -> StaTables:
    """The tables whose round is substitution then permutation, both inverted."""
    return StaTables(_inverse(tables.s1), _inverse(tables.s2), _inverse(tables.p))


@cache
def _permutation(p: tuple[int, ...]) -> ByteTable:
    return [[_spread(byte, position, p) for byte in range(256)] for position in range(8)]


def _permuted(block: int, p: tuple[int, ...]) -> int:
    out = 0
    for row, byte in zip(_permutation(p), block.to_bytes(8, "little"), strict=True):
        out |= row[byte]
    return out


def _round_keys(key: int) -> list[RoundKey]:
    """The selecting bits of 8 rounds, a number for each byte of the block. Raises InvalidKey.

    Eight rounds on, the key has turned by one byte: the last 8 rounds use the same numbers, one place up.
    """
    if not 0 <= key <= MASK64:
        raise InvalidKey("EA07 takes a 64-bit key")
    # All rotations in one multiplication: lane r of 128 bits holds the inverted key r - 12 places to the left,
    # and what left its lower half comes back at the bottom.
    lanes = (key ^ MASK64) * _ROTATIONS
    lanes = (lanes | lanes >> 64) & _SELECT_LANES
    return list(_LANE.iter_unpack(lanes.to_bytes(_LANE.size * HALF, "little")))


def _first_half(block: int, round_keys: list[RoundKey], tables: tuple[ByteTable, ...]) -> int:
    """Rounds 1 to 8. No two of the looked-up numbers share a bit: adding is joining, only faster."""
    t0, t1, t2, t3, t4, t5, t6, t7 = tables
    for k0, k1, k2, k3, k4, k5, k6, k7 in round_keys:
        b0, b1, b2, b3, b4, b5, b6, b7 = block.to_bytes(8, "little")
        front = t0[k0][b0] + t1[k1][b1] + t2[k2][b2] + t3[k3][b3]
        block = front + t4[k4][b4] + t5[k5][b5] + t6[k6][b6] + t7[k7][b7]
    return block


def _second_half(block: int, round_keys: list[RoundKey], tables: tuple[ByteTable, ...]) -> int:
    """Rounds 9 to 16: each number of the key now stands for the byte after."""
    t0, t1, t2, t3, t4, t5, t6, t7 = tables
    for k1, k2, k3, k4, k5, k6, k7, k0 in round_keys:
        b0, b1, b2, b3, b4, b5, b6, b7 = block.to_bytes(8, "little")
        front = t0[k0][b0] + t1[k1][b1] + t2[k2][b2] + t3[k3][b3]
        block = front + t4[k4][b4] + t5[k5][b5] + t6[k6][b6] + t7[k7][b7]
    return block


def sta_encrypt(key: int, block: int, tables: StaTables = PRODUCTION) -> int:
    """The 64-bit cipher block. Raises InvalidKey when the key is not 64 bits."""
    keys, bytewise = _round_keys(key), round_tables(tables)
    return _second_half(_first_half(block, keys, bytewise), keys, bytewise)


def sta_decrypt(key: int, block: int, tables: StaTables = PRODUCTION) -> int:
    """The 64-bit data block. Raises InvalidKey when the key is not 64 bits.

    An inverse round permutes first and substitutes then; moving one permutation to the front makes it the
    same shape as a round forward, so both directions share the fast loops.
    """
    inverse = inverse_tables(tables)
    keys, bytewise = _round_keys(key), round_tables(inverse)
    keys.reverse()
    block = _second_half(_permuted(block, inverse.p), keys, bytewise)
    return _permuted(_first_half(block, keys, bytewise), tables.p)
