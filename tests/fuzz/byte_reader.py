"""Turns a fuzzer's bytes into numbers and text; past the end there are only zeros, so any input is a whole one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class ByteReader:
    """Reads from the front; `done` once nothing is left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    @property
    def done(self) -> bool:
        return self._place >= len(self._data)

    def raw(self, count: int) -> bytes:
        piece = self._data[self._place : self._place + count]
        self._place += count
        return piece.ljust(count, b"\0")

    def number(self, count: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.raw(count), "big")

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.number(1) % len(choices)]

    def text(self) -> str:
        """Up to 255 characters, any of them."""
        return self.raw(self.number(1)).decode("utf-8", "surrogateescape").rstrip("\0")
