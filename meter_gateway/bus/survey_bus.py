"""Carry out an engineer's task on a bus, one request a step: the owner of the bus does other work between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from meter_gateway.bus import survey
from meter_gateway.bus.bus_trace import Frame, describe, summary
from meter_gateway.bus.modbus_link import BusDown, BusLink, ModbusError, Refused
from meter_gateway.bus.site_file import BusAddress, Parity
from meter_gateway.bus.survey import Heard, Line
from meter_gateway.bus.word_order import read_orders
from meter_gateway.profile import Profile, Read, load_profile, profile_names
from meter_gateway.registers import RegisterError

# An engineer's own meters carry our identity block, if they are prepaid meters of ours.
IDENTITY_PROFILE: Final = "raseed-prepaid-e1"
PARITIES: Final[dict[str, Parity]] = {"N": "none", "E": "even", "O": "odd"}
_LETTERS: Final[dict[Parity, str]] = {name: letter for letter, name in PARITIES.items()}
# A port that was just let go by its owner may take a moment to open again.
REOPEN_S: Final = 0.6
# A unit that says nothing to this many requests of a probe is not there.
GIVE_UP: Final = 3
LOOK_S: Final = 0.25
# More bytes than this are not kept of one trace: some 20 minutes at 9600 baud.
MAX_TRACED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Step:
    """How far a task is: progress 0-100 and what is known; `look_s` until there is something to do again."""

    progress: int
    result: dict[str, Any]
    is_done: bool = False
    look_s: float = 0.0


@dataclass(slots=True)
class Wires:
    """A bus as tasks see it: the link in use, and one of other settings for scans, never both open at once."""

    address: BusAddress
    link: BusLink
    _tuned: BusLink | None = field(default=None)

    def tuned(self, line: Line, timeout_s: float) -> BusLink:
        """Return a link with these settings; whatever else is open on the bus is closed."""
        address = replace(
            self.address,
            baud=line.baud,
            parity=PARITIES[line.parity],
            timeout_s=timeout_s,
            quiet_s=survey.SCAN_QUIET_S,
        )
        if self._tuned is not None and self._tuned.address != address:
            self._tuned.close()
            self._tuned = None
        if self._tuned is None:
            self.link.close()
            self._tuned = BusLink(address)
        return self._tuned

    def release(self) -> None:
        """Let the bus's own link have the port again."""
        if self._tuned is not None:
            self._tuned.close()
            self._tuned = None


def run(
    kind: str, argument: Mapping[str, Any], wires: Wires, now_ms: Callable[[], int]
) -> AsyncIterator[Step]:
    """Return the steps of a task with a checked argument; the last one is done. Steps raise ModbusError."""
    if kind == "scan":
        return _scan(argument, wires)
    if kind == "probe":
        return _probe(argument, wires)
    if kind == "registers":
        return _registers(argument, wires, now_ms)
    if kind == "words":
        return _words(argument, wires, now_ms)
    return _trace(argument, wires, now_ms)


# -- scan ---------------------------------------------------------------------------------------------------


