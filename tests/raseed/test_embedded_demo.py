"""The embedded parts as one demo in a process of its own, killed and started again, as root and as others."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raseed import processes
from raseed.run_folder import kill_role, read_table
from tests.raseed.ports import free_port

_ROOT = Path(__file__).parents[2]
_NOBODY = 65534
_NAMELESS = 54321


@contextmanager
def _demo(
    python: list[str], folder: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    argv = [*python, "-m", "tests.raseed.small_demo", str(folder), str(free_port()), str(free_port())]
    paths = os.pathsep.join([str(_ROOT), sysconfig.get_path("platlib")])
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
    with subprocess.Popen(argv, cwd="/", env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def _rows(demo: subprocess.Popen[bytes]) -> int:
    assert demo.stdout is not None
    words = demo.stdout.readline().split()
    assert words[:1] == [b"up"], demo.communicate()[1].decode()
    return int(words[1])


def _shared_memory() -> set[str]:
    """Names of what this user has in /dev/shm."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.lstat().st_uid == os.geteuid()}


def _segments(pids: list[int]) -> list[str]:
    """Shared memory segments (System V) that processes made which may be gone by now."""
    rows = [row.split() for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return [row[1] for row in rows if int(row[4]) in pids]


def _all_gone(pids: list[int], limit_s: float) -> list[int]:
    deadline = time.monotonic() + limit_s
    while left := [pid for pid in pids if processes.is_running(pid)]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def _live_and_be_killed(python: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    """Start, kill roles, kill the demo, start again on the same data, stop by signal."""
    with _demo(python, folder, env) as demo:
        assert _rows(demo) == 1
        assert kill_role(folder, "sleeper")
        tree = processes.process_tree([demo.pid])
        assert len(tree) >= 7  # demo, postmaster with its three or more, broker, sleeper
        assert _segments(tree)  # the postmaster's own
        demo.kill()
        demo.wait()
        assert _all_gone(tree, 5) == []
        assert _segments(tree) == []
    with _demo(python, folder, env) as demo:
        assert _rows(demo) == 2
        table = read_table(folder)
        assert table is not None
        assert set(table["children"]) == {"postgres", "broker", "sleeper"}
        tree = processes.process_tree([demo.pid])
        demo.send_signal(signal.SIGINT)
        assert demo.wait(10) == 0
        assert _all_gone(tree, 0) == []
        assert _segments(tree) == []
    assert sorted(path.name for path in folder.iterdir()) == ["broker", "logs", "postgres"]


def test_a_killed_demo_leaves_no_process_and_starts_again_on_its_data(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    before = _shared_memory()
    _live_and_be_killed([sys.executable], tmp_path / "data", {"TMPDIR": str(temporary)})
    assert list(temporary.iterdir()) == []
    assert {name for name in _shared_memory() - before if name.startswith("PostgreSQL")} == set()


def test_a_second_demo_on_the_folder_is_refused(tmp_path: Path) -> None:
    with _demo([sys.executable], tmp_path) as first:
        assert _rows(first) == 1
        with _demo([sys.executable], tmp_path) as second:
            _, errors = second.communicate(timeout=10)
            assert second.returncode != 0
            assert f"another demo (process {first.pid}) runs on {tmp_path}" in errors.decode()
        assert processes.is_running(first.pid)


def _python_of(uid: int) -> list[str]:
    """Command of a Python like ours that user `uid` can run, or skip."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root with setpriv can become another user")
    become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    wanted = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{wanted}", f"/usr/local/bin/{wanted}"):
        # setpriv itself can still open what root can: what counts is whether the Python can run itself again.
        code = "import os, sys, psycopg, raseed.supervisor; os.execv(sys.executable, [sys.executable, '-V'])"
        probe = [*become, python, "-c", code]
        env = {"PYTHONPATH": os.pathsep.join([str(_ROOT), sysconfig.get_path("platlib")])}
        done = subprocess.run(probe, cwd="/", env=env, capture_output=True, check=False)
        if done.returncode == 0:
            return [*become, python]
    pytest.skip(f"user {uid} cannot run a {wanted} with our packages")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents any user can pass, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="raseed-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("uid", [_NOBODY, _NAMELESS])
def test_another_user_runs_it_after_root_did(tmp_path: Path, open_folder: Path, uid: int) -> None:
    python = _python_of(uid)
    with _demo([sys.executable], tmp_path) as demo:
        assert _rows(demo) == 1
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(10) == 0
    os.chown(open_folder, uid, uid)
    temporary = open_folder / "tmp"
    temporary.mkdir(mode=0o777)
    os.chown(temporary, uid, uid)
    _live_and_be_killed(python, open_folder / "data", {"TMPDIR": str(temporary)})
    assert list(temporary.iterdir()) == []
    assert (open_folder / "data" / "postgres" / "data").stat().st_uid == uid


def test_where_user_namespaces_are_refused_root_drops_to_another_user(open_folder: Path) -> None:
    _python_of(_NOBODY)  # the wheel's binaries must be within reach of that user
    refusing = open_folder / "bin"
    refusing.mkdir()
    (refusing / "unshare").write_text("#!/bin/sh\necho unshare: Operation not permitted >&2\nexit 1\n")
    (refusing / "unshare").chmod(0o755)
    data = open_folder / "data"
    data.mkdir(mode=0o755)
    path = f"{refusing}{os.pathsep}{os.environ['PATH']}"
    _live_and_be_killed([sys.executable], data, {"PATH": path})
    assert (data / "postgres" / "data").stat().st_uid == _NOBODY
    # Where namespaces are allowed again, root takes the same data back.
    with _demo([sys.executable], data) as demo:
        assert _rows(demo) == 3
        assert (data / "postgres" / "data").stat().st_uid == 0
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(10) == 0
