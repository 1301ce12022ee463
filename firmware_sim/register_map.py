"""A meter's registers: its state laid out by the profile, and its mailboxes read back as orders. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_sim.faults import COUNTER_SPIKE, PENDING_MS
from firmware_sim.meter import NO_COMMAND
from firmware_sim.meter_state import ATTEMPT_LOG, COMMAND_MEMORY, RELAY_REASONS, MeterState
from firmware_sim.modbus_frame import ILLEGAL_ADDRESS, ILLEGAL_VALUE, ModbusRefusal
from meter_gateway.profile import Profile, Register
from meter_gateway.registers import RegisterError

ARM_KEY: Final = 0x5A17
NO_TID: Final = 0xFFFFFFFF
MODEL_NUMBER: Final = {"electricity": 0x0E01, "water": 0x0A01}
FIRMWARE: Final = 0x0104
# Why an order was refused, by the number that stands in command_detail.
DETAILS: Final = (*RELAY_REASONS, "relay_stuck", "out_of_range")
_WRONG_SERIAL: Final = "04999999994"
_MAILBOXES: Final = ("command_mailbox", "token_mailbox")


@dataclass(frozen=True, slots=True)
class Order:
    """What a master put into a mailbox: id, kind as `meter.run_command` knows them, token digits or a number."""

    command: int
    kind: str
    argument: str = ""


class RegisterMap:
    """The layout of one profile, shared by all meters that have it."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._by_fc: dict[int, list[Register]] = {}
        for register in sorted(profile.registers.values(), key=lambda one: one.address):
            self._by_fc.setdefault(register.fc, []).append(register)
        self._mailboxes = {name: block for name in _MAILBOXES if (block := self._block(name))}
        self._relay = profile.registers.get("relay")

    def _block(self, name: str) -> tuple[Register, ...]:
        return tuple(self.profile.registers[one] for one in self.profile.names_of((name,)))

    def read(
        self,
        span: tuple[int, int, int],
        *,
        state: MeterState,
        now_ms: int,
        faults: Collection[str] = (),
    ) -> list[int]:
        """Words of a read of (function, address, count); holes inside the map read as zero.

        Raises ModbusRefusal outside the map or over its limits.
        """
        fc, address, count = span
        registers = self._by_fc.get(fc)
        if not registers:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        last = registers[-1]
        if address < registers[0].address or address + count > last.address + last.count:
            raise ModbusRefusal(ILLEGAL_ADDRESS)
        if count > self.profile.max_read or (self.profile.even_only and (address % 2 or count % 2)):
            raise ModbusRefusal(ILLEGAL_VALUE)
        values = register_values(state, self.profile.version, now_ms, faults)
        for total in self.profile.sums.keys() & values.keys():
            values |= self.profile.spread(total, int(values[total]))
        words = [0] * count
        for register in registers:
            if register.address < address + count and register.address + register.count > address:
                for place, word in enumerate(
                    self._encode(register, values, faults), register.address - address
                ):
                    if 0 <= place < count:
                        words[place] = word
        return words

    def _encode(self, register: Register, values: dict[str, int | str], faults: Collection[str]) -> list[int]:
        if register.name not in values and register.name in self.profile.scalers:
            return register.neutral_words()
        value = values.get(register.name, "0" if register.type == "bcd" else 0)
        words = register.encode(value, self.profile.neutral_factor(register))
        if "swapped_words" in faults and register.type not in ("ascii", "bcd"):
            words.reverse()
        return words

    def order(self, address: int, words: Sequence[int]) -> Order:
        """The order in one whole write of a mailbox, or of the relay of a meter that has none.

        Raises ModbusRefusal for a partial or unarmed one.
        """
        relay = self._relay
        if relay is not None and relay.writable and relay.address == address and len(words) == relay.count:
            if list(words) not in ([0], [1]):
                raise ModbusRefusal(ILLEGAL_VALUE)
            return Order(NO_COMMAND, "relay_connect" if words[0] else "relay_open")
        for name, block in self._mailboxes.items():
            first, last = block[0], block[-1]
            end = last.address + last.count
            if first.address <= address < end:
                if address != first.address or address + len(words) != end:
                    raise ModbusRefusal(ILLEGAL_VALUE)  # half an order is no order
                return self._parse(name, block, words)
        raise ModbusRefusal(ILLEGAL_ADDRESS)

    def _parse(self, mailbox: str, block: Sequence[Register], words: Sequence[int]) -> Order:
        values = {}
        try:
            for register in block:
                start = register.address - block[0].address
                values[register.name] = register.decode(words[start : start + register.count])
        except RegisterError:
            raise ModbusRefusal(ILLEGAL_VALUE) from None
        if mailbox == "token_mailbox":
            order = Order(int(values["token_submit_id"] or 0), "token", str(values["token"]))
        else:
            if values["arm_key"] != ARM_KEY or values["arm_complement"] != ARM_KEY ^ 0xFFFF:
                raise ModbusRefusal(ILLEGAL_VALUE)
            order = _order(int(values["command_id"] or 0), str(values["command_opcode"]), values)
        if order.command == 0 or order.kind == "none":
            raise ModbusRefusal(ILLEGAL_VALUE)
        return order


