"""The town: one fixed little utility of places, people, networks and meters, made from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property

from firmware_sim import town_names
from token_engine.identifiers import Drn, MeterPan, luhn_digit

HOUSEHOLDS = 34
ELECTRICITY_METERS = 40  # six households have a second one: an annex or a shop below the house
FREE_POINTS = 3  # houses that are wired and wait for an engineer with a meter
IIN = "600727"
SGC = {"electricity": "201457", "water": "201458"}
TI = {"electricity": 1, "water": 2}
TCP_BUSES = ("tcp-1", "tcp-2", "tcp-3")
RTU_BUSES = ("rtu-1", "rtu-2")
_STRIDE = 7  # shares no factor with 40 or 20, so stepping by it mixes the links over the town
_WATER_OF_FIVE = (0, 2, 4)  # of each five households these three take water: 20 of 34

_ELECTRICITY_LINKS = ("mqtt",) * 16 + ("tcp",) * 12 + ("rtu",) * 8 + ("keypad",) * 4
_WATER_LINKS = ("tcp",) * 6 + ("mqtt",) * 8 + ("rtu",) * 4 + ("keypad",) * 2
# Profiles of meter_gateway: our own prepaid map, since no vendor publishes one with tokens.
_PROFILES = {"electricity": "raseed-prepaid-e1", "water": "raseed-prepaid-w1"}
_MODELS = {
    ("electricity", "mqtt"): "Raseed E1 NB",
    ("electricity", "tcp"): "Raseed E2 Modbus",
    ("electricity", "rtu"): "Raseed E2 Modbus",
    ("electricity", "keypad"): "Raseed E0 Keypad",
    ("water", "mqtt"): "Raseed W1 NB",
    ("water", "tcp"): "Raseed W2 Modbus",
    ("water", "rtu"): "Raseed W2 Modbus",
    ("water", "keypad"): "Raseed W0 Keypad",
}


@dataclass(frozen=True, slots=True)
class NetworkNode:
    """A part of the power or water network; kind substation, feeder, transformer, source or zone."""

    code: str
    commodity: str
    kind: str
    parent_code: str | None
    name_en: str
    name_ar: str


@dataclass(frozen=True, slots=True)
class ServiceLocation:
    """A house."""

    code: str
    address_en: str
    address_ar: str


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """Where one commodity enters a house; `node_code` is its transformer or zone."""

    code: str
    location_code: str
    node_code: str
    commodity: str


@dataclass(frozen=True, slots=True)
class TownMeter:
    """A meter as its maker delivered it and as it stands today.

    `link` is mqtt, modbus or keypad; `profile`, `bus` and `unit` only with modbus. Credit and counter in Wh
    or mL. `usage_point_code` is None for a spare on the shelf.
    """

    drn: str
    commodity: str
    model: str
    link: str
    profile: str | None
    bus: str | None
    unit: int | None
    ea: str
    sgc: str
    krn: int
    ti: int
    base_date: int
    usage_point_code: str | None
    initial_credit: int
    initial_counter: int
    mean_daily_use: int  # Wh or mL, over a year
    iin: str = IIN
    kt: int = 2
    ken: int = 255
    dkga: str = "04"

    @property
    def pan(self) -> str:
        """The 18-digit meter PAN."""
        return str(MeterPan.of(self.iin, self.drn))


@dataclass(frozen=True, slots=True)
class TownCustomer:
    """A customer of the utility; `arrears_minor` in baisa is an old debt brought along."""

    code: str
    name_en: str
    name_ar: str
    phone: str
    language: str
    usage_point_codes: tuple[str, ...]
    arrears_minor: int = 0


@dataclass(frozen=True)
class Town:
    """The whole town; the first customer is the persona of the one-click subscriber."""

    seed: int
    nodes: tuple[NetworkNode, ...]
    locations: tuple[ServiceLocation, ...]
    usage_points: tuple[UsagePoint, ...]
    meters: tuple[TownMeter, ...]
    customers: tuple[TownCustomer, ...]
    # On a wire, and in nobody's books: for an engineer to find.
    strangers: tuple[TownMeter, ...] = ()

    @cached_property
    def meter_by_drn(self) -> dict[str, TownMeter]:
        """Meters by DRN."""
        return {meter.drn: meter for meter in self.meters}

    @cached_property
    def usage_point_by_code(self) -> dict[str, UsagePoint]:
        """Usage points by code."""
        return {point.code: point for point in self.usage_points}

    @cached_property
    def node_by_code(self) -> dict[str, NetworkNode]:
        """Network nodes by code."""
        return {node.code: node for node in self.nodes}

    @property
    def installed(self) -> tuple[TownMeter, ...]:
        """The meters that hang on a wall."""
        return tuple(meter for meter in self.meters if meter.usage_point_code is not None)

    @property
    def spares(self) -> tuple[TownMeter, ...]:
        """The meters on the shelf, one of each link."""
        return tuple(meter for meter in self.meters if meter.usage_point_code is None)

    @property
    def free_usage_points(self) -> tuple[UsagePoint, ...]:
        """Usage points without a meter."""
        taken = {meter.usage_point_code for meter in self.meters}
        return tuple(point for point in self.usage_points if point.code not in taken)

    def node_of(self, meter: TownMeter) -> NetworkNode | None:
        """The transformer or zone that feeds this meter, None for a spare."""
        if meter.usage_point_code is None:
            return None
        return self.node_by_code[self.usage_point_by_code[meter.usage_point_code].node_code]

    def nodes_under(self, code: str) -> frozenset[str]:
        """Codes of a node and of all below it. Raises KeyError for an unknown code."""
        found = {self.node_by_code[code].code}
        for node in self.nodes:  # parents stand before their children
            if node.parent_code in found:
                found.add(node.code)
        return frozenset(found)

    def meters_under(self, code: str) -> tuple[TownMeter, ...]:
        """The installed meters that a node feeds. Raises KeyError for an unknown code."""
        under = self.nodes_under(code)
        return tuple(
            meter for meter in self.installed if (node := self.node_of(meter)) and node.code in under
        )


def build_town(seed: int = 1) -> Town:
    """The town of a seed: 60 installed meters, 3 spares, 34 households and 3 that wait."""
    dice = random.Random(f"town:{seed}")
    locations = tuple(_location(index, dice) for index in range(HOUSEHOLDS + FREE_POINTS))
    points = _usage_points()
    meters = _Makers(dice).meters(points)
    customers = tuple(_customer(index, points, dice) for index in range(HOUSEHOLDS + FREE_POINTS))
    return Town(seed, _network(), locations, points, meters, customers, _strangers())


def _strangers() -> tuple[TownMeter, ...]:
    """Two meters that somebody wired and told nobody of: other makers' maps, one of them low word first."""
    return tuple(
        TownMeter(
            drn=str(Drn(body + luhn_digit(body))),
            commodity="electricity",
            model=model,
            link="modbus",
            profile=profile,
            bus=bus,
            unit=unit,
            ea="07",
            sgc=SGC["electricity"],
            krn=1,
            ti=TI["electricity"],
            base_date=2014,
            usage_point_code=None,
            initial_credit=0,
            initial_counter=counter,
            mean_daily_use=30_000,
            kt=1,
        )
        for body, model, profile, bus, unit, counter in (
            ("0477700001", "EM340 prepaid", "carlo-gavazzi-em340-prepaid", "rtu-1", 33, 1_234_500),
            ("0477700002", "SDM120 prepaid", "eastron-sdm120-prepaid", "tcp-1", 44, 987_600),
        )
    )


