"""What must hold for a meter after every entry, over any row of entries, pauses, restarts and key changes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tests.fuzz.byte_reader import ByteReader
from token_engine.acceptance import MeterCapabilities, MeterTokenState, TokenOutcome, enter
from token_engine.encode import KeyChange, data_block, encrypt_block, key_change_tokens
from token_engine.errors import TokenEngineError
from token_engine.fields import MAX_AMOUNT, to_digits, transpose
from token_engine.identifiers import (
    BaseDate,
    EncryptionAlgorithm,
    KeyGeneration,
    KeyType,
    MeterKeyIdentity,
    key_expired,
)
from token_engine.key_material import DecoderKey
from token_engine.token_effect import CreditAdded, KeyChanged, TestRequested
from token_engine.token_result import TokenResult

START = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)
MAX_STEPS = 60  # a meter sees a few tokens a month; more steps only make slow inputs
ALGORITHMS = (EncryptionAlgorithm.STA, EncryptionAlgorithm.MISTY1)
WRONG = {TokenResult.CRC_ERROR, TokenResult.MFR_CODE_ERROR}
PROVEN = {  # answers that only a token under the meter's own key gets: they end a row of wrong entries
    TokenResult.OLD_ERROR,
    TokenResult.USED_ERROR,
    TokenResult.KEY_EXPIRED_ERROR,
    TokenResult.DDTK_ERROR,
    TokenResult.OVERFLOW_ERROR,
    TokenResult.RANGE_ERROR,
    TokenResult.KEY_TYPE_ERROR,
    TokenResult.FIRST_KCT,
    TokenResult.SECOND_KCT,
    TokenResult.THIRD_KCT,
    TokenResult.FOURTH_KCT,
}
MOVES = {
    KeyType.DITK: set(KeyType),
    KeyType.DDTK: {KeyType.DDTK, KeyType.DUTK},
    KeyType.DUTK: {KeyType.DUTK, KeyType.DDTK},
    KeyType.DCTK: {KeyType.DCTK, KeyType.DDTK},
}


@dataclass
class Bench:
    """One meter on the bench, its clock and credit register, and what the invariants have to remember."""

    state: MeterTokenState
    now: datetime = START
    credit: int = 0
    credited: set[int] = field(default_factory=set)  # TIDs since the TID store was last emptied
    seen: set[str] = field(default_factory=set)
    last: str = "0" * 20


def check_meter(reader: ByteReader) -> set[str]:
    """Run one meter through the steps that the bytes say; what happened, as words."""
    bench = Bench(new_state(reader))
    for _ in range(MAX_STEPS):
        if reader.done:
            break
        reader.pick(STEPS)(bench, reader)
    return bench.seen


def new_state(reader: ByteReader) -> MeterTokenState:
    ea = reader.pick(ALGORITHMS)
    identity = MeterKeyIdentity(
        pan="600727000000000009",
        sgc="201457",
        ti=1,
        krn=1,
        kt=reader.pick(tuple(KeyType)),
        ken=reader.number(1),
        ea=ea,
        dkga=KeyGeneration.DKGA04,
        base_date=reader.pick(tuple(BaseDate)),
    )
    capabilities = MeterCapabilities(
        credit_subclasses=frozenset(n for n in range(16) if reader.number(1) & 1),
        management_subclasses=frozenset(n for n in range(16) if not reader.number(1) & 1),
        credit_limit=reader.number(3),
        max_limit_w=reader.number(3),
        mfr_code=reader.number(1),
        tid_store_size=1 + reader.number(1) % 8,
        free_wrong_entries=reader.number(1) % 4,
    )
    return MeterTokenState(identity, DecoderKey(reader.raw(ea.key_bytes)), capabilities)


def type_crafted(bench: Bench, reader: ByteReader) -> None:
    """A token under the meter's own key: any class, any 48 bits, its CRC right but for some."""
    control, payload = reader.number(1), reader.number(6)
    token_class = control & 3
    if control & 4:  # few bits of TID, so that they meet each other
        payload &= ~(0xFFFFF8 << 16)
    if control & 8:  # the index of flags has all its six bits set, which chance seldom does
        payload |= 0xFC00
    block = data_block(token_class, payload) ^ (control >> 7)
    if token_class in {0, 2}:
        block = encrypt_block(bench.state.decoder_key, bench.state.identity.ea, block)
    type_in(bench, to_digits(transpose(token_class, block)))


def type_anything(bench: Bench, reader: ByteReader) -> None:
    type_in(bench, reader.text() if reader.number(1) & 1 else f"{reader.number(9) >> 5:020d}")


def again(bench: Bench, reader: ByteReader) -> None:
    del reader
    type_in(bench, bench.last)


def wait(bench: Bench, reader: ByteReader) -> None:
    """The clock goes on by up to 18 hours, and sometimes back: meters have been seen to do both."""
    seconds = reader.number(2)
    bench.now += timedelta(seconds=-(seconds >> 8) if seconds & 1 else seconds)


def restart(bench: Bench, reader: ByteReader) -> None:
    del reader
    bench.state = MeterTokenState.from_dict(json.loads(json.dumps(bench.state.to_dict())))


