"""Real databases for the suite: one migrated template, cloned for each test that asks for one."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import AsyncConnectionPool
from xdist.scheduler import LoadScopeScheduling

from raseed.migrate import migrate


def pytest_configure(config: pytest.Config) -> None:
    # Every coroutine test runs under anyio. (A marker added after collection would lose its parameters.)
    config.option.anyio_mode = "auto"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for a database: it is run again on TimescaleDB."""
    for item in items:
        if "server_url" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


# What starts a whole town, or waits for minutes: one worker has all of a group, so that there is one town at a time
# for each of them, and begins with it, for xdist hands out the largest first.
GROUPS = {
    "tests/journeys/": "town",
    "tests/soak/test_short_soak.py": "town",
    "tests/demo/": "demo",
    "tests/scenarios/": "demo",
}


class GroupScheduling(LoadScopeScheduling):
    """Hands out tests one by one, but for the groups. (xdist's own marks do not reach pytest since its release 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return next((group for path, group in GROUPS.items() if nodeid.startswith(path)), nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    return GroupScheduling(config, log)


# What depends on how the machine was made, and not on what our set-up installs.
ALLOWED_SKIPS = ("cannot run a", "allows no more than")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a user's machine may lack, CI must have: there a skip is a failure."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(allowed in reason for allowed in ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: skipped in CI: {reason}"
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A PostgreSQL server: the one that RASEED_TEST_DATABASE_URL names, or an embedded one for this run."""
    given = os.environ.get("RASEED_TEST_DATABASE_URL")
    if given:
        yield given
        return
    from tests.embedded import embedded_server, quick_folder

    with quick_folder() as folder, embedded_server(folder) as url:
        yield url


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """A freshly migrated database that is only ever cloned."""
    name = f"raseed_template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    asyncio.run(migrate(with_database(server_url, name)))
    yield name
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database_url(server_url: str, template_database: str) -> Iterator[str]:
    """A database of this test's own."""
    name = f"raseed_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(
            # Copying files costs half of copying block by block through the log, and this server may forget.
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(name), sql.Identifier(template_database)
            )
        )
    yield with_database(server_url, name)
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[AsyncConnectionPool]:
    """A pool on this test's database; `async with pool.connection()` commits at its end."""
    async with AsyncConnectionPool(database_url, min_size=1, max_size=8, open=False) as opened:
        yield opened


@pytest.fixture
async def conn(database_url: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """One connection inside a transaction that this test may commit or leave."""
    async with await psycopg.AsyncConnection.connect(database_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of published test vectors."""
    return Path(__file__).parent / "vectors"
