"""The numbers that name a meter and its key, each checked by the rule it must keep (sts.md 1, 5)."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Self

from token_engine.errors import InvalidIdentity, InvalidTid

MAX_TID = 0xFFFFFF  # 24 bits
MINUTES_PER_DAY = 1440
RESERVED_MINUTE = 1  # 00:01 of each day is kept for special reserved tokens (CTSA09)
KEN_NEVER = 255
IIN_LONG_DRN = "0000"  # the issuer number that stands before a 13-digit DRN


class KeyType(IntEnum):
    """KT: what kind of decoder key a meter holds."""

    DITK = 0  # initialisation, made by the manufacturer
    DDTK = 1  # default: a meter in stock
    DUTK = 2  # unique: the normal one
    DCTK = 3  # common: magnetic cards only


class EncryptionAlgorithm(IntEnum):
    """EA: how the data block is encrypted."""

    STA = 7
    DEA = 9  # withdrawn in Ed. 3: named so that it can be refused by name
    MISTY1 = 11

    @property
    def text(self) -> str:
        """Two digits, as the key derivation message wants them."""
        return f"{self.value:02d}"

    @property
    def key_bytes(self) -> int:
        """Size of a decoder key for this algorithm."""
        return 16 if self is EncryptionAlgorithm.MISTY1 else 8


class KeyGeneration(IntEnum):
    """DKGA: how a decoder key is made from a vending key."""

    DKGA01 = 1
    DKGA02 = 2
    DKGA03 = 3
    DKGA04 = 4


class BaseDate(StrEnum):
    """The instant a TID counts from; the value is the two-digit code of the key derivation."""

    Y1993 = "93"
    Y2014 = "14"
    Y2035 = "35"

    @property
    def instant(self) -> datetime:
        """Midnight UTC of the base date."""
        return datetime({"93": 1993, "14": 2014, "35": 2035}[self.value], 1, 1, tzinfo=UTC)

    @property
    def last_instant(self) -> datetime:
        """The last whole minute that 24 bits can say, e.g. 2024-11-24 20:15 for 1993."""
        return self.instant + timedelta(minutes=MAX_TID)

    @property
    def following(self) -> "BaseDate | None":
        """The base date a rollover moves to, or None after the last one."""
        return {"93": BaseDate.Y2014, "14": BaseDate.Y2035, "35": None}[self.value]

    def tid_at(self, instant: datetime, utc_offset: timedelta = timedelta(0)) -> int:
        """Whole minutes from the base date to `instant`.

        Ed. 3 sources count in UTC and older practice in local time (doubtful), so a supply group may
        give its `utc_offset`. Raises InvalidTid for a naive time and outside the base date's minutes.
        """
        if instant.tzinfo is None:
            raise InvalidTid("a TID needs an aware time")
        minutes = (instant.astimezone(UTC) + utc_offset - self.instant) // timedelta(minutes=1)
        if minutes < 0:
            raise InvalidTid(f"{instant.isoformat()} is before the base date {self.instant.date()}")
        if minutes > MAX_TID:
            raise InvalidTid(
                f"{instant.isoformat()} is past the last minute of base date {self.instant.date()}"
            )
        return minutes

    def instant_of(self, tid: int, utc_offset: timedelta = timedelta(0)) -> datetime:
        """The minute a TID names, as aware UTC. Raises InvalidTid when it is not 24 bits."""
        return self.instant + timedelta(minutes=check_tid(tid)) - utc_offset


def check_tid(tid: int) -> int:
    """The TID itself. Raises InvalidTid when it does not fit 24 bits."""
    if not 0 <= tid <= MAX_TID:
        raise InvalidTid(f"a TID has 24 bits, not {tid}")
    return tid


def is_reserved_tid(tid: int) -> bool:
    """True for the 00:01 minute of any day."""
    return tid % MINUTES_PER_DAY == RESERVED_MINUTE


def next_tid(
    base_date: BaseDate, now: datetime, last_tid: int | None, utc_offset: timedelta = timedelta(0)
) -> int:
    """The TID of the next ordinary token of one meter: strictly above `last_tid`, never a reserved minute.

    Same minute (or a clock that went back) gives last_tid + 1. Raises InvalidTid before the base date or
    when no TID is left before it wraps.
    """
    tid = base_date.tid_at(now, utc_offset)
    if last_tid is not None:
        tid = max(tid, check_tid(last_tid) + 1)
    if is_reserved_tid(tid):
        tid += 1
    if tid > MAX_TID:
        raise InvalidTid(f"no TID is left in base date {base_date.instant.date()}")
    return tid


def rnd_at(instant: datetime) -> int:
    """RND of a token made at `instant`: the low 4 bits of the running count of milliseconds (sts.md 5)."""
    if instant.tzinfo is None:
        raise InvalidTid("RND needs an aware time")
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) & 15


def luhn_digit(digits: str) -> str:
    """The check digit to append: doubled from the right, every second digit, mod 10.

    Raises InvalidIdentity when `digits` is not one or more ASCII digits.
    """
    total = 0
    for place, char in enumerate(reversed(_digits("luhn_digits", "a checked number", digits))):
        value = int(char)
        if place % 2 == 0:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return str(-total % 10)


def luhn_valid(digits: str) -> bool:
    """True when the last digit is the check digit of those before it."""
    return len(digits) > 1 and digits.isascii() and digits.isdigit() and luhn_digit(digits[:-1]) == digits[-1]


def _digits(rule: str, what: str, text: str, lengths: tuple[int, ...] = ()) -> str:
    if not (text.isascii() and text.isdigit()):
        raise InvalidIdentity(rule, f"{what} is digits only")
    if lengths and len(text) not in lengths:
        allowed = " or ".join(str(length) for length in lengths)
        raise InvalidIdentity(rule, f"{what} has {allowed} digits, not {len(text)}")
    return text


class Drn(str):
    """A meter number (decoder reference number): 11 or 13 digits, the last one a Luhn digit."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text. Raises InvalidIdentity."""
        _digits("drn_length", "a meter number (DRN)", text, (11, 13))
        if not luhn_valid(text):
            raise InvalidIdentity(
                "drn_check_digit", "the last digit of the meter number (DRN) does not check"
            )
        return super().__new__(cls, text)

    @property
    def manufacturer(self) -> str:
        """The manufacturer's code: 2 digits of an 11-digit number, 4 of a 13-digit one."""
        return self[:2] if len(self) == 11 else self[:4]


