"""Start the children of `raseed demo` in order, keep them alive, and leave nothing behind."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from raseed import processes
from raseed.run_folder import RunFolder

# A child that dies is started again at once; one that keeps dying waits a little longer each time, but never
# so long that it is away for 2 s, the promise of the demo.
RESTART_DELAYS_S = (0.0, 0.2, 0.4, 0.8, 1.2)
# A child that served this long is healthy again: its next death is answered at once.
STABLE_S = 10.0
# One that fails this often before it ever served will not recover (port taken, wrong setting): say so.
START_ATTEMPTS = 3
LOG_CHECK_S = 60.0


class SupervisorError(Exception):
    """The supervisor cannot do what was asked."""


class ChildFailed(SupervisorError):
    """A child did not come up, not even when tried again; the text ends with the tail of its log."""


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """One child process: what to run, when it serves, and how it is stopped.

    `env` is added to our own environment. `prepare` runs before each start, `ready` returns once the child
    serves (and is given up after `ready_timeout_s`). `after` names children that must have served before the
    first start. `death_signal` is what the kernel sends when the supervisor itself is killed.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], Awaitable[None]] | None = None
    ready: Callable[[], Awaitable[None]] | None = None
    after: Sequence[str] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    ready_timeout_s: float = 30.0
    death_signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Event:
    """Something to tell: `kind` is starting, ready, died, failed, stopping or stopped; `name` the child."""

    kind: str
    name: str
    text: str
    elapsed_s: float


def role_argv(*words: str) -> list[str]:
    """Command line of one of our own roles under this same Python: `raseed WORDS...`."""
    return [sys.executable, "-m", "raseed", *words]


@dataclass(eq=False)
class _Child:
    spec: ChildSpec
    served: asyncio.Future[None]
    started_at: float = 0.0
    restarts: int = 0
    is_ready: bool = False
    stopping: bool = False
    process: subprocess.Popen[bytes] | None = None
    exited: asyncio.Future[int] | None = None
    task: asyncio.Task[None] | None = None


