"""What to ask an unknown meter, how long that takes, and how well each profile fits what it answered. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from meter_gateway.profile import Profile, Read, Value, load_profile, profile_names
from meter_gateway.registers import RegisterError
from token_engine.errors import TokenEngineError
from token_engine.identifiers import Drn

BITS_PER_CHARACTER: Final = 11  # start, 8 data, parity or second stop, stop (Modbus serial line 2.5.1)
# A question of 8 characters and the answer of one register (7), or an exception (5).
SCAN_CHARACTERS: Final = 15
# The slowest meters of our list answer within 100 ms; as much again for an adapter's own buffering.
TURNAROUND_S: Final = 0.2
# A converter says by exception 0x0A or 0x0B that nobody answered behind it; it waits this long or longer.
CONVERTER_S: Final = 0.5
# After a silent unit: what still comes names its unit, so a scan need not wait longer.
SCAN_QUIET_S: Final = 0.03
SCAN_READ: Final = Read(3, 0, 1)
CONVERTER_SILENT: Final = frozenset({10, 11})  # gateway path unavailable, gateway target silent
# Longest reads that meters of our list take, largest first: which one answers tells the limit.
READ_LIMITS: Final = (125, 80, 60, 50, 22)
# One request of a probe or of a register view, on a slow line.
REQUEST_S: Final = 0.6
DEFAULT_BAUD: Final = 9600
IDENTITY: Final = "serial"

# What a supply can be. Gulf households: 240 V nominal, 50 Hz; 60 Hz is Saudi Arabia's.
VOLTAGE_MV: Final = (180_000, 260_000)
FREQUENCIES_MHZ: Final = ((49_000, 51_000), (59_000, 61_000))
COUNTER_MAX: Final = {"electricity": 10_000_000_000, "water": 1_000_000_000_000}  # 10 GWh, 1 million m3
LOAD_MAX: Final = {"electricity": 200_000, "water": 50_000_000}  # 200 kW, 50 m3/h
LIKELY: Final = 60
MARGIN: Final = 10  # so much ahead of the next: otherwise a person chooses


@dataclass(frozen=True, slots=True)
class Line:
    """How a serial port is set."""

    baud: int
    parity: str

    def __str__(self) -> str:
        return f"{self.baud} 8{self.parity}1"


@dataclass(frozen=True, slots=True)
class Reason:
    """One argument for (points above 0) or against a profile; `code` is for whoever words it."""

    code: str
    points: int
    text: str
    register: str = ""
    value: Value = None

    def told(self) -> dict[str, Any]:
        """As it stands in a probe's result."""
        return {
            "code": self.code,
            "points": self.points,
            "text": self.text,
            "register": self.register,
            "value": self.value,
        }


@dataclass(frozen=True, slots=True)
class Score:
    """How well a profile fits: 0 to 100; `is_ruled_out` when the meter contradicts it."""

    profile: str
    title: str
    points: int
    is_ruled_out: bool
    reasons: tuple[Reason, ...]

    def told(self) -> dict[str, Any]:
        """As it stands in a probe's result."""
        return {
            "profile": self.profile,
            "title": self.title,
            "score": self.points,
            "ruled_out": self.is_ruled_out,
            "reasons": [reason.told() for reason in self.reasons],
        }


@dataclass(frozen=True, slots=True)
class Heard:
    """What a unit answered to a probe: words by (fc, address), and exception codes (0: silence) by read."""

    words: Mapping[tuple[int, int], int]
    refused: Mapping[Read, int]
    max_read: int | None = None


def scan_lines(argument: Mapping[str, Any], *, baud: int, parity: str = "N") -> tuple[Line, ...]:
    """Return the settings to try: all bauds without parity first (a pty refuses parity once re-opened)."""
    bauds = argument["bauds"] or [baud]
    parities = argument["parities"] if argument["bauds"] or argument["parities"] != ["N"] else [parity]
    return tuple(Line(one, parity) for parity in parities for one in bauds)


def scan_timeout_s(framer: str, baud: int) -> float:
    """Return how long a unit may take before it counts as absent."""
    if framer == "tcp":
        return CONVERTER_S
    return TURNAROUND_S + SCAN_CHARACTERS * BITS_PER_CHARACTER / baud


