import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from raseed import processes
from tests.raseed.children import started

_FORKS_AND_SLEEPS = """
import subprocess, sys, time
sys.path.insert(0, {root!r})
from raseed.processes import die_with_parent
import signal
child = subprocess.Popen(["sleep", "300"], preexec_fn=die_with_parent(signal.{name}))
print(child.pid, flush=True)
time.sleep(300)
"""


def _gone_within(pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while processes.is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_child_dies_with_its_killed_parent() -> None:
    root = str(Path(__file__).parents[2])
    code = _FORKS_AND_SLEEPS.format(root=root, name="SIGKILL")
    with started([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert processes.is_running(child)
        assert processes.process_tree([parent.pid]) == [parent.pid, child]
        parent.kill()
        parent.wait()
        assert _gone_within(child, 5)


def test_a_pid_with_other_start_ticks_is_another_process() -> None:
    me = os.getpid()
    ticks = processes.start_ticks(me)
    assert ticks is not None
    assert processes.is_running(me, ticks)
    assert not processes.is_running(me, ticks + 1)


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen(["true"]) as child:
        assert _gone_within(child.pid, 5)  # not reaped yet
        assert Path(f"/proc/{child.pid}").exists()


def test_signals_to_the_gone_say_so() -> None:
    with subprocess.Popen(["true"]) as child:
        pass
    assert not processes.send_signal(child.pid, signal.SIGTERM)


def test_memory_of_a_tree_holds_its_children() -> None:
    alone = processes.pss_bytes([os.getpid()])
    with started([sys.executable, "-c", "print(flush=True); input()"], **_PIPES) as child:
        assert child.stdout is not None
        child.stdout.readline()
        childs = processes.pss_bytes([child.pid])
        # Several MB of a Python, in bytes and not in kB.
        assert 1_000_000 < childs < 100_000_000
        assert processes.pss_bytes([os.getpid()]) > alone
        # A root that is also another root's descendant is counted once.
        both = processes.pss_bytes([os.getpid(), child.pid])
        assert both < alone + 2 * childs
        child.kill()
    assert processes.pss_bytes([child.pid]) == 0


def test_processes_are_found_by_folder_and_program(tmp_path: Path) -> None:
    with started(["sleep", "300"], cwd=tmp_path) as child:
        deadline = time.monotonic() + 5
        while not processes.working_in(tmp_path, "sleep") and time.monotonic() < deadline:
            time.sleep(0.01)  # between fork and exec it is still called python
        assert processes.working_in(tmp_path, "sleep") == [child.pid]
        assert processes.working_in(tmp_path, "postgres") == []
        assert processes.working_in(tmp_path.parent, "sleep") == []
        child.kill()


def test_a_listening_port_is_taken() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL and the broker do
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert processes.is_port_taken("127.0.0.1", port)
        # A session that was closed from this side stays in TIME_WAIT, which hinders nobody.
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            client.recv(1)
    assert not processes.is_port_taken("127.0.0.1", port)


_PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
