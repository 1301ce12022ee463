"""Bring one journalled command to one wired meter: look, write once, look again, until the meter's word is here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from meter_gateway.bus.modbus_link import BusDown, MeterWire, ModbusError, NoAnswer, Refused
from meter_gateway.edge import mailbox
from meter_gateway.edge.outbox_store import JournalEntry, OutboxStore
from meter_gateway.edge.watch import is_time_known, number
from meter_gateway.profile import Profile, Value

log = logging.getLogger(__name__)

# A meter that is still working on it is asked again after this.
LOOK_AGAIN_S: Final = 0.5
# A meter that still works on it after the deadline, and an order that waits for the gateway's time, are looked at
# this often.
SLOW_LOOK_S: Final = 5.0
# So long after a write its trace must be in the meter; without one the write never arrived.
TRACE_MS: Final = 3_000
# A clock that must not be set in these minutes is tried again after this.
FREEZE_LOOK_S: Final = 20.0
# The meter lists its last ids in this block, newest first.
_RUN_IDS: Final = "run_ids"
# Modbus exceptions that say "never": illegal function, address, value. Others may pass.
_NEVER: Final = frozenset({1, 2, 3})
_WORKING: Final = frozenset({"NONE", "PENDING"})
NO_TIME: Final = "NO_TIME"


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to: settled (`look_s` None) or to be looked at again after so many seconds.

    `values` holds the meter's registers as they stood after the command, where they could be read. `is_heard` is False
    where the meter was not asked: such a step says nothing about its link.
    """

    look_s: float | None = None
    values: Mapping[str, Value] | None = None
    is_heard: bool = True


