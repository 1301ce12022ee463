"""A meter's register map as values: registers that decode and encode, a profile that plans its reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from meter_gateway import registers
from meter_gateway.registers import RegisterError, RegisterType, WordOrder

Value = int | str | None
Key = tuple[str, ...]
# Modbus Application Protocol 1.1b3, 6.3: a read answers at most 125 registers.
MAX_READ: Final = 125


class InvalidProfile(ValueError):
    """A profile that cannot be used; the text names the profile, the register and the rule it breaks.

    `key` is the place in the TOML file, `hint` says what to do about it; both may be empty.
    """

    def __init__(self, text: str, key: Key = (), hint: str = "") -> None:
        super().__init__(text)
        self.key = key
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Register:
    """One value: wire address (0-based), words, type, and decimal scale to an integer base unit.

    `factors` makes it a selector: its number picks a multiplier for the registers that are `scaled_by` it.
    """

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
    factors: Mapping[int, Decimal] | None = None
    scaled_by: tuple[str, ...] = ()

    def decode(self, words: Sequence[int], factor: Decimal = Decimal(1)) -> Value:
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
        value = registers.to_base_units(raw, self.scale * factor)
        if self.choices is None:
            return value
        if value not in self.choices:
            raise RegisterError(f"{self.name} holds {value}, which has no meaning")
        return self.choices[value]

    def multiplier(self, words: Sequence[int]) -> Decimal:
        """Return what this register multiplies others by: a unit code's factor, or a transformer's ratio."""
        raw = registers.decode_decimal(words, self.type, self.order)
        if self.factors is not None:
            if raw is None or raw not in self.factors:
                raise RegisterError(f"{self.name} holds {raw}, a unit that the profile does not know")
            return self.factors[int(raw)]
        if raw is None or raw <= 0:
            raise RegisterError(f"{self.name} holds {raw}: no ratio is set in the meter")
        return raw * self.scale

    def encode(self, value: int | str, factor: Decimal = Decimal(1)) -> list[int]:
        """Return the words for a value in base units, text, digits or a choice's name."""
        if self.type in ("ascii", "bcd"):
            encode = registers.encode_ascii if self.type == "ascii" else registers.encode_bcd
            return encode(str(value), self.count, self.order)
        if isinstance(value, str):
            value = self._number_of(value)
        return registers.encode_decimal(Decimal(value) / (self.scale * factor), self.type, self.order)

    def neutral_words(self) -> list[int]:
        """Return what a selector or ratio holds when nobody set it: its first unit, or a ratio of one."""
        raw = next(iter(self.factors)) if self.factors else Decimal(1) / self.scale
        return registers.encode_decimal(Decimal(raw), self.type, self.order)

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
    """A meter model's map. `fast` blocks are read every poll, `slow` ones now and then.

    `kind` says whether it holds our prepaid block or only meters. `remote_close` says how far an order from
    afar may go: to ready-for-reconnection, or to closed. `settle_s` is how long the meter is silent after its
    power came, `freeze_minutes` are minutes of the hour in which its clock must be left alone.
    """

    name: str
    version: int
    title: str
    commodity: str
    kind: str  # prepaid or meter
    max_read: int
    even_only: bool
    merge_gap: int
    holes: tuple[tuple[int, int], ...]
    write_fcs: frozenset[int]
    gap_s: float
    settle_s: float
    remote_close: str  # ready or closed
    freeze_minutes: frozenset[int]
    line: str
    source: str
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
        """Return values by name from words keyed (fc, address).

        Raises RegisterError where one is missing or has no meaning.
        """
        return self._summed({name: self._decode(name, image) for name in names})

    def decode_known(
        self, names: Iterable[str], image: Mapping[tuple[int, int], int]
    ) -> tuple[dict[str, Value], dict[str, str]]:
        """Return (values, faults): a value without meaning is None, and its fault says why, by name."""
        values: dict[str, Value] = {}
        faults: dict[str, str] = {}
        for name in names:
            try:
                values[name] = self._decode(name, image)
            except RegisterError as error:
                values[name] = None
                faults[name] = str(error)
        return self._summed(values), faults

    def _decode(self, name: str, image: Mapping[tuple[int, int], int]) -> Value:
        register = self.registers[name]
        factor = Decimal(1)
        for scaler in register.scaled_by:
            factor *= self.registers[scaler].multiplier(_words_of(self.registers[scaler], image))
        return register.decode(_words_of(register, image), factor)

    def _summed(self, values: dict[str, Value]) -> dict[str, Value]:
        for name, members in self.sums.items():
            parts = [values.get(member) for member in members]
            if all(isinstance(part, int) for part in parts):
                values[name] = sum(part for part in parts if isinstance(part, int))
        return values

    def encode(self, values: Mapping[str, int | str]) -> dict[int, int]:
        """Return words keyed by address for values by name: what a write or a simulated meter holds.

        A sum is spread over its members, each but the finest taking whole units of its scale. Units and
        ratios that others are scaled by are taken as nobody set them.
        """
        words: dict[int, int] = {}
        for name, value in values.items():
            if name in self.sums:
                words.update(self.encode(self.spread(name, int(value))))
                continue
            register = self.registers[name]
            words.update(enumerate(register.encode(value, self.neutral_factor(register)), register.address))
        return words

    def names_beside(self, value: str) -> tuple[str, ...]:
        """Return all registers of the blocks that hold a value, be it one register or a sum; none without it."""
        members = self.sums.get(value, (value,))
        return self.names_of(self.registers[name].block for name in members if name in self.registers)

    def has(self, name: str) -> bool:
        """Whether the map holds this value, in one register or as a sum."""
        return name in self.registers or name in self.sums

    @property
    def scalers(self) -> frozenset[str]:
        """Names of the registers that others are scaled by."""
        return frozenset(name for one in self.registers.values() for name in one.scaled_by)

    def neutral_factor(self, register: Register) -> Decimal:
        """Return what a register is scaled by while nobody set its units and ratios."""
        factor = Decimal(1)
        for name in register.scaled_by:
            scaler = self.registers[name]
            factor *= scaler.multiplier(scaler.neutral_words())
        return factor

    def spread(self, name: str, value: int) -> dict[str, int | str]:
        """Return the parts of a sum that stand for a value, coarse ones in whole units."""
        parts: dict[str, int | str] = {}
        members = sorted(self.sums[name], key=lambda one: -self._unit(one))
        for member in members[:-1]:
            unit = self._unit(member)
            part = int(Decimal(value) // unit * unit)
            parts[member] = part
            value -= part
        parts[members[-1]] = value
        return parts

    def _unit(self, name: str) -> Decimal:
        register = self.registers[name]
        return register.scale * self.neutral_factor(register)

    def encode_write(self, values: Mapping[str, int | str]) -> tuple[int, list[int]]:
        """Return (address, words) of one FC16 with all values. Raises InvalidProfile if they do not join."""
        for name in values:
            if name not in self.registers or not self.registers[name].writable:
                raise InvalidProfile(f"{self.name}: {name} must not be written")
        words = self.encode(values)
        first, last = min(words), max(words)
        if last - first + 1 != len(words):
            raise InvalidProfile(f"{self.name}: {', '.join(values)} do not join into one write")
        return first, [words[address] for address in range(first, last + 1)]


def _words_of(register: Register, image: Mapping[tuple[int, int], int]) -> list[int]:
    try:
        return [image[register.fc, register.address + place] for place in range(register.count)]
    except KeyError:
        raise RegisterError(f"{register.name} was not read") from None


def plan_reads(profile: Profile, names: Sequence[str]) -> tuple[Read, ...]:
    """Return merged reads for `names` and what they are scaled by; a pair counts as one piece.

    Raises InvalidProfile on unknown names.
    """
    pieces: set[tuple[int, int, int]] = set()
    for name in names:
        if name not in profile.registers:
            raise InvalidProfile(f"{profile.name}: no register is called {name!r}")
        for wanted in (name, *profile.registers[name].scaled_by):
            pieces |= _pieces(profile, wanted)
    reads: list[Read] = []
    for fc, start, end in sorted(pieces):
        if reads and reads[-1].fc == fc:
            last = reads[-1]
            last_end = last.address + last.count
            merged = _widened(profile, last.address, max(end, last_end))
            fits = merged[1] - merged[0] <= profile.max_read and start - last_end <= profile.merge_gap
            if fits and not _has_hole(profile, last_end, start):
                reads[-1] = Read(fc, merged[0], merged[1] - merged[0])
                continue
        begin, stop = _widened(profile, start, end)
        reads.append(Read(fc, begin, stop - begin))
    return tuple(reads)


def _pieces(profile: Profile, name: str) -> set[tuple[int, int, int]]:
    """The spans (fc, start, end) that must be read whole to read one register: itself, or each pair it is in."""
    found = set()
    for pair in [pair for pair in profile.pairs if name in pair] or [(name,)]:
        together = [profile.registers[one] for one in pair]
        start = min(register.address for register in together)
        end = max(register.address + register.count for register in together)
        found.add((together[0].fc, start, end))
    return found


def _has_hole(profile: Profile, start: int, end: int) -> bool:
    return any(first < end and last >= start for first, last in profile.holes)


def _widened(profile: Profile, start: int, end: int) -> tuple[int, int]:
    if not profile.even_only:
        return start, end
    return start - start % 2, end + end % 2