def _order(command: int, opcode: str, values: dict[str, int | str | None]) -> Order:
    """An opcode and its number as the order that a radio meter would hear."""
    number = int(values["command_argument"] or 0)
    match opcode:
        case "set_clock":
            return Order(command, "clock", str(number))
        case "set_power_limit":
            return Order(command, "limits", f"power={number}")
        case "set_low_marks":
            return Order(command, "limits", f"low={number >> 32},{number & 0xFFFFFFFF}")
    return Order(command, opcode)


def register_values(
    state: MeterState, map_version: int, now_ms: int, faults: Collection[str] = ()
) -> dict[str, int | str]:
    """Every register of the prepaid map by name, in base units; what is not here reads as zero."""
    low_1, low_2 = state.low_marks
    counter = state.counter
    if "counter_zero" in faults:
        counter = 0
    elif "counter_spike" in faults:
        counter += COUNTER_SPIKE
    clock_s = state.clock_ms(now_ms) // 1000
    values: dict[str, int | str] = {
        "serial": _WRONG_SERIAL if "wrong_serial" in faults else state.drn,
        "model": MODEL_NUMBER[state.commodity],
        "firmware": FIRMWARE,
        "map_version": map_version,
        "clock": clock_s & 0xFFFFFFFF,
        "boot_count": state.boot & 0xFFFF,
        "credit": state.credit,
        "credit_unit": 0 if state.commodity == "electricity" else 1,
        "low_1": low_1,
        "low_2": low_2,
        "credit_flags": int(state.credit <= low_1) | int(state.credit <= low_2) << 1,
        "relay": state.relay,
        "relay_reason": state.reason,
        "relay_fault": int(state.relay_stuck),
        "tamper": int(state.tamper),
        "relay_changed": state.relay_changed_ms // 1000,
        "locked_s": min(-(-state.lock_ms(now_ms) // 1000), 0xFFFF),
        "token_count": state.token_count,
        "counter": counter,
        "reverse": state.reverse,
        "load": state.load,
        # A quiet supply: a tenth of a volt up and down with the second.
        "voltage": 238_000 + clock_s % 7 * 300,
        "battery": 3_600,
        "frequency": 50_000,
        "power_limit": state.power_limit_w,
    }
    return values | _token_log(state) | _mailbox_results(state, now_ms, faults)


def _token_log(state: MeterState) -> dict[str, int | str]:
    values: dict[str, int | str] = {"last_result": "NONE", "last_carrier": "none", "last_tid": NO_TID}
    for place in range(1, ATTEMPT_LOG + 1):
        values |= {f"log_{place}_result": "NONE", f"log_{place}_carrier": "none", f"log_{place}_tid": NO_TID}
    for place, one in enumerate(state.attempts, 1):
        tid = NO_TID if one.tid is None else one.tid
        at_s = one.at_ms // 1000
        values |= {
            f"log_{place}_number": one.number,
            f"log_{place}_result": one.result,
            f"log_{place}_carrier": one.carrier,
            f"log_{place}_tid": tid,
            f"log_{place}_at": at_s,
        }
        if place == 1:
            values |= {
                "last_result": one.result,
                "last_carrier": one.carrier,
                "last_tid": tid,
                "last_token_at": at_s,
            }
    return values


def _mailbox_results(state: MeterState, now_ms: int, faults: Collection[str]) -> dict[str, int | str]:
    values: dict[str, int | str] = {
        "command_status": "NONE",
        "command_opcode": "none",
        "command_detail": "none",
        "token_result": "NONE",
        "token_tid": NO_TID,
    }
    waiting: set[int] = set()
    if "pending" in faults:
        clock_ms = state.clock_ms(now_ms)
        waiting = {one.command for one in state.answers if clock_ms < one.at_ms + PENDING_MS}
    tokens = [one for one in state.answers if one.kind == "token"]
    orders = [one for one in state.answers if one.kind != "token"]
    if tokens:
        last = tokens[0]
        waits = last.command in waiting
        values |= {
            "token_echo": last.command,
            "token_result": "PENDING" if waits else last.result,
            "token_tid": NO_TID if last.tid is None or waits else last.tid,
        }
    if orders:
        last = orders[0]
        values |= {
            "command_echo": last.command,
            "command_status": "PENDING" if last.command in waiting else "DONE" if last.done else "REFUSED",
            "command_detail": _detail(last.result),
            "command_balance": last.credit,
        }
    # An id is listed once it was processed, as on a meter that answers first and works later.
    run = [one.command for one in state.answers if one.command not in waiting]
    for place, command in enumerate(run[:COMMAND_MEMORY], 1):
        values[f"run_id_{place}"] = command
    return values


def _detail(result: str) -> str:
    return result if result in DETAILS else "none"
