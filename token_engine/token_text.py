"""Token digits as people type and read them, in any of the digits used in the Gulf."""

from unicodedata import decimal

from token_engine.errors import InvalidTokenText
from token_engine.fields import TOKEN_DIGITS

NO_BREAK_SPACE = "\u00a0"
MAX_TYPED = 200  # 20 digits with several separators each; longer input is not a token

# Spaces of all kinds, hyphens and dashes, the Arabic tatweel, separators and the invisible direction marks
# that come along when a token is copied out of a message.
_SEPARATORS = dict.fromkeys(
    map(
        ord,
        " \t\r\n\u00a0\u2007\u2009\u202f-\u00ad\u2010\u2011\u2012\u2013\u2014\u2212\u0640._/,\u060c"
        "\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff",
    ),
    "",
)


def normalise_digits(text: str) -> str:
    """The 20 bare ASCII digits of what was typed; spaces, hyphens and direction marks are dropped.

    Accepts Arabic-Indic, Persian and every other script's decimal digits, since people paste from phones set to
    any of them. Raises InvalidTokenText with reason `letter`, `too_short` or
    `too_long`.
    """
    typed = text[:MAX_TYPED].translate(_SEPARATORS)
    if typed and not typed.isdecimal():
        raise InvalidTokenText("letter", "a token has digits only")
    digits = "".join(str(decimal(char)) for char in typed)
    if len(digits) < TOKEN_DIGITS:
        raise InvalidTokenText("too_short", f"a token has {TOKEN_DIGITS} digits, {len(digits)} were given")
    if len(digits) > TOKEN_DIGITS or len(text) > MAX_TYPED:
        raise InvalidTokenText("too_long", f"a token has {TOKEN_DIGITS} digits, more were given")
    return digits


def group_digits(digits: str, separator: str = NO_BREAK_SPACE) -> str:
    """Groups of four as they are printed, joined by a no-break space so that they stay in order in Arabic."""
    return separator.join(digits[start : start + 4] for start in range(0, len(digits), 4))
