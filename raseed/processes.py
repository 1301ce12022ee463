"""What the operating system knows about our children: who lives, who descends from whom, memory, ports."""

import ctypes
import os
import signal
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1  # prctl(2)
# Loaded before any fork: between fork and exec nothing may be imported.
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Give a `preexec_fn` that asks the kernel to send `death_signal` to the child when its parent dies.

    The request survives `execve`, also of `unshare`, but not a change of uid: a child that drops to another
    user must ask again (`setpriv --pdeathsig`). "Parent" is the thread that forks, so fork from the main one.
    """
    parent_pid = os.getpid()
    prctl, number = _LIBC.prctl, int(death_signal)

    def in_child() -> None:
        # A parent that died before the request sends nothing any more, hence the second question.
        if prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0 or os.getppid() != parent_pid:
            os._exit(126)

    return in_child


def start_ticks(pid: int) -> int | None:
    """Clock ticks from boot to the start of process `pid`, None if it is gone or a zombie.

    With the pid it names a process for good, as a pid alone is given out again.
    """
    fields = _stat_fields(pid)
    return None if fields is None or fields[0] in {"Z", "X"} else int(fields[19])


def is_running(pid: int, ticks: int | None = None) -> bool:
    """Whether process `pid` lives (a zombie does not), and is the one that started at `ticks` if given."""
    found = start_ticks(pid)
    return found is not None and ticks in {None, found}


def process_tree(roots: Iterable[int]) -> list[int]:
    """Pids of the living processes in `roots` and of all their descendants, parents first."""
    children: dict[int, list[int]] = {}
    for pid in _all_pids():
        fields = _stat_fields(pid)
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(pid)
    tree = [pid for pid in dict.fromkeys(roots) if is_running(pid)]
    for pid in tree:  # grows while it is walked
        tree.extend(child for child in children.get(pid, ()) if child not in tree)
    return tree


def pss_bytes(roots: Iterable[int]) -> int:
    """Memory in bytes of `roots` and all their descendants, shared pages counted in proportion (PSS).

    Processes that end meanwhile, or that another user owns, count as nothing.
    """
    total = 0
    for pid in process_tree(roots):
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def working_in(folder: Path, program: str) -> list[int]:
    """Pids of living processes that run an executable named `program` with `folder` as working directory."""
    folder = folder.resolve()
    found = []
    for pid in _all_pids():
        try:
            cwd = (_PROC / str(pid) / "cwd").readlink()
            exe = (_PROC / str(pid) / "exe").readlink()
        except OSError:  # gone meanwhile, or of another user
            continue
        # The kernel appends " (deleted)" when the file was replaced, as an upgrade of the wheel does.
        if cwd == folder and exe.name.removesuffix(" (deleted)") == program and is_running(pid):
            found.append(pid)
    return found


def send_signal(pid: int, number: signal.Signals) -> bool:
    """Send `number` to process `pid`; False if it is already gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_port_taken(host: str, port: int) -> bool:
    """Whether something listens on the port, so that a server of ours could not."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Sessions that ended a moment ago (TIME_WAIT) are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of proc(5) stat from the third (state) on: the second, the name, may hold any character."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
