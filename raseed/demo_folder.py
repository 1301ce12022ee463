"""What a demo keeps in its data folder: ports, its own secrets, test keys and the addresses of its buses."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmware_sim.town import Town

HOST = "127.0.0.1"
DEFAULT_PORT = 8080
HIDDEN_PORTS = ("postgres", "mqtt", "provider", "control", "tcp-1", "tcp-2", "tcp-3")
BAUD = 9600
PORT_RANGE = range(20_000, 32_000)
MAX_PORT_TRIES = 200  # with half of the range taken, two hundred misses do not happen
STAFF = {"engineer": "engineer", "agent": "agent", "supervisor": "supervisor"}
STAFF_NAMES = {
    "engineer": ("Engineer", "المهندس"),
    "agent": ("Agent", "الموظف"),
    "supervisor": ("Supervisor", "المشرف"),
}  # in both scripts


class PortBusy(Exception):
    """The port of the web pages is taken by another program."""


class FolderUnusable(Exception):
    """The data folder cannot be written or is not a demo's."""


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Paths below one data folder."""

    path: Path

    @property
    def postgres(self) -> Path:
        """The embedded server's folder."""
        return self.path / "postgres"

    @property
    def broker(self) -> Path:
        """The embedded broker's folder."""
        return self.path / "broker"

    @property
    def vault_file(self) -> Path:
        """The test vending keys."""
        return self.path / "keys" / "vending-keys.json"

    @property
    def site_file(self) -> Path:
        """Bus addresses, read by the gateway and the simulator."""
        return self.path / "site.toml"

    @property
    def staff_file(self) -> Path:
        """Names and passwords of the demo's staff, readable by its owner only."""
        return self.path / "staff.json"

    def state_of(self, role: str) -> Path:
        """The folder of one role's own state."""
        return self.path / role

    def prepare(self) -> None:
        """Make the folder. Raises FolderUnusable."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for role in ("simulate", "gateway", "provider", "keys"):
                (self.path / role).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise FolderUnusable(
                f"cannot write to {self.path}: {error.strerror}. Choose another: --data DIR"
            ) from error


def choose_ports(folder: DemoFolder, wanted: int | None) -> dict[str, int]:
    """Return and remember a port for each name. Raises PortBusy when the pages' port is taken.

    The pages' port is the one asked for, else the remembered one, else 8080; 0 takes any free one. The others
    are whatever is free, and stay the same as long as they stay free.
    """
    kept = _read(folder.path / "ports.json")
    ports = {name: int(kept.get(name, 0)) for name in HIDDEN_PORTS}
    portal = wanted if wanted is not None else int(kept.get("portal", DEFAULT_PORT))
    if portal and not _is_free(portal):
        raise PortBusy(
            f"port {portal} is taken by another program. Choose another:  raseed demo --port {portal + 1}"
            "   (or --port 0 for any free one)"
        )
    taken = {portal}
    for name in ("portal", *HIDDEN_PORTS):
        port = portal if name == "portal" else ports[name]
        if not port or (name != "portal" and (port in taken or not _is_free(port))):
            port = _free_port(taken)
        taken.add(port)
        ports[name] = port
    _write(folder.path / "ports.json", ports)
    return ports


def keep_secrets(folder: DemoFolder) -> dict[str, str]:
    """Return this demo's own secrets, made at the first start and kept in a file of its owner."""
    path = folder.path / "secrets.json"
    found = _read(path)
    if not found:
        found = {"secret_key": secrets.token_hex(32), "provider_secret": secrets.token_hex(32)}
        _write(path, found)
    return {name: str(value) for name, value in found.items()}


def keep_staff_passwords(folder: DemoFolder) -> dict[str, str]:
    """Return name → password of the demo's staff, made at random at the first start."""
    found = _read(folder.staff_file)
    if not found:
        found = {name: secrets.token_urlsafe(12) for name in STAFF}
        _write(folder.staff_file, found)
    return {name: str(value) for name, value in found.items()}


def keep_test_keys(folder: DemoFolder, town: Town) -> None:
    """Write random vending keys, labelled as test keys, for the supply groups of the town, once."""
    if folder.vault_file.exists():
        return
    from token_engine.decoder_key import VendingKey
    from token_engine.identifiers import BaseDate, KeyType, following_key_revision
    from token_engine.key_material import VendingKeyMaterial
    from token_engine.software_vault import write_key_file

    groups = {(meter.sgc, meter.krn, meter.kt, meter.base_date) for meter in town.meters}
    # The revision after, so that a recode can be tried, and the stock keys of meters on the shelf.
    groups |= {(sgc, following_key_revision(krn), kt, base) for sgc, krn, kt, base in groups}
    groups |= {(sgc, krn, int(KeyType.DDTK), base) for sgc, krn, _kt, base in groups}
    keys = {}
    for sgc, krn, kt, base_date in sorted(groups):
        material = VendingKeyMaterial(secrets.token_bytes(20))
        keys[sgc, krn, KeyType(kt)] = VendingKey(material, KeyType(kt), BaseDate(f"{base_date % 100:02d}"))
    new = folder.vault_file.with_suffix(".new")
    write_key_file(new, keys)
    new.replace(folder.vault_file)


def write_site_file(folder: DemoFolder, ports: Mapping[str, int], site: str) -> None:
    """Write the bus addresses, of which the database knows nothing."""
    state = folder.state_of("simulate")
    lines = [f"site = {json.dumps(site)}\n"]
    lines += [
        f'\n[[bus]]\ncode = "{code}"\nframer = "tcp"\naddress = "{HOST}:{ports[code]}"\n'
        for code in ("tcp-1", "tcp-2", "tcp-3")
    ]
    for code in ("rtu-1", "rtu-2"):
        tty = json.dumps(str((state / code).absolute()))
        lines.append(f'\n[[bus]]\ncode = "{code}"\nframer = "rtu"\ntty = {tty}\nbaud = {BAUD}\n')
    folder.site_file.write_text("".join(lines), encoding="utf-8")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port(taken: set[int]) -> int:
    """A free port below the range of outgoing connections, so that none of them takes it meanwhile."""
    for _try in range(MAX_PORT_TRIES):
        port = secrets.randbelow(PORT_RANGE.stop - PORT_RANGE.start) + PORT_RANGE.start
        if port not in taken and _is_free(port):
            return port
    raise PortBusy(f"no free port was found between {PORT_RANGE.start} and {PORT_RANGE.stop - 1}")


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FolderUnusable(
            f"{path} cannot be read ({error}). Start afresh:  raseed demo --reset"
        ) from error
    return dict(found)


def _write(path: Path, content: Mapping[str, object]) -> None:
    new = path.with_name(path.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as output:
        json.dump(content, output, indent=1)
    new.replace(path)
