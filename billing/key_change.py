"""The change of one meter's key: which changes may be, its states, and what a meter's answers prove of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from billing.errors import BooksBroken, InvalidVend
from billing.identity_store import BASE_DATES, KeyFields, StsIdentity
from token_engine.errors import InvalidIdentity, InvalidTid
from token_engine.identifiers import KeyType, key_expired
from token_engine.token_result import TokenResult

# sts.md 9, the last rows stated by one source only (?): an unlike move is refused here before the meter does.
_ALLOWED_MOVES = {
    KeyType.DITK: frozenset({KeyType.DITK, KeyType.DDTK, KeyType.DUTK}),
    KeyType.DDTK: frozenset({KeyType.DDTK, KeyType.DUTK}),
    KeyType.DUTK: frozenset({KeyType.DUTK, KeyType.DDTK}),
    KeyType.DCTK: frozenset({KeyType.DDTK}),
}
# A command of the set lives a day; a meter that is away is tried again so often, then a person looks.
MAX_ROUNDS = 14
# A meter forgets a part of a set after a while (10 min on one model): the sections belong together this long.
SECTIONS_TOGETHER = timedelta(minutes=10)
CHANGEABLE = frozenset(KeyFields.__slots__)


class ChangeState(StrEnum):
    """Where a change stands."""

    PLANNED = "PLANNED"  # approved, its tokens are not made yet
    ISSUED = "ISSUED"  # tokens made: from now on credit is under the new key
    PROVEN = "PROVEN"  # the meter has shown that it holds the new key
    REFUSED = "REFUSED"  # the meter says no: credit is stopped until a person decides
    FAILED = "FAILED"  # no tokens can be made: the meter keeps its key
    WITHDRAWN = "WITHDRAWN"  # a person took it back


class ChangeEvent(StrEnum):
    """What happens to a change."""

    ISSUED = "issued"
    PROVEN = "proven"
    REFUSED = "refused"
    FAILED = "failed"
    RETRIED = "retried"
    WITHDRAWN = "withdrawn"


_S, _E = ChangeState, ChangeEvent
# None: no road through the code leads here.
CHANGE_TABLE: dict[ChangeState, dict[ChangeEvent, ChangeState | None]] = {
    _S.PLANNED: {
        _E.ISSUED: _S.ISSUED,
        _E.PROVEN: None,
        _E.REFUSED: None,
        _E.FAILED: _S.FAILED,
        _E.RETRIED: _S.PLANNED,
        _E.WITHDRAWN: _S.WITHDRAWN,
    },
    _S.ISSUED: {
        _E.ISSUED: _S.ISSUED,
        _E.PROVEN: _S.PROVEN,
        _E.REFUSED: _S.REFUSED,
        _E.FAILED: _S.ISSUED,
        _E.RETRIED: _S.ISSUED,
        _E.WITHDRAWN: _S.WITHDRAWN,
    },
    # Typed at the keypad after all: the meter's own word is stronger than its earlier no.
    _S.REFUSED: {
        _E.ISSUED: _S.REFUSED,
        _E.PROVEN: _S.PROVEN,
        _E.REFUSED: _S.REFUSED,
        _E.FAILED: _S.REFUSED,
        _E.RETRIED: _S.ISSUED,
        _E.WITHDRAWN: _S.WITHDRAWN,
    },
    _S.PROVEN: dict.fromkeys(_E, _S.PROVEN),
    _S.FAILED: dict.fromkeys(_E, _S.FAILED),
    _S.WITHDRAWN: dict.fromkeys(_E, _S.WITHDRAWN),
}
OPEN_STATES = (ChangeState.PLANNED, ChangeState.ISSUED, ChangeState.REFUSED)


def next_change_state(state: ChangeState, event: ChangeEvent) -> ChangeState:
    """The state after `event`. Raises BooksBroken for a pair that no road leads to."""
    following = CHANGE_TABLE[state][event]
    if following is None:
        raise BooksBroken("key_change_step_impossible", f"a key change that is {state} cannot be {event}")
    return following


def check_target(target: Mapping[str, Any]) -> None:
    """Refuse a target that names nothing or something unknown. Raises InvalidVend."""
    if not target or not set(target) <= CHANGEABLE:
        raise InvalidVend("target_invalid", f"a plan changes one or more of {', '.join(sorted(CHANGEABLE))}")


def new_fields(identity: StsIdentity, target: Mapping[str, Any], now: datetime) -> KeyFields:
    """The key that a meter would get.

    Raises InvalidVend with the rule that it breaks: `change_under_way`, `nothing_to_change`, `key_type_move`,
    `base_date_not_following`, `vending_key_same`, `new_key_expired`, `identity_invalid`.
    """
    check_target(target)
    if identity.pending is not None:
        raise InvalidVend("change_under_way", "another key change of this meter is under way")
    old, new = identity.current, replace(identity.current, **target)
    if new == old:
        raise InvalidVend("nothing_to_change", "the meter has this key already")
    try:
        meter = identity.identity_of(new)
        base = BASE_DATES[new.base_date]
        tid = base.tid_at(now)
    except (InvalidIdentity, InvalidTid, KeyError, ValueError) as error:
        raise InvalidVend("identity_invalid", str(error)) from None
    if meter.kt not in _ALLOWED_MOVES[KeyType(old.kt)]:
        raise InvalidVend("key_type_move", f"a meter does not go from KT {old.kt} to KT {new.kt}")
    if new.base_date != old.base_date:
        if BASE_DATES[old.base_date].following is not base:
            raise InvalidVend("base_date_not_following", "the tokens can move to the next base date only")
        if (new.sgc, new.krn, new.kt) == (old.sgc, old.krn, old.kt):
            raise InvalidVend(
                "vending_key_same", "a base date belongs to a vending key: name its revision or group too"
            )
    if key_expired(tid, new.ken):
        raise InvalidVend("new_key_expired", "the new key would be expired already")
    return new


class Verdict(StrEnum):
    """What the answers to the tokens of a set say."""

    WAITING = "waiting"
    PROVEN = "proven"
    REFUSED = "refused"
    AGAIN = "again"  # every one ended, and the meter neither took the set nor refused it


@dataclass(frozen=True, slots=True)
class SetAnswer:
    """A command that carried one token of the set: its state, and the meter's result by name or empty."""

    state: str
    result: str


