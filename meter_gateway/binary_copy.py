"""Rows as PostgreSQL's binary COPY wants them: by hand where millions pass, else by psycopg."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import psycopg

# PostgreSQL documentation, COPY, "Binary Format": signature, flags, length of an extension; and the end.
HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def micros(at: datetime) -> int:
    """Return an instant as a timestamptz holds it: microseconds since 2000, to be sent as an int8."""
    return (at - _EPOCH) // _MICROSECOND


def field(value: str) -> bytes:
    """Return a text as a field of a row."""
    raw = value.encode()
    return len(raw).to_bytes(4, "big") + raw


async def copy_bytes(cursor: psycopg.AsyncCursor[Any], order: LiteralString, rows: Sequence[bytes]) -> None:
    """Run a COPY … FROM STDIN (FORMAT BINARY) with rows that are bytes already."""
    async with cursor.copy(order) as copy:
        await copy.write(b"".join((HEADER, *rows, TRAILER)))


async def copy_rows(
    cursor: psycopg.AsyncCursor[Any],
    order: LiteralString,
    types: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """Run a COPY … FROM STDIN (FORMAT BINARY) with values of these types."""
    async with cursor.copy(order) as copy:
        copy.set_types(types)
        for row in rows:
            await copy.write_row(row)
