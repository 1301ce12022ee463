"""How a meter collects the sections of a key change and what it makes of a whole set (sts.md 3, 9)."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from token_engine.encode import FIRST_SECTION, FOURTH_SECTION, SECOND_SECTION, THIRD_SECTION
from token_engine.identifiers import EncryptionAlgorithm, KeyType, MeterKeyIdentity, key_expired
from token_engine.key_material import DecoderKey
from token_engine.token_result import TokenResult

_WAITING = {
    FIRST_SECTION: TokenResult.FIRST_KCT,
    SECOND_SECTION: TokenResult.SECOND_KCT,
    THIRD_SECTION: TokenResult.THIRD_KCT,
    FOURTH_SECTION: TokenResult.FOURTH_KCT,
}

# The last two rows are stated by one source only (doubtful).
_ALLOWED_MOVES = {
    KeyType.DITK: frozenset(KeyType),
    KeyType.DDTK: frozenset({KeyType.DDTK, KeyType.DUTK}),
    KeyType.DUTK: frozenset({KeyType.DUTK, KeyType.DDTK}),
    KeyType.DCTK: frozenset({KeyType.DCTK, KeyType.DDTK}),
}


@dataclass(frozen=True, slots=True)
class PendingSections:
    """Sections a meter holds while it waits for the rest: (subclass, 44 bits) pairs, hidden in repr."""

    sections: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    since: datetime | None = None

    def at(self, now: datetime, timeout_s: int) -> "PendingSections":
        """The sections still waiting at `now`: none once the first of them is older than the time-out."""
        if self.since is not None and now - self.since >= timedelta(seconds=timeout_s):
            return NOTHING_PENDING
        return self

    def with_section(self, subclass: int, payload44: int, now: datetime) -> "PendingSections":
        """With one more section; the same section entered again replaces the earlier one."""
        others = tuple(pair for pair in self.sections if pair[0] != subclass)
        return replace(
            self, sections=(*others, (subclass, payload44)), since=self.since or now.astimezone(UTC)
        )

    def waiting_result(self, subclass: int) -> TokenResult:
        """What the meter shows when it took this section and waits for the others."""
        return _WAITING[subclass]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, halves of a key in the clear: only for the state file of a simulated meter."""
        return {
            "sections": [list(pair) for pair in self.sections],
            "since": self.since.isoformat() if self.since else None,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PendingSections":
        """Read what to_dict wrote. Raises KeyError or ValueError for anything else."""
        pairs = tuple((subclass, payload) for subclass, payload in data["sections"] if subclass in _WAITING)
        return cls(pairs, datetime.fromisoformat(data["since"]) if data["since"] else None)


NOTHING_PENDING = PendingSections()


@dataclass(frozen=True, slots=True)
class CompleteChange:
    """A whole set: the identity the meter would get, its key, and whether the TID store is emptied."""

    identity: MeterKeyIdentity
    key: DecoderKey = field(repr=False)
    rolls_over: bool

    def refusal(self, current: MeterKeyIdentity, newest_tid: int) -> TokenResult | None:
        """Why the meter refuses the change, or None.

        A new key that would already be expired is refused; a meter without a clock knows the time only by the
        newest TID it stored, which says nothing once the base date changes.
        """
        if self.identity.kt not in _ALLOWED_MOVES[current.kt]:
            return TokenResult.KEY_TYPE_ERROR
        if not self.rolls_over and key_expired(newest_tid, self.identity.ken):
            return TokenResult.KEY_EXPIRED_ERROR
        return None


def assemble(pending: PendingSections, current: MeterKeyIdentity) -> CompleteChange | None:
    """The change that the sections make together, or None while one is missing; the order does not matter.

    Raises InvalidIdentity for a field out of range (KRN 0, TI above 99).
    """
    got = dict(pending.sections)
    if FIRST_SECTION not in got or SECOND_SECTION not in got:
        return None
    first, second = got[FIRST_SECTION], got[SECOND_SECTION]
    misty = current.ea is EncryptionAlgorithm.MISTY1
    needed: tuple[int, ...] = (
        (THIRD_SECTION, FOURTH_SECTION) if misty else (THIRD_SECTION,) * (first >> 34 & 1)
    )
    if any(section not in got for section in needed):
        return None
    words: tuple[int, ...]
    high, low = first & 0xFFFFFFFF, second & 0xFFFFFFFF
    sgc = int(current.sgc)
    if misty:
        third, fourth = got[THIRD_SECTION], got[FOURTH_SECTION]
        words = (high, third & 0xFFFFFFFF, fourth & 0xFFFFFFFF, low)
        sgc = fourth >> 32 << 12 | third >> 32
    else:
        words = (high, low)
        if needed:
            sgc = got[THIRD_SECTION] >> 20
    return _complete(current, first, second, sgc, b"".join(word.to_bytes(4, "big") for word in words))


def _complete(current: MeterKeyIdentity, first: int, second: int, sgc: int, secret: bytes) -> CompleteChange:
    """The new identity. The tokens say only THAT the base date changes, so the following one is taken."""
    rolls_over = bool(first >> 35 & 1)
    base_date = (current.base_date.following or current.base_date) if rolls_over else current.base_date
    identity = MeterKeyIdentity(
        pan=current.pan,
        sgc=f"{sgc:06d}",
        ti=second >> 32 & 0xFF,
        krn=first >> 36 & 15,
        kt=KeyType(first >> 32 & 3),
        ken=(first >> 40) << 4 | second >> 40,
        ea=current.ea,
        dkga=current.dkga,
        base_date=base_date,
    )
    return CompleteChange(identity, DecoderKey(secret), rolls_over)