@dataclass(frozen=True, slots=True)
class Typed:
    """A token that somebody typed at the keypad: the result by name, the TID where it had one."""

    occurred_at: datetime
    result: str
    tid: int | None


def verdict_of(answers: Sequence[SetAnswer]) -> tuple[Verdict, str]:
    """What one round of commands says, and the meter's word that decides it."""
    words = [answer.result.upper() for answer in answers]
    if any(a.state == "VERIFIED" and w == "ACCEPT" for a, w in zip(answers, words, strict=True)):
        return Verdict.PROVEN, "ACCEPT"
    for answer, word in zip(answers, words, strict=True):
        if answer.state == "REJECTED":
            return Verdict.REFUSED, word or "REJECTED"
    if not answers or any(a.state not in {"VERIFIED", "EXPIRED"} for a in answers):
        return (Verdict.WAITING, "") if answers else (Verdict.AGAIN, "never sent")
    return Verdict.AGAIN, ",".join(word or a.state for a, word in zip(answers, words, strict=True))


def typed_set(typed: Sequence[Typed], sections: int) -> bool:
    """Whether a whole set was taken at the keypad: its parts one after the other, then ACCEPT.

    A reported event names no token, so this is a reading of the sequence (doubtful only if somebody types a
    display token between the parts of a set).
    """
    for end, last in enumerate(typed):
        first = end - sections + 1
        if first < 0 or last.result.upper() != TokenResult.ACCEPT.name or last.tid is not None:
            continue
        parts = {part.result.upper() for part in typed[first:end]}
        if (
            len(parts) == sections - 1
            and all(part.endswith("_KCT") for part in parts)
            and last.occurred_at - typed[first].occurred_at <= SECTIONS_TOGETHER
        ):
            return True
    return False
