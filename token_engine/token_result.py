"""The answers a meter gives to a token, and the code its display shows for each."""

from enum import StrEnum


class TokenResult(StrEnum):
    """Result families of IEC 62055-41 (authentication, validation, token result) as one list."""

    ACCEPT = "accept"
    FIRST_KCT = "first_kct"
    SECOND_KCT = "second_kct"
    THIRD_KCT = "third_kct"
    FOURTH_KCT = "fourth_kct"
    OVERFLOW_ERROR = "overflow_error"
    KEY_TYPE_ERROR = "key_type_error"
    FORMAT_ERROR = "format_error"
    RANGE_ERROR = "range_error"
    FUNCTION_ERROR = "function_error"
    OLD_ERROR = "old_error"
    USED_ERROR = "used_error"
    KEY_EXPIRED_ERROR = "key_expired_error"
    DDTK_ERROR = "ddtk_error"
    CRC_ERROR = "crc_error"
    MFR_CODE_ERROR = "mfr_code_error"
    LOCKED_OUT = "locked_out"

    @property
    def display_code(self) -> int:
        """The number one meter (Conlog BEC62) shows; it has none for the third and fourth section."""
        return _DISPLAY_CODES[self]

    @property
    def is_accepted(self) -> bool:
        """True when the meter took the token: carried out, or a key-change section it keeps."""
        return self in _ACCEPTED


_ACCEPTED = frozenset(
    {
        TokenResult.ACCEPT,
        TokenResult.FIRST_KCT,
        TokenResult.SECOND_KCT,
        TokenResult.THIRD_KCT,
        TokenResult.FOURTH_KCT,
    }
)

# That meter knows pairs only, so a third or fourth section shows the plain "accept" of code 1.
_DISPLAY_CODES = {
    TokenResult.ACCEPT: 1,
    TokenResult.FIRST_KCT: 2,
    TokenResult.SECOND_KCT: 3,
    TokenResult.THIRD_KCT: 1,
    TokenResult.FOURTH_KCT: 1,
    TokenResult.OVERFLOW_ERROR: 4,
    TokenResult.KEY_TYPE_ERROR: 5,
    TokenResult.FORMAT_ERROR: 6,
    TokenResult.RANGE_ERROR: 7,
    TokenResult.FUNCTION_ERROR: 8,
    TokenResult.OLD_ERROR: 9,
    TokenResult.USED_ERROR: 10,
    TokenResult.KEY_EXPIRED_ERROR: 11,
    TokenResult.DDTK_ERROR: 12,
    TokenResult.CRC_ERROR: 13,
    TokenResult.MFR_CODE_ERROR: 14,
    TokenResult.LOCKED_OUT: 15,
}