def change_key(bench: Bench, reader: ByteReader) -> None:
    """Whole or partial key-change sets in any order, to any identity."""
    old, control = bench.state.identity, reader.number(1)
    try:
        new = replace(
            old,
            krn=1 + reader.number(1) % 9,
            kt=KeyType(control & 3),
            ken=reader.number(1),
            base_date=(old.base_date.following or old.base_date) if control & 4 else old.base_date,
        )
        change = KeyChange(
            old,
            new,
            bench.state.decoder_key,
            DecoderKey(reader.raw(old.ea.key_bytes)),
            with_sgc=bool(control & 8),
        )
    except TokenEngineError as refusal:  # every field above is within its bounds
        raise AssertionError("an allowed key change was refused") from refusal
    tokens = list(key_change_tokens(change))
    if control & 16:
        tokens.reverse()
    if control & 32:
        tokens.pop()
    for token in tokens:
        type_in(bench, token)
    accepted = not control & 32 and bench.state.identity == new and bench.state.decoder_key == change.new_key
    bench.seen.add(f"set of {len(tokens)} {old.ea.name} {old.kt.name} to {new.kt.name} accepted={accepted}")


def live(bench: Bench, reader: ByteReader) -> None:
    """The house uses credit, or a register was set at the works: anything up to the limit."""
    bench.credit = reader.number(3) % (bench.state.capabilities.credit_limit + 1)


STEPS = (
    type_crafted,
    type_crafted,
    type_crafted,
    type_crafted,
    type_anything,
    again,
    wait,
    restart,
    change_key,
    live,
)


def type_in(bench: Bench, digits: str) -> None:
    before, now = bench.state, bench.now
    after, outcome = enter(before, digits, now, bench.credit)
    assert enter(before, digits, now, bench.credit) == (after, outcome), (
        "the same entry gives the same answer"
    )
    check_entry(bench, before, after, outcome)
    check_state(after)
    bench.state, bench.last = after, digits
    if outcome.result is TokenResult.OVERFLOW_ERROR:
        alone = enter(before, digits, now, 0)[1].result
        bench.seen.add(f"overflow; into an empty register: {alone}")
    effect = type(outcome.effect).__name__
    bench.seen.add(
        f"{before.identity.kt.name} {outcome.result} {effect} pending={len(after.pending.sections)}"
    )


def check_entry(bench: Bench, before: MeterTokenState, after: MeterTokenState, outcome: TokenOutcome) -> None:
    result = outcome.result
    assert 1 <= outcome.display_code <= 15
    locked = before.locked_until is not None and bench.now < before.locked_until
    assert (result is TokenResult.LOCKED_OUT) == locked
    if locked:
        assert after is before
    if result is not TokenResult.ACCEPT:
        assert outcome.effect is None
        assert (after.tids, after.identity, after.decoder_key) == (
            before.tids,
            before.identity,
            before.decoder_key,
        )
    assert after.capabilities == before.capabilities
    if result in WRONG:
        assert after.wrong_entries == before.wrong_entries + 1
    elif result in PROVEN or (result is TokenResult.ACCEPT and not isinstance(outcome.effect, TestRequested)):
        assert (after.wrong_entries, after.locked_until) == (0, None)
    else:
        assert after.wrong_entries in {0, before.wrong_entries, before.wrong_entries + 1}
    if result is TokenResult.ACCEPT and outcome.tid is not None:
        assert not key_expired(outcome.tid, before.identity.ken), "an expired key takes nothing"
        assert outcome.tid in after.tids or outcome.tid < after.tids[0]
        assert set(after.tids) <= {*before.tids, outcome.tid}
    if isinstance(outcome.effect, CreditAdded):
        check_credit(bench, before, outcome, outcome.effect)
    check_key(bench, before, after, outcome)


def check_credit(bench: Bench, before: MeterTokenState, outcome: TokenOutcome, effect: CreditAdded) -> None:
    assert outcome.tid is not None
    assert outcome.tid not in bench.credited, "one token was credited twice"
    assert before.identity.kt is not KeyType.DDTK
    assert effect.subclass in before.capabilities.credit_subclasses
    assert bench.credit + effect.amount <= before.capabilities.credit_limit
    bench.credited.add(outcome.tid)
    bench.credit = max(0, min(MAX_AMOUNT, bench.credit + effect.amount))


def check_key(bench: Bench, before: MeterTokenState, after: MeterTokenState, outcome: TokenOutcome) -> None:
    if not isinstance(outcome.effect, KeyChanged):
        assert (after.identity, after.decoder_key) == (before.identity, before.decoder_key)
        return
    assert outcome.effect.identity == after.identity
    assert (after.identity.pan, after.identity.ea) == (before.identity.pan, before.identity.ea)
    assert after.identity.kt in MOVES[before.identity.kt]
    assert after.pending.sections == ()
    if outcome.effect.tids_cleared:
        assert after.tids == ()
        bench.credited.clear()
    else:
        assert after.tids == before.tids
        assert after.identity.base_date is before.identity.base_date


def check_state(state: MeterTokenState) -> None:
    caps = state.capabilities
    assert len(state.tids) <= caps.tid_store_size
    assert list(state.tids) == sorted(set(state.tids))
    assert len(state.pending.sections) == len({subclass for subclass, _ in state.pending.sections}) <= 4
    if state.locked_until is not None:
        assert state.wrong_entries > caps.free_wrong_entries
    stored = state.to_dict()
    assert MeterTokenState.from_dict(stored) == state
    assert stored["decoder_key"] not in repr(state).lower()
