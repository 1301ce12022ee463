"""One Modbus bus over pymodbus: a request at a time, silence kept, and no answer taken for another's."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from meter_gateway.profile import Profile, Read, Value
from meter_gateway.registers import RegisterError
from meter_gateway.site_file import BusAddress

if TYPE_CHECKING:
    from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

log = logging.getLogger(__name__)

# Waits between attempts to open a bus, doubling, each spread by chance.
CONNECT_MIN_S: Final = 0.5
CONNECT_MAX_S: Final = 10.0
# pymodbus closes a connection after some silent requests: bad on a converter with one dead meter. Never.
_NEVER: Final = 1_000_000_000


class ModbusError(Exception):
    """A request that brought no usable answer."""


class BusDown(ModbusError):
    """The bus cannot be opened, or was lost before the request left."""


class NoAnswer(ModbusError):
    """Nobody answered in time; a write may have been carried out."""


class WrongAnswer(ModbusError):
    """An answer of another length, another meter, or without sense; it is not used."""


class Refused(ModbusError):
    """The meter answered with a Modbus exception."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


class Stranger(WrongAnswer):
    """Another meter answers at this unit."""

    def __init__(self, serial: str) -> None:
        super().__init__("the serial number is another meter's")
        self.serial = serial


class BusLink:
    """The connection of one bus. Its user makes one request at a time."""

    def __init__(self, address: BusAddress) -> None:
        self.address = address
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None
        self._free_at = 0.0
        self._connect_wait_s = 0.0
        self._connect_at = 0.0
        self._is_lost = False

    async def read(self, unit: int, read: Read, gap_s: float = 0.0) -> list[int]:
        """Return exactly the registers asked for. Raises ModbusError."""
        client = await self._ready(gap_s)
        ask = client.read_holding_registers if read.fc == 3 else client.read_input_registers
        answer = await self._request(ask(read.address, count=read.count, device_id=unit))
        words: list[int] = list(answer.registers)
        if len(words) != read.count:
            await self._be_quiet()
            raise WrongAnswer(f"{len(words)} registers for {read.count}")
        return words

    async def write(self, unit: int, address: int, words: Sequence[int], gap_s: float = 0.0) -> None:
        """Write by one FC16, once: never repeated here. Raises ModbusError; after NoAnswer it may have happened."""
        client = await self._ready(gap_s)
        answer = await self._request(client.write_registers(address, list(words), device_id=unit))
        if answer.address != address or answer.count != len(words):
            await self._be_quiet()
            raise NoAnswer("the answer to the write is not its own")

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _ready(self, gap_s: float) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
        if self._client is None or not self._client.connected:
            await self._connect()
        wait_s = self._free_at + gap_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if self._client is None or not self._client.connected:
            raise BusDown(f"bus {self.address.code} was lost")
        return self._client

    async def _connect(self) -> None:
        self.close()
        now = time.monotonic()
        if now < self._connect_at:
            raise BusDown(f"bus {self.address.code} is away")
        client = self._make_client()
        client.set_max_no_responses(_NEVER)
        try:
            connected = await client.connect()
        except Exception as error:  # noqa: BLE001 - termios.error of a serial port is no OSError
            log.debug("bus %s: %s", self.address.code, error)
            connected = False
        if not connected:
            client.close()
            if not self._is_lost:
                log.warning("bus %s does not open, trying on", self.address.code)
            self._is_lost = True
            self._connect_wait_s = min(max(CONNECT_MIN_S, 2 * self._connect_wait_s), CONNECT_MAX_S)
            self._connect_at = now + self._connect_wait_s * random.uniform(0.8, 1.2)
            raise BusDown(f"bus {self.address.code} does not open")
        if self._is_lost:
            log.info("bus %s is open again", self.address.code)
        self._is_lost = False
        self._connect_wait_s = 0.0
        self._client = client
        self._free_at = time.monotonic() + self.address.silence_s

    def _make_client(self) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
        from pymodbus import FramerType

        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
        address = self.address
        if address.framer == "rtu":
            from pymodbus.client import AsyncModbusSerialClient

            if not os.path.exists(address.tty):  # noqa: PTH110 - a tty that is not there yet
                raise BusDown(f"bus {address.code}: {address.tty} is not there")
            return AsyncModbusSerialClient(
                address.tty,
                baudrate=address.baud,
                timeout=address.timeout_s,
                retries=0,
                reconnect_delay=0,
                name=address.code,
            )
        from pymodbus.client import AsyncModbusTcpClient

        return AsyncModbusTcpClient(
            address.host,
            port=address.port,
            framer=FramerType.SOCKET if address.framer == "tcp" else FramerType.RTU,
            timeout=address.timeout_s,
            retries=0,
            reconnect_delay=0,
            name=address.code,
        )

    async def _request(self, request: Any) -> Any:
        from pymodbus.exceptions import ConnectionException, ModbusException

        try:
            answer = await request
        except ConnectionException as error:
            self.close()
            raise BusDown(str(error)) from None
        except (ModbusException, OSError, ValueError) as error:
            await self._be_quiet()
            raise NoAnswer(f"bus {self.address.code}: {type(error).__name__}") from None
        finally:
            self._free_at = max(self._free_at, time.monotonic() + self.address.silence_s)
        if answer.isError():
            raise Refused(int(getattr(answer, "exception_code", 0)))
        return answer

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
        self._is_in_doubt = True

    async def read(self, names: Iterable[str]) -> dict[str, Value]:
        """Return values by name. Raises ModbusError, Stranger when another meter answers."""
        wanted = tuple(names)
        if self._is_in_doubt and "serial" not in wanted:
            await self._check_identity()
        values = await self._read(wanted)
        if "serial" in wanted:
            self._check_serial(values)
        return values

    async def write(self, values: Mapping[str, int | str]) -> None:
        """Write values by one FC16, once. Raises ModbusError; after NoAnswer it may have happened."""
        if self._is_in_doubt:
            await self._check_identity()
        address, words = self.profile.encode_write(values)
        try:
            await self.link.write(self.unit, address, words, self.profile.gap_s)
        except (NoAnswer, BusDown):
            self._is_in_doubt = True
            raise

    async def _check_identity(self) -> None:
        self._check_serial(await self._read(("serial",)))

    def _check_serial(self, values: Mapping[str, Value]) -> None:
        serial = values["serial"]
        if serial != self.drn:
            self._is_in_doubt = True
            raise Stranger(str(serial))
        self._is_in_doubt = False

    async def _read(self, names: Sequence[str]) -> dict[str, Value]:
        image: dict[tuple[int, int], int] = {}
        try:
            for read in self.profile.plan(names):
                words = await self.link.read(self.unit, read, self.profile.gap_s)
                image.update({(read.fc, read.address + i): word for i, word in enumerate(words)})
            return self.profile.decode(names, image)
        except RegisterError as error:
            self._is_in_doubt = True
            raise WrongAnswer(str(error)) from None
        except ModbusError:
            self._is_in_doubt = True
            raise