def _network() -> tuple[NetworkNode, ...]:
    names = town_names
    nodes = [NetworkNode("SS-1", "electricity", "substation", None, *names.SUBSTATION)]
    for index, name in enumerate(names.FEEDERS):
        nodes.append(NetworkNode(f"FD-{index + 1}", "electricity", "feeder", "SS-1", *name))
    for index, name in enumerate(names.TRANSFORMERS):
        feeder = "FD-1" if index < 3 else "FD-2"
        nodes.append(NetworkNode(f"TX-{index + 1}", "electricity", "transformer", feeder, *name))
    nodes.append(NetworkNode("WS-1", "water", "source", None, *names.WATER_SOURCE))
    for index, name in enumerate(names.WATER_ZONES):
        nodes.append(NetworkNode(f"WZ-{index + 1}", "water", "zone", "WS-1", *name))
    return tuple(nodes)


def _share(house: int, parts: int) -> int:
    """Which of `parts` equal stretches of the street this house lies in, from 0."""
    return min(house * parts // HOUSEHOLDS, parts - 1)


def _location(index: int, dice: random.Random) -> ServiceLocation:
    en, ar = town_names.QUARTERS[_share(index, len(town_names.QUARTERS))]
    way, house = 1200 + 10 * _share(index, 5) + index % 4, dice.randrange(11, 990)
    return ServiceLocation(
        f"L-{index + 1:04d}", f"House {house}, Way {way}, {en}", f"منزل {house}، سكة {way}، {ar}"
    )


def _usage_points() -> tuple[UsagePoint, ...]:
    houses = list(range(HOUSEHOLDS)) + list(range(HOUSEHOLDS - (ELECTRICITY_METERS - HOUSEHOLDS), HOUSEHOLDS))
    houses += range(HOUSEHOLDS, HOUSEHOLDS + FREE_POINTS)
    points = [
        UsagePoint(f"UP-E-{n + 1:04d}", f"L-{house + 1:04d}", f"TX-{_share(house, 5) + 1}", "electricity")
        for n, house in enumerate(houses)
    ]
    wet = [house for house in range(HOUSEHOLDS) if house % 5 in _WATER_OF_FIVE]
    points += [
        UsagePoint(f"UP-W-{n + 1:04d}", f"L-{house + 1:04d}", f"WZ-{_share(house, 3) + 1}", "water")
        for n, house in enumerate(wet)
    ]
    return tuple(points)


class _Makers:
    """Hands out serial numbers, buses and units in order."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._serials = set[str]()
        self._on_bus = dict.fromkeys(TCP_BUSES + RTU_BUSES, 0)

    def meters(self, points: tuple[UsagePoint, ...]) -> tuple[TownMeter, ...]:
        installed = points[:ELECTRICITY_METERS], points[ELECTRICITY_METERS + FREE_POINTS :]
        found = []
        for links, places in zip((_ELECTRICITY_LINKS, _WATER_LINKS), installed, strict=True):
            for n, point in enumerate(places):
                found.append(self._meter(point.commodity, links[n * _STRIDE % len(links)], point.code, n))
        found += [
            self._meter("electricity", link, None, n) for n, link in enumerate(("mqtt", "tcp", "keypad"))
        ]
        return tuple(found)

    def _meter(self, commodity: str, link: str, point_code: str | None, n: int) -> TownMeter:
        mean = self._mean_use(commodity)
        bus = unit = profile = None
        if link in ("tcp", "rtu"):
            bus, unit = self._place(TCP_BUSES if link == "tcp" else RTU_BUSES)
            profile = _PROFILES[commodity]
        installed = point_code is not None
        return TownMeter(
            drn=self._drn(commodity),
            commodity=commodity,
            model=_MODELS[commodity, link],
            link="modbus" if bus else link,
            profile=profile,
            bus=bus,
            unit=unit,
            ea="11" if n % 4 == 3 else "07",
            sgc=SGC[commodity],
            krn=1,
            ti=TI[commodity],
            base_date=2014,
            usage_point_code=point_code,
            initial_credit=self._credit(commodity, n) if installed else 0,
            # More than the 13 months of history that lie before it.
            initial_counter=mean * self._dice.randrange(600, 1500) + self._dice.randrange(mean)
            if installed
            else 0,
            mean_daily_use=mean,
            # A meter on the shelf holds its stock key (DDTK), and gets its own one (DUTK) at the wall.
            kt=2 if installed else 1,
        )

    def _mean_use(self, commodity: str) -> int:
        if commodity == "electricity":
            return self._dice.randrange(18_000, 62_000)  # Wh a day, mean of the year
        return self._dice.randrange(450_000, 1_500_000)  # mL a day

    def _credit(self, commodity: str, n: int) -> int:
        """Wh or mL left today: the persona is nearly out, one house is cut off, the others are fine."""
        if commodity == "electricity":
            return {0: 4_250, 3: 0}.get(n, self._dice.randrange(9_000, 340_000))
        return {0: 1_800_000, 5: 0}.get(n, self._dice.randrange(900_000, 38_000_000))

    def _place(self, buses: tuple[str, ...]) -> tuple[str, int]:
        bus = min(buses, key=lambda code: self._on_bus[code])
        self._on_bus[bus] += 1
        return bus, self._on_bus[bus]

    def _drn(self, commodity: str) -> str:
        while True:  # a clash is rarer than one in a million
            body = f"{'04' if commodity == 'electricity' else '12'}{self._dice.randrange(10**8):08d}"
            if body not in self._serials:
                self._serials.add(body)
                return str(Drn(body + luhn_digit(body)))


def _customer(index: int, points: tuple[UsagePoint, ...], dice: random.Random) -> TownCustomer:
    name_en, name_ar = town_names.PEOPLE[index]
    location = f"L-{index + 1:04d}"
    guest = " bin " not in name_en and " bint " not in name_en
    owes = index == 0 or (index % 6 == 2 and index < HOUSEHOLDS)
    return TownCustomer(
        code=f"C-{index + 1:04d}",
        name_en=name_en,
        name_ar=name_ar,
        phone=f"+9689000{1001 + index}",
        language="en" if guest else "ar",
        usage_point_codes=tuple(point.code for point in points if point.location_code == location),
        arrears_minor=12_500 if index == 0 else dice.randrange(3_000, 60_000, 500) if owes else 0,
    )
