"""What a meter does with a token that is typed into it: a pure state machine (sts.md 9)."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from token_engine.cipher import PRODUCTION, StaTables
from token_engine.decode import KEY_CHANGE_SUBCLASSES, DecodedToken, decode
from token_engine.encode import (
    CLEAR_CREDIT,
    CLEAR_TAMPER,
    CREDIT,
    EXTENDED_SET,
    FLAG_INDEX,
    FOURTH_SECTION,
    SET_POWER_LIMIT,
    SET_TARIFF_RATE,
    SET_UNBALANCE_LIMIT,
    SET_WATER_FACTOR,
    TEST,
    fitting_secret,
)
from token_engine.errors import InvalidIdentity, InvalidTokenText, TokenRejected
from token_engine.fields import MAX_AMOUNT
from token_engine.identifiers import EncryptionAlgorithm, KeyType, MeterKeyIdentity, key_expired
from token_engine.key_change import NOTHING_PENDING, PendingSections, assemble
from token_engine.key_material import DecoderKey
from token_engine.token_effect import (
    CreditAdded,
    CreditCleared,
    ExtendedSet,
    FlagSet,
    KeyChanged,
    PhaseUnbalanceLimitSet,
    PowerLimitSet,
    TamperCleared,
    TariffRateSet,
    TestRequested,
    TokenEffect,
    WaterFactorSet,
)
from token_engine.token_result import TokenResult
from token_engine.token_text import normalise_digits

__all__ = ["MeterCapabilities", "MeterTokenState", "TokenOutcome", "enter", "normalise_digits"]

MAX_TID_STORE = 500  # real stores hold some 50 entries; a state file with more is not one of ours
MAX_LOCK_OUT_DOUBLINGS = 32  # keeps the arithmetic small; the cap in seconds is reached long before


@dataclass(frozen=True, slots=True)
class MeterCapabilities:
    """What one model of meter can do. Sizes and times differ by vendor, so all of them are settings.

    `credit_limit` is in the register's own unit (tenths); the lock-out begins with the first wrong entry
    after `free_wrong_entries` and doubles from `lock_out_s` to `max_lock_out_s`.
    """

    credit_subclasses: frozenset[int] = frozenset({0})
    management_subclasses: frozenset[int] = frozenset(
        {SET_POWER_LIMIT, CLEAR_CREDIT, CLEAR_TAMPER, SET_UNBALANCE_LIMIT, EXTENDED_SET}
        | KEY_CHANGE_SUBCLASSES
    )
    test_subclasses: frozenset[int] = frozenset({0, 1, 2})
    credit_limit: int = MAX_AMOUNT
    max_limit_w: int = MAX_AMOUNT
    mfr_code: int = 0
    tid_store_size: int = 50
    key_change_timeout_s: int = 600
    free_wrong_entries: int = 3
    lock_out_s: int = 10
    max_lock_out_s: int = 1280

    def __post_init__(self) -> None:
        if not 1 <= self.tid_store_size <= MAX_TID_STORE:
            raise ValueError(f"a TID store holds 1 to {MAX_TID_STORE} entries")


@dataclass(frozen=True, slots=True)
class MeterTokenState:
    """All a meter remembers about tokens; never changed, each entry gives a new one."""

    identity: MeterKeyIdentity
    decoder_key: DecoderKey = field(repr=False)
    capabilities: MeterCapabilities = MeterCapabilities()
    tids: tuple[int, ...] = ()
    pending: PendingSections = NOTHING_PENDING
    wrong_entries: int = 0
    locked_until: datetime | None = None

    def __post_init__(self) -> None:
        fitting_secret(self.decoder_key, self.identity.ea)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the decoder key in the clear: only for the state file of a simulated meter."""
        caps = self.capabilities
        return {
            "identity": identity_to_dict(self.identity),
            "decoder_key": self.decoder_key.reveal().hex(),
            "capabilities": {
                name: sorted(value) if isinstance(value, frozenset) else value
                for name, value in ((name, getattr(caps, name)) for name in MeterCapabilities.__slots__)
            },
            "tids": list(self.tids),
            "pending": self.pending.to_dict(),
            "wrong_entries": self.wrong_entries,
            "locked_until": self.locked_until.isoformat() if self.locked_until else None,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "MeterTokenState":
        """Read what to_dict wrote. Raises KeyError, ValueError or a TokenEngineError for anything else."""
        caps: dict[str, Any] = {
            name: frozenset(value) if isinstance(value, list) else value
            for name, value in data["capabilities"].items()
        }
        return cls(
            identity=MeterKeyIdentity(**data["identity"]),
            decoder_key=DecoderKey.from_hex(data["decoder_key"]),
            capabilities=MeterCapabilities(**caps),
            tids=tuple(data["tids"][:MAX_TID_STORE]),
            pending=PendingSections.from_dict(data["pending"]),
            wrong_entries=data["wrong_entries"],
            locked_until=datetime.fromisoformat(data["locked_until"]) if data["locked_until"] else None,
        )


def identity_to_dict(identity: MeterKeyIdentity) -> dict[str, Any]:
    """JSON-able fields of an identity; MeterKeyIdentity(**fields) reads them back."""
    return {
        "pan": str(identity.pan),
        "sgc": str(identity.sgc),
        "ti": identity.ti,
        "krn": identity.krn,
        "kt": identity.kt.value,
        "ken": identity.ken,
        "ea": identity.ea.value,
        "dkga": identity.dkga.value,
        "base_date": identity.base_date.value,
    }


@dataclass(frozen=True, slots=True)
class TokenOutcome:
    """The meter's answer: the result, the TID where the token had one, and what it did (None if nothing)."""

    result: TokenResult
    tid: int | None = None
    effect: TokenEffect | None = None

    @property
    def display_code(self) -> int:
        """What the display shows (Conlog BEC62)."""
        return self.result.display_code


def enter(
    state: MeterTokenState, digits: str, now: datetime, credit: int = 0, tables: StaTables = PRODUCTION
) -> tuple[MeterTokenState, TokenOutcome]:
    """Type a token at `now` (aware) into a meter whose credit register holds `credit` tenths.

    Total: any text gives an outcome. The state changes only as the outcome says.
    """
    if state.locked_until is not None and now < state.locked_until:
        return state, TokenOutcome(TokenResult.LOCKED_OUT)
    state = replace(state, pending=state.pending.at(now, state.capabilities.key_change_timeout_s))
    try:
        token = decode(normalise_digits(digits), state.decoder_key, state.identity.ea, tables)
    except InvalidTokenText:
        # An unfinished entry cannot be a guess at a token, so it does not count towards the lock-out.
        return state, TokenOutcome(TokenResult.FORMAT_ERROR)
    except TokenRejected as rejected:
        return _count_wrong_entry(state, now), TokenOutcome(rejected.result)
    if token.token_class == TEST:
        return _test(state, token, now)
    state = replace(state, wrong_entries=0, locked_until=None)
    try:
        return _carry_out(state, token, now, credit)
    except TokenRejected as rejected:
        return state, TokenOutcome(rejected.result, token.tid)


def _count_wrong_entry(state: MeterTokenState, now: datetime) -> MeterTokenState:
    caps = state.capabilities
    wrong = state.wrong_entries + 1
    over = wrong - caps.free_wrong_entries
    until = None
    if over > 0:
        seconds = min(caps.lock_out_s << min(over - 1, MAX_LOCK_OUT_DOUBLINGS), caps.max_lock_out_s)
        until = (now + timedelta(seconds=seconds)).astimezone(UTC)
    return replace(state, wrong_entries=wrong, locked_until=until)


def _test(state: MeterTokenState, token: DecodedToken, now: datetime) -> tuple[MeterTokenState, TokenOutcome]:
    """Class 1 is clear and alike for every meter: it proves nothing, so a row of wrong entries goes on."""
    if token.subclass not in state.capabilities.test_subclasses:
        return state, TokenOutcome(TokenResult.FUNCTION_ERROR)
    mfr_bits = 16 if token.subclass == 1 else 8
    mfr_code = token.payload44 & (1 << mfr_bits) - 1
    if token.subclass != 2 and mfr_code not in {0, state.capabilities.mfr_code}:
        return _count_wrong_entry(state, now), TokenOutcome(TokenResult.MFR_CODE_ERROR)
    effect = TestRequested(token.subclass, token.payload44 >> mfr_bits, mfr_code)
    return state, TokenOutcome(TokenResult.ACCEPT, effect=effect)


def _carry_out(
    state: MeterTokenState, token: DecodedToken, now: datetime, credit: int
) -> tuple[MeterTokenState, TokenOutcome]:
    tid = token.tid
    if tid is None:
        return _key_change(state, token, now)
    _check_tid(state, tid)
    effect = (
        _credit(state, token, credit) if token.token_class == CREDIT else _manage(state.capabilities, token)
    )
    stored = tuple(sorted((*state.tids, tid)))[-state.capabilities.tid_store_size :]
    return replace(state, tids=stored), TokenOutcome(TokenResult.ACCEPT, tid, effect)


def _check_tid(state: MeterTokenState, tid: int) -> None:
    """Expired key, then old, then used. A fresh store is all zeros, so nothing is old until it is full."""
    if key_expired(tid, state.identity.ken):
        raise TokenRejected(TokenResult.KEY_EXPIRED_ERROR)
    if len(state.tids) >= state.capabilities.tid_store_size and tid < state.tids[0]:
        raise TokenRejected(TokenResult.OLD_ERROR)
    if tid in state.tids:
        raise TokenRejected(TokenResult.USED_ERROR)


def _credit(state: MeterTokenState, token: DecodedToken, credit: int) -> TokenEffect:
    if state.identity.kt is KeyType.DDTK:
        raise TokenRejected(TokenResult.DDTK_ERROR)
    if token.subclass not in state.capabilities.credit_subclasses:
        raise TokenRejected(TokenResult.FUNCTION_ERROR)
    if credit + token.amount > state.capabilities.credit_limit:
        raise TokenRejected(TokenResult.OVERFLOW_ERROR)
    return CreditAdded(token.subclass, token.amount)


def _manage(caps: MeterCapabilities, token: DecodedToken) -> TokenEffect:
    if token.subclass not in caps.management_subclasses:
        raise TokenRejected(TokenResult.FUNCTION_ERROR)
    value = token.value
    match token.subclass:
        case subclass if subclass in {SET_POWER_LIMIT, SET_UNBALANCE_LIMIT}:
            if token.amount > caps.max_limit_w:
                raise TokenRejected(TokenResult.RANGE_ERROR)
            return (PowerLimitSet if subclass == SET_POWER_LIMIT else PhaseUnbalanceLimitSet)(token.amount)
        case subclass if subclass == CLEAR_CREDIT:
            if value > 7 and value != 0xFFFF:
                raise TokenRejected(TokenResult.RANGE_ERROR)
            return CreditCleared(None if value == 0xFFFF else value)
        case subclass if subclass == CLEAR_TAMPER:
            return TamperCleared()
        case subclass if subclass == EXTENDED_SET:
            index = value >> 10
            return (
                FlagSet(value >> 1 & 0x1FF, bool(value & 1))
                if index == FLAG_INDEX
                else ExtendedSet(index, value & 0x3FF)
            )
        case subclass if subclass == SET_TARIFF_RATE:
            return TariffRateSet(value)
        case subclass if subclass == SET_WATER_FACTOR:
            return WaterFactorSet(value)
    raise TokenRejected(TokenResult.FUNCTION_ERROR)


def _key_change(
    state: MeterTokenState, token: DecodedToken, now: datetime
) -> tuple[MeterTokenState, TokenOutcome]:
    misty = state.identity.ea is EncryptionAlgorithm.MISTY1
    if token.subclass not in state.capabilities.management_subclasses or (
        token.subclass == FOURTH_SECTION and not misty  # EA07 has three sections at most
    ):
        raise TokenRejected(TokenResult.FUNCTION_ERROR)
    pending = state.pending.with_section(token.subclass, token.payload44, now)
    dropped = replace(state, pending=NOTHING_PENDING)
    try:
        complete = assemble(pending, state.identity)
    except InvalidIdentity:
        return dropped, TokenOutcome(TokenResult.RANGE_ERROR)
    if complete is None:
        return replace(state, pending=pending), TokenOutcome(pending.waiting_result(token.subclass))
    refusal = complete.refusal(state.identity, max(state.tids, default=0))
    if refusal is not None:
        return dropped, TokenOutcome(refusal)
    changed = replace(
        dropped,
        identity=complete.identity,
        decoder_key=complete.key,
        tids=() if complete.rolls_over else state.tids,
    )
    effect = KeyChanged(complete.identity, tids_cleared=complete.rolls_over)
    return changed, TokenOutcome(TokenResult.ACCEPT, effect=effect)
