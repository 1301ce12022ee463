"""The map of link states: site, bus, meter, each up, down or unknown, from what was heard last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

# A meter that was not polled for three rounds, and at least this long, is not known to be there.
STALE_AFTER: Final = timedelta(minutes=5)
STALE_ROUNDS: Final = 3


class Link(StrEnum):
    """What is known of a link."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KnownSite:
    """A site; `online` is None while its gateway was never heard."""

    code: str
    name_en: str
    name_ar: str
    poll_ms: int
    online: bool | None
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class KnownMeter:
    """A Modbus meter on its bus."""

    site: str
    bus: str
    unit_id: int
    drn: str
    commodity: str
    address_en: str | None
    address_ar: str | None
    link_up: bool
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class MeterNode:
    """A meter with its state."""

    meter: KnownMeter
    state: Link


@dataclass(frozen=True, slots=True)
class BusNode:
    """A bus with its meters by unit; `seen_at` is the newest good poll on it."""

    code: str
    framer: str
    state: Link
    seen_at: datetime | None
    meters: tuple[MeterNode, ...]

    def count(self, state: str) -> int:
        """How many of its meters are so."""
        return sum(node.state == state for node in self.meters)


@dataclass(frozen=True, slots=True)
class SiteNode:
    """A site with its buses."""

    site: KnownSite
    state: Link
    buses: tuple[BusNode, ...]

    @property
    def has_trouble(self) -> bool:
        """Something of it is known to be down."""
        return self.state is Link.DOWN or any(
            bus.state is Link.DOWN or bus.count("down") > 0 for bus in self.buses
        )

    def count(self, state: str) -> int:
        """How many meters of all its buses are so."""
        return sum(bus.count(state) for bus in self.buses)


def build_map(
    sites: Sequence[KnownSite],
    buses: Sequence[tuple[str, str, str]],
    meters: Sequence[KnownMeter],
    now: datetime,
) -> list[SiteNode]:
    """The tree of all sites; `buses` are (site, code, framer). Behind a silent gateway nothing is known."""
    return [_site(site, buses, meters, now) for site in sites]


def _site(
    site: KnownSite, buses: Sequence[tuple[str, str, str]], meters: Sequence[KnownMeter], now: datetime
) -> SiteNode:
    state = Link.UNKNOWN if site.online is None else Link.UP if site.online else Link.DOWN
    stale = max(STALE_AFTER, STALE_ROUNDS * timedelta(milliseconds=site.poll_ms))
    found = []
    for owner, code, framer in buses:
        if owner != site.code:
            continue
        own = [meter for meter in meters if (meter.site, meter.bus) == (site.code, code)]
        nodes = tuple(
            MeterNode(meter, _meter(meter, state, now - stale))
            for meter in sorted(own, key=lambda meter: meter.unit_id)
        )
        seen = [meter.last_seen_at for meter in own if meter.last_seen_at]
        found.append(BusNode(code, framer, _bus(nodes, state), max(seen, default=None), nodes))
    return SiteNode(site, state, tuple(found))


def _meter(meter: KnownMeter, gateway: Link, oldest: datetime) -> Link:
    if gateway is not Link.UP or meter.last_seen_at is None:
        return Link.UNKNOWN
    if not meter.link_up:
        return Link.DOWN
    return Link.UP if meter.last_seen_at >= oldest else Link.UNKNOWN


def _bus(nodes: Sequence[MeterNode], gateway: Link) -> Link:
    if gateway is not Link.UP or not nodes:
        return Link.UNKNOWN
    states = {node.state for node in nodes}
    if Link.UP in states:
        return Link.UP
    return Link.DOWN if states == {Link.DOWN} else Link.UNKNOWN
