"""The socket that paho is given: reads in bursts, takes QoS 1 messages out by itself, and writes in bursts.

Needs of paho only `_create_socket`, the one place where it can be given a socket of ours; `constraints.txt` holds
its version, and every test on a broker goes through here.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode

from meter_gateway.broker.mqtt_packet import BrokenPacket, Publish, packet_end, take_publishes

# One system call reads this much: a thousand uplinks.
READ_BYTES: Final = 256 * 1024
# What waits for the kernel to take it: acknowledgements of a million messages. More, and the broker does not read.
MAX_UNSENT_BYTES: Final = 4 * 1024 * 1024
Take = Callable[[Sequence[Publish]], None]


class BurstSocket:
    """Stands between paho and a connected socket, plain or TLS.

    `take` is called in the thread that reads, and may raise OSError to end the connection. Other packets reach paho
    in their order, one at a time, and no message behind one is taken before paho has read it. Writing is open to
    every thread; what one call writes stays together.
    """

    def __init__(self, inner: socket.socket, take: Take) -> None:
        self._inner = inner
        self._take = take
        self._unread = bytearray()
        self._for_paho = b""
        self._is_more = False  # behind the packet laid out for paho
        self._unsent = bytearray()
        # A TLS connection is one state machine for both directions.
        self._lock = threading.Lock()

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes of packets that are paho's. Raises BlockingIOError when there are none."""
        if not self._for_paho and self._is_more:
            self._sort()
        if not self._for_paho:
            with self._lock:
                data = self._inner.recv(READ_BYTES)
            if not data:
                return b""
            self._unread += data
            self._sort()
        if not self._for_paho:
            raise BlockingIOError
        data, self._for_paho = self._for_paho[:size], self._for_paho[size:]
        return data

    def _sort(self) -> None:
        """Take the messages at the head of what was read, and lay the packet behind them out for paho."""
        try:
            found, used = take_publishes(self._unread)
            end = packet_end(self._unread, used)
        except BrokenPacket as error:
            raise ConnectionError(str(error)) from None
        self._for_paho = bytes(self._unread[used:end]) if end is not None else b""
        del self._unread[: used if end is None else end]
        self._is_more = bool(self._for_paho and self._unread)
        if found:
            self._take(found)

    def pending(self) -> int:
        """Return more than zero when there is something to read that no select() would tell of."""
        inner: int = self._inner.pending() if isinstance(self._inner, ssl.SSLSocket) else 0
        return len(self._for_paho) + self._is_more + inner

    def send(self, data: bytes | bytearray) -> int:
        """Take all of `data`, and hand on what the kernel takes now. Raises OSError when the broker is gone."""
        with self._lock:
            if len(self._unsent) > MAX_UNSENT_BYTES:
                raise ConnectionError("the broker does not read")
            self._unsent += data
            self._hand_on()
        return len(data)

    @property
    def has_unsent(self) -> bool:
        """Whether something still waits for the kernel."""
        return bool(self._unsent)

    def flush(self) -> None:
        """Hand on what the kernel takes now. Raises OSError when the broker is gone."""
        with self._lock:
            if self._unsent:
                self._hand_on()

    def _hand_on(self) -> None:
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            del self._unsent[: self._inner.send(self._unsent)]

    def fileno(self) -> int:
        """Return the descriptor, for select()."""
        return self._inner.fileno()

    def setblocking(self, flag: bool) -> None:
        """Do as the socket does."""
        self._inner.setblocking(flag)

    def shutdown(self, how: int) -> None:
        """Do as the socket does."""
        self._inner.shutdown(how)

    def close(self) -> None:
        """Do as the socket does."""
        self._inner.close()


class BurstClient(Client):
    """paho's client on a BurstSocket; `burst` is that of the present connection."""

    def __init__(self, *arguments: Any, take: Take, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._take = take
        self.burst: BurstSocket | None = None

    def _create_socket(self) -> Any:
        # A socket all the same, plain or TLS: we use neither web sockets nor a proxy.
        self.burst = BurstSocket(cast("socket.socket", super()._create_socket()), self._take)
        return self.burst

    def want_write(self) -> bool:
        """Whether paho or the burst has something to send."""
        return super().want_write() or (self.burst is not None and self.burst.has_unsent)

    def loop_write(self) -> MQTTErrorCode:
        """Send what waits, ours first."""
        if self.burst is not None:
            with contextlib.suppress(OSError):  # the next read tells
                self.burst.flush()
        return super().loop_write()
