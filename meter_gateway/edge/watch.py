"""What a polled meter has to tell: its readings when due or changed, and what happened since the last look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from meter_gateway import topics
from meter_gateway.profile import Value
from meter_gateway.topics import Event, Reading, Record

# Readings go out at least this often, and at once when something changed.
REPORT_MS: Final = 30_000
# The meter keeps this many of its last tokens.
TOKEN_LOG: Final = 8
# What the contract carries (topics.SignedValue); words turned round make larger ones, and those are no values.
LARGEST_VALUE: Final = 2**62
# A load that moved by a quarter is a change worth telling; smaller ones wait for their turn.
LOAD_STEP: Final = 4
# A meter's clock that is off by more than the first is told, and told to be right again below the second
# (the same limits as the platform's own check, which a site without the platform cannot ask).
DRIFT_BEGINS_S: Final = 120
DRIFT_ENDS_S: Final = 60
# A clock before this day (2026-01-01) was never set.
CLOCK_MS: Final = 1_767_225_600_000
# So far the platform's clock may be ahead of ours; an order from further in our future says that ours is wrong.
AHEAD_MS: Final = 60_000
UNKNOWN_ANSWER: Final = "UNKNOWN"
# Registers that change their minds at each poll would fill the outbox: another list of those without meaning is told
# this long after the last one, and that none is left at once; so two events an hour at most.
MEANINGLESS_MS: Final = 3_600_000
# An event names at most so many registers without meaning: words turned round spoil all of a map.
MOST_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class Memory:
    """What the gateway remembers of a meter across polls and restarts; None: never seen."""

    token_count: int | None = None
    boot_count: int | None = None
    relay: int | None = None
    relay_reason: str | None = None
    tamper: bool | None = None
    credit: int | None = None
    load: int | None = None
    counter: int | None = None
    reported_ms: int = 0
    is_stranger: bool = False
    is_down: bool = False
    reverse: int | None = None
    is_drifting: bool = False
    meaningless: tuple[str, ...] = ()  # as told last
    meaningless_ms: int = 0  # when a list that was not empty was told last


def is_time_known(now_ms: int, created_ms: int) -> bool:
    """Whether our clock can be right, seen beside the instant at which an order was made (0: not known)."""
    return now_ms >= CLOCK_MS and now_ms >= created_ms - AHEAD_MS


def number(values: Mapping[str, Value], name: str) -> int | None:
    """Return a numeric value, None where the meter has none."""
    value = values.get(name)
    return value if isinstance(value, int) and abs(value) <= LARGEST_VALUE else None


def is_doubtful(memory: Memory, values: Mapping[str, Value]) -> bool:
    """Whether the counter fell since the last look: worth a second one, for glitches last one reading."""
    counter = number(values, "counter")
    return counter is not None and memory.counter is not None and counter < memory.counter


def missed_tokens(memory: Memory, values: Mapping[str, Value]) -> int:
    """Return how many tokens were tried since the last look; 0 at first sight or after a reset."""
    count = number(values, "token_count")
    if memory.token_count is None or count is None:
        return 0
    return max(0, count - memory.token_count)


def observe_stranger(memory: Memory, drn: str, found: str, now_ms: int) -> tuple[Memory, list[Record]]:
    """Tell once that another meter answers where `drn` should; nothing it says is used."""
    if memory.is_stranger:
        return memory, []
    event = Event(drn, topics.UNKNOWN_METER, now_ms, {"found": found[:20]})
    return replace(memory, is_stranger=True), [event]


def observe_meaningless(
    memory: Memory, drn: str, faults: Mapping[str, str], now_ms: int
) -> tuple[Memory, list[Record]]:
    """Tell once which registers hold what the profile does not know (name to reason), and once when that is over.

    Another list soon after the last one is not told yet: what was told last stands until then.
    """
    names = tuple(sorted(faults))
    if names == memory.meaningless or (names and 0 <= now_ms - memory.meaningless_ms < MEANINGLESS_MS):
        return memory, []
    told = {name: faults[name][:100] for name in names[:MOST_NAMED]}
    event = Event(drn, topics.NO_MEANING, now_ms, {"active": bool(names), "registers": told})
    told_ms = now_ms if names else memory.meaningless_ms
    return replace(memory, meaningless=names, meaningless_ms=told_ms), [event]


def observe(
    memory: Memory,
    drn: str,
    values: Mapping[str, Value],
    token_log: Sequence[Mapping[str, Value]],
    now_ms: int,
) -> tuple[Memory, list[Record]]:
    """Return the new memory and the records to send, happenings before readings.

    `values` holds the fast block, and the metering block where it was read this time. `token_log` holds
    the meter's last tokens (number, result, carrier, tid, at), where more than one was missed.
    """
    records: list[Record] = [*_tokens(memory, drn, values, token_log, now_ms)]
    relay, reason = number(values, "relay"), values.get("relay_reason")
    # A value that could not be read says nothing new: what was known stands.
    relay_reason = reason if isinstance(reason, str) else memory.relay_reason
    counter = number(values, "counter")
    load = number(values, "load")
    tamper = bool(values.get("tamper"))
    if memory.relay is not None and (relay, relay_reason) != (memory.relay, memory.relay_reason):
        detail = {"relay": relay, "reason": relay_reason, "load": memory.load if load is None else load}
        records.append(Event(drn, topics.RELAY, now_ms, detail))
    if tamper != (memory.tamper or False):
        records.append(Event(drn, topics.TAMPER, now_ms, {"active": tamper}))
    is_drifting, drift = _clock(memory, drn, values, now_ms)
    records += drift
    boot_count = number(values, "boot_count")
    if memory.boot_count is not None and boot_count != memory.boot_count:
        records.append(Event(drn, topics.POWER_RESTORED, now_ms, {"boots": boot_count}))
    credit = number(values, "credit")
    is_due = bool(records) or now_ms - memory.reported_ms >= REPORT_MS or now_ms < memory.reported_ms
    if is_due or _is_news(memory, credit, load):
        records += _readings(drn, values, now_ms)
        reverse = number(values, "reverse")
        if reverse is not None and reverse != (memory.reverse or 0):
            # Told when it moves: at most meters it never does, and a reading of nothing is only load.
            records.append(Reading(drn, "reverse", now_ms, reverse))
        memory = replace(memory, reported_ms=now_ms, reverse=reverse)
    return (
        replace(
            memory,
            token_count=number(values, "token_count"),
            boot_count=boot_count,
            relay=relay,
            relay_reason=relay_reason,
            tamper=tamper,
            credit=credit,
            load=memory.load if load is None else load,
            counter=memory.counter if counter is None else counter,
            is_stranger=False,
            is_drifting=is_drifting,
        ),
        records,
    )


def _clock(memory: Memory, drn: str, values: Mapping[str, Value], now_ms: int) -> tuple[bool, list[Event]]:
    """Whether the meter's clock is off, and the event when that began or ended just now."""
    clock = number(values, "clock")
    if clock is None:
        return memory.is_drifting, []
    seconds = clock - now_ms // 1000
    is_drifting = abs(seconds) > (DRIFT_ENDS_S if memory.is_drifting else DRIFT_BEGINS_S)
    if is_drifting == memory.is_drifting:
        return is_drifting, []
    return is_drifting, [Event(drn, topics.CLOCK_DRIFT, now_ms, {"seconds": seconds, "active": is_drifting})]


