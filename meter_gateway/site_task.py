"""An engineer's task on a site's bus: its states, what each kind asks for, how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from meter_gateway.errors import InvalidTask
from meter_gateway.profile import InvalidProfile, load_profile, profile_names

KINDS: Final = ("scan", "probe", "registers", "words", "trace")
FIRST_UNIT: Final = 1
LAST_UNIT: Final = 247  # Modbus serial line 2.2: 1 to 247
# What meters of this field ship with; 8N1 first, since a pseudo terminal refuses parity on its second opening.
BAUDS: Final = (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)
PARITIES: Final = ("N", "E", "O")
MAX_TRACE_S: Final = 300
MIN_TIMEOUT_MS: Final = 50
MAX_TIMEOUT_MS: Final = 3000


class TaskState(StrEnum):
    """Where a task stands; DONE, FAILED and CANCELLED are the gateway's word and final."""

    CREATED = "CREATED"
    SENT = "SENT"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


class TaskEvent(StrEnum):
    """What happens to a task: ours (SEND, DEADLINE, CANCEL), or told by the gateway."""

    SEND = "SEND"
    DEADLINE = "DEADLINE"
    CANCEL = "CANCEL"
    EDGE_RUNNING = "RUNNING"
    EDGE_DONE = "DONE"
    EDGE_FAILED = "FAILED"
    EDGE_EXPIRED = "EXPIRED"
    EDGE_CANCELLED = "CANCELLED"


SETTLED: Final = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.EXPIRED, TaskState.CANCELLED})
_S, _E = TaskState, TaskEvent
_ENDS: Final[dict[TaskEvent, TaskState | None]] = {
    _E.EDGE_RUNNING: _S.RUNNING,
    _E.EDGE_DONE: _S.DONE,
    _E.EDGE_FAILED: _S.FAILED,
    _E.EDGE_EXPIRED: _S.EXPIRED,
    _E.EDGE_CANCELLED: _S.CANCELLED,
}
# None: the event changes nothing (repeated, out of order, or too late). CANCEL of a task that left only notes
# the wish (cancel_at): the gateway says what became of it.
_TABLE: Final[dict[TaskState, dict[TaskEvent, TaskState | None]]] = {
    _S.CREATED: {_E.SEND: _S.SENT, _E.DEADLINE: _S.EXPIRED, _E.CANCEL: _S.CANCELLED, **_ENDS},
    _S.SENT: {_E.SEND: _S.SENT, _E.DEADLINE: _S.EXPIRED, _E.CANCEL: None, **_ENDS},
    _S.RUNNING: {_E.SEND: None, _E.DEADLINE: _S.EXPIRED, _E.CANCEL: None, **_ENDS},
    _S.DONE: dict.fromkeys(_E),
    _S.FAILED: dict.fromkeys(_E),
    # A result that comes late is a result all the same.
    _S.EXPIRED: {**dict.fromkeys(_E), _E.EDGE_DONE: _S.DONE, _E.EDGE_FAILED: _S.FAILED},
    _S.CANCELLED: dict.fromkeys(_E),
}


def next_state(state: TaskState, event: TaskEvent) -> TaskState | None:
    """Return the state after the event, or None when the event changes nothing."""
    return _TABLE[state][event]


def check_argument(kind: str, argument: Mapping[str, Any], *, framer: str) -> dict[str, Any]:
    """Return the argument of a task, checked and complete.

    scan `{first, last, bauds, parities, timeout_ms}` (0: by the line's speed; bauds empty: the bus's own),
    probe `{unit, profiles}` (empty: all), registers `{unit, profile}`, words `{unit, profile, register}`,
    trace `{seconds, unit}` (0: all units). Raises InvalidTask with reason kind_unknown, unit_range,
    profile_unknown, register_unknown, baud_unknown, parity_unknown, line_fixed, timeout_range, seconds_range.
    """
    if kind == "scan":
        return _scan(argument, framer)
    if kind == "trace":
        seconds = _integer(argument, "seconds", 30)
        if not 1 <= seconds <= MAX_TRACE_S:
            raise InvalidTask("seconds_range", f"a trace takes 1 to {MAX_TRACE_S} seconds")
        return {"seconds": seconds, "unit": _unit(argument) if argument.get("unit") else 0}
    if kind == "probe":
        profiles = [_profile(name) for name in argument.get("profiles") or ()]
        return {"unit": _unit(argument), "profiles": profiles}
    if kind == "registers":
        return {"unit": _unit(argument), "profile": _profile(argument.get("profile"))}
    if kind == "words":
        profile = _profile(argument.get("profile"))
        register = str(argument.get("register", ""))
        if register not in number_registers(profile):
            raise InvalidTask("register_unknown", f"profile {profile} has no number called {register!r}")
        return {"unit": _unit(argument), "profile": profile, "register": register}
    raise InvalidTask("kind_unknown", f"site tasks are {', '.join(KINDS)}")


def number_registers(profile_name: str) -> tuple[str, ...]:
    """Return the numbers of a profile that take two registers or more: those that can have a word order."""
    profile = load_profile(profile_name)
    return tuple(
        name
        for name, register in profile.registers.items()
        if register.count > 1 and register.type not in ("ascii", "bcd") and not register.writable
    )


def _scan(argument: Mapping[str, Any], framer: str) -> dict[str, Any]:
    first, last = _integer(argument, "first", FIRST_UNIT), _integer(argument, "last", LAST_UNIT)
    if not FIRST_UNIT <= first <= last <= LAST_UNIT:
        raise InvalidTask(
            "unit_range", f"units are {FIRST_UNIT} to {LAST_UNIT}, the first not after the last"
        )
    bauds = list(dict.fromkeys(argument.get("bauds") or ()))
    parities = list(dict.fromkeys(argument.get("parities") or ("N",)))
    if framer != "rtu" and (bauds or parities != ["N"]):
        raise InvalidTask("line_fixed", "only a serial port of ours has a speed and a parity to choose")
    if not set(bauds) <= set(BAUDS):
        raise InvalidTask("baud_unknown", f"baud rates are {', '.join(map(str, BAUDS))}")
    if not set(parities) <= set(PARITIES):
        raise InvalidTask("parity_unknown", "parity is N, E or O")
    timeout_ms = _integer(argument, "timeout_ms", 0)
    if timeout_ms and not MIN_TIMEOUT_MS <= timeout_ms <= MAX_TIMEOUT_MS:
        raise InvalidTask("timeout_range", f"a time-out is {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS} ms")
    parities.sort(key=PARITIES.index)
    return {"first": first, "last": last, "bauds": bauds, "parities": parities, "timeout_ms": timeout_ms}


def _integer(argument: Mapping[str, Any], name: str, default: int) -> int:
    value = argument.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTask("not_a_number", f"{name} is a whole number")
    return value


def _unit(argument: Mapping[str, Any]) -> int:
    unit = _integer(argument, "unit", 0)
    if not FIRST_UNIT <= unit <= LAST_UNIT:
        raise InvalidTask("unit_range", f"units are {FIRST_UNIT} to {LAST_UNIT}")
    return unit


def _profile(name: object) -> str:
    if not isinstance(name, str) or name not in profile_names():
        raise InvalidTask("profile_unknown", f"no profile is called {str(name)[:64]!r}")
    try:
        load_profile(name)
    except InvalidProfile as error:
        raise InvalidTask("profile_unknown", str(error)) from None
    return name