async def _scan(argument: Mapping[str, Any], wires: Wires) -> AsyncIterator[Step]:
    own = wires.address
    lines = survey.scan_lines(argument, baud=own.baud, parity=_LETTERS[own.parity])
    first, last = argument["first"], argument["last"]
    total = len(lines) * (last - first + 1)
    found: list[dict[str, Any]] = []
    garbled: list[int] = []
    skipped: list[str] = []
    asked = 0

    def told() -> dict[str, Any]:
        return {
            "asked": asked,
            "total": total,
            "units_found": list(found),
            "garbled": list(garbled),
            "lines": [str(line) for line in lines] if own.framer == "rtu" else [],
            "skipped": list(skipped),
        }

    for line in lines:
        timeout_s = argument["timeout_ms"] / 1000 or survey.scan_timeout_s(own.framer, line.baud)
        if not await _opens(wires, line, timeout_s):
            if len(lines) == 1:
                raise BusDown(f"bus {own.code} does not open")
            skipped.append(str(line))
            asked += last - first + 1
            continue
        for unit in range(first, last + 1):
            answer = await _knock(wires, line, timeout_s, unit)
            asked += 1
            if isinstance(answer, str):
                garbled.append(unit)
            elif answer is not None:
                found.append(answer)
            yield Step(min(99, 100 * asked // total), told())
    yield Step(100, told(), is_done=True)


async def _opens(wires: Wires, line: Line, timeout_s: float) -> bool:
    for _ in range(2):
        try:
            await wires.tuned(line, timeout_s).open()
        except BusDown:
            await asyncio.sleep(REOPEN_S)
        else:
            return True
    return False


async def _knock(wires: Wires, line: Line, timeout_s: float, unit: int) -> dict[str, Any] | str | None:
    """Ask a unit for one register: what it is, "garbled" when something came that nobody could read, or None."""
    for last_try in (False, True):
        link = wires.tuned(line, timeout_s)
        came = bytearray()
        link.tap = lambda is_sent, data, came=came: None if is_sent else came.extend(data)
        began = time.monotonic()
        try:
            await link.read(unit, survey.SCAN_READ)
            code = 0
        except Refused as error:
            code = error.code
            if not link.address.is_rtu and code in survey.CONVERTER_SILENT:
                return None
        except BusDown:
            if last_try:
                raise
            await asyncio.sleep(REOPEN_S)
            continue
        except ModbusError:
            if not came or (last_try and link.address.framer == "tcp"):
                return None
            if last_try:
                return "garbled"
            continue
        ms = round(1000 * (time.monotonic() - began))
        told = {
            "unit": unit,
            "baud": line.baud if link.address.framer == "rtu" else None,
            "parity": line.parity if link.address.framer == "rtu" else None,
            "answer": "exception" if code else "data",
            "code": code or None,
            "ms": ms,
        }
        return told | await _identity(wires, line, unit)
    return None


async def _identity(wires: Wires, line: Line, unit: int) -> dict[str, Any]:
    profile = load_profile(IDENTITY_PROFILE)
    names = ("serial", "model")
    # The answer is longer than the one that the scan waits for.
    link = wires.tuned(line, max(wires.address.timeout_s, 40 * survey.BITS_PER_CHARACTER / line.baud + 0.2))
    try:
        values = profile.decode(names, await _image(link, unit, profile.plan(names)))
    except (ModbusError, RegisterError):
        return {"serial": None, "model": None}
    serial = values["serial"]
    known = isinstance(serial, str) and survey.is_drn(serial)
    return {"serial": serial if known else None, "model": values["model"] if known else None}


async def _image(link: BusLink, unit: int, reads: tuple[Read, ...]) -> dict[tuple[int, int], int]:
    image: dict[tuple[int, int], int] = {}
    for read in reads:
        words = await link.read(unit, read)
        image.update({(read.fc, read.address + i): word for i, word in enumerate(words)})
    return image


# -- probe --------------------------------------------------------------------------------------------------


async def _probe(argument: Mapping[str, Any], wires: Wires) -> AsyncIterator[Step]:
    unit, names = argument["unit"], tuple(argument["profiles"] or profile_names())
    reads = survey.probe_reads(names)
    words: dict[tuple[int, int], int] = {}
    refused: dict[Read, int] = {}
    silences = 0
    for place, read in enumerate(reads):
        try:
            got = await wires.link.read(unit, read)
        except Refused as error:
            refused[read] = error.code
            if not wires.address.is_rtu and error.code in survey.CONVERTER_SILENT:
                silences += 1
        except BusDown:
            raise
        except ModbusError:
            refused[read] = 0
            silences += 1
        else:
            words.update({(read.fc, read.address + i): word for i, word in enumerate(got)})
        if silences >= GIVE_UP and not words and silences == place + 1:
            yield Step(100, _probed(unit, names, Heard({}, refused)) | {"is_silent": True}, is_done=True)
            return
        yield Step(min(95, 95 * (place + 1) // len(reads)), {})
    limit = await _read_limit(wires.link, unit, words)
    yield Step(100, _probed(unit, names, Heard(words, refused, limit)), is_done=True)


async def _read_limit(link: BusLink, unit: int, words: Mapping[tuple[int, int], int]) -> int | None:
    """Find how many registers the meter answers at once, from the first address that it answered."""
    identity = load_profile(IDENTITY_PROFILE).registers["serial"]
    key = (identity.fc, identity.address)
    if key not in words:
        return None
    for count in survey.READ_LIMITS:
        try:
            await link.read(unit, Read(*key, count))
        except BusDown:
            raise
        except ModbusError:
            continue
        return count
    return None


def _probed(unit: int, names: tuple[str, ...], heard: Heard) -> dict[str, Any]:
    ranked = survey.rank(survey.score_profile(load_profile(name), heard) for name in names)
    serial: object = None
    for name in names:
        values, _broken = survey.decode_heard(load_profile(name), heard)
        found = values.get(survey.IDENTITY)
        if isinstance(found, str) and survey.is_drn(found):
            serial = found
            break
    return {
        "unit": unit,
        "serial": serial,
        "max_read": heard.max_read,
        "is_silent": False,
        "likely": survey.likely(ranked),
        "profiles": [score.told() for score in ranked],
    }


# -- registers and words ------------------------------------------------------------------------------------


async def _registers(
    argument: Mapping[str, Any], wires: Wires, now_ms: Callable[[], int]
) -> AsyncIterator[Step]:
    unit, profile = argument["unit"], load_profile(argument["profile"])
    names = survey.shown_names(profile)
    reads = profile.plan(names)
    image: dict[tuple[int, int], int] = {}
    errors: dict[tuple[int, int], str] = {}
    for place, read in enumerate(reads):
        try:
            image.update(await _image(wires.link, unit, (read,)))
        except BusDown:
            raise
        except ModbusError as error:
            said = f"exception {error.code}" if isinstance(error, Refused) else "no answer"
            errors.update({(read.fc, read.address + i): said for i in range(read.count)})
        if place + 1 < len(reads):
            yield Step(100 * (place + 1) // len(reads), {})
    rows = [_row(profile, name, image, errors) for name in names]
    yield Step(100, {"unit": unit, "profile": profile.name, "at": now_ms(), "rows": rows}, is_done=True)


def _row(
    profile: Profile,
    name: str,
    image: Mapping[tuple[int, int], int],
    errors: Mapping[tuple[int, int], str],
) -> dict[str, Any]:
    register = profile.registers[name]
    keys = [(register.fc, register.address + i) for i in range(register.count)]
    row: dict[str, Any] = {
        "name": name,
        "block": register.block,
        "fc": register.fc,
        "address": register.address,
        "unit": register.unit,
        "words": None,
        "value": None,
        "text": "",
        "error": next((errors[key] for key in keys if key in errors), None),
    }
    if row["error"] is None:
        row["words"] = [image[key] for key in keys]
        try:
            row["value"] = profile.decode((name,), image)[name]
            row["text"] = survey.show(row["value"], register.unit)
        except RegisterError as error:
            row["error"] = str(error)
    return row


async def _words(argument: Mapping[str, Any], wires: Wires, now_ms: Callable[[], int]) -> AsyncIterator[Step]:
    unit, profile = argument["unit"], load_profile(argument["profile"])
    register = profile.registers[argument["register"]]
    image = await _image(wires.link, unit, profile.plan((register.name,)))
    words = [image[register.fc, register.address + i] for i in range(register.count)]
    result = {
        "unit": unit,
        "profile": profile.name,
        "register": register.name,
        "at": now_ms(),
        "type": register.type,
        "fc": register.fc,
        "address": register.address,
        "words": words,
        "profile_order": register.order,
        "orders": [reading.told() for reading in read_orders(register, words)],
    }
    yield Step(100, result, is_done=True)


# -- trace --------------------------------------------------------------------------------------------------


async def _trace(argument: Mapping[str, Any], wires: Wires, now_ms: Callable[[], int]) -> AsyncIterator[Step]:
    frames: list[Frame] = []
    size = 0

    def tap(is_sent: bool, data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size <= MAX_TRACED:
            frames.append(Frame(now_ms(), is_sent, data))

    began = time.monotonic()
    seconds = argument["seconds"]
    wires.link.tap = tap
    try:
        while (gone := time.monotonic() - began) < seconds:
            yield Step(min(99, int(100 * gone / seconds)), {}, look_s=LOOK_S)
    finally:
        wires.link.tap = None
    # A full trace takes over half a second to tell: other buses are not kept waiting by it.
    lines = await asyncio.to_thread(describe, frames, is_rtu=wires.address.is_rtu)
    yield Step(100, summary(lines, argument["unit"]), is_done=True)