class Iin(str):
    """An issuer number: 6 digits before an 11-digit DRN, or `0000` before a 13-digit one."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text. Raises InvalidIdentity."""
        _digits("iin_length", "an issuer number (IIN)", text, (4, 6))
        if len(text) == 4 and text != IIN_LONG_DRN:
            raise InvalidIdentity("iin_value", "a 4-digit issuer number (IIN) is 0000")
        return super().__new__(cls, text)


class MeterPan(str):
    """The 18-digit primary account number of a meter: IIN, DRN and a Luhn digit over both."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text. Raises InvalidIdentity."""
        _digits("pan_length", "a meter PAN", text, (18,))
        if not luhn_valid(text):
            raise InvalidIdentity("pan_check_digit", "the last digit of the meter PAN does not check")
        split = len(IIN_LONG_DRN) if text.startswith(IIN_LONG_DRN) else 6
        Drn(text[split:-1])
        return super().__new__(cls, text)

    @classmethod
    def of(cls, iin: str, drn: str) -> "MeterPan":
        """Join an issuer number and a meter number. Raises InvalidIdentity when they do not fit."""
        body = Iin(iin) + Drn(drn)
        if len(body) != 17:
            raise InvalidIdentity("pan_parts", "IIN 0000 takes a 13-digit DRN, a 6-digit IIN an 11-digit one")
        return cls(body + luhn_digit(body))

    @property
    def iin(self) -> Iin:
        """The issuer number."""
        return Iin(IIN_LONG_DRN if self.startswith(IIN_LONG_DRN) else self[:6])

    @property
    def drn(self) -> Drn:
        """The meter number."""
        return Drn(self[len(self.iin) : -1])


class SupplyGroup(str):
    """A supply group code (SGC): 6 digits."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text. Raises InvalidIdentity."""
        return super().__new__(cls, _digits("sgc_length", "a supply group code (SGC)", text, (6,)))


def check_tariff_index(ti: int) -> int:
    """The tariff index itself, 0-99. Raises InvalidIdentity."""
    return _within("ti_range", "a tariff index (TI)", ti, 0, 99)


def check_key_revision(krn: int) -> int:
    """The key revision number itself, 1-9. Raises InvalidIdentity."""
    return _within("krn_range", "a key revision number (KRN)", krn, 1, 9)


def check_key_expiry(ken: int) -> int:
    """The key expiry number itself, 0-255. Raises InvalidIdentity."""
    return _within("ken_range", "a key expiry number (KEN)", ken, 0, KEN_NEVER)


def following_key_revision(krn: int) -> int:
    """The revision after this one; after 9 comes 1."""
    return check_key_revision(krn) % 9 + 1


def key_expired(tid: int, ken: int) -> bool:
    """True when a token of this TID comes after the key's expiry (one KEN unit is 65536 minutes)."""
    return (tid >> 16) > ken


def _within(rule: str, what: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise InvalidIdentity(rule, f"{what} is {low} to {high}, not {value}")
    return value


@dataclass(frozen=True, slots=True)
class MeterKeyIdentity:
    """Everything that decides a meter's decoder key, plus its key expiry; no key inside.

    Raises InvalidIdentity at construction, with the broken rule in `rule`.
    """

    pan: str
    sgc: str
    ti: int
    krn: int
    kt: KeyType
    ken: int
    ea: EncryptionAlgorithm
    dkga: KeyGeneration
    base_date: BaseDate

    def __post_init__(self) -> None:
        MeterPan(self.pan)
        SupplyGroup(self.sgc)
        check_tariff_index(self.ti)
        check_key_revision(self.krn)
        check_key_expiry(self.ken)
        for name, enum in (
            ("kt", KeyType),
            ("ea", EncryptionAlgorithm),
            ("dkga", KeyGeneration),
            ("base_date", BaseDate),
        ):
            self._take_enum(name, enum)
        if self.ea is EncryptionAlgorithm.DEA:
            raise InvalidIdentity("ea_withdrawn", "EA09 (DEA) was withdrawn in Ed. 3 and is not issued here")
        if self.ea is EncryptionAlgorithm.MISTY1 and self.dkga is not KeyGeneration.DKGA04:
            raise InvalidIdentity("ea_dkga", "EA11 takes a 128-bit key, which only DKGA04 makes")

    def _take_enum(self, name: str, enum: type[IntEnum | StrEnum]) -> None:
        """Rows of a database arrive as plain numbers and text: make them the enum or refuse them."""
        try:
            object.__setattr__(self, name, enum(getattr(self, name)))
        except ValueError:
            raise InvalidIdentity(f"{name}_value", f"unknown {name}: {getattr(self, name)!r}") from None

    @property
    def drn(self) -> Drn:
        """The meter number printed on the meter."""
        return MeterPan(self.pan).drn
