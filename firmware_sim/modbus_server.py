"""Modbus TCP listeners: each is a converter with several meters behind it."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from firmware_sim.faults import BABBLE_EVERY_S, NOISE, Piece
from firmware_sim.modbus_bus import ModbusBus
from firmware_sim.modbus_frame import BrokenFrame, Request, RtuFrames, TcpFrames, rtu_frame, tcp_frame

log = logging.getLogger(__name__)
MAX_CONNECTIONS: Final = 8  # what a converter of this kind offers
IDLE_S: Final = 300.0  # a master that polls at all polls within five minutes
_READ_BYTES: Final = 1024


class ModbusTcpServer:
    """One listener for one bus; speaks Modbus TCP, or RTU frames over TCP."""

    def __init__(self, bus: ModbusBus, host: str, port: int, *, rtu_over_tcp: bool = False) -> None:
        self._bus = bus
        self._host, self._port = host, port
        self._rtu = rtu_over_tcp
        self._server: asyncio.Server | None = None
        self._writers = set[asyncio.StreamWriter]()
        self._babbler: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is really listened on."""
        if self._server is None or not self._server.sockets:
            return self._port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._talk, self._host, self._port)
        self._babbler = asyncio.create_task(self._babble())

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._babbler:
            self._babbler.cancel()
        if self._server:
            self._server.close()
        for writer in list(self._writers):
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._writers.add(writer)
        frames: TcpFrames | RtuFrames = RtuFrames() if self._rtu else TcpFrames()
        try:
            while data := await asyncio.wait_for(reader.read(_READ_BYTES), IDLE_S):
                for request in frames.feed(data):
                    self._answer(request, writer)
                await writer.drain()
        except (BrokenFrame, TimeoutError, OSError) as error:
            log.info("bus %s: connection ended: %s", self._bus.code, error)
        except asyncio.CancelledError:
            pass  # the process stops
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        frame = rtu_frame if self._rtu else partial(tcp_frame, request.transaction)
        for piece in self._bus.serve(request, frame):
            if piece.delay_s:
                asyncio.get_running_loop().call_later(piece.delay_s, self._send, piece, writer)
            else:
                self._send(piece, writer)

    @staticmethod
    def _send(piece: Piece, writer: asyncio.StreamWriter) -> None:
        if not writer.is_closing():
            writer.write(piece.data)

    async def _babble(self) -> None:
        while True:
            await asyncio.sleep(BABBLE_EVERY_S)
            if self._writers and self._bus.babbles():
                for writer in self._writers:
                    self._send(Piece(0, NOISE), writer)
