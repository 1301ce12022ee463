"""What a meter does: counts, cuts off at zero, takes tokens and orders, and says what happened. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from firmware_sim.meter_state import (
    ACCEPTED_LOG,
    ATTEMPT_LOG,
    COMMAND_MEMORY,
    CONNECTED,
    DISCONNECTED,
    PER_TENTH,
    READY,
    RUN_LOG,
    Answer,
    Attempt,
    MeterState,
)
from meter_gateway.topics import limits_of
from token_engine.acceptance import enter
from token_engine.token_effect import CreditAdded, CreditCleared, PowerLimitSet, TamperCleared, TokenEffect
from token_engine.token_result import TokenResult

# Codes of the published contract (meter_gateway.topics holds the same ones; a test compares them).
LAST_GASP: Final = "3.26.0.85"
POWER_RESTORED: Final = "3.26.0.216"
TAMPER: Final = "3.12.0.257"
TOKEN: Final = "raseed.token"  # noqa: S105 - an event code, no secret
RELAY: Final = "raseed.relay"
NO_COMMAND: Final = 0  # an order without an id of its own: a register that was written
OVERLOAD_WAIT_MS: Final = 60_000  # long enough for a person to switch something off
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NoPower(Exception):
    """The meter is dead: nobody can type into it and it answers nothing."""


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """Something worth telling; `at_ms` by the meter's own clock."""

    code: str
    at_ms: int
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What the meter says to a token: TokenResult, TID where it has one, tenths added."""

    result: TokenResult
    tid: int | None
    amount_tenths: int


Events = tuple[MeterEvent, ...]


def step(state: MeterState, now_ms: int, use: int, load: int) -> tuple[MeterState, Events]:
    """Let the household draw `use` (Wh or mL) up to now at `load` (W or mL/h), as far as the meter allows."""
    flows = state.relay == CONNECTED and state.supply
    drawn = min(use, state.credit) if flows and not state.relay_stuck else use * flows
    load = load if flows else 0
    if drawn or load != state.load:
        state = replace(state, credit=max(state.credit - drawn, 0), counter=state.counter + drawn, load=load)
    if flows and 0 < state.power_limit_w < load:
        state = replace(state, tripped_until_ms=now_ms + OVERLOAD_WAIT_MS)
    return _settle(state, now_ms)


def burn(state: MeterState, amount: int, now_ms: int) -> tuple[MeterState, Events]:
    """Use up `amount` Wh or mL of credit at once, as if time had passed."""
    drawn = min(max(amount, 0), state.credit)
    return _settle(replace(state, credit=state.credit - drawn, counter=state.counter + drawn), now_ms)


def enter_token(
    state: MeterState, digits: str, carrier: str, now_ms: int
) -> tuple[MeterState, TokenAnswer, Events]:
    """Try a token from the keypad or from afar with the meter's own key. Raises NoPower on a dead meter.

    The lock-out guards the keypad against guessing; an order of the utility passes it and does not count.
    """
    _check_power(state)
    before = state.token
    asked = before if carrier == "keypad" else replace(before, locked_until=None, wrong_entries=0)
    now = _EPOCH + timedelta(milliseconds=now_ms)
    tenths = -(-state.credit // PER_TENTH[state.commodity])
    after, outcome = enter(asked, digits, now, tenths)
    if carrier != "keypad" and not outcome.result.is_accepted:
        after = replace(after, locked_until=before.locked_until, wrong_entries=before.wrong_entries)
    state, added = _take_effect(replace(state, token=after), outcome.effect)
    attempt = Attempt(
        number=state.token_count + 1,
        result=outcome.result.name,
        carrier=carrier,
        tid=outcome.tid,
        at_ms=state.clock_ms(now_ms),
        amount_tenths=added,
    )
    state = replace(state, token_count=attempt.number, attempts=(attempt, *state.attempts)[:ATTEMPT_LOG])
    if outcome.result is TokenResult.ACCEPT:
        state = replace(state, accepted=(*state.accepted, attempt)[-ACCEPTED_LOG:])
    state, moved = _settle(state, now_ms)
    if isinstance(outcome.effect, TamperCleared):
        moved = (MeterEvent(TAMPER, attempt.at_ms, {"active": False}), *moved)
    told = {
        "tid": outcome.tid,
        "result": outcome.result.name,
        "carrier": carrier,
        "credit": state.credit,
        "number": attempt.number,
    }
    answer = TokenAnswer(outcome.result, outcome.tid, added)
    return state, answer, (MeterEvent(TOKEN, attempt.at_ms, told), *moved)


def run_command(
    state: MeterState, command: int, kind: str, argument: str, now_ms: int
) -> tuple[MeterState, Answer, Events]:
    """Run an order once; a known id gets its stored answer.

    Kinds: token, relay_open, relay_close (ends at ready-for-reconnection), relay_connect (closes outright),
    read_now, clock (epoch seconds, or empty: the radio network's time) and limits as the contract writes them.
    Raises NoPower on a dead meter and ValueError for a kind that no meter knows.
    """
    _check_power(state)
    for known in state.answers:
        if known.command == command:
            # To the front: the result block shows whom the meter answered last.
            others = tuple(one for one in state.answers if one is not known)
            return replace(state, answers=(known, *others)), known, ()
    events: Events = ()
    done, result, tid = True, "DONE", None
    if kind == "token":
        state, told, events = enter_token(state, argument, "remote", now_ms)
        result, tid = told.result.name, told.tid
        done = told.result.is_accepted or told.result is TokenResult.USED_ERROR
    elif kind == "relay_open":
        state, events = _settle(replace(state, ordered_open=True), now_ms)
        done = state.relay == DISCONNECTED
        result = "DONE" if done else "relay_stuck"
    elif kind in ("relay_close", "relay_connect"):
        state, events, result = _close(state, kind, now_ms)
        done = result == "DONE"
    elif kind == "clock":
        offset_ms = int(argument) * 1000 - now_ms if argument else 0
        state = replace(state, clock_offset_ms=offset_ms, clock_ok=True)
    elif kind == "limits":
        state, result = _set_limits(state, argument)
        done = result == "DONE"
    elif kind != "read_now":
        raise ValueError(f"no meter knows the order {kind!r}")
    answer = Answer(
        command, kind, done, result, tid, state.credit, state.relay, state.load, state.clock_ms(now_ms)
    )
    return (state if command == NO_COMMAND else remember(state, answer)), answer, events


def _close(state: MeterState, kind: str, now_ms: int) -> tuple[MeterState, Events, str]:
    """Close from afar: never after tamper, and to a hand's readiness where the order does not say more."""
    if state.tamper:
        return state, (), "tamper"
    awaited = kind == "relay_close" and state.hand_closes and state.ordered_open
    closed = replace(
        state, ordered_open=False, hand_awaited=awaited or (kind == "relay_close" and state.hand_awaited)
    )
    closed, events = _settle(closed, now_ms)
    return closed, events, "DONE" if closed.relay != DISCONNECTED else closed.reason


def _set_limits(state: MeterState, argument: str) -> tuple[MeterState, str]:
    try:
        limits = limits_of(argument)
    except ValueError:
        return state, "out_of_range"
    if "power_limit" in limits:
        return replace(state, power_limit_w=limits["power_limit"], tripped_until_ms=0), "DONE"
    return replace(state, low_1=limits["low_1"], low_2=limits["low_2"]), "DONE"


def remember(state: MeterState, answer: Answer) -> MeterState:
    """Keep an answer so that its id never runs again."""
    return replace(
        state,
        answers=(answer, *state.answers)[:COMMAND_MEMORY],
        commands_run=(*state.commands_run, answer.command)[-RUN_LOG:],
    )


def press_button(state: MeterState, now_ms: int) -> tuple[MeterState, Events]:
    """A hand at the meter: closes a relay that is ready for reconnection. Raises NoPower on a dead meter."""
    _check_power(state)
    return _settle(replace(state, hand_awaited=False), now_ms)


def power(state: MeterState, on: bool, now_ms: int) -> tuple[MeterState, Events]:
    """Cut or restore the network before this meter; an electricity meter gasps, and boots on its return."""
    if on == state.supply:
        return state, ()
    electric = state.commodity == "electricity"
    state = replace(state, supply=on, load=0)
    if not electric:
        return state, ()
    if not on:
        return state, (MeterEvent(LAST_GASP, state.clock_ms(now_ms)),)
    state = reboot(state)
    return state, (MeterEvent(POWER_RESTORED, state.clock_ms(now_ms)),)


def reboot(state: MeterState) -> MeterState:
    """Start again: all that a meter keeps without power stays, its boot number grows."""
    return replace(state, boot=state.boot + 1, load=0)


def open_lid(state: MeterState, now_ms: int) -> tuple[MeterState, Events]:
    """Tamper with the meter: it latches the fact, opens, and waits for a clear-tamper token."""
    if state.tamper:
        return state, ()
    state, moved = _settle(replace(state, tamper=True), now_ms)
    return state, (MeterEvent(TAMPER, state.clock_ms(now_ms), {"active": True}), *moved)


def _check_power(state: MeterState) -> None:
    if not state.powered:
        raise NoPower(f"meter {state.drn} has no power")


def _take_effect(state: MeterState, effect: TokenEffect | None) -> tuple[MeterState, int]:
    """Carry out what an accepted token asks; returns the tenths of credit that it added."""
    match effect:
        case CreditAdded(amount=amount):
            return replace(state, credit=state.credit + amount * PER_TENTH[state.commodity]), amount
        case CreditCleared(register=register):
            own = 0 if state.commodity == "electricity" else 1
            return (replace(state, credit=0) if register in (None, own) else state), 0
        case TamperCleared():
            return replace(state, tamper=False), 0
        case PowerLimitSet(watts=watts):
            return replace(state, power_limit_w=watts, tripped_until_ms=0), 0
    return state, 0


def _settle(state: MeterState, now_ms: int) -> tuple[MeterState, Events]:
    """Put the relay where the first reason in this order wants it."""
    reason = "none"
    if state.tamper:
        reason = "tamper"
    elif state.ordered_open:
        reason = "order"
    elif state.tripped_until_ms > now_ms:
        reason = "overload"
    elif state.credit <= 0:
        reason = "no_credit"
    relay = DISCONNECTED if reason != "none" else READY if state.hand_awaited else CONNECTED
    if state.relay_stuck and state.relay == CONNECTED:
        relay = CONNECTED  # welded contacts: it wants to open and cannot
    if (relay, reason) == (state.relay, state.reason):
        return state, ()
    state = replace(
        state,
        relay=relay,
        reason=reason,
        relay_changed_ms=state.clock_ms(now_ms),
        load=state.load if relay == CONNECTED else 0,
    )
    told = {"relay": relay, "reason": reason, "load": state.load}
    return state, (MeterEvent(RELAY, state.clock_ms(now_ms), told),)
