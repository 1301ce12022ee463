"""Register profiles: what stands where in a meter, as versioned data; checked at load, planned into reads."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from meter_gateway import registers
from meter_gateway.registers import RegisterError, RegisterType, WordOrder

Value = int | str | None
# Modbus Application Protocol 1.1b3, 6.3: a read answers at most 125 registers.
MAX_READ: Final = 125
# A second request costs as much as some 20 unwanted registers at 9600 baud; merge across up to this many.
DEFAULT_MERGE_GAP: Final = 16
_ADDRESSES: Final = 0x10000
_PROFILE_DIR: Final = Path(__file__).parent / "profiles"


class InvalidProfile(ValueError):
    """A profile that cannot be used; the text names the profile, the register and the rule it breaks."""


@dataclass(frozen=True, slots=True)
class Register:
    """One value: wire address (0-based), words, type, and decimal scale to an integer base unit."""

    name: str
    block: str
    fc: int
    address: int
    count: int
    type: RegisterType
    order: WordOrder = "ABCD"
    scale: Decimal = Decimal(1)
    unit: str = ""
    sentinels: tuple[Decimal, ...] = ()
    writable: bool = False
    choices: Mapping[int, str] | None = None

    def decode(self, words: Sequence[int]) -> Value:
        """Return an integer in base units, text, digits or a choice's name; None for "no value"."""
        if len(words) != self.count:
            raise RegisterError(f"{self.name} takes {self.count} registers, not {len(words)}")
        if self.type == "ascii":
            return registers.decode_ascii(words, self.order)
        if self.type == "bcd":
            return registers.decode_bcd(words, self.order)
        raw = registers.decode_decimal(words, self.type, self.order)
        if raw is None or raw in self.sentinels:
            return None
        value = registers.to_base_units(raw, self.scale)
        if self.choices is None:
            return value
        if value not in self.choices:
            raise RegisterError(f"{self.name} holds {value}, which has no meaning")
        return self.choices[value]

    def encode(self, value: int | str) -> list[int]:
        """Return the words for a value in base units, text, digits or a choice's name."""
        if self.type in ("ascii", "bcd"):
            encode = registers.encode_ascii if self.type == "ascii" else registers.encode_bcd
            return encode(str(value), self.count, self.order)
        if isinstance(value, str):
            value = self._number_of(value)
        return registers.encode_decimal(Decimal(value) / self.scale, self.type, self.order)

    def _number_of(self, name: str) -> int:
        for number, choice in (self.choices or {}).items():
            if choice == name:
                return number
        raise RegisterError(f"{self.name} has no choice {name!r}")


@dataclass(frozen=True, slots=True)
class Read:
    """One request: `count` registers from `address` by function code `fc`."""

    fc: int
    address: int
    count: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A meter model's map. `fast` blocks are read every poll, `slow` ones now and then."""

    name: str
    version: int
    title: str
    commodity: str
    max_read: int
    even_only: bool
    merge_gap: int
    write_fcs: frozenset[int]
    gap_s: float
    registers: Mapping[str, Register]
    pairs: tuple[tuple[str, ...], ...]
    sums: Mapping[str, tuple[str, ...]]
    fast: tuple[str, ...]
    slow: tuple[str, ...]

    def names_of(self, blocks: Iterable[str]) -> tuple[str, ...]:
        """Return the names of all registers in these blocks, in the order of the file."""
        wanted = frozenset(blocks)
        return tuple(name for name, register in self.registers.items() if register.block in wanted)

    def plan(self, names: Iterable[str]) -> tuple[Read, ...]:
        """Return the fewest reads that fetch these registers: near ones merged, no register or pair split."""
        return plan_reads(self, tuple(names))

    def decode(self, names: Iterable[str], image: Mapping[tuple[int, int], int]) -> dict[str, Value]:
        """Return values by name from words keyed (fc, address). Raises RegisterError where one is missing."""
        values: dict[str, Value] = {}
        for name in names:
            register = self.registers[name]
            try:
                words = [image[register.fc, register.address + i] for i in range(register.count)]
            except KeyError:
                raise RegisterError(f"{name} was not read") from None
            values[name] = register.decode(words)
        for name, members in self.sums.items():
            parts = [values.get(member) for member in members]
            if all(isinstance(part, int) for part in parts):
                values[name] = sum(part for part in parts if isinstance(part, int))
        return values

    def encode(self, values: Mapping[str, int | str]) -> dict[int, int]:
        """Return words keyed by address for values by name: what a write or a simulated meter holds.

        A sum is spread over its members, each but the finest taking whole units of its scale.
        """
        words: dict[int, int] = {}
        for name, value in values.items():
            if name in self.sums:
                words.update(self.encode(self._spread(name, int(value))))
                continue
            register = self.registers[name]
            words.update(enumerate(register.encode(value), register.address))
        return words

    def has(self, name: str) -> bool:
        """Whether the map holds this value, in one register or as a sum."""
        return name in self.registers or name in self.sums

    def _spread(self, name: str, value: int) -> dict[str, int | str]:
        parts: dict[str, int | str] = {}
        for member in sorted(self.sums[name], key=lambda one: -self.registers[one].scale):
            unit = int(self.registers[member].scale)
            parts[member] = value // unit * unit
            value %= unit
        return parts

    def encode_write(self, values: Mapping[str, int | str]) -> tuple[int, list[int]]:
        """Return (address, words) of one FC16 with all values. Raises InvalidProfile if they do not join."""
        for name in values:
            if not self.registers[name].writable:
                raise InvalidProfile(f"{self.name}: {name} must not be written")
        words = self.encode(values)
        first, last = min(words), max(words)
        if last - first + 1 != len(words):
            raise InvalidProfile(f"{self.name}: {', '.join(values)} do not join into one write")
        return first, [words[address] for address in range(first, last + 1)]