class Supervisor:
    """Children of one data folder, as an async context that stops them all, last started first, at its end.

    Inside the context SIGINT, SIGTERM and SIGHUP cancel the body; the context then ends without an exception
    and `stopped_by` tells the signal. A second signal cuts the waiting short. Needs Linux (pidfd) and must
    run in the main thread, whose end is what the children take for the parent's death.
    """

    def __init__(self, data_dir: Path, on_event: Callable[[Event], None] | None = None) -> None:
        self.stopped_by: signal.Signals | None = None
        self._folder = RunFolder(data_dir)
        self._on_event = on_event or (lambda _event: None)
        self._children: dict[str, _Child] = {}
        self._facts: dict[str, str | int] = {}
        self._body: asyncio.Task[object] | None = None
        self._hurry = asyncio.Event()
        self._signals: list[signal.Signals] = []
        self._log_task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Take the data folder; raises DataFolderBusy if another supervisor holds it."""
        self._folder.take()
        self._body = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # started under nohup
            loop.add_signal_handler(number, self._on_signal, number)
            self._signals.append(number)
        self._log_task = asyncio.create_task(self._trim_logs())
        self._write_table()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Stop all children; swallow the cancellation that a signal caused."""
        try:
            await self.stop()
        finally:
            if self._log_task is not None:
                self._log_task.cancel()
            for number in self._signals:
                asyncio.get_running_loop().remove_signal_handler(number)
            self._folder.release()
        by_signal = self.stopped_by is not None and kind is asyncio.CancelledError
        if by_signal and self._body is not None:
            self._body.uncancel()
        return by_signal

    async def start(self, *specs: ChildSpec) -> None:
        """Start children and return when all of them serve; may be called again for more.

        Those that do not wait for each other start side by side. Raises ValueError for a name that is taken
        or an `after` that is not known yet, ChildFailed if one does not come up.
        """
        loop = asyncio.get_running_loop()
        new = []
        for spec in specs:
            missing = set(spec.after) - set(self._children)
            if spec.name in self._children or missing:
                raise ValueError(f"child {spec.name}: name taken, or {sorted(missing)} not known before it")
            child = _Child(spec, loop.create_future())
            # Where two fail together only one is raised below; the other must not be reported as lost.
            child.served.add_done_callback(lambda served: served.cancelled() or served.exception())
            self._children[spec.name] = child
            new.append(child)
        for child in new:
            child.task = asyncio.create_task(self._tend(child), name=child.spec.name)
        await asyncio.gather(*(asyncio.shield(child.served) for child in new))

    async def forever(self) -> None:
        """Wait until a signal ends the context."""
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Stop every child, each only once those that name it in `after` have ended; safe to call twice."""
        stops: dict[str, asyncio.Task[None]] = {}
        for child in reversed(self._children.values()):
            waits_for = [stops[name] for name in stops if child.spec.name in self._children[name].spec.after]
            stops[child.spec.name] = asyncio.create_task(self._stop_child(child, waits_for))
        if stops:
            # A second cancellation must not leave children behind: they end anyway, only sooner.
            waiting = asyncio.gather(*stops.values())
            while not waiting.done():
                try:
                    await asyncio.shield(waiting)
                except asyncio.CancelledError:
                    self._hurry.set()
        self._children.clear()

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> bool:
        """Send a signal to the child `name`; False if it does not run now. Raises KeyError if unknown."""
        pid = self.pid(name)
        return pid is not None and processes.send_signal(pid, number)

    def pid(self, name: str) -> int | None:
        """Pid of the child `name`, None while it does not run. Raises KeyError if unknown."""
        child = self._children[name]
        running = child.process is not None and child.exited is not None and not child.exited.done()
        return child.process.pid if running and child.process is not None else None

    def names(self) -> tuple[str, ...]:
        """Names of all children, in the order of their start."""
        return tuple(self._children)

    def is_ready(self, name: str) -> bool:
        """Whether the child `name` runs and has served since its last start. Raises KeyError if unknown."""
        return self._children[name].is_ready

    def pss_bytes(self) -> int:
        """Memory in bytes of this process and of everything below it (PSS)."""
        return processes.pss_bytes([os.getpid()])

    def publish(self, **facts: str | int) -> None:
        """Write facts (addresses, ports) into run.json, for tools."""
        self._facts.update(facts)
        self._write_table()

    # -- one child ---------------------------------------------------------------------------------------

    async def _tend(self, child: _Child) -> None:
        try:
            for name in child.spec.after:
                await asyncio.shield(self._children[name].served)
        except SupervisorError as error:
            child.served.set_exception(error)
            return
        failures = 0
        while True:
            began = time.monotonic()
            reason = await self._run_once(child)
            served, child.is_ready = child.is_ready, False
            if child.stopping:
                return
            self._tell("died", child, reason, time.monotonic() - child.started_at)
            if served and time.monotonic() - began > STABLE_S:
                failures = 0
            failures += 1
            if not child.served.done() and failures >= START_ATTEMPTS:
                self._tell("failed", child, reason, time.monotonic() - began)
                tail = self._folder.log_tail(child.spec.name)
                child.served.set_exception(ChildFailed(f"{child.spec.name} {reason}\n{tail}".rstrip()))
                return
            await asyncio.sleep(RESTART_DELAYS_S[min(failures, len(RESTART_DELAYS_S)) - 1])
            child.restarts += 1

    async def _run_once(self, child: _Child) -> str:
        """Run the child from start to end; gives the reason of its end in words."""
        spec = child.spec
        child.started_at = time.monotonic()
        self._tell("starting", child, "")
        try:
            if spec.prepare is not None:
                await spec.prepare()
            exited = self._spawn(child)
        except Exception as error:  # noqa: BLE001 - whatever hinders a start is a reason to try again
            return f"could not be started: {error}"
        if not await self._wait_ready(child, exited):
            if exited.done():
                return f"ended with {_in_words(exited.result())} before it served"
            self._signal_group(child, signal.SIGKILL)
            await asyncio.shield(exited)
            return f"did not serve within {spec.ready_timeout_s:g} s"
        child.is_ready = True
        if not child.served.done():
            child.served.set_result(None)
        self._tell("ready", child, "", time.monotonic() - child.started_at)
        return f"ended with {_in_words(await asyncio.shield(exited))}"

    async def _wait_ready(self, child: _Child, exited: asyncio.Future[int]) -> bool:
        if child.spec.ready is None:
            return True
        ready = asyncio.ensure_future(child.spec.ready())
        try:
            await _first_of(ready, exited, timeout_s=child.spec.ready_timeout_s)
            return ready.done() and ready.exception() is None and not exited.done()
        finally:
            ready.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await ready

    def _spawn(self, child: _Child) -> asyncio.Future[int]:
        spec = child.spec
        env = {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "2", **os.environ, **spec.env}
        with self._folder.open_log(spec.name) as log:
            log.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z start\n".encode())
            log.flush()
            child.process = subprocess.Popen(
                list(spec.argv),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=processes.die_with_parent(spec.death_signal),  # noqa: PLW1509 - only calls prctl
            )
        loop = asyncio.get_running_loop()
        exited: asyncio.Future[int] = loop.create_future()
        child.exited = exited
        pidfd = os.pidfd_open(child.process.pid)
        loop.add_reader(pidfd, self._on_exit, child, child.process, exited, pidfd)
        self._write_table()
        return exited

    def _on_exit(
        self, child: _Child, process: subprocess.Popen[bytes], exited: asyncio.Future[int], pidfd: int
    ) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        # Not reaped yet, so the number of its group still is its own: end what it may have left.
        self._signal_group(child, signal.SIGKILL)
        exited.set_result(process.wait())
        self._write_table()

    async def _stop_child(self, child: _Child, waits_for: list[asyncio.Task[None]]) -> None:
        if waits_for:
            await asyncio.wait(waits_for)
        child.stopping = True
        if self.pid(child.spec.name) is not None and child.exited is not None:
            began = time.monotonic()
            self._tell("stopping", child, "")
            self.kill(child.spec.name, child.spec.stop_signal)
            self._signal_group(child, signal.SIGCONT)  # a child that was halted cannot hear us
            hurry = asyncio.ensure_future(self._hurry.wait())
            await _first_of(child.exited, hurry, timeout_s=child.spec.stop_timeout_s)
            hurry.cancel()
            if not child.exited.done():
                self._signal_group(child, signal.SIGKILL)
            code = await asyncio.shield(child.exited)
            self._tell("stopped", child, _in_words(code), time.monotonic() - began)
        if child.task is not None:
            child.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await child.task
        child.served.cancel()

    def _signal_group(self, child: _Child, number: signal.Signals) -> None:
        if child.process is not None and child.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, number)

    # -- the whole ---------------------------------------------------------------------------------------

    def _on_signal(self, number: signal.Signals) -> None:
        if self.stopped_by is not None:
            self._hurry.set()
            return
        self.stopped_by = number
        if self._body is not None:
            self._body.cancel()

    def _tell(self, kind: str, child: _Child, text: str, elapsed_s: float = 0.0) -> None:
        self._write_table()
        self._on_event(Event(kind, child.spec.name, text, elapsed_s))

    def _write_table(self) -> None:
        rows: dict[str, dict[str, int | bool]] = {}
        for name, child in self._children.items():
            pid = self.pid(name)
            if pid is not None:
                ticks = processes.start_ticks(pid) or 0
                ready = child.is_ready
                rows[name] = {"pid": pid, "ticks": ticks, "restarts": child.restarts, "ready": ready}
        self._folder.write_table(json.dumps({"pid": os.getpid(), "children": rows, "facts": self._facts}))

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_S)
            for name in self._children:
                self._folder.trim_log(name)


async def _first_of(*futures: asyncio.Future[Any], timeout_s: float) -> None:
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _in_words(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"code {code}"
