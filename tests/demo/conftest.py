"""A running demo for tests that need the whole product: its own folder and ports, stopped at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from raseed.check_town import CheckTown
from raseed.demo import Demo


@asynccontextmanager
async def running_town(data: Path) -> AsyncIterator[CheckTown]:
    """Start every role, give the town as the check sees it, stop everything."""
    demo = Demo(data, port=0, host="127.0.0.1", speed=1.0, say=lambda line: print(line, flush=True))
    async with demo.supervisor:
        await demo.start()
        town = CheckTown(demo)
        try:
            yield town
        finally:
            await town.close()


@pytest.fixture
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"
