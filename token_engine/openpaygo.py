"""OpenPAYGO Token 2.3: short keypad tokens chained by a counter, for devices sold by the day (sts.md 14)."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from token_engine.errors import InvalidAmount, InvalidField, InvalidTokenText
from token_engine.key_material import KeyMaterial

MAX_COUNT = 10_000
"""Each count costs one hash for both sides; two tokens a day for 13 years stay below."""
WINDOW_JUMP = 64
WINDOW_SYNC = 100
WINDOW_OLDER = 16
MAX_VALUE = 995
MAX_VALUE_EXTENDED = 999_999
DISABLE_VALUE = 998
SYNC_VALUE = 999

_MASK = (1 << 64) - 1
_STANDARD_MODULUS, _EXTENDED_MODULUS = 1000, 1_000_000
_STANDARD_LIMIT, _EXTENDED_LIMIT = 999_999_999, 999_999_999_999
_STANDARD_WRAP, _EXTENDED_WRAP = 73_741_825, 99_511_627_777


class PaygoType(StrEnum):
    """What a token does."""

    ADD_TIME = "ADD_TIME"
    SET_TIME = "SET_TIME"
    DISABLE = "DISABLE_PAYG"
    SYNC = "COUNTER_SYNC"


class PaygoRejection(StrEnum):
    """Why a device refuses a token."""

    INVALID = "invalid"  # no count in the window makes it: wrong device, mistyped, or too far ahead
    USED = "already_used"  # it was good, and its count is used up


class PaygoKey(KeyMaterial):
    """The 16-byte key of one device."""

    __slots__ = ()
    sizes = (16,)
    what = "an OpenPAYGO key"


@dataclass(frozen=True, slots=True)
class PaygoDevice:
    """One device's key and starting code (below 10^9), and whether its keypad has only the digits 1-4."""

    key: PaygoKey = field(repr=False)
    starting_code: int
    restricted: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.starting_code <= _STANDARD_LIMIT:
            raise InvalidField("a starting code has at most 9 digits")


@dataclass(frozen=True, slots=True)
class PaygoToken:
    """The digits to type and the count to remember for this device."""

    digits: str
    new_count: int


@dataclass(frozen=True, slots=True)
class PaygoAccepted:
    """What a device understood: `value` is None for disable and sync; `used_counts` is its new memory."""

    token_type: PaygoType
    value: int | None
    count: int
    used_counts: frozenset[int]


def siphash24(key: bytes, message: bytes) -> int:
    """SipHash-2-4 of a short message under a 16-byte key, as a 64-bit number."""
    v0, v1, v2, v3 = _initial(key)
    whole = len(message) & ~7
    words = [int.from_bytes(message[place : place + 8], "little") for place in range(0, whole, 8)]
    words.append((len(message) & 0xFF) << 56 | int.from_bytes(message[whole:], "little"))
    for word in words:
        v0, v1, v2, v3 = _two_rounds(v0, v1, v2, v3 ^ word)
        v0 ^= word
    v0, v1, v2, v3 = _two_rounds(*_two_rounds(v0, v1, v2 ^ 0xFF, v3))
    return (v0 ^ v1 ^ v2 ^ v3) & _MASK


def _initial(key: bytes) -> tuple[int, int, int, int]:
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")
    return (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )


def _two_rounds(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    """Rotations are written out, and a sum is cut to 64 bits only where it is shifted to the right next.

    The chain of a token is a few hundred of these: v0 and v2 leave with bits above 64, which never come down.
    """
    v0 = v0 + v1 & _MASK
    v1 = ((v1 << 13 | v1 >> 51) ^ v0) & _MASK
    v2 += v3
    v3 = ((v3 << 16 | v3 >> 48) ^ v2) & _MASK
    v2 = v2 + v1 & _MASK
    v0 = (v0 << 32 | v0 >> 32) + v3
    v1 = ((v1 << 17 | v1 >> 47) ^ v2) & _MASK
    v3 = ((v3 << 21 | v3 >> 43) ^ v0) & _MASK
    v0 = v0 + v1 & _MASK
    v1 = ((v1 << 13 | v1 >> 51) ^ v0) & _MASK
    v2 = (v2 << 32 | v2 >> 32) + v3
    v3 = ((v3 << 16 | v3 >> 48) ^ v2) & _MASK
    v2 = v2 + v1 & _MASK
    v0 = (v0 << 32 | v0 >> 32) + v3
    v1 = ((v1 << 17 | v1 >> 47) ^ v2) & _MASK
    v3 = ((v3 << 21 | v3 >> 43) ^ v0) & _MASK
    return v0, v1, v2 << 32 | v2 >> 32, v3


def _code_of(digest: int) -> int:
    code = ((digest >> 32) ^ (digest & 0xFFFFFFFF)) >> 2
    return code - _STANDARD_WRAP if code > _STANDARD_LIMIT else code


def _extended_code_of(digest: int) -> int:
    code = digest >> 24
    return code - _EXTENDED_WRAP if code > _EXTENDED_LIMIT else code


def starting_code_of(key: PaygoKey) -> int:
    """The starting code a device gets from its key when none was given at manufacture."""
    return _code_of(siphash24(key.reveal(), key.reveal()))


def _next_code(key: bytes, code: int, extended: bool) -> int:
    if extended:
        return _extended_code_of(siphash24(key, code.to_bytes(8, "big")))
    return _code_of(siphash24(key, code.to_bytes(4, "big") * 2))


def next_count(token_type: PaygoType, count: int) -> int:
    """The count of the next token: even for ADD_TIME, odd for the others. Raises InvalidField."""
    if not 0 <= count <= MAX_COUNT - 2:
        raise InvalidField(f"a count is 0 to {MAX_COUNT - 2}, not {count}")
    wanted = 0 if token_type is PaygoType.ADD_TIME else 1
    return count + 1 if (count + 1) % 2 == wanted else count + 2


def raw_value(token_type: PaygoType, value: int | None, *, extended: bool) -> int:
    """The number a token holds for this type: the value, or 998 and 999. Raises InvalidAmount."""
    if token_type is PaygoType.DISABLE:
        return DISABLE_VALUE
    if token_type is PaygoType.SYNC:
        return SYNC_VALUE
    limit = MAX_VALUE_EXTENDED if extended else MAX_VALUE
    if value is None or not 0 <= value <= limit or (extended and value in {DISABLE_VALUE, SYNC_VALUE}):
        raise InvalidAmount(f"a value is 0 to {limit} (998 and 999 mean other things), not {value}")
    return value


def issue(
    device: PaygoDevice, token_type: PaygoType, value: int | None, count: int, *, extended: bool = False
) -> PaygoToken:
    """The next token for a device whose last count was `count`. Raises InvalidAmount, InvalidField."""
    new_count = next_count(token_type, count)
    modulus = _EXTENDED_MODULUS if extended else _STANDARD_MODULUS
    start = device.starting_code
    base = (start + raw_value(token_type, value, extended=extended)) % modulus
    code = start - start % modulus + base
    key = device.key.reveal()
    for _ in range(new_count):
        code = _next_code(key, code, extended)
    return PaygoToken(write_digits(code - code % modulus + base, extended, device.restricted), new_count)


def write_digits(token: int, extended: bool, restricted: bool) -> str:
    """9 or 12 digits; on keypads with 1-4 only, 15 or 20 digits of two bits each."""
    if not restricted:
        return f"{token:012d}" if extended else f"{token:09d}"
    bits = 40 if extended else 30
    return "".join(str((token >> place & 3) + 1) for place in range(bits - 2, -1, -2))


def read_digits(digits: str, restricted: bool) -> tuple[int, bool]:
    """(token, extended) of typed digits; their number tells the form. Raises InvalidTokenText."""
    standard, extended = (15, 20) if restricted else (9, 12)
    allowed = "1234" if restricted else "0123456789"
    if any(char not in allowed for char in digits):
        raise InvalidTokenText("letter", f"this device's token has only the digits {allowed}")
    if len(digits) not in {standard, extended}:
        reason = "too_short" if len(digits) < standard else "too_long"
        raise InvalidTokenText(reason, f"this device's token has {standard} or {extended} digits")
    if not restricted:
        return int(digits), len(digits) == extended
    token = 0
    for char in digits:
        token = token << 2 | int(char) - 1
    return token, len(digits) == extended


def accept(
    device: PaygoDevice, digits: str, last_count: int, used_counts: Iterable[int] = ()
) -> PaygoAccepted | PaygoRejection:
    """What the device does with typed digits, given its last count and the counts it has used.

    Looks WINDOW_JUMP counts ahead (WINDOW_SYNC for a sync token) and takes an unused ADD_TIME token up to
    WINDOW_OLDER counts back. A sync token sets the count, also back: tokens of counts before the remembered
    window then work again, which is the scheme's own weakness. Raises InvalidTokenText, InvalidField.
    """
    if not 0 <= last_count <= MAX_COUNT:
        raise InvalidField(f"a count is 0 to {MAX_COUNT}, not {last_count}")
    token, extended = read_digits(digits, device.restricted)
    modulus = _EXTENDED_MODULUS if extended else _STANDARD_MODULUS
    start = device.starting_code
    base = token % modulus
    value = (base - start) % modulus
    used = frozenset(used_counts)
    code = start - start % modulus + base
    key = device.key.reveal()
    was_good = False
    for count in range(last_count + (WINDOW_SYNC if value == SYNC_VALUE else WINDOW_JUMP) + 1):
        if code - code % modulus + base == token:
            token_type = _type_of(count, value)
            if _is_fresh(token_type, count, last_count, used):
                shown = value if token_type in {PaygoType.ADD_TIME, PaygoType.SET_TIME} else None
                memory = _remember(token_type, count, last_count, used)
                return PaygoAccepted(token_type, shown, count, memory)
            was_good = True
        code = _next_code(key, code, extended)
    return PaygoRejection.USED if was_good else PaygoRejection.INVALID


def _type_of(count: int, value: int) -> PaygoType:
    if count % 2 == 0:
        return PaygoType.ADD_TIME
    return {SYNC_VALUE: PaygoType.SYNC, DISABLE_VALUE: PaygoType.DISABLE}.get(value, PaygoType.SET_TIME)


def _is_fresh(token_type: PaygoType, count: int, last_count: int, used: frozenset[int]) -> bool:
    if token_type is PaygoType.SYNC:
        return count > last_count - WINDOW_JUMP and count not in used
    if count > last_count:
        return True
    return token_type is PaygoType.ADD_TIME and count > last_count - WINDOW_OLDER and count not in used


def _remember(token_type: PaygoType, count: int, last_count: int, used: frozenset[int]) -> frozenset[int]:
    """Counts used up from now on, never more than the window back; setting the time ends every older token."""
    highest = max(count, last_count)
    window = range(max(0, highest - WINDOW_OLDER), highest + 1)
    if token_type is PaygoType.ADD_TIME:
        return frozenset(c for c in window if c == count or c in used)
    return frozenset(window)
