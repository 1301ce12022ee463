"""Bring one journalled command to one wired meter: look, write once, look again, until the meter's word is here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from meter_gateway.modbus_link import BusDown, MeterWire, ModbusError, NoAnswer, Refused
from meter_gateway.outbox_store import JournalEntry, OutboxStore
from meter_gateway.profile import Profile, Value
from meter_gateway.watch import number
from token_engine.token_result import TokenResult

log = logging.getLogger(__name__)

# The word that arms the command mailbox, and its complement: no stray write looks like an order.
ARM_KEY: Final = 0x5A17
# A meter that is still working on it is asked again after this.
LOOK_AGAIN_S: Final = 0.5
# So long after a write its trace must be in the meter; without one the write never arrived.
TRACE_MS: Final = 3_000
# Modbus exceptions that say "never": illegal function, address, value. Others may pass.
_NEVER: Final = frozenset({1, 2, 3})
_OUTCOME: Final = {
    "token": ("token_echo", "token_result", "token_tid"),
    "relay_open": ("command_echo", "command_status", "command_detail", "command_balance"),
    "relay_close": ("command_echo", "command_status", "command_detail", "command_balance"),
}
_WORKING: Final = frozenset({"NONE", "PENDING"})


def is_verified(kind: str, result: str) -> bool:
    """Whether a meter's answer means that the order stands carried out; a used token is one carried out before."""
    if kind != "token":
        return result == "DONE"
    try:
        answer = TokenResult[result]
    except KeyError:
        return False
    return answer.is_accepted or answer is TokenResult.USED_ERROR


@dataclass(frozen=True, slots=True)
class Step:
    """What a step came to: settled (`look_s` None) or to be looked at again after so many seconds.

    `values` holds the meter's registers as they stood after the command, where they could be read.
    """

    look_s: float | None = None
    values: Mapping[str, Value] | None = None


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
            return Step()
        if entry.kind == "read_now":
            values = await wire.read(_tellable(wire.profile))
            self._store.mark(entry.id, "VERIFIED", _everything(values), self._now_ms())
            return Step(values=values)
        outcome = await self._look(wire, entry)
        if outcome is not None:
            return await self._settle(wire, entry, outcome)
        if entry.state != "ACCEPTED":
            # It may have been written. A trace says that it ran, and writing the same id again only fetches
            # the stored answer; without a trace, after a while, it never arrived.
            if self._now_ms() - entry.at_ms < TRACE_MS:
                return Step(LOOK_AGAIN_S)
            if not await _has_run(wire, entry.id) and self._now_ms() >= entry.expires_ms:
                self._store.mark(entry.id, "EXPIRED", {"reason": "never reached the meter"}, self._now_ms())
                return Step()
        return await self._write(wire, entry)

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

    async def _write(self, wire: MeterWire, entry: JournalEntry) -> Step:
        self._store.mark_writing(entry.id, self._now_ms())
        try:
            await wire.write(_mailbox(entry))
        except Refused as error:
            if error.code not in _NEVER:
                raise
            detail = {"result": "MODBUS_EXCEPTION", "code": error.code}
            self._store.mark(entry.id, "REJECTED", detail, self._now_ms())
            return Step()
        except (NoAnswer, BusDown):
            log.info("command %d: no answer to the write, the mailbox will tell", entry.id)
            raise
        self._store.mark(entry.id, "WRITTEN", {}, self._now_ms())
        outcome = await self._look(wire, entry)
        return Step(LOOK_AGAIN_S) if outcome is None else await self._settle(wire, entry, outcome)

    async def _look(self, wire: MeterWire, entry: JournalEntry) -> dict[str, Value] | None:
        """Return the meter's answer to this command, None while it has none."""
        values = await wire.read(_OUTCOME[entry.kind])
        echo, result = (values[name] for name in _OUTCOME[entry.kind][:2])
        return None if echo != entry.id or result in _WORKING else values

    async def _settle(self, wire: MeterWire, entry: JournalEntry, outcome: Mapping[str, Value]) -> Step:
        values: dict[str, Value] = {}
        with contextlib.suppress(ModbusError):
            values = await wire.read(wire.profile.names_of((*wire.profile.fast, *wire.profile.slow)))
        # Where that failed, the answer counts all the same; its surroundings come with the next poll.
        result = str(outcome[_OUTCOME[entry.kind][1]])
        detail: dict[str, Any] = {"result": result}
        if entry.kind == "token":
            detail["tid"] = outcome["token_tid"]
        for name in ("credit", "relay", "load"):
            value = number(values, name)
            if value is not None:
                detail[name] = value
        state = "VERIFIED" if is_verified(entry.kind, result) else "REJECTED"
        self._store.mark(entry.id, state, detail, self._now_ms())
        log.info("command %d (%s) at meter %s: %s %s", entry.id, entry.kind, entry.meter, state, result)
        return Step(values=values or None)


def _mailbox(entry: JournalEntry) -> dict[str, int | str]:
    if entry.kind == "token":
        return {"token": entry.argument, "token_submit_id": entry.id}
    return {
        "command_id": entry.id,
        "command_opcode": entry.kind,
        "command_argument": 0,
        "arm_key": ARM_KEY,
        "arm_complement": ARM_KEY ^ 0xFFFF,
    }


async def _has_run(wire: MeterWire, command_id: int) -> bool:
    values = await wire.read(wire.profile.names_of(["run_ids"]))
    return command_id in values.values()


def _everything(values: Mapping[str, Value]) -> dict[str, Any]:
    detail: dict[str, Any] = {name: number(values, name) for name in ("credit", "counter", "relay", "load")}
    detail["registers"] = values
    return detail


def _tellable(profile: Profile) -> tuple[str, ...]:
    """Everything but the mailboxes: the last token's digits stay in the meter."""
    return profile.names_of((*profile.fast, *profile.slow, "reserve"))
