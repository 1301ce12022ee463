"""From 20 digits (and a decoder key) back to the fields of a token, with the check of its CRC."""

from dataclasses import dataclass

from token_engine.cipher import PRODUCTION, StaTables, sta_decrypt
from token_engine.encode import (
    CREDIT,
    FIRST_SECTION,
    FOURTH_SECTION,
    MANAGEMENT,
    SECOND_SECTION,
    TEST,
    THIRD_SECTION,
    fitting_secret,
)
from token_engine.errors import TokenRejected
from token_engine.fields import (
    CURRENCY_SUBCLASSES,
    decode_amount,
    decode_currency,
    from_digits,
    token_crc,
    untranspose,
)
from token_engine.identifiers import EncryptionAlgorithm
from token_engine.key_material import DecoderKey
from token_engine.misty1 import misty1_decrypt
from token_engine.token_result import TokenResult

KEY_CHANGE_SUBCLASSES = frozenset({FIRST_SECTION, SECOND_SECTION, THIRD_SECTION, FOURTH_SECTION})
RESERVED_CLASS = 3


@dataclass(frozen=True, slots=True)
class DecodedToken:
    """The fields of an authentic token; which of them mean something depends on class and subclass."""

    token_class: int
    subclass: int
    payload44: int
    crc: int

    @property
    def nibble(self) -> int:
        """RND, or sign and exponent in currency."""
        return self.payload44 >> 40

    @property
    def has_tid(self) -> bool:
        """False for class 1 and key-change tokens."""
        if self.token_class == MANAGEMENT:
            return self.subclass not in KEY_CHANGE_SUBCLASSES
        return self.token_class == CREDIT

    @property
    def tid(self) -> int | None:
        """Minutes from the base date, or None where a token has none."""
        return self.payload44 >> 16 & 0xFFFFFF if self.has_tid else None

    @property
    def value(self) -> int:
        """The 16 value bits."""
        return self.payload44 & 0xFFFF

    @property
    def is_currency(self) -> bool:
        """True for credit in money."""
        return self.token_class == CREDIT and self.subclass in CURRENCY_SUBCLASSES

    @property
    def amount(self) -> int:
        """Credit or limit: tenths of a unit (whole watts for limits), or 1e-5 of the currency unit."""
        return decode_currency(self.nibble, self.value) if self.is_currency else decode_amount(self.value)


def decrypt_block(
    key: DecoderKey, ea: EncryptionAlgorithm, block: int, tables: StaTables = PRODUCTION
) -> int:
    """One 64-bit data block. Raises InvalidKey for a key of the wrong size or EA09."""
    secret = fitting_secret(key, ea)
    if ea is EncryptionAlgorithm.MISTY1:
        return misty1_decrypt(secret, block)
    return sta_decrypt(int.from_bytes(secret, "big"), block, tables)


def class_of(digits: str) -> int:
    """The token class, which is readable without a key. Raises TokenRejected(FORMAT_ERROR)."""
    return untranspose(from_digits(digits))[0]


def decode_clear(digits: str) -> DecodedToken:
    """A class 1 token, which needs no key. Raises TokenRejected: FORMAT, FUNCTION or CRC error."""
    token_class, block = untranspose(from_digits(digits))
    if token_class != TEST:
        raise TokenRejected(TokenResult.FUNCTION_ERROR)
    return _checked(token_class, block)


def decode(
    digits: str, key: DecoderKey, ea: EncryptionAlgorithm, tables: StaTables = PRODUCTION
) -> DecodedToken:
    """Any token under a decoder key. Raises TokenRejected: FORMAT, FUNCTION (class 3) or CRC error.

    A wrong meter, a wrong key and a typing error all show as CRC error; one wrong token in 65536 passes.
    """
    token_class, block = untranspose(from_digits(digits))
    if token_class == RESERVED_CLASS:
        raise TokenRejected(TokenResult.FUNCTION_ERROR)
    if token_class != TEST:
        block = decrypt_block(key, ea, block, tables)
    return _checked(token_class, block)


def _checked(token_class: int, block: int) -> DecodedToken:
    payload48, crc = block >> 16, block & 0xFFFF
    if crc != token_crc(token_class, payload48):
        raise TokenRejected(TokenResult.CRC_ERROR)
    return DecodedToken(token_class, payload48 >> 44, payload48 & (1 << 44) - 1, crc)