def estimate_s(kind: str, argument: Mapping[str, Any], *, framer: str, baud: int = DEFAULT_BAUD) -> float:
    """Return about how long a task takes when nobody answers, in seconds; of a checked argument."""
    if kind == "trace":
        return float(argument["seconds"])
    if kind == "scan":
        units = int(argument["last"]) - int(argument["first"]) + 1
        asked_s = float(argument["timeout_ms"]) / 1000
        return sum(
            units * ((asked_s or scan_timeout_s(framer, line.baud)) + SCAN_QUIET_S)
            for line in scan_lines(argument, baud=baud)
        )
    if kind == "probe":
        return REQUEST_S * len(probe_reads(argument["profiles"] or profile_names()))
    profile = load_profile(argument["profile"])
    return REQUEST_S * max(1, len(profile.plan(shown_names(profile))))


def shown_names(profile: Profile) -> tuple[str, ...]:
    """Return what may be shown of a meter: everything but the mailboxes, whose words may be a token's."""
    return tuple(
        name
        for name, register in profile.registers.items()
        if not register.writable and not register.block.endswith("_mailbox")
    )


def probe_reads(names: Iterable[str]) -> tuple[Read, ...]:
    """Return the reads that bring identity and polled values of all these profiles, each once."""
    found: dict[Read, None] = {}
    for name in names:
        profile = load_profile(name)
        for read in _probed(profile):
            found[read] = None
    return tuple(found)


def _probed(profile: Profile) -> tuple[Read, ...]:
    # Block by block: one hole of another maker's map must not hide the blocks beside it.
    reads: dict[Read, None] = {}
    for block in dict.fromkeys((*profile.fast, *profile.slow)):
        for read in profile.plan(profile.names_of((block,))):
            reads[read] = None
    return tuple(reads)


def decode_heard(profile: Profile, heard: Heard) -> tuple[dict[str, Value], list[str]]:
    """Return the values that a profile finds in what was heard, and the names it cannot make sense of."""
    values: dict[str, Value] = {}
    broken: list[str] = []
    for block in dict.fromkeys((*profile.fast, *profile.slow)):
        for name in profile.names_of((block,)):
            register = profile.registers[name]
            if not all((register.fc, register.address + i) in heard.words for i in range(register.count)):
                continue
            try:
                values.update(profile.decode((name,), heard.words))
            except RegisterError as error:
                if "was not read" not in str(error):  # its multiplier stands elsewhere
                    broken.append(name)
    for total, members in profile.sums.items():
        parts = [values.get(member) for member in members]
        if all(isinstance(part, int) for part in parts):
            values[total] = sum(part for part in parts if isinstance(part, int))
    return values, broken


def score_profile(profile: Profile, heard: Heard) -> Score:
    """Weigh a profile against what the unit answered: identity, limits, refusals, plausible values."""
    reasons: list[Reason] = []
    values, broken = decode_heard(profile, heard)
    silent = [read for read in _probed(profile) if read in heard.refused]
    for read in silent:
        code = heard.refused[read]
        said = f"exception {code}" if code else "silence"
        reasons.append(
            Reason(
                "refuses",
                -40,
                f"the meter answers {said} to {read.count} registers from 0x{read.address:04X}",
            )
        )
    reasons += [Reason("no_sense", -40, f"{name} holds nothing that it could mean", name) for name in broken]
    reasons += _identity(profile, values)
    reasons += _plausible(profile, values)
    if heard.max_read is not None:
        fits = heard.max_read >= profile.max_read
        text = f"it answers {heard.max_read} registers at once, the profile asks for up to {profile.max_read}"
        exact = heard.max_read == profile.max_read
        reasons.append(Reason("read_limit", (10 if exact else 2) if fits else -10, text))
    against = any(reason.points <= -30 for reason in reasons)
    points = max(0, min(100, sum(reason.points for reason in reasons)))
    return Score(profile.name, profile.title, 0 if against else points, against, tuple(reasons))


