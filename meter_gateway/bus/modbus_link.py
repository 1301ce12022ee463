"""One Modbus bus: opened with patience, a request at a time, silence kept, no answer taken for another's."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
)

from meter_gateway.bus.modbus_transport import BusTransport, Lost, Silent
from meter_gateway.bus.site_file import BusAddress
from meter_gateway.profile import Profile, Read, Value

log = logging.getLogger(__name__)

# Waits between attempts to open a bus, doubling, each spread by chance.
CONNECT_MIN_S: Final = 0.5
CONNECT_MAX_S: Final = 10.0
# A line that is never silent for so long carries somebody's noise: nothing can be asked on it.
BABBLE_S: Final = 1.0
# A gateway asks few different questions; a site of 247 meters of ten kinds has some hundred.
_QUESTIONS: Final = 1024
_EXCEPTION: Final = 0x80
# Before an order the serial number must have been read within this time: nobody swaps a meter faster.
IDENTITY_S: Final = 5.0
# What must have a meaning: an order's answer that nobody understands is no answer.
_STRICT_BLOCKS: Final = frozenset({"command_result", "token_outcome", "run_ids"})
ANSWERED: Final = "answered"


class ModbusError(Exception):
    """A request that brought no usable answer; `outcome` is the word that it is counted under."""

    outcome = "wrong_answer"


class BusDown(ModbusError):
    """The bus cannot be opened, or was lost before the request left."""

    outcome = "bus_down"


class NoAnswer(ModbusError):
    """Nobody answered in time; a write may have been carried out."""

    outcome = "no_answer"


class WrongAnswer(ModbusError):
    """An answer of another length, another meter, or without sense; it is not used."""


class Refused(ModbusError):
    """The meter answered with a Modbus exception."""

    outcome = "refused"

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


class Stranger(WrongAnswer):
    """Another meter answers at this unit."""

    def __init__(self, serial: str) -> None:
        super().__init__("the serial number is another meter's")
        self.serial = serial


@lru_cache(_QUESTIONS)
def _question(function: int, address: int, count: int) -> bytes:
    """The PDU that asks for these registers. Raises ValueError outside Modbus' limits."""
    kind = ReadHoldingRegistersRequest if function == 3 else ReadInputRegistersRequest
    return bytes((function,)) + kind(address=address, count=count).encode()


@lru_cache(_QUESTIONS)
def _words_of(count: int) -> struct.Struct:
    return struct.Struct(f">{count}H")


def _write_order(address: int, words: Sequence[int]) -> bytes:
    return b"\x10" + WriteMultipleRegistersRequest(address=address, registers=list(words)).encode()


class BusLink:
    """The connection of one bus. Its user makes one request at a time."""

    def __init__(self, address: BusAddress) -> None:
        self.address = address
        self._transport: BusTransport | None = None
        self._silence_s = address.silence_s
        self._is_rtu = address.is_rtu
        self._tap: Callable[[bool, bytes], None] | None = None
        self._free_at = 0.0
        self._connect_wait_s = 0.0
        self._connect_at = 0.0
        self._is_lost = False
        self.requests: Counter[str] = Counter()  # by outcome, since the start

    async def read(self, unit: int, read: Read, gap_s: float = 0.0) -> list[int]:
        """Return exactly the registers asked for. Raises ModbusError."""
        count = read.count
        try:
            answer = await self._ask(unit, _question(read.fc, read.address, count), gap_s)
            if len(answer) != 2 * count + 2 or answer[1] != 2 * count:
                await self._be_quiet()
                raise WrongAnswer(f"{len(answer) - 2} bytes for {count} registers")
        except ModbusError as error:
            self.requests[error.outcome] += 1
            raise
        self.requests[ANSWERED] += 1
        return list(_words_of(count).unpack_from(answer, 2))

    async def write(self, unit: int, address: int, words: Sequence[int], gap_s: float = 0.0) -> None:
        """Write by one FC16, once: never repeated here. Raises ModbusError; after NoAnswer it may have happened."""
        try:
            await self._write(unit, address, words, gap_s)
        except ModbusError as error:
            self.requests[error.outcome] += 1
            raise
        self.requests[ANSWERED] += 1

    async def _write(self, unit: int, address: int, words: Sequence[int], gap_s: float) -> None:
        order = _write_order(address, words)
        try:
            answer = await self._ask(unit, order, gap_s)
        except WrongAnswer as error:
            raise NoAnswer(str(error)) from None
        if answer != order[:5]:  # a right answer repeats function, address and count
            await self._be_quiet()
            raise NoAnswer("the answer to the write is not its own")

    @property
    def tap(self) -> Callable[[bool, bytes], None] | None:
        """Who is told each frame that leaves and all bytes that come, as (is_sent, bytes); None: nobody."""
        return self._tap

    @tap.setter
    def tap(self, tap: Callable[[bool, bytes], None] | None) -> None:
        self._tap = tap
        if self._transport is not None:
            self._transport.tap = tap

    async def open(self) -> None:
        """Open the connection now, if it is not open. Raises BusDown."""
        await self._ready(0.0)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    async def _ask(self, unit: int, pdu: bytes, gap_s: float) -> bytes:
        """Send one request and return its answer, which is no exception's."""
        transport = self._transport
        if transport is None or not transport.is_open or self._is_rtu or gap_s:
            transport = await self._ready(gap_s)
        silence_s = self._silence_s
        try:
            answer = await transport.ask(unit, pdu)
        except Lost:
            raise NoAnswer(f"bus {self.address.code} was lost under way") from None
        except Silent:
            await self._be_quiet()
            raise NoAnswer(f"bus {self.address.code}: nobody answers") from None
        except asyncio.CancelledError:
            # The answer may still come, and nobody will wait for it.
            if self._is_rtu:
                silence_s += self.address.timeout_s + self.address.quiet_s
            raise
        finally:
            self._free_at = max(self._free_at, time.monotonic() + silence_s)
        if answer[0] == pdu[0]:
            return answer
        if answer[0] != pdu[0] | _EXCEPTION or len(answer) < 2:
            await self._be_quiet()
            raise WrongAnswer(f"function {answer[0]} for {pdu[0]}")
        raise Refused(answer[1])

    async def _ready(self, gap_s: float) -> BusTransport:
        transport = self._transport
        if transport is None or not transport.is_open:
            transport = await self._connect()
        give_up_at = 0.0
        while True:
            now = time.monotonic()
            free_at = max(self._free_at, transport.heard_at + self._silence_s)
            # In a loop: a sleep may end a little early, and a line that speaks meanwhile is not silent.
            if (wait_s := free_at + gap_s - now) <= 0:
                break
            give_up_at = give_up_at or now + wait_s + BABBLE_S
            if now > give_up_at:
                raise BusDown(f"bus {self.address.code} is never silent")
            await asyncio.sleep(wait_s)
        if not transport.is_open:
            raise BusDown(f"bus {self.address.code} was lost")
        return transport

    async def _connect(self) -> BusTransport:
        self.close()
        now = time.monotonic()
        if now < self._connect_at:
            raise BusDown(f"bus {self.address.code} is away")
        transport = BusTransport(self.address)
        transport.tap = self._tap
        try:
            await transport.open()
        except OSError as error:
            log.debug("bus %s: %s", self.address.code, error)
            transport.close()
            if not self._is_lost:
                log.warning("bus %s does not open, trying on", self.address.code)
            self._is_lost = True
            self._connect_wait_s = min(max(CONNECT_MIN_S, 2 * self._connect_wait_s), CONNECT_MAX_S)
            self._connect_at = now + self._connect_wait_s * random.uniform(0.8, 1.2)
            raise BusDown(f"bus {self.address.code} does not open") from None
        if self._is_lost:
            log.info("bus %s is open again", self.address.code)
        self._is_lost = False
        self._connect_wait_s = 0.0
        self._transport = transport
        self._free_at = max(self._free_at, time.monotonic() + self.address.silence_s)
        return transport

    async def _be_quiet(self) -> None:
        """Let an answer that is still under way pass by, so that the next request cannot get it."""
        if self.address.is_rtu:
            self._free_at = time.monotonic() + self.address.quiet_s
            await asyncio.sleep(self.address.quiet_s)


