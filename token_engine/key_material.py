"""Secret bytes that do not show themselves: not in repr, str, pickles or error texts."""

import hmac
from hashlib import sha256
from typing import ClassVar, NoReturn, Self

from token_engine.errors import InvalidKey

CHECK_LABEL = b"raseed key check value"
CHECK_VALUE_BYTES = 3  # names a key to people; 24 bits help nobody to find one


class KeyMaterial:
    """Secret bytes of one of the `sizes`. Raises InvalidKey without naming the bytes.

    There is no public layout of a check value for 160-bit vending keys (doubtful), so ours is the first
    three bytes of HMAC-SHA-256 over a fixed label.
    """

    __slots__ = ("_check", "_secret")
    sizes: ClassVar[tuple[int, ...]] = ()
    what: ClassVar[str] = "a key"

    def __init__(self, secret: bytes) -> None:
        if len(secret) not in self.sizes:
            allowed = " or ".join(str(size) for size in self.sizes)
            raise InvalidKey(f"{self.what} has {allowed} bytes, not {len(secret)}")
        self._secret = bytes(secret)
        self._check = ""

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read a key from hexadecimal text. Raises InvalidKey without repeating the text."""
        try:
            secret = bytes.fromhex(text)
        except ValueError:
            raise InvalidKey(f"{cls.what} is written in hexadecimal") from None
        return cls(secret)

    def reveal(self) -> bytes:
        """The secret itself, for the one call that needs it."""
        return self._secret

    @property
    def check_value(self) -> str:
        """Six hexadecimal digits that name this key without telling it."""
        if not self._check:
            self._check = hmac.digest(self._secret, CHECK_LABEL, sha256)[:CHECK_VALUE_BYTES].hex().upper()
        return self._check

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._secret) * 8} bit, check value {self.check_value}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return hmac.compare_digest(self._secret, other._secret)

    def __hash__(self) -> int:
        return hash((type(self), self.check_value))

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{self.what} is never pickled or copied out")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class DecoderKey(KeyMaterial):
    """The key in one meter: 8 bytes for EA07, 16 for EA11."""

    __slots__ = ()
    sizes = (8, 16)
    what = "a decoder key"


class VendingKeyMaterial(KeyMaterial):
    """The secret of a supply group: 8 bytes for DKGA02, 16 for DKGA03, 20 for DKGA04."""

    __slots__ = ()
    sizes = (8, 16, 20)
    what = "a vending key"