def plan_reads(profile: Profile, names: Sequence[str]) -> tuple[Read, ...]:
    """Return merged reads for `names`; a pair counts as one piece. Raises InvalidProfile on unknown names."""
    pieces: set[tuple[int, int, int]] = set()
    partners = {name: pair for pair in profile.pairs for name in pair}
    for name in names:
        if name not in profile.registers:
            raise InvalidProfile(f"{profile.name}: no register is called {name!r}")
        together = [profile.registers[one] for one in partners.get(name, (name,))]
        start = min(register.address for register in together)
        end = max(register.address + register.count for register in together)
        pieces.add((together[0].fc, start, end))
    reads: list[Read] = []
    for fc, start, end in sorted(pieces):
        if reads and reads[-1].fc == fc:
            last = reads[-1]
            gap = start - (last.address + last.count)
            merged = _widened(profile, last.address, max(end, last.address + last.count))
            if gap <= profile.merge_gap and merged[1] - merged[0] <= profile.max_read:
                reads[-1] = Read(fc, merged[0], merged[1] - merged[0])
                continue
        begin, stop = _widened(profile, start, end)
        reads.append(Read(fc, begin, stop - begin))
    return tuple(reads)


def _widened(profile: Profile, start: int, end: int) -> tuple[int, int]:
    if not profile.even_only:
        return start, end
    return start - start % 2, end + end % 2


@cache
def load_profile(name: str) -> Profile:
    """Return a profile of the package by name. Raises InvalidProfile when there is none or it is wrong."""
    path = _PROFILE_DIR / f"{name}.toml"
    if "/" in name or "\\" in name or not path.is_file():
        raise InvalidProfile(f"no profile is called {name!r}")
    return parse_profile(path.read_text("utf-8"))


def profile_names() -> tuple[str, ...]:
    """Return the names of all profiles in the package."""
    return tuple(sorted(path.stem for path in _PROFILE_DIR.glob("*.toml")))


def parse_profile(text: str) -> Profile:
    """Return the checked profile that a TOML text describes. Raises InvalidProfile naming the fault."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidProfile(f"no TOML: {error}") from None
    name = str(data.get("name", "(no name)"))
    if "extends" in data:
        data = _extended(name, data)
    try:
        profile = _read(name, data)
    except KeyError as error:
        raise InvalidProfile(f"{name}: {error} is missing") from None
    except (TypeError, AttributeError, InvalidOperation) as error:
        raise InvalidProfile(f"{name}: {error}") from None
    check_profile(profile)
    return profile


def _extended(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a profile over the one it extends: its blocks replace blocks of the same name, the rest stays."""
    path = _PROFILE_DIR / f"{data['extends']}.toml"
    if not path.is_file():
        raise InvalidProfile(f"{name}: extends {data['extends']!r}, which is not there")
    under = tomllib.loads(path.read_text("utf-8"))
    if "extends" in under:
        raise InvalidProfile(f"{name}: extends {data['extends']!r}, which itself extends another")
    merged = {**under, **data}
    merged["pairs"] = [*under.get("pairs", []), *data.get("pairs", [])]
    for table in ("blocks", "choices"):
        merged[table] = {**under.get(table, {}), **data.get(table, {})}
    return merged


def _read(name: str, data: Mapping[str, Any]) -> Profile:
    choices = {
        key: {int(number): str(choice) for number, choice in table.items()}
        for key, table in data.get("choices", {}).items()
    }
    found: dict[str, Register] = {}
    for block, table in data["blocks"].items():
        for short, entry in table["registers"].items():
            if short in found:
                raise InvalidProfile(f"{name}: register {short} is named twice")
            found[short] = _read_register(name, block, short, {**table, **entry}, choices)
    sums = {total: tuple(members) for total, members in data.get("sums", {}).items()}
    return Profile(
        name=name,
        version=int(data["version"]),
        title=str(data["title"]),
        commodity=str(data["commodity"]),
        max_read=int(data.get("max_read", MAX_READ)),
        even_only=bool(data.get("even_only", False)),
        merge_gap=int(data.get("merge_gap", DEFAULT_MERGE_GAP)),
        write_fcs=frozenset(int(fc) for fc in data.get("write_fcs", [])),
        gap_s=float(data.get("gap_s", 0)),
        registers=found,
        pairs=tuple(tuple(pair) for pair in (*data.get("pairs", []), *sums.values())),
        sums=sums,
        fast=tuple(data["poll"]["fast"]),
        slow=tuple(data["poll"].get("slow", [])),
    )


