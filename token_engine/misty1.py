"""EA11: MISTY1 with 8 rounds on one 64-bit block (RFC 2994)."""

from array import array
from functools import cache

from token_engine.errors import InvalidKey

ROUNDS = 8
KEY_BYTES = 16

# fmt: off
_S7 = (
    0x1B, 0x32, 0x33, 0x5A, 0x3B, 0x10, 0x17, 0x54, 0x5B, 0x1A, 0x72, 0x73, 0x6B, 0x2C, 0x66, 0x49,
    0x1F, 0x24, 0x13, 0x6C, 0x37, 0x2E, 0x3F, 0x4A, 0x5D, 0x0F, 0x40, 0x56, 0x25, 0x51, 0x1C, 0x04,
    0x0B, 0x46, 0x20, 0x0D, 0x7B, 0x35, 0x44, 0x42, 0x2B, 0x1E, 0x41, 0x14, 0x4B, 0x79, 0x15, 0x6F,
    0x0E, 0x55, 0x09, 0x36, 0x74, 0x0C, 0x67, 0x53, 0x28, 0x0A, 0x7E, 0x38, 0x02, 0x07, 0x60, 0x29,
    0x19, 0x12, 0x65, 0x2F, 0x30, 0x39, 0x08, 0x68, 0x5F, 0x78, 0x2A, 0x4C, 0x64, 0x45, 0x75, 0x3D,
    0x59, 0x48, 0x03, 0x57, 0x7C, 0x4F, 0x62, 0x3C, 0x1D, 0x21, 0x5E, 0x27, 0x6A, 0x70, 0x4D, 0x3A,
    0x01, 0x6D, 0x6E, 0x63, 0x18, 0x77, 0x23, 0x05, 0x26, 0x76, 0x00, 0x31, 0x2D, 0x7A, 0x7F, 0x61,
    0x50, 0x22, 0x11, 0x06, 0x47, 0x16, 0x52, 0x4E, 0x71, 0x3E, 0x69, 0x43, 0x34, 0x5C, 0x58, 0x7D,
)
# fmt: on

# S9 is quadratic: each output bit is a sum of one- and two-bit products of the input bits.
# Output bit i is the list at place i; "04" is x0*x4, "8" is x8; the constant inverts bits 0, 1, 6, 7, 8.
_S9_TERMS = (
    "04 05 15 16 26 27 37 38 48",
    "02 3 13 23 34 45 06 26 7 08 38 58",
    "01 13 4 04 24 34 45 06 56 17 37 8",
    "0 12 24 5 15 35 45 56 17 67 28 48",
    "1 03 23 05 35 6 26 46 56 67 28 78",
    "2 03 14 34 16 46 7 37 57 67 08 78",
    "01 3 14 25 45 27 57 8 08 48 68 78",
    "1 01 12 23 04 5 16 36 07 47 67 18",
    "0 01 12 4 05 25 36 56 07 08 38 68",
)
_S9_CONSTANT = 0x1C3


def _s9_entry(x: int) -> int:
    out = _S9_CONSTANT
    for bit, terms in enumerate(_S9_TERMS):
        ones = sum(all(x >> int(place) & 1 for place in term) for term in terms.split())
        out ^= (ones & 1) << bit
    return out


@cache
def _halves() -> tuple["array[int]", "array[int]"]:
    """Function FI as two look-ups: FI(x, k) = second[first[x] ^ k], 65536 entries each."""
    s9 = [_s9_entry(x) for x in range(512)]
    first, second = array("H"), array("H")
    for x in range(0x10000):
        nine, seven = x >> 7, x & 0x7F
        nine = s9[nine] ^ seven
        first.append((_S7[seven] ^ nine & 0x7F) << 9 | nine)
        nine, seven = x & 0x1FF, x >> 9
        second.append(seven << 9 | s9[nine] ^ seven)
    return first, second


def _expand(key: bytes) -> list[int]:
    """The 16 words of the key schedule: 8 of the key, 8 made from neighbours."""
    if len(key) != KEY_BYTES:
        raise InvalidKey("EA11 takes a 128-bit key")
    first, second = _halves()
    words = [int.from_bytes(key[place : place + 2], "big") for place in range(0, KEY_BYTES, 2)]
    return words + [second[first[words[i]] ^ words[(i + 1) % 8]] for i in range(8)]


def _fo(value: int, k: int, words: list[int]) -> int:
    first, second = _halves()
    left, right = value >> 16, value & 0xFFFF
    left = second[first[left ^ words[k]] ^ words[(k + 5) % 8 + 8]] ^ right
    right = second[first[right ^ words[(k + 2) % 8]] ^ words[(k + 1) % 8 + 8]] ^ left
    left = second[first[left ^ words[(k + 7) % 8]] ^ words[(k + 3) % 8 + 8]] ^ right
    return (right ^ words[(k + 4) % 8]) << 16 | left


def _fl_words(k: int, words: list[int]) -> tuple[int, int]:
    half = k >> 1
    if k & 1:
        return words[(half + 2) % 8 + 8], words[(half + 4) % 8]
    return words[half], words[(half + 6) % 8 + 8]


def _fl(value: int, k: int, words: list[int]) -> int:
    and_word, or_word = _fl_words(k, words)
    left, right = value >> 16, value & 0xFFFF
    right ^= left & and_word
    left ^= right | or_word
    return left << 16 | right


def _fl_inverse(value: int, k: int, words: list[int]) -> int:
    and_word, or_word = _fl_words(k, words)
    left, right = value >> 16, value & 0xFFFF
    left ^= right | or_word
    right ^= left & and_word
    return left << 16 | right


def misty1_encrypt(key: bytes, block: int) -> int:
    """The 64-bit cipher block under a 16-byte key. Raises InvalidKey."""
    words = _expand(key)
    left, right = block >> 32, block & 0xFFFFFFFF
    for k in range(0, ROUNDS, 2):
        left, right = _fl(left, k, words), _fl(right, k + 1, words)
        right ^= _fo(left, k, words)
        left ^= _fo(right, k + 1, words)
    left, right = _fl(left, ROUNDS, words), _fl(right, ROUNDS + 1, words)
    return right << 32 | left


def misty1_decrypt(key: bytes, block: int) -> int:
    """The 64-bit data block under a 16-byte key. Raises InvalidKey."""
    words = _expand(key)
    right, left = block >> 32, block & 0xFFFFFFFF
    left, right = _fl_inverse(left, ROUNDS, words), _fl_inverse(right, ROUNDS + 1, words)
    for k in range(ROUNDS - 2, -1, -2):
        left ^= _fo(right, k + 1, words)
        right ^= _fo(left, k, words)
        left, right = _fl_inverse(left, k, words), _fl_inverse(right, k + 1, words)
    return right | left << 32
