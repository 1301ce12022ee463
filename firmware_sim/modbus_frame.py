"""Modbus frames and requests as a meter sees them: bytes in, requests out, answers as bytes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

# Modbus Application Protocol 1.1b3, 6 and 7.
READ_HOLDING, READ_INPUT, WRITE_SINGLE, WRITE_MULTIPLE = 3, 4, 6, 16
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
GATEWAY_TARGET_SILENT: Final = 0x0B
MAX_READ: Final = 125
MAX_WRITE: Final = 123
_MAX_PDU: Final = 253
_MAX_BUFFER: Final = 4096  # some sixteen requests in one segment; a master that sends more is broken
_MBAP: Final = 7
# RTU requests of fixed length, and where the others say how many bytes follow: coils 1, 2, 5, 15, masks 22, files
# 20 and 21, both ways 23, queues 24.
_SIZES: Final = dict.fromkeys((1, 2, READ_HOLDING, READ_INPUT, 5, WRITE_SINGLE, 8), 8) | {22: 10, 24: 6}
_COUNT_AT: Final = {15: 6, WRITE_MULTIPLE: 6, 20: 2, 21: 2, 23: 10}


class BrokenFrame(ValueError):
    """Bytes on TCP that are no Modbus: the connection cannot be trusted any more."""


class ModbusRefusal(Exception):
    """A request that is answered with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """One request: unit 0-255, PDU bytes, and the transaction number on TCP."""

    unit: int
    pdu: bytes
    transaction: int = 0


class TcpFrames:
    """Cuts a TCP stream into requests."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Request]:
        """Requests that are complete now. Raises BrokenFrame."""
        self._buffer += data
        if len(self._buffer) > _MAX_BUFFER:
            raise BrokenFrame("too much at once")
        found = []
        while len(self._buffer) >= _MBAP:
            protocol = int.from_bytes(self._buffer[2:4], "big")
            length = int.from_bytes(self._buffer[4:6], "big")
            if protocol != 0 or not 2 <= length <= _MAX_PDU + 1:
                raise BrokenFrame("no Modbus header")
            if len(self._buffer) < 6 + length:
                break
            transaction = int.from_bytes(self._buffer[:2], "big")
            found.append(Request(self._buffer[6], bytes(self._buffer[7 : 6 + length]), transaction))
            del self._buffer[: 6 + length]
        return found


class RtuFrames:
    """Cuts a serial line into requests: by length and checksum, resynchronised byte by byte."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Request]:
        """Requests that are complete now; bytes that fit no request are dropped."""
        self._buffer = (self._buffer + data)[-_MAX_BUFFER:]
        found = []
        while len(self._buffer) >= 4:
            size = _request_size(self._buffer)
            if size is None or (len(self._buffer) >= size and not _checks(self._buffer[:size])):
                del self._buffer[0]
                continue
            if len(self._buffer) < size:
                break
            found.append(Request(self._buffer[0], bytes(self._buffer[1 : size - 2])))
            del self._buffer[:size]
        return found

    def silence(self) -> None:
        """The line was quiet: what is unfinished never becomes a request."""
        self._buffer.clear()


def _request_size(buffer: bytearray) -> int | None:
    """Bytes of the request that begins here, None when no request begins so.

    A function that no meter here knows has its length all the same: it is refused, not left without an answer.
    """
    function = buffer[1]
    if function in _SIZES:
        return _SIZES[function]
    if function in _COUNT_AT:
        place = _COUNT_AT[function]
        return place + 3 + buffer[place] if len(buffer) > place else place + 3
    return 4 if 1 <= function <= 127 and _checks(buffer[:4]) else None


def _checks(frame: bytes | bytearray) -> bool:
    return crc16(frame[:-2]) == bytes(frame[-2:])


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value


_CRC_TABLE: Final = tuple(_crc_of_byte(value) for value in range(256))


def crc16(data: bytes | bytearray) -> bytes:
    """The two checksum bytes of an RTU frame, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


def rtu_frame(unit: int, pdu: bytes) -> bytes:
    """A serial frame."""
    body = bytes((unit,)) + pdu
    return body + crc16(body)


def tcp_frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A TCP frame."""
    return (
        transaction.to_bytes(2, "big")
        + b"\x00\x00"
        + (len(pdu) + 1).to_bytes(2, "big")
        + bytes((unit,))
        + pdu
    )


def exception_pdu(function: int, code: int) -> bytes:
    """The answer that refuses a request."""
    return bytes((function | 0x80, code))


def is_write(pdu: bytes) -> bool:
    """True for a request that would change something."""
    return pdu[:1] in (bytes((WRITE_SINGLE,)), bytes((WRITE_MULTIPLE,)))


def answer(
    pdu: bytes,
    read: Callable[[int, int, int], Sequence[int]],
    write: Callable[[int, Sequence[int]], None],
) -> bytes:
    """The answer to a request. `read(fc, address, count)` and `write(address, words)` may raise ModbusRefusal."""
    function = pdu[0] if pdu else 0
    try:
        if function in (READ_HOLDING, READ_INPUT):
            return _answer_read(pdu, read)
        if function == WRITE_MULTIPLE:
            return _answer_write(pdu, write)
    except ModbusRefusal as refusal:
        return exception_pdu(function, refusal.code)
    return exception_pdu(function, ILLEGAL_FUNCTION)


def _answer_read(pdu: bytes, read: Callable[[int, int, int], Sequence[int]]) -> bytes:
    if len(pdu) != 5:
        raise ModbusRefusal(ILLEGAL_VALUE)
    address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if not 1 <= count <= MAX_READ:
        raise ModbusRefusal(ILLEGAL_VALUE)
    words = read(pdu[0], address, count)
    return bytes((pdu[0], 2 * count)) + b"".join(word.to_bytes(2, "big") for word in words)


def _answer_write(pdu: bytes, write: Callable[[int, Sequence[int]], None]) -> bytes:
    if len(pdu) < 6:
        raise ModbusRefusal(ILLEGAL_VALUE)
    address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if not 1 <= count <= MAX_WRITE or pdu[5] != 2 * count or len(pdu) != 6 + 2 * count:
        raise ModbusRefusal(ILLEGAL_VALUE)
    write(address, [int.from_bytes(pdu[i : i + 2], "big") for i in range(6, len(pdu), 2)])
    return pdu[:5]
