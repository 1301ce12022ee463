"""Names of uplink messages: instants, (edge, boot, seq) keys, and ranges of them for receipts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from meter_gateway.topics import MAX_MESSAGE_BYTES, Edge, Serial

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Named(msgspec.Struct):
    edge: Edge
    boot: Serial
    seq: Serial


_NAMED: Final = msgspec.json.Decoder(_Named)


def instant(millis: int) -> datetime:
    """Return UTC epoch milliseconds as an aware instant."""
    return _EPOCH + timedelta(milliseconds=millis)


def to_millis(at: datetime) -> int:
    """Return an aware instant as UTC epoch milliseconds."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def message_key(topic: str, payload: bytes) -> tuple[str, int, int] | None:
    """Return (edge, boot, seq) of an uplink that is otherwise unreadable; None when it does not even say that."""
    if len(payload) > 4 * MAX_MESSAGE_BYTES:
        return None
    try:
        named = _NAMED.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return (named.edge, named.boot, named.seq) if topic.split("/")[3:] == [named.edge, "data"] else None


def make_ranges(keys: Iterable[tuple[str, int, int]]) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """Return the seqs of each (edge, boot) as ascending ranges, both ends included."""
    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    speaker: tuple[str, int] | None = None
    first = last = 0
    for edge, boot, seq in sorted(keys):
        if speaker is not None and speaker[0] == edge and speaker[1] == boot and seq <= last + 1:
            last = seq
            continue
        if speaker is not None:
            found.setdefault(speaker, []).append((first, last))
        speaker, first, last = (edge, boot), seq, seq
    if speaker is not None:
        found.setdefault(speaker, []).append((first, last))
    return found
