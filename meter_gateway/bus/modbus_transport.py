"""The bytes of one bus, TCP or serial: one question at a time, and no answer but its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Final, cast

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU

from meter_gateway.bus.serial_line import SerialLine, open_line
from meter_gateway.bus.site_file import BusAddress

log = logging.getLogger(__name__)

# What an RTU line may hold before an answer begins: the largest frame and as much noise; older bytes are let go.
_MAX_RTU: Final = 512
# The largest Modbus TCP frame (Modbus Messaging on TCP/IP 4.1); more than that without a frame is none.
_MAX_TCP: Final = 260
# A converter that lost its supply acknowledges nothing and closes nothing: after this its connection is given up.
UNACKED_MS: Final = 10_000
_EXCEPTION: Final = 0x80
_WRITE_MULTIPLE: Final = 16


class Lost(Exception):
    """The connection ended; what was sent may have arrived."""


class Silent(Exception):
    """No answer of its own came in time."""


class BusTransport(asyncio.Protocol):
    """An open connection of one bus. `is_open` ends with it; `heard_at` is when its last byte came (monotonic)."""

    def __init__(self, address: BusAddress) -> None:
        self.is_open = False
        self.heard_at = 0.0
        self.tap: Callable[[bool, bytes], None] | None = None  # told (is_sent, bytes): somebody looks on
        self._address = address
        self._is_rtu = address.is_rtu
        self._timeout_s = address.timeout_s
        self._framer = (FramerRTU if address.is_rtu else FramerSocket)(DecodePDU(is_server=False))
        self._loop = asyncio.get_running_loop()
        self._line: asyncio.WriteTransport | SerialLine | None = None
        self._buffer = b""
        self._waiter: asyncio.Future[bytes] | None = None
        self._unit = self._function = self._number = 0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Open it. Raises OSError, TimeoutError."""
        address = self._address
        if address.framer == "rtu":
            self._line = open_line(address, self)
            self.is_open = True
        else:
            async with asyncio.timeout(address.timeout_s):
                await self._loop.create_connection(lambda: self, address.host, address.port)

    def close(self) -> None:
        """Close it; a question that waits ends with Lost."""
        if self._line is not None:
            self._line.close()
        self._end()

    def ask(self, unit: int, pdu: bytes) -> asyncio.Future[bytes]:
        """Send one request PDU; await the PDU of its answer, which may be an exception's.

        Raises Lost at once; the answer may be Lost or Silent.
        """
        line = self._line
        if line is None or not self.is_open:
            raise Lost
        self._unit, self._function = unit, pdu[0]
        self._number = number = self._number % 0xFFFF + 1
        waiter: asyncio.Future[bytes] = self._loop.create_future()
        self._waiter = waiter
        if self._is_rtu:
            self._discard()
        self._deadline = time.monotonic() + self._timeout_s
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)
        frame = self._framer.encode(pdu, unit, number)
        if self.tap is not None:
            self.tap(True, frame)
        line.write(frame)
        return waiter

    def _discard(self) -> None:
        """What came before the question answers another."""
        self._buffer = b""
        if isinstance(self._line, SerialLine):
            self._line.discard()

    def _look(self) -> None:
        """One timer serves many questions: setting one for each costs more than the question."""
        self._timer = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        left_s = self._deadline - time.monotonic()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            waiter.set_exception(Silent())

    # -- what asyncio, or the serial line, tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._line = cast("asyncio.WriteTransport", transport)
        self.is_open = True
        link = transport.get_extra_info("socket")
        if link is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKED_MS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        log.debug("bus %s: connection ended: %s", self._address.code, exc)
        self._end()

    def data_received(self, data: bytes) -> None:
        """Look for the answer that is waited for; everything else is dropped."""
        if self.tap is not None:
            self.tap(False, data)
        if self._is_rtu:
            self.heard_at = time.monotonic()
            self._hunt(data)
        else:
            self._cut(data)

    def _end(self) -> None:
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Lost())

    def _answer(self, pdu: bytes) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(pdu)

    def _cut(self, data: bytes) -> None:
        """Cut TCP frames; the answer carries the number and the unit of its question."""
        if self._buffer:
            data = self._buffer + data
        while data:
            used, unit, number, pdu = self._framer.decode(data)
            if not used:
                if data[2:4] not in (b"", b"\0", b"\0\0") or len(data) > _MAX_TCP:
                    self.close()  # no Modbus: where the next frame begins, nobody knows
                    return
                break
            if number == self._number and unit == self._unit and pdu:
                self._answer(pdu)
            data = data[used:]
        self._buffer = data

    def _hunt(self, data: bytes) -> None:
        """Find the answer on an RTU line: its unit, its function, its length and a right checksum, after any noise."""
        if self._waiter is None or self._waiter.done():
            return
        data = self._buffer = (self._buffer + data)[-_MAX_RTU:]
        start = data.find(self._unit)
        while 0 <= start < len(data) - 4:
            size = self._size(data, start)
            if start + size <= len(data) and size:
                frame = data[start : start + size]
                if FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big")):
                    self._buffer = b""
                    self._answer(frame[1:-2])
                    return
            start = data.find(self._unit, start + 1)

    def _size(self, data: bytes, start: int) -> int:
        """Bytes of the answer that would begin here, 0 when none does."""
        function = data[start + 1]
        if function == self._function:
            return 8 if function == _WRITE_MULTIPLE else 5 + data[start + 2]
        return 5 if function == self._function | _EXCEPTION else 0
