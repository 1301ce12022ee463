"""The fields of a token and how they are packed: amounts, currency, CRC, data block, transposition."""

from bisect import bisect_left

from token_engine.errors import InvalidAmount, InvalidField, TokenRejected
from token_engine.token_result import TokenResult

MAX_TOKEN = (1 << 66) - 1
TOKEN_DIGITS = 20
MASK64 = (1 << 64) - 1
_WITHOUT_CLASS = MASK64 - (3 << 27)
CURRENCY_SUBCLASSES = range(4, 8)

_MANTISSA_MAX = 0x3FFF
_MANTISSA_COUNT = 0x4000
_CURRENCY_EXPONENTS = 32


def _offsets(count: int) -> tuple[int, ...]:
    """off(e) = sum over n < e of 16384 * 10^n: where each exponent's range begins."""
    return tuple(sum(_MANTISSA_COUNT * 10**n for n in range(e)) for e in range(count))


_OFFSETS = _offsets(_CURRENCY_EXPONENTS)
_STEPS: tuple[int, ...] = tuple(10**e for e in range(_CURRENCY_EXPONENTS))
_LARGEST = tuple(_STEPS[e] * _MANTISSA_MAX + _OFFSETS[e] for e in range(_CURRENCY_EXPONENTS))
MAX_AMOUNT = _LARGEST[3]
"""Largest amount of a 16-bit field: 18 201 624 tenths (or watts)."""
MAX_CURRENCY = _LARGEST[31]
"""Largest magnitude of a currency field, in 1e-5 of the base unit."""


def _rounded_up(size: int) -> tuple[int, int]:
    """(exponent, mantissa) of the smallest exponent that reaches `size`; a gap becomes the next with mantissa 0."""
    exponent = bisect_left(_LARGEST, size)
    return exponent, max(0, -((_OFFSETS[exponent] - size) // _STEPS[exponent]))


def encode_amount(tenths: int) -> int:
    """Value16 of an amount in tenths of kWh, m3 or minute (or whole watts), rounded up (sts.md 4).

    Raises InvalidAmount below 0 or above MAX_AMOUNT.
    """
    if not 0 <= tenths <= MAX_AMOUNT:
        raise InvalidAmount(f"an amount is 0 to {MAX_AMOUNT}, not {tenths}")
    exponent, mantissa = _rounded_up(tenths)
    return exponent << 14 | mantissa


def decode_amount(value: int) -> int:
    """The amount a Value16 carries, in tenths (or watts). Raises InvalidField when it is not 16 bits."""
    exponent, mantissa = divmod(check_bits("value", value, 16), _MANTISSA_COUNT)
    return _STEPS[exponent] * mantissa + _OFFSETS[exponent]


def largest_not_above(tenths: int) -> int:
    """The largest amount a token can carry exactly that is not above `tenths`: what a sale charges for.

    Raises InvalidAmount below 0 or above MAX_AMOUNT.
    """
    value = encode_amount(tenths)
    carried = decode_amount(value)
    return carried if carried == tenths else decode_amount(value - 1)


def encode_currency(units: int) -> tuple[int, int]:
    """(S&E nibble, Value16) of money in 1e-5 of the base currency unit, rounded toward plus infinity.

    Raises InvalidAmount when the magnitude is above MAX_CURRENCY.
    """
    size = abs(units)
    if size > MAX_CURRENCY:
        raise InvalidAmount(f"a currency amount is at most {MAX_CURRENCY} hundred-thousandths")
    exponent, mantissa = _rounded_up(size)
    if units < 0 and _currency_size(exponent, mantissa) > size:
        # Of a negative amount the magnitude is rounded down; below the first step lies the range before.
        exponent, mantissa = (exponent, mantissa - 1) if mantissa else (exponent - 1, _MANTISSA_MAX)
    sign = 8 if units < 0 else 0
    return sign | exponent >> 2, (exponent & 3) << 14 | mantissa


def _currency_size(exponent: int, mantissa: int) -> int:
    return _STEPS[exponent] * mantissa + _OFFSETS[exponent]


def decode_currency(sign_exponent: int, value: int) -> int:
    """Money in 1e-5 of the base unit from the S&E nibble and Value16. Raises InvalidField."""
    check_bits("sign and exponent", sign_exponent, 4)
    low, mantissa = divmod(check_bits("value", value, 16), _MANTISSA_COUNT)
    size = _currency_size((sign_exponent & 7) << 2 | low, mantissa)
    return -size if sign_exponent & 8 else size


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (0xA001 if register & 1 else 0)
        table.append(register)
    return tuple(table)


_CRC_TABLE = _crc_table()


def crc16(data: bytes) -> int:
    """The CRC field: x^16+x^15+x^2+1 reflected, start FFFF, bytes of the register swapped (sts.md 2)."""
    register = 0xFFFF
    for byte in data:
        register = register >> 8 ^ _CRC_TABLE[(register ^ byte) & 0xFF]
    return (register & 0xFF) << 8 | register >> 8


def crc_of(token_class: int, payload48: int) -> int:
    """CRC over the 50 bits class and payload48 (subclass, nibble, TID, value)."""
    return crc16((token_class << 48 | payload48).to_bytes(7, "big"))


def crc_c_of(token_class: int, payload48: int) -> int:
    """CRC_C of currency tokens: the same with one extra byte 01 at the end."""
    return crc16((token_class << 56 | payload48 << 8 | 1).to_bytes(8, "big"))


def token_crc(token_class: int, payload48: int) -> int:
    """The CRC a token of this class and subclass carries: CRC_C for class 0 in currency, else CRC."""
    if token_class == 0 and payload48 >> 44 in CURRENCY_SUBCLASSES:
        return crc_c_of(token_class, payload48)
    return crc_of(token_class, payload48)


def check_bits(name: str, value: int, bits: int) -> int:
    """The value itself. Raises InvalidField when it does not fit `bits` bits."""
    if not 0 <= value < 1 << bits:
        raise InvalidField(f"{name} has {bits} bits, not {value}")
    return value


def pack_payload(subclass: int, nibble: int, tid: int, value: int) -> int:
    """The 48 bits subclass(4) nibble(4) TID(24) value(16). Raises InvalidField."""
    return (
        check_bits("subclass", subclass, 4) << 44
        | check_bits("nibble", nibble, 4) << 40
        | check_bits("TID", tid, 24) << 16
        | check_bits("value", value, 16)
    )


def transpose(token_class: int, block: int) -> int:
    """The 66-bit token of a 64-bit block: the class bits change place with bits 28..27."""
    moved = block >> 27 & 3
    return moved << 64 | block & _WITHOUT_CLASS | token_class << 27


def untranspose(token: int) -> tuple[int, int]:
    """(class, 64-bit block) of a 66-bit token."""
    return token >> 27 & 3, token & _WITHOUT_CLASS | (token >> 64) << 27


def to_digits(token: int) -> str:
    """The 20 decimal digits of a 66-bit token, leading zeros kept."""
    return f"{token:020d}"


def from_digits(digits: str) -> int:
    """The 66-bit token of 20 digits. Raises TokenRejected(FORMAT_ERROR) for anything else."""
    if len(digits) != TOKEN_DIGITS or not (digits.isascii() and digits.isdigit()):
        raise TokenRejected(TokenResult.FORMAT_ERROR)
    token = int(digits)
    if token > MAX_TOKEN:
        raise TokenRejected(TokenResult.FORMAT_ERROR)
    return token