def _is_news(memory: Memory, credit: int | None, load: int | None) -> bool:
    if (
        credit is not None
        and memory.credit is not None
        and (credit > memory.credit or (credit <= 0 < memory.credit))
    ):
        return True
    if load is None or memory.load is None:
        return False
    return abs(load - memory.load) * LOAD_STEP > max(load, memory.load)


def _readings(drn: str, values: Mapping[str, Value], now_ms: int) -> list[Record]:
    found: list[Record] = []
    for channel in ("counter", "credit", "load", "relay"):
        value = number(values, channel)
        if value is not None:
            found.append(Reading(drn, channel, now_ms, value))
    return found


def _tokens(
    memory: Memory,
    drn: str,
    values: Mapping[str, Value],
    token_log: Sequence[Mapping[str, Value]],
    now_ms: int,
) -> list[Event]:
    missed = missed_tokens(memory, values)
    if not missed:
        return []
    count = number(values, "token_count") or 0
    events: list[Event] = []
    by_number = {number(entry, "number"): entry for entry in token_log}
    # What lies before the meter's own memory is lost; its balance still tells.
    for ordinal in range(max(count - missed, count - TOKEN_LOG) + 1, count):
        entry = by_number.get(ordinal)
        if entry is not None:
            events.append(
                Event(
                    drn,
                    topics.TOKEN,
                    _plausible((number(entry, "at") or 0) * 1000, now_ms),
                    {
                        "tid": entry.get("tid"),
                        "result": _answer(entry.get("result")),
                        "carrier": entry.get("carrier"),
                    },
                )
            )
    events.append(
        Event(
            drn,
            topics.TOKEN,
            now_ms,
            {
                "tid": values.get("last_tid"),
                "result": _answer(values.get("last_result")),
                "carrier": values.get("last_carrier"),
                "credit": values.get("credit"),
            },
        )
    )
    return events


def _answer(result: Value) -> str:
    """The meter's answer to a token; a number without meaning is neither a yes nor a no."""
    return UNKNOWN_ANSWER if result is None else str(result)


def _plausible(at_ms: int, now_ms: int) -> int:
    """A meter's own clock where it can be right, ours where it cannot."""
    return at_ms if 0 <= now_ms - at_ms <= 7 * 86_400_000 else now_ms
