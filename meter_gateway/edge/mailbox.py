"""What an order becomes at a meter: what is written, where its answer stands, what must hold after. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from meter_gateway.meter_map import Profile, Value
from meter_gateway.topics import limits_of
from token_engine.token_result import TokenResult

# The word that arms the command mailbox, and its complement: no stray write looks like an order.
ARM_KEY: Final = 0x5A17
# A clock that was just set may be off by a slow write and the look after it.
CLOCK_TOLERANCE_S: Final = 5
OPEN, CLOSED = 0, 1

Route = Literal["mailbox", "relay", "read"]
COMMAND_OUTCOME: Final = ("command_echo", "command_status", "command_detail", "command_balance")
TOKEN_OUTCOME: Final = ("token_echo", "token_result", "token_tid")


def route_of(profile: Profile, kind: str) -> Route | None:
    """Return how this meter takes such an order, None when it cannot take it."""
    if kind == "read_now":
        return "read"
    if "command_id" in profile.registers:
        return "mailbox"
    relay = profile.registers.get("relay")
    if kind in ("relay_open", "relay_close") and relay is not None and relay.writable:
        return "relay"
    return None


def refusal(profile: Profile, kind: str, values: Mapping[str, Value]) -> dict[str, Any] | None:
    """Return why an order must not be written at all, from what the meter says now; None to go on.

    Nobody closes from afar after tamper, nor a relay without a button where the profile does not allow it.
    """
    if kind != "relay_close":
        return None
    if values.get("tamper"):
        return {"result": "REFUSED", "why": "tamper"}
    if route_of(profile, kind) == "relay" and profile.remote_close != "closed":
        return {"result": "NOT_ALLOWED", "why": "this meter has no state before closed"}
    return None


def names_before(profile: Profile, kind: str) -> tuple[str, ...]:
    """Return the registers that `refusal` judges by."""
    return ("tamper",) if kind == "relay_close" and "tamper" in profile.registers else ()


def outcome_names(kind: str) -> tuple[str, ...]:
    """Return the registers of the answer, its id and its result first."""
    return TOKEN_OUTCOME if kind == "token" else COMMAND_OUTCOME


def relay_wanted(kind: str) -> int:
    """Return the relay state that a direct order asks for."""
    return CLOSED if kind == "relay_close" else OPEN


def writing(profile: Profile, command_id: int, kind: str, argument: str, now_ms: int) -> dict[str, int | str]:
    """Return the registers of the one write that carries an order. Raises ValueError for limits without sense."""
    if kind == "token":
        return {"token": argument, "token_submit_id": command_id}
    if route_of(profile, kind) == "relay":
        return {"relay": relay_wanted(kind)}
    opcode, number = _opcode(profile, kind, argument, now_ms)
    return {
        "command_id": command_id,
        "command_opcode": opcode,
        "command_argument": number,
        "arm_key": ARM_KEY,
        "arm_complement": ARM_KEY ^ 0xFFFF,
    }


def _opcode(profile: Profile, kind: str, argument: str, now_ms: int) -> tuple[str, int]:
    if kind == "relay_close":
        return ("relay_connect" if profile.remote_close == "closed" else "relay_close"), 0
    if kind == "clock":
        return "set_clock", now_ms // 1000
    if kind == "limits":
        limits = limits_of(argument)
        if "power_limit" in limits:
            return "set_power_limit", limits["power_limit"]
        return "set_low_marks", limits["low_1"] << 32 | limits["low_2"]
    return kind, 0


def names_after(kind: str, argument: str) -> tuple[str, ...]:
    """Return the registers that show whether an order was carried out, beside the meter's own word."""
    if kind == "clock":
        return ("clock",)
    return tuple(limits_of(argument)) if kind == "limits" else ()


def judge(
    kind: str, argument: str, outcome: Mapping[str, Value], after: Mapping[str, Value], now_ms: int
) -> tuple[str, dict[str, Any]]:
    """Return (VERIFIED or REJECTED, detail) from the meter's answer and the registers of `names_after`.

    A meter that says DONE and shows something else is not believed.
    """
    result = str(outcome[outcome_names(kind)[1]])
    detail: dict[str, Any] = {"result": result}
    if kind == "token":
        detail["tid"] = outcome["token_tid"]
        return ("VERIFIED" if is_verified(kind, result) else "REJECTED"), detail
    if not is_verified(kind, result):
        why = outcome.get("command_detail")
        return "REJECTED", detail | ({"why": why} if why not in (None, "none") else {})
    if kind == "clock":
        drift_s = int(after["clock"] or 0) - now_ms // 1000
        detail["drift_s"] = drift_s
        if abs(drift_s) > CLOCK_TOLERANCE_S:
            return "REJECTED", detail | {"result": "CLOCK_OFF"}
    elif kind == "limits":
        found = {name: after[name] for name in names_after(kind, argument)}
        detail |= found
        if found != limits_of(argument):
            return "REJECTED", detail | {"result": "NOT_AS_ORDERED"}
    return "VERIFIED", detail


def is_verified(kind: str, result: str) -> bool:
    """Whether a meter's word means that the order stands carried out; a used token is one carried out before."""
    if kind != "token":
        return result == "DONE"
    try:
        answer = TokenResult[result]
    except KeyError:
        return False
    return answer.is_accepted or answer is TokenResult.USED_ERROR
