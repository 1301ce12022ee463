"""site.toml: where the buses of a site are, by name; read by the gateway of that site only."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Framer = Literal["tcp", "rtu", "rtu_over_tcp"]
Parity = Literal["none", "even", "odd"]
# A meter on a wire answers within this time or not at all; a site may say otherwise.
DEFAULT_TIMEOUT_S: Final = {"tcp": 1.0, "rtu": 0.6, "rtu_over_tcp": 1.0}
# After a time-out on a shared wire: how long the latest answer may still be under way.
DEFAULT_QUIET_S: Final = 0.5
# Names of one and the same place.
_LOOPBACK: Final = {"localhost": "127.0.0.1", "[::1]": "127.0.0.1"}
_CODE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class InvalidSite(ValueError):
    """A site file that cannot be used; the text says where and why."""


@dataclass(frozen=True, slots=True)
class BusAddress:
    """One bus: host and port (tcp, rtu_over_tcp), or tty, baud rate, parity and stop bits (rtu)."""

    code: str
    framer: Framer
    host: str
    port: int
    tty: str
    baud: int
    timeout_s: float
    quiet_s: float
    parity: Parity = "none"
    stopbits: int = 1

    @property
    def is_rtu(self) -> bool:
        """Whether frames carry no transaction number, so that a late answer looks like the next one."""
        return self.framer != "tcp"

    @property
    def silence_s(self) -> float:
        """Silence between frames: 3.5 characters of 11 bits, not under 1.75 ms (Modbus serial line 2.5.1.1)."""
        return max(3.5 * 11 / self.baud, 0.00175) if self.is_rtu else 0.0


@dataclass(frozen=True, slots=True)
class Site:
    """A site: its code is the gateway's edge name."""

    code: str
    buses: Mapping[str, BusAddress]


def parse_site(text: str) -> Site:
    """Return the checked site. Raises InvalidSite."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSite(f"site file is no TOML: {error}") from None
    code = data.get("site")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise InvalidSite('site file needs a line like  site = "site-1"')
    buses: dict[str, BusAddress] = {}
    taken: dict[str, str] = {}
    entries = data.get("bus", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidSite("buses are tables: each begins with a line  [[bus]]")
    for entry in entries:
        bus = _bus(entry)
        if bus.code in buses:
            raise InvalidSite(f"bus {bus.code} is named twice")
        where = bus.tty or f"{_LOOPBACK.get(bus.host.lower(), bus.host.lower())}:{bus.port}"
        if where in taken:
            # Two framers on one converter garble each other, and so do two masters.
            other = buses[taken[where]]
            mix = "" if other.framer == bus.framer else f", as {other.framer} and as {bus.framer}"
            raise InvalidSite(f"buses {other.code} and {bus.code} share {where}{mix}")
        taken[where] = bus.code
        buses[bus.code] = bus
    return Site(code, buses)


def _bus(entry: Mapping[str, Any]) -> BusAddress:
    code, framer = entry.get("code"), entry.get("framer")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise InvalidSite("every [[bus]] needs a code")
    if framer not in ("tcp", "rtu", "rtu_over_tcp"):
        raise InvalidSite(f"bus {code}: framer is tcp, rtu or rtu_over_tcp, not {framer!r}")
    host, port, tty = "", 0, ""
    if framer == "rtu":
        tty = str(entry.get("tty", ""))
        if not tty:
            raise InvalidSite(f"bus {code}: an rtu bus needs a tty")
    else:
        host, _, digits = str(entry.get("address", "")).rpartition(":")
        if not host or not digits.isdecimal() or not 0 < int(digits) < 65536:
            raise InvalidSite(f"bus {code}: address looks like 127.0.0.1:502")
        port = int(digits)
    try:
        baud = int(entry.get("baud", 9600))
        timeout_s = float(entry.get("timeout_s", DEFAULT_TIMEOUT_S[framer]))
        quiet_s = float(entry.get("quiet_s", DEFAULT_QUIET_S))
    except (TypeError, ValueError):
        raise InvalidSite(f"bus {code}: baud, timeout_s and quiet_s are numbers") from None
    if baud < 300 or not 0 < timeout_s <= 10 or not 0 <= quiet_s <= 10:
        raise InvalidSite(f"bus {code}: baud from 300, timeout_s and quiet_s up to 10")
    parity, stopbits = entry.get("parity", "none"), entry.get("stopbits", 1)
    if parity not in ("none", "even", "odd") or stopbits not in (1, 2):
        raise InvalidSite(f"bus {code}: parity is none, even or odd, and stopbits 1 or 2")
    return BusAddress(code, framer, host, port, tty, baud, timeout_s, quiet_s, parity, stopbits)
