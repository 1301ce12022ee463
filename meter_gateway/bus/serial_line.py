"""One serial line as bytes: opened for one owner, 8 bits, read by the event loop, lost when it is pulled out."""

from __future__ import annotations

import asyncio
import os
import termios
from typing import TYPE_CHECKING, Final, Protocol

from meter_gateway.bus.site_file import BusAddress

if TYPE_CHECKING:
    from serial import Serial

# More than the largest frame: a whole answer in one read, where the driver hands it over so.
_READ_BYTES: Final = 1024
_PARITY: Final = {"none": "N", "even": "E", "odd": "O"}


class Listener(Protocol):
    """Who is told what the line carries."""

    def data_received(self, data: bytes) -> None:
        """Bytes came."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The line is gone."""


class SerialLine:
    """An open line with the two methods of an asyncio transport that a bus needs: write and close."""

    def __init__(self, port: Serial, listener: Listener) -> None:
        self._port = port
        self._fd = port.fileno()
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._is_open = True
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._read)

    def write(self, data: bytes) -> None:
        """Send one frame. A line that does not take it whole is lost."""
        try:
            sent = os.write(self._fd, data)
        except OSError as error:
            self._lose(error)
            return
        if sent != len(data):
            self._lose(OSError(f"the line took {sent} of {len(data)} bytes"))

    def discard(self) -> None:
        """Forget bytes that came and were not read yet."""
        try:
            termios.tcflush(self._fd, termios.TCIFLUSH)
        except (termios.error, OSError) as error:
            self._lose(OSError(str(error)))

    def close(self) -> None:
        """Close the line; its listener is told."""
        self._lose(None)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._listener.data_received(data)
        else:
            self._lose(OSError("the line was hung up"))

    def _lose(self, error: Exception | None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._fd)
        self._port.close()
        self._listener.connection_lost(error)


def open_line(address: BusAddress, listener: Listener) -> SerialLine:
    """Open the line for this process alone. Raises OSError (also for a termios.error, which is none)."""
    from serial import Serial

    try:
        port = Serial(
            address.tty,
            baudrate=address.baud,
            parity=_PARITY[address.parity],
            stopbits=address.stopbits,
            timeout=0,
            exclusive=True,
        )
    except termios.error as error:
        raise OSError(str(error)) from None
    return SerialLine(port, listener)