def _identity(profile: Profile, values: Mapping[str, Value]) -> list[Reason]:
    reasons: list[Reason] = []
    serial = values.get(IDENTITY)
    if isinstance(serial, str):
        if is_drn(serial):
            reasons.append(
                Reason("serial_is_drn", 40, f"serial number {serial}, check digit right", IDENTITY, serial)
            )
        elif serial:
            reasons.append(Reason("serial_text", 10, f"serial number {serial}", IDENTITY, serial))
        else:
            reasons.append(Reason("serial_empty", -40, "the serial number is empty", IDENTITY))
    unit = values.get("credit_unit")
    if isinstance(unit, int):
        fits = unit == {"electricity": 0, "water": 1}[profile.commodity] or unit == 2
        text = f"credit is counted in {('Wh', 'mL', 'money')[unit] if 0 <= unit <= 2 else unit}"
        reasons.append(Reason("credit_unit", 10 if fits else -100, text, "credit_unit", unit))
    return reasons


def is_drn(text: str) -> bool:
    """Whether a text is a meter number with a right check digit."""
    try:
        Drn(text)
    except (TokenEngineError, ValueError):
        return False
    return True


def _plausible(profile: Profile, values: Mapping[str, Value]) -> list[Reason]:
    reasons: list[Reason] = []
    for name, value in values.items():
        quantity = _PHASE.sub("", name)
        # A phase that is not connected reads nothing, and says nothing about the map.
        if not isinstance(value, int) or quantity not in _WEIGHTS or (value == 0 and quantity != name):
            continue
        fits, what = _fits(profile, quantity, value)
        good, bad, zero = _WEIGHTS[quantity]
        text = f"{name} {show(value, unit_of(profile, name))}: {what}"
        if value == 0:
            reasons.append(Reason("zero", zero, text, name, value))
        elif not fits:
            reasons.append(Reason("implausible", bad, text, name, value))
        elif quantity == name:
            reasons.append(Reason("plausible", good, text, name, value))
    return reasons


_PHASE: Final = re.compile(r"_[23]$")
# Points for a value that fits, for one that cannot be, and for nothing at all.
_WEIGHTS: Final = {
    "voltage": (20, -40, -40),
    "frequency": (15, -30, -5),
    "counter": (15, -40, 2),
    "load": (5, -30, 1),
}


def _fits(profile: Profile, quantity: str, value: int) -> tuple[bool, str]:
    if quantity == "voltage":
        return VOLTAGE_MV[0] <= value <= VOLTAGE_MV[1], "a supply has 180 to 260 V"
    if quantity == "frequency":
        return any(low <= value <= high for low, high in FREQUENCIES_MHZ), "a supply has 50 or 60 Hz"
    if quantity == "counter":
        most = COUNTER_MAX[profile.commodity]
        return 0 <= value <= most, "a counter is not negative and not beyond a lifetime's use"
    return abs(value) <= LOAD_MAX[profile.commodity], "a house does not draw more than its supply carries"


def rank(scores: Iterable[Score]) -> list[Score]:
    """Return scores, best first; of equals the plainer map, by name."""
    return sorted(scores, key=lambda one: (one.is_ruled_out, -one.points, one.profile))


def likely(ranked: Sequence[Score]) -> str | None:
    """Return the profile to propose; None when nothing fits well, or two fit alike."""
    if not ranked or ranked[0].is_ruled_out or ranked[0].points < LIKELY:
        return None
    if len(ranked) > 1 and not ranked[1].is_ruled_out and ranked[0].points - ranked[1].points < MARGIN:
        return None
    return ranked[0].profile


def unit_of(profile: Profile, name: str) -> str:
    """Return the base unit of a value, of a sum that of its members."""
    if name in profile.sums:
        name = profile.sums[name][0]
    return profile.registers[name].unit if name in profile.registers else ""


_SHOWN: Final = {
    "Wh": ("kWh", 1000),
    "mL": ("m³", 1_000_000),
    "mV": ("V", 1000),
    "mA": ("A", 1000),
    "mHz": ("Hz", 1000),
    "mL/h": ("L/h", 1000),
}


def show(value: Value, unit: str) -> str:
    """Return a value as a meter's display shows it: kWh, m3, V; integers without a unit as they are."""
    if value is None:
        return "no value"
    if not isinstance(value, int) or unit not in _SHOWN:
        return f"{value} {unit}".rstrip()
    shown, divisor = _SHOWN[unit]
    places = len(str(divisor)) - 1
    sign, whole = ("-" if value < 0 else ""), abs(value)
    decimals = f"{whole % divisor:0{places}d}".rstrip("0")
    return f"{sign}{whole // divisor}{'.' + decimals if decimals else ''} {shown}"