class Delivery:
    """Carries out journalled commands; every step is on disk before the next one begins."""

    def __init__(self, store: OutboxStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def carry_out(self, wire: MeterWire, entry: JournalEntry) -> Step:
        """Do the next step of a command.

        Raises ModbusError when the meter cannot be asked; what was begun is found by looking, next time.
        """
        if self.expire(entry):
            return Step(is_heard=False)
        if entry.kind == "read_now":
            values = await wire.read(_tellable(wire.profile))
            self._store.mark(entry.id, "VERIFIED", _everything(values), self._now_ms())
            return Step(values=values)
        route = mailbox.route_of(wire.profile, entry.kind)
        if route is None:
            return replace(self._reject(entry, {"result": "UNSUPPORTED"}), is_heard=False)
        await wire.confirm()
        settled = await self._settled(wire, entry, route)
        if settled is not None:
            return settled
        has_run = False
        if entry.state != "ACCEPTED":
            # It may have been written. A trace says that it ran, and writing the same id again only fetches
            # the stored answer; without a trace, after a while, it never arrived.
            # A write from our future is none that was just made: our clock was set back since.
            if 0 <= self._now_ms() - entry.at_ms < TRACE_MS:
                return Step(LOOK_AGAIN_S)
            if route == "relay" and entry.state == "WRITTEN":
                return self._reject(entry, {"result": "REFUSED", "why": "the relay does not follow"})
            runs = await _runs(wire) if route == "mailbox" else ()
            has_run = entry.id in runs
            if not has_run and self._now_ms() >= entry.expires_ms:
                return self._without_trace(entry, runs)
        if not has_run:
            held = await self._held(wire, entry)
            if held is not None:
                return held
        return await self._write(wire, entry, route)

    def _without_trace(self, entry: JournalEntry, runs: Sequence[int]) -> Step:
        """Settle a command whose deadline passed and that the meter does not list among its last ids."""
        if runs and all(runs) and min(runs) > entry.id:
            # The list is full of later ones: ours may have been pushed out of it. Nobody can tell any more.
            log.warning("command %d: the meter's list does not reach back to it", entry.id)
            return Step()
        reason = "never reached the meter" if runs else "the relay does not stand as ordered"
        self._store.mark(entry.id, "EXPIRED", {"reason": reason}, self._now_ms())
        return Step()

    async def _held(self, wire: MeterWire, entry: JournalEntry) -> Step | None:
        """Return why an order is not written now, for a while or for good; None to write it."""
        if not is_time_known(self._now_ms(), entry.created_ms):
            # Without the time nobody knows whether it is still wanted, nor what to set a clock to.
            if entry.kind == "clock":
                return self._reject(entry, {"result": NO_TIME, "why": "the gateway's own clock is not set"})
            return Step(SLOW_LOOK_S)
        if entry.kind == "clock" and self._is_frozen(wire.profile):
            return Step(FREEZE_LOOK_S)
        before = mailbox.names_before(wire.profile, entry.kind)
        told = mailbox.refusal(wire.profile, entry.kind, await wire.read(before) if before else {})
        return None if told is None else self._reject(entry, told)

    async def _settled(self, wire: MeterWire, entry: JournalEntry, route: mailbox.Route) -> Step | None:
        """Settle a command whose answer stands in the meter, wait while it works on it; None without a trace."""
        if route == "mailbox":
            outcome = await self._look(wire, entry)
            if outcome is None:
                return None
            if outcome[mailbox.outcome_names(entry.kind)[1]] in _WORKING:
                # It is there and not done: nothing is written again, however long that takes.
                return Step(LOOK_AGAIN_S if self._now_ms() < entry.expires_ms else SLOW_LOOK_S)
            return await self._settle(wire, entry, outcome)
        if entry.state == "ACCEPTED":
            return None
        # Without a mailbox the relay itself is the answer, and ordering a state twice is ordering it once.
        values = await wire.read(_polled(wire.profile))
        if values.get("relay") != mailbox.relay_wanted(entry.kind):
            return None
        detail = {"result": "DONE"} | _surroundings(values)
        self._store.mark(entry.id, "VERIFIED", detail, self._now_ms())
        return Step(values=values)

    def _reject(self, entry: JournalEntry, detail: dict[str, Any]) -> Step:
        self._store.mark(entry.id, "REJECTED", detail, self._now_ms())
        log.info("command %d (%s) is not written: %s", entry.id, entry.kind, detail["result"])
        return Step()

    def _is_frozen(self, profile: Profile) -> bool:
        return datetime.fromtimestamp(self._now_ms() / 1000, UTC).minute in profile.freeze_minutes

    def expire(self, entry: JournalEntry) -> bool:
        """Settle a command whose deadline passed before it was written; one that may be written is UNKNOWN."""
        now = self._now_ms()
        if now < entry.expires_ms:
            return False
        if entry.state == "ACCEPTED":
            self._store.mark(entry.id, "EXPIRED", {"reason": "deadline before the meter was reached"}, now)
            return True
        if entry.state != "UNKNOWN":
            self._store.mark(entry.id, "UNKNOWN", {"reason": "written, and no answer read yet"}, now)
        return False

    async def _write(self, wire: MeterWire, entry: JournalEntry, route: mailbox.Route) -> Step:
        try:
            values = mailbox.writing(wire.profile, entry.id, entry.kind, entry.argument, self._now_ms())
            wire.profile.encode_write(values)  # what does not fit must show before the journal says "writing"
        except ValueError as error:
            return self._reject(entry, {"result": "INVALID", "why": str(error)})
        self._store.mark_writing(entry.id, self._now_ms())
        try:
            await wire.write(values)
        except Refused as error:
            if error.code not in _NEVER:
                raise
            return self._reject(entry, {"result": "MODBUS_EXCEPTION", "code": error.code})
        except (NoAnswer, BusDown):
            log.info("command %d: no answer to the write, the meter will tell", entry.id)
            raise
        self._store.mark(entry.id, "WRITTEN", {}, self._now_ms())
        settled = await self._settled(wire, self._store.get_entry(entry.id), route)
        return settled or Step(LOOK_AGAIN_S)

    async def _look(self, wire: MeterWire, entry: JournalEntry) -> dict[str, Value] | None:
        """Return what the meter says of this command, None when it says nothing of it."""
        names = mailbox.outcome_names(entry.kind)
        values = await wire.read(names)
        return values if values[names[0]] == entry.id else None

    async def _settle(self, wire: MeterWire, entry: JournalEntry, outcome: Mapping[str, Value]) -> Step:
        needed = mailbox.names_after(entry.kind, entry.argument)
        values: dict[str, Value] = {}
        if needed:  # what was set must be seen: without it the command is looked at again
            values = await wire.read((*_polled(wire.profile), *needed))
        else:
            with contextlib.suppress(ModbusError):
                values = await wire.read(_polled(wire.profile))
        # Where that failed, the answer counts all the same; its surroundings come with the next poll.
        state, detail = mailbox.judge(entry.kind, entry.argument, outcome, values, self._now_ms())
        detail |= _surroundings(values)
        self._store.mark(entry.id, state, detail, self._now_ms())
        log.info(
            "command %d (%s) at meter %s: %s %s", entry.id, entry.kind, entry.meter, state, detail["result"]
        )
        return Step(values=values or None)


def _polled(profile: Profile) -> tuple[str, ...]:
    return profile.names_of((*profile.fast, *profile.slow))


def _surroundings(values: Mapping[str, Value]) -> dict[str, Any]:
    """Credit, relay and load as they stood after a command, where they were read."""
    found = {name: number(values, name) for name in ("credit", "relay", "load")}
    return {name: value for name, value in found.items() if value is not None}


async def _runs(wire: MeterWire) -> tuple[int, ...]:
    """The ids that the meter ran last; 0 for each free place of its list."""
    values = await wire.read(wire.profile.names_of([_RUN_IDS]))
    return tuple(int(value or 0) for value in values.values())


def _everything(values: Mapping[str, Value]) -> dict[str, Any]:
    detail: dict[str, Any] = {name: number(values, name) for name in ("credit", "counter", "relay", "load")}
    detail["registers"] = values
    return detail


def _tellable(profile: Profile) -> tuple[str, ...]:
    """Everything but the mailboxes: the last token's digits stay in the meter."""
    return profile.names_of((*profile.fast, *profile.slow, "reserve"))
