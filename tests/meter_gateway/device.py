"""A tiny meter for tests: answers Modbus RTU or TCP frames over a socket, and misbehaves when told."""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Self

from meter_gateway.profile import load_profile

PROFILE = load_profile("raseed-prepaid-e1")


def crc16(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc.to_bytes(2, "little")


class Meter:
    """Registers of one meter by name, and its two mailboxes. `runs` lists every id that was carried out."""

    def __init__(self, drn: str) -> None:
        self.values: dict[str, int | str] = {
            "serial": drn,
            "credit": 5_000,
            "relay": 1,
            "counter": 70_000,
            "load": 800,
            "token_count": 0,
            "boot_count": 1,
        }
        self.runs: list[int] = []
        self.result = "ACCEPT"

    def word(self, address: int) -> int:
        words = PROFILE.encode(self.values)
        return words.get(address, 0)

    def write(self, address: int, words: list[int]) -> None:
        image = {(3, address + place): word for place, word in enumerate(words)}
        if address == 0x1050:
            got = PROFILE.decode(PROFILE.names_of(["token_mailbox"]), image)
            self.run(got["token_submit_id"], "token")
        elif address == 0x1030:
            got = PROFILE.decode(PROFILE.names_of(["command_mailbox"]), image)
            assert (got["arm_key"], got["arm_complement"]) == (0x5A17, 0xA5E8)
            self.run(got["command_id"], got["command_opcode"], got["command_argument"])

    def run(self, command: int, kind: str, number: int = 0) -> None:
        if command not in self.runs:
            self.runs.append(command)
            for place, one in enumerate(reversed(self.runs[-8:]), 1):
                self.values[f"run_id_{place}"] = one
            if kind == "token":
                self.type_token("remote", 1000 + command)
            elif kind in ("set_clock", "set_power_limit"):
                self.values["clock" if kind == "set_clock" else "power_limit"] = number
            else:
                self.values["relay"] = 0 if kind == "relay_open" else 1
        if kind == "token":
            self.values |= {"token_echo": command, "token_result": self.result, "token_tid": 1000 + command}
        else:
            self.values |= {"command_echo": command, "command_status": "DONE"}

    def type_token(self, carrier: str, tid: int) -> None:
        self.values["token_count"] += 1
        self.values["credit"] += 10_000 if self.result == "ACCEPT" else 0
        self.values |= {"last_result": self.result, "last_carrier": carrier, "last_tid": tid}


class Bus:
    """A socket that carries frames of the meters by unit. Faults are spent one a frame."""

    def __init__(self, meters: dict[int, Meter], framer: str = "rtu_over_tcp") -> None:
        self.meters = meters
        self.framer = framer
        self.port = 0
        self.delays: list[float] = []  # the answer to the next frames comes that late
        self.silent: set[int] = set()
        self.refusal = 0  # writes are answered with this Modbus exception, and not carried out
        self.short = 0  # so many answers hold one register less than asked
        self.frames: list[tuple[float, int, int, int]] = []  # (time, unit, function, address)
        self._server: asyncio.Server | None = None
        self._answers: set[asyncio.Task] = set()
        self.clients: set[asyncio.Task] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._answers:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients.add(asyncio.current_task())
        try:
            while True:
                if self.framer == "tcp":
                    head = await reader.readexactly(7)
                    pdu = await reader.readexactly(struct.unpack(">H", head[4:6])[0] - 1)
                    unit, prefix = head[6], head[:4]
                else:
                    head = await reader.readexactly(6)
                    more = 2 if head[1] in (3, 4) else 3 + (await reader.readexactly(1))[0]
                    rest = await reader.readexactly(more - (head[1] == 16))
                    unit, prefix = head[0], b""
                    body = b"" if head[1] in (3, 4) else bytes([len(rest) - 2]) + rest[:-2]
                    pdu = head[1:] + body
                answer = self._answer(unit, pdu)
                delay = self.delays.pop(0) if self.delays else 0.0
                if answer is not None:
                    task = asyncio.create_task(self._send(writer, prefix, unit, answer, delay))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    def _answer(self, unit: int, pdu: bytes) -> bytes | None:
        function, address, count = struct.unpack(">BHH", pdu[:5])
        self.frames.append((time.monotonic(), unit, function, address))
        meter = self.meters.get(unit)
        if meter is None or unit in self.silent:
            return None
        if function == 16 and self.refusal:
            return bytes([0x90, self.refusal])
        if function == 16:
            meter.write(address, list(struct.unpack(f">{count}H", pdu[6:])))
            return pdu[:5]
        if self.short:
            self.short -= 1
            count -= 1
        words = [meter.word(address + place) for place in range(count)]
        return struct.pack(f">BB{count}H", function, 2 * count, *words)

    async def _send(self, writer, prefix: bytes, unit: int, answer: bytes, delay: float) -> None:
        if delay:
            await asyncio.sleep(delay)
        if self.framer == "tcp":
            writer.write(prefix + struct.pack(">HB", len(answer) + 1, unit) + answer)
        else:
            frame = bytes([unit]) + answer
            writer.write(frame + crc16(frame))
