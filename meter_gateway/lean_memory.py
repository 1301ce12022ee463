"""Keep a long-lived process at the size of its work: what a burst took goes back to the system when it is over."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Final

# A batch makes tens of thousands of objects and drops them all, and none of them points in a circle: a search for
# circles each 700 objects took a sixth of ingest's time.
GARBAGE_AFTER: Final = 50_000
# A trim walks the free blocks, about a millisecond: seldom enough to cost nothing, often enough to be seen by none.
TRIM_S: Final = 10.0
# glibc, <malloc.h>: mallopt's M_ARENA_MAX. Threads with arenas of their own keep what other threads freed.
_M_ARENA_MAX: Final = -8


def keep_lean() -> None:
    """Call once, when everything that stays is there and before threads begin."""
    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc only; elsewhere the system's own ways must do
        mallopt(_M_ARENA_MAX, 1)


async def trim_for_ever() -> None:
    """Give free memory back to the system from time to time, until cancelled."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while True:
        await asyncio.sleep(TRIM_S)
        # Python's own lists of free tuples lie all over the arenas and hold them: a full search empties them.
        gc.collect()
        if trim is not None:
            trim(0)
