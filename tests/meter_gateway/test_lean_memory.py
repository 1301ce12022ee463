import asyncio
import gc
import subprocess
import sys
import weakref

from meter_gateway import lean_memory
from meter_gateway.stop_signal import end_tasks
from tests.meter_gateway.roles import until

# In a process of its own: what is set lasts as long as the process.
SCRIPT = """
import gc
from meter_gateway.lean_memory import GARBAGE_AFTER, keep_lean
before = gc.get_freeze_count()
keep_lean()
assert gc.get_freeze_count() > before
assert gc.get_threshold()[0] == GARBAGE_AFTER
"""


def test_what_is_there_is_left_out_of_the_search_for_garbage():
    assert subprocess.run([sys.executable, "-c", SCRIPT], check=False, timeout=30).returncode == 0


class Circle:
    def __init__(self):
        self.me = self


async def test_circles_are_found_from_time_to_time(monkeypatch):
    monkeypatch.setattr(lean_memory, "TRIM_S", 0.01)
    gc.disable()
    try:
        circle = weakref.ref(Circle())
        assert circle() is not None
        task = asyncio.create_task(lean_memory.trim_for_ever())

        async def is_gone():
            return circle() is None

        await until(is_gone)
        await end_tasks([task])
    finally:
        gc.enable()
