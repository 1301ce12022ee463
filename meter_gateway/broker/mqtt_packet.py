"""MQTT 5 packets that come and go by the thousand, as bytes: publishes in, acknowledgements and receipts out. Pure.

paho reads each packet by several system calls and makes ten objects of it; everything rare is left to paho.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

# A QoS 1 message as the broker sent it: topic, payload, and the number that its acknowledgement names.
Publish = tuple[str, bytes, int]

_PUBACK: Final = struct.Struct("!BBH")
_PUBACK_HEAD: Final = 0x40
_PUBLISH_QOS0: Final = 0x30
_PUBLISH_QOS1: Final = 0x32
_DUP_AND_RETAIN: Final = 0x09
# A variable length has at most four bytes (MQTT 5, 1.5.5).
_MAX_LENGTH_BYTES: Final = 4
_EXPIRY: Final = struct.Struct("!BI")
_EXPIRY_ID: Final = 0x02


class BrokenPacket(ValueError):
    """Bytes that no MQTT packet has."""


def _read_length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Return a variable length and where it ends, None when its end is not there yet. Raises BrokenPacket."""
    value = 0
    for turn in range(_MAX_LENGTH_BYTES):
        try:
            byte = data[at + turn]
        except IndexError:
            return None
        if byte < 0x80:
            return value | byte << (7 * turn), at + turn + 1
        value |= (byte & 0x7F) << (7 * turn)
    raise BrokenPacket("a length of more than four bytes")


def _write_length(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def packet_end(data: bytes | bytearray, at: int = 0) -> int | None:
    """Return where the packet that begins at `at` ends, None when it is not whole yet. Raises BrokenPacket."""
    length = _read_length(data, at + 1)
    if length is None or length[1] + length[0] > len(data):
        return None
    return length[1] + length[0]


def take_publishes(data: bytes | bytearray) -> tuple[list[Publish], int]:
    """Return the QoS 1 publishes that `data` begins with, and how many bytes they are.

    Ends at the first packet of another kind, and at one that is not whole yet. Raises BrokenPacket.
    """
    found: list[Publish] = []
    at, end = 0, len(data)
    while at < end and data[at] & ~_DUP_AND_RETAIN == _PUBLISH_QOS1:
        length = _read_length(data, at + 1)
        if length is None:
            break
        size, start = length
        stop = start + size
        if stop > end:
            break
        after_topic = start + 2 + (data[start] << 8) + data[start + 1] if size > 2 else stop
        properties = _read_length(data, after_topic + 2)
        if properties is None or sum(properties) > stop:
            raise BrokenPacket("a publish that ends before its payload")
        try:
            topic = str(data[start + 2 : after_topic], "utf-8")
        except UnicodeDecodeError:
            raise BrokenPacket("a topic that is no text") from None
        mid = data[after_topic] << 8 | data[after_topic + 1]
        found.append((topic, bytes(data[sum(properties) : stop]), mid))
        at = stop
    return found, at


def pubacks(mids: Iterable[int]) -> bytes:
    """Return acknowledgements of QoS 1 messages."""
    return b"".join([_PUBACK.pack(_PUBACK_HEAD, 2, mid) for mid in mids])


def publish_qos0(topic: str, payload: bytes, *, expiry_s: int) -> bytes:
    """Return a message that is delivered at most once, and not later than `expiry_s` seconds from now."""
    name = topic.encode()
    properties = _EXPIRY.pack(_EXPIRY_ID, expiry_s)
    size = 2 + len(name) + 1 + len(properties) + len(payload)
    return b"".join(
        (
            bytes((_PUBLISH_QOS0,)),
            _write_length(size),
            len(name).to_bytes(2, "big"),
            name,
            bytes((len(properties),)),
            properties,
            payload,
        )
    )
