"""RTU lines on pseudo terminals: raw 8N1, one answer at a time, bytes paced to the line's speed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tty
from pathlib import Path
from typing import Final

from firmware_sim.faults import BABBLE_EVERY_S, NOISE, Piece
from firmware_sim.modbus_bus import ModbusBus
from firmware_sim.modbus_frame import Request, RtuFrames, rtu_frame

log = logging.getLogger(__name__)
BITS_PER_CHARACTER: Final = 11  # as the standard counts; 8N1 itself needs 10
TURNAROUND_S: Final = 0.02  # from the question's last bit to the answer's first
SILENCE_S: Final = 0.05  # far above 3.5 characters: a pty hands bytes over in one gulp or soon after
MAX_WAITING: Final = 16  # questions of a master that does not wait for answers
_CHUNK: Final = 16  # characters written at once: fine enough that a reader sees the line's pace
_READ_BYTES: Final = 1024


class SerialServer:
    """One line: a pty whose far end is found through a symbolic link at the path of the site file."""

    def __init__(self, bus: ModbusBus, link: Path, baud: int) -> None:
        self._bus = bus
        self._link = link
        self._character_s = BITS_PER_CHARACTER / baud
        self._frames = RtuFrames()
        self._near = self._far = -1
        self._waiting: asyncio.Queue[Request] = asyncio.Queue(MAX_WAITING)
        self._line = asyncio.Lock()
        self._tasks = set[asyncio.Task[None]]()
        self._quiet: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Open the line and point the link at it. Raises OSError."""
        # Our own hold on the far end keeps the line alive while no master has it open.
        self._near, self._far = os.openpty()
        tty.setraw(self._far)
        os.set_blocking(self._near, False)
        self._link.parent.mkdir(parents=True, exist_ok=True)
        new = self._link.with_name(self._link.name + ".new")
        new.unlink(missing_ok=True)
        new.symlink_to(os.ttyname(self._far))
        new.replace(self._link)
        asyncio.get_running_loop().add_reader(self._near, self._read)
        for work in (self._answer_all(), self._babble()):
            self._keep(asyncio.create_task(work))

    async def stop(self) -> None:
        """Close the line and remove the link, if it still is ours."""
        if self._near < 0:
            return
        asyncio.get_running_loop().remove_reader(self._near)
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(OSError):
            if str(self._link.readlink()) == os.ttyname(self._far):
                self._link.unlink()
        os.close(self._near)
        os.close(self._far)
        self._near = self._far = -1

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _read(self) -> None:
        try:
            data = os.read(self._near, _READ_BYTES)
        except OSError:  # nobody there for the moment
            return
        for request in self._frames.feed(data):
            if self._waiting.full():
                log.info("bus %s: a master that does not wait; its question is dropped", self._bus.code)
                continue
            self._waiting.put_nowait(request)
        if self._quiet:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(SILENCE_S, self._frames.silence)

    async def _answer_all(self) -> None:
        while True:
            request = await self._waiting.get()
            # The question's own time on the line, then the meter's turnaround.
            await asyncio.sleep((len(request.pdu) + 3) * self._character_s + TURNAROUND_S)
            for piece in self._bus.serve(request, rtu_frame):
                if piece.delay_s:  # a slow meter does not hold up the others on the line
                    self._keep(asyncio.create_task(self._send_later(piece)))
                else:
                    await self._send(piece.data)

    async def _send_later(self, piece: Piece) -> None:
        await asyncio.sleep(piece.delay_s)
        await self._send(piece.data)

    async def _send(self, data: bytes) -> None:
        async with self._line:
            for start in range(0, len(data), _CHUNK):
                chunk = data[start : start + _CHUNK]
                await asyncio.sleep(len(chunk) * self._character_s)
                try:
                    os.write(self._near, chunk)
                except BlockingIOError:  # nobody reads: a real line would not wait either
                    return

    async def _babble(self) -> None:
        while True:
            await asyncio.sleep(BABBLE_EVERY_S)
            if self._bus.babbles():
                await self._send(NOISE)