class MeterWire:
    """One meter on a bus: reads by name, knows its meter by the serial number, re-reads that after a doubt."""

    def __init__(self, link: BusLink, unit: int, profile: Profile, drn: str) -> None:
        self.link = link
        self.unit = unit
        self.profile = profile
        self.drn = drn
        self.meaningless: dict[str, str] = {}  # registers that hold what the profile does not know, and why
        self._is_in_doubt = True
        self._known_at = -math.inf

    async def read(self, names: Iterable[str]) -> dict[str, Value]:
        """Return values by name, None for one without meaning. Raises ModbusError, Stranger for another meter."""
        wanted = tuple(names)
        if self._is_in_doubt and "serial" not in wanted:
            await self._check_identity()
        values = await self._read(wanted)
        if "serial" in wanted:
            self._check_serial(values)
        return values

    async def write(self, values: Mapping[str, int | str]) -> None:
        """Write values by one FC16, once. Raises ModbusError; after NoAnswer it may have happened."""
        await self.confirm()
        address, words = self.profile.encode_write(values)
        try:
            await self.link.write(self.unit, address, words, self.profile.gap_s)
        except (NoAnswer, BusDown):
            self._is_in_doubt = True
            raise

    async def confirm(self) -> None:
        """Make sure, before an order, that it is still the same meter. Raises ModbusError, Stranger."""
        is_old = "serial" in self.profile.registers and time.monotonic() - self._known_at > IDENTITY_S
        if self._is_in_doubt or is_old:
            await self._check_identity()

    async def _check_identity(self) -> None:
        if "serial" not in self.profile.registers:
            # A meter without a number to be read: an answer that is still under way ends with this one.
            await self._read(self.profile.names_of(self.profile.fast[:1]))
            self._is_in_doubt = False
            return
        self._check_serial(await self._read(("serial",)))

    def _check_serial(self, values: Mapping[str, Value]) -> None:
        serial = values["serial"]
        if serial != self.drn:
            self._is_in_doubt = True
            raise Stranger(str(serial))
        self._is_in_doubt = False
        self._known_at = time.monotonic()

    async def _read(self, names: Sequence[str]) -> dict[str, Value]:
        image: dict[tuple[int, int], int] = {}
        try:
            for read in self.profile.plan(names):
                words = await self.link.read(self.unit, read, self.profile.gap_s)
                image.update({(read.fc, read.address + i): word for i, word in enumerate(words)})
        except ModbusError:
            self._is_in_doubt = True
            raise
        values, faults = self.profile.decode_known(names, image)
        for name in faults:
            if name == "serial" or self.profile.registers[name].block in _STRICT_BLOCKS:
                self._is_in_doubt = True
                raise WrongAnswer(faults[name])
        if faults or self.meaningless:
            kept = {name: why for name, why in self.meaningless.items() if name not in values}
            self.meaningless = kept | faults
        return values