def _read_register(
    profile: str, block: str, name: str, entry: Mapping[str, Any], choices: Mapping[str, Mapping[int, str]]
) -> Register:
    type_ = entry["type"]
    if type_ not in registers.WORDS and type_ not in ("ascii", "bcd"):
        raise InvalidProfile(f"{profile}: {name} has unknown type {type_!r}")
    wanted = entry.get("choices")
    if wanted is not None and wanted not in choices:
        raise InvalidProfile(f"{profile}: {name} names choices {wanted!r} that are not there")
    return Register(
        name=name,
        block=block,
        fc=int(entry.get("fc", 3)),
        address=int(entry["address"]),
        count=int(entry.get("count", registers.WORDS.get(type_, 0))),
        type=type_,
        order=entry.get("order", "ABCD"),
        scale=Decimal(str(entry.get("scale", "1"))),
        unit=str(entry.get("unit", "")),
        sentinels=tuple(Decimal(str(value)) for value in entry.get("sentinels", [])),
        writable=bool(entry.get("writable", False)),
        choices=choices[wanted] if wanted else None,
    )


def check_profile(profile: Profile) -> None:
    """Raise InvalidProfile when the map breaks a rule: limits, overlaps, split pairs, unknown names."""
    name = profile.name
    if profile.commodity not in ("electricity", "water"):
        raise InvalidProfile(f"{name}: commodity {profile.commodity!r} is neither electricity nor water")
    if profile.version < 1:
        raise InvalidProfile(f"{name}: version must be 1 or more")
    if not 1 <= profile.max_read <= MAX_READ:
        raise InvalidProfile(f"{name}: max_read {profile.max_read} is outside 1..{MAX_READ}")
    if not profile.write_fcs <= {6, 16}:
        raise InvalidProfile(f"{name}: write_fcs may hold 6 and 16 only")
    for register in profile.registers.values():
        _check_register(profile, register)
    _check_overlaps(profile)
    for pair in profile.pairs:
        _check_pair(profile, pair)
    for total, members in profile.sums.items():
        if total in profile.registers or members not in profile.pairs:
            raise InvalidProfile(f"{name}: sum {total} must have a name of its own and be a pair")
    blocks = {register.block for register in profile.registers.values()}
    for block in (*profile.fast, *profile.slow):
        if block not in blocks:
            raise InvalidProfile(f"{name}: poll names block {block!r} that is not there")


def _check_register(profile: Profile, register: Register) -> None:
    where = f"{profile.name}: {register.name}"
    if register.fc not in (3, 4):
        raise InvalidProfile(f"{where} has fc {register.fc}; registers are read by 3 or 4")
    if register.count < 1 or register.address < 0 or register.address + register.count > _ADDRESSES:
        raise InvalidProfile(f"{where} lies outside the address space")
    fixed = registers.WORDS.get(register.type)
    if fixed is not None and register.count != fixed:
        raise InvalidProfile(f"{where}: {register.type} takes {fixed} registers, not {register.count}")
    if register.count > profile.max_read:
        raise InvalidProfile(f"{where} is longer than max_read {profile.max_read}: a value is never split")
    if register.order not in registers.WORD_ORDERS:
        raise InvalidProfile(f"{where} has unknown word order {register.order!r}")
    if not register.scale.is_finite() or register.scale <= 0:
        raise InvalidProfile(f"{where} has scale {register.scale}; it must be a positive decimal")
    if register.writable and 16 not in profile.write_fcs:
        raise InvalidProfile(f"{where} is writable but write_fcs has no 16")
    if profile.even_only and (register.address % 2 or register.count % 2):
        raise InvalidProfile(f"{where} breaks even_only")


def _check_overlaps(profile: Profile) -> None:
    ordered = sorted(profile.registers.values(), key=lambda one: (one.fc, one.address))
    for before, after in pairwise(ordered):
        if before.fc == after.fc and after.address < before.address + before.count:
            raise InvalidProfile(f"{profile.name}: {before.name} and {after.name} overlap")


def _check_pair(profile: Profile, pair: Sequence[str]) -> None:
    for name in pair:
        if name not in profile.registers:
            raise InvalidProfile(f"{profile.name}: pair names {name!r} that is not there")
    members = [profile.registers[name] for name in pair]
    if len({register.fc for register in members}) != 1:
        raise InvalidProfile(f"{profile.name}: pair {'+'.join(pair)} is read by two function codes")
    span = max(r.address + r.count for r in members) - min(r.address for r in members)
    if span > profile.max_read:
        raise InvalidProfile(f"{profile.name}: pair {'+'.join(pair)} does not fit one read")
