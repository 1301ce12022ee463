"""Where a key stands in a TOML text: the line to show beside a complaint. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_TABLE: Final = re.compile(r"^\s*\[\s*([^\[\]]+?)\s*\]")
_PAIR: Final = re.compile(r"^\s*([A-Za-z0-9_.\-\"']+)\s*=")


def find_line(text: str, key: Sequence[str]) -> int | None:
    """Return the line (from 1) of a dotted key, or of the nearest part of it that stands there; None for neither.

    A key inside an inline table is on the line of that table.
    """
    places: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        if head := _TABLE.match(line):
            table = _parts(head.group(1))
            places.setdefault(table, number)
        elif pair := _PAIR.match(line):
            places.setdefault((*table, *_parts(pair.group(1))), number)
    wanted = tuple(key)
    # A register inherits what its block says once for all: [blocks.a] holds the type of blocks.a.registers.x.
    inherited = (*wanted[:2], wanted[-1]) if len(wanted) == 5 else wanted
    for end in range(len(wanted), 0, -1):
        if wanted[:end] in places:
            return places[wanted[:end]]
        if end == len(wanted) and (*wanted[:-1],) not in places and inherited in places:
            return places[inherited]
    return None


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
