"""What a person sees of a meter: its display, its lamp, and the shelf of facts behind it."""

from __future__ import annotations

from typing import Any, Final

from firmware_sim.meter_state import CONNECTED, PER_TENTH, READY, MeterState
from firmware_sim.town import TownMeter
from token_engine.token_result import TokenResult

_UNIT: Final = {"electricity": "kWh", "water": "m3"}
_LOAD_UNIT: Final = {"electricity": "W", "water": "L/h"}
_SWITCH: Final = {"electricity": "RELAY", "water": "VALVE"}
_REASON_TEXT: Final = {
    "none": "",
    "no_credit": "NO CREDIT",
    "order": "BY UTILITY",
    "tamper": "TAMPER",
    "overload": "OVERLOAD",
}


def units_text(amount: int, commodity: str) -> str:
    """An amount of Wh or mL as the display writes it, in tenths of kWh or m3, rounded down."""
    tenths = amount // PER_TENTH[commodity]
    return f"{tenths // 10}.{tenths % 10} {_UNIT[commodity]}"


def display(state: MeterState, now_ms: int) -> list[str]:
    """The lines of the display; none when the meter is dead."""
    if not state.powered:
        return []
    lines = [f"CREDIT {units_text(state.credit, state.commodity)}"]
    switch = _SWITCH[state.commodity]
    if state.relay == CONNECTED:
        load = state.load if state.commodity == "electricity" else state.load // 1000
        lines.append(f"{switch} ON {load} {_LOAD_UNIT[state.commodity]}")
    elif state.relay == READY:
        lines.append(f"{switch} READY PRESS BUTTON")
    else:
        lines.append(f"{switch} OFF {_REASON_TEXT[state.reason]}".rstrip())
    lock_ms = state.lock_ms(now_ms)
    if lock_ms:
        lines.append(f"LOCKED {-(-lock_ms // 1000)} s")
    elif state.attempts:
        last = state.attempts[0]
        added = f" +{last.amount_tenths // 10}.{last.amount_tenths % 10}" if last.amount_tenths else ""
        lines.append(f"TOKEN {TokenResult[last.result].display_code:02d} {last.result}{added}")
    if not state.supply:
        lines.append("NO FLOW")
    return lines


def lamp(state: MeterState) -> str:
    """The lamp: off, red (cut off), amber (low credit or waiting for a hand) or green."""
    if not state.powered:
        return "off"
    if state.relay == READY:
        return "amber"
    if state.relay != CONNECTED:
        return "red"
    return "amber" if state.credit <= state.low_marks[0] else "green"


def face(meter: TownMeter, state: MeterState, node: str | None, now_ms: int) -> dict[str, Any]:
    """The JSON-able face of a meter; credit and counter in Wh or mL, load in W or mL/h."""
    lock_ms = state.lock_ms(now_ms)
    return {
        "drn": meter.drn,
        "commodity": meter.commodity,
        "link": meter.link,
        "model": meter.model,
        "bus": meter.bus,
        "unit": meter.unit,
        "usage_point": meter.usage_point_code,
        "display": display(state, now_ms),
        "credit": state.credit,
        "counter": state.counter,
        "load": state.load,
        "relay": state.relay,
        "relay_reason": state.reason,
        "lamp": lamp(state),
        "tamper": state.tamper,
        "powered": state.powered,
        "supply": state.supply,
        "network_node": node,
        "locked_until_ms": now_ms + lock_ms if lock_ms else None,
        "last_token_result": state.attempts[0].result if state.attempts else None,
    }


def shelf(state: MeterState) -> dict[str, Any]:
    """What the meter remembers of tokens and orders; no key in it."""
    return {
        "drn": state.drn,
        "credit": state.credit,
        "counter": state.counter,
        "boot": state.boot,
        "tid_store": list(state.token.tids),
        "accepted": [
            {
                "tid": one.tid,
                "amount_tenths": one.amount_tenths,
                "carrier": one.carrier,
                "at_ms": one.at_ms,
            }
            for one in state.accepted
        ],
        "token_count": state.token_count,
        "commands_run": list(state.commands_run),
    }
