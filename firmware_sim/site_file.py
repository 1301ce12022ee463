"""The site file: where each bus of a site is found; the simulator listens there."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRAMERS = ("tcp", "rtu", "rtu_over_tcp")
DEFAULT_BAUD = 9600


class InvalidSite(ValueError):
    """A site file that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class BusAddress:
    """One bus: `host` and `port` for tcp and rtu_over_tcp, `tty` and `baud` for rtu."""

    code: str
    framer: str
    host: str = ""
    port: int = 0
    tty: Path | None = None
    baud: int = DEFAULT_BAUD


def read_site(path: Path) -> tuple[BusAddress, ...]:
    """The buses of a site file. Raises InvalidSite."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSite(f"{path.name}: {error}") from None
    buses = data.get("bus", [])
    if not isinstance(buses, list) or not all(isinstance(bus, dict) for bus in buses):
        raise InvalidSite(f"{path.name}: buses stand under [[bus]]")
    found = tuple(_read_bus(bus) for bus in buses)
    if len({bus.code for bus in found}) != len(found):
        raise InvalidSite(f"{path.name}: two buses have one code")
    places = [one.tty or (one.host, one.port) for one in found if one.tty or one.port]
    if len(set(places)) != len(places):
        raise InvalidSite(f"{path.name}: two buses share a tty or an address")
    return found


def _read_bus(bus: dict[str, Any]) -> BusAddress:
    code, framer = str(bus.get("code", "")), str(bus.get("framer", ""))
    if not code or framer not in FRAMERS:
        raise InvalidSite(f"bus {code!r} needs a code and a framer of {', '.join(FRAMERS)}")
    if framer == "rtu":
        baud = bus.get("baud", DEFAULT_BAUD)
        if not bus.get("tty") or not isinstance(baud, int) or not 300 <= baud <= 921_600:
            raise InvalidSite(f"bus {code} needs a tty and a baud of 300 to 921600")
        return BusAddress(code, framer, tty=Path(str(bus["tty"])), baud=baud)
    host, _, port = str(bus.get("address", "")).rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65_535:
        raise InvalidSite(f"bus {code} needs an address host:port")
    return BusAddress(code, framer, host=host, port=int(port))
