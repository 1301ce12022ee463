"""`raseed profile`: list the register profiles, check a file, show the reads of a poll, decode words by hand."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from meter_gateway.bus.bus_time import TURNAROUND_S, read_s, sweep_s
from meter_gateway.meter_map import InvalidProfile, Profile, Read, Register, Value
from meter_gateway.profile import load_profile, profile_names, read_profile, text_of
from meter_gateway.profile_check import faults_of
from meter_gateway.registers import RegisterError
from raseed.modbus_words import InvalidWords, Words, read_frames, read_words, split_place
from raseed.settings import Settings
from raseed.toml_place import find_line

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
# The picture of a read is drawn with one character a register up to this many, then narrower.
PICTURE_WIDTH: Final = 64
MAX_FILE: Final = 1024 * 1024
_EXAMPLES: Final = """\
examples:
  raseed profile list
  raseed profile check my-meter.toml
  raseed profile plan eastron-sdm630 --baud 9600
  raseed profile decode eastron-sdm120 4:0x0000 0x4366 0x3334
  raseed profile decode eastron-sdm120 4:0 010404436633341B38 --frame
  raseed profile decode orno-we504 3:0 --hex < words.txt
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `profile` and what it does to the command line."""
    profile = commands.add_parser(
        "profile",
        help="list, check, plan and decode the register profiles of Modbus meters",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = profile.add_subparsers(dest="what", required=True, metavar="WHAT")
    listing = what.add_parser("list", help="the profiles that come with Raseed")
    listing.set_defaults(run=_list)
    check = what.add_parser("check", help="refuse a bad profile and say where; exit 1 when one is")
    check.add_argument(
        "files", nargs="+", metavar="FILE", help="a TOML file, - for standard input, or a known name"
    )
    check.set_defaults(run=_check)
    plan = what.add_parser("plan", help="the reads that a poll makes, and how long they keep the line busy")
    plan.add_argument("name", help="a known name, or a TOML file")
    plan.add_argument("--registers", metavar="A,B", help="these instead of all that a poll reads")
    plan.add_argument("--baud", type=int, default=9600, help="speed of the line (9600)")
    plan.add_argument(
        "--turnaround-ms", type=float, default=TURNAROUND_S * 1000, help="what the meter takes to begin (50)"
    )
    plan.set_defaults(run=_plan)
    decode = what.add_parser(
        "decode",
        help="words or a raw RTU frame, to values with units",
        description="First where they stand, as FC:ADDRESS, then the words: decimal, or hexadecimal with 0x (all of "
        "them with --hex). Without words, standard input is read. A question before its answer tells the place.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    decode.add_argument("name", help="a known name, or a TOML file")
    decode.add_argument("words", nargs="*", metavar="[FC:ADDRESS] WORD", help="such as 3:0x1000 0x3034 12592")
    decode.add_argument("--hex", action="store_true", help="all words are hexadecimal")
    decode.add_argument(
        "--frame", action="store_true", help="the bytes of an RTU answer, or of a question and its answer"
    )
    decode.set_defaults(run=_decode)
    for command in what.choices.values():
        command.add_argument("--json", action="store_true", help="one JSON document instead of text")


def _print_json(answer: Any) -> None:
    print(json.dumps(answer, ensure_ascii=False, indent=2))


def _refused(options: argparse.Namespace, error: InvalidProfile | ValueError) -> int:
    hint = getattr(error, "hint", "")
    print(f"raseed profile {options.what}: {error}{f' ({hint})' if hint else ''}", file=sys.stderr)
    return EXIT_USAGE


def _open(name: str) -> Profile:
    """A profile by name or file. Raises InvalidProfile, also for a file that breaks a rule."""
    path = Path(name)
    if name in profile_names() or not (path.suffix == ".toml" or path.is_file()):
        return load_profile(name)
    profile = read_profile(_text(name))
    for fault in faults_of(profile):
        raise InvalidProfile(f"{name}: {fault.text}", fault.key, "raseed profile check says more")
    return profile


def _text(name: str) -> str:
    """The TOML text of a file, standard input or a known name. Raises InvalidProfile."""
    try:
        if name == "-":
            return sys.stdin.read(MAX_FILE)
        path = Path(name)
        if not path.exists() and path.suffix != ".toml":
            return text_of(name)
        if path.stat().st_size > MAX_FILE:
            raise InvalidProfile(f"{name} is too large for a profile")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise InvalidProfile(f"{name} is not UTF-8 text") from None
    except OSError as error:
        raise InvalidProfile(f"{name}: {error.strerror}") from None


# -- list


def _list(options: argparse.Namespace, _settings: Settings) -> int:
    found = [load_profile(name) for name in profile_names()]
    if options.json:
        _print_json([_head(profile) for profile in found])
        return 0
    for profile in found:
        limits = f"max {profile.max_read}{', even only' if profile.even_only else ''}"
        print(
            f"{profile.name:<28} {profile.commodity:<11} {profile.kind:<8} v{profile.version}  {limits:<18} "
            f"{profile.title}"
        )
    print(
        f"{len(found)} profiles. kind prepaid: takes tokens and orders; meter: measures (and may switch a relay)."
    )
    return 0


def _head(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "version": profile.version,
        "title": profile.title,
        "commodity": profile.commodity,
        "kind": profile.kind,
        "line": profile.line,
        "source": profile.source,
        "max_read": profile.max_read,
        "even_only": profile.even_only,
        "settle_s": profile.settle_s,
        "remote_close": profile.remote_close,
        "registers": len(profile.registers),
    }


# -- check


def _check(options: argparse.Namespace, _settings: Settings) -> int:
    results = [_judged(name) for name in options.files]
    if options.json:
        _print_json(results)
    else:
        for result in results:
            _print_result(result)
    return EXIT_REFUSED if any(result["faults"] for result in results) else 0


def _judged(name: str) -> dict[str, Any]:
    faults: list[dict[str, Any]] = []
    told = ""
    text = ""
    try:
        text = _text(name)
        profile = read_profile(text)
        told = f"{profile.name} v{profile.version}, {profile.kind}, {len(profile.registers)} registers"
        broken = [(fault.text, fault.key, fault.hint) for fault in faults_of(profile)]
    except InvalidProfile as error:
        broken = [(str(error), error.key, error.hint)]
    for what, key, hint in broken:
        faults.append({"line": find_line(text, key), "key": ".".join(key), "fault": what, "do": hint})
    return {"file": name, "profile": told, "faults": faults}


def _print_result(result: dict[str, Any]) -> None:
    if not result["faults"]:
        print(f"{result['file']}: good ({result['profile']})")
        return
    for fault in result["faults"]:
        where = f"{result['file']}:{fault['line']}" if fault["line"] else result["file"]
        print(f"{where}: {fault['fault']}", file=sys.stderr)
        if fault["key"]:
            print(f"    at    {fault['key']}", file=sys.stderr)
        if fault["do"]:
            print(f"    do    {fault['do']}", file=sys.stderr)


# -- plan


def _plan(options: argparse.Namespace, _settings: Settings) -> int:
    if options.baud < 1 or not 0 <= options.turnaround_ms <= 10_000:
        return _refused(options, ValueError("baud is 1 or more, the turnaround 0 to 10000 ms"))
    try:
        profile = _open(options.name)
        names = (
            tuple(part.strip() for part in options.registers.split(","))
            if options.registers
            else profile.names_of((*profile.fast, *profile.slow))
        )
        names = tuple(one for name in names for one in profile.sums.get(name, (name,)))
        reads = profile.plan(names)
    except InvalidProfile as error:
        return _refused(options, error)
    turnaround_s = options.turnaround_ms / 1000
    rows = [_planned(profile, names, read, options.baud, turnaround_s) for read in reads]
    total_ms = round(sweep_s(reads, options.baud, turnaround_s) * 1000, 1)
    apart_ms = round(sum(_alone_s(profile, name, options.baud, turnaround_s) for name in names) * 1000, 1)
    if options.json:
        _print_json(
            {
                "profile": profile.name,
                "baud": options.baud,
                "reads": rows,
                "ms": total_ms,
                "one_by_one_ms": apart_ms,
            }
        )
        return 0
    print(
        f"{profile.title}, version {profile.version}: "
        f"{len(names)} registers in {len(rows)} reads at {options.baud} baud"
    )
    for row in rows:
        print(
            f"\n  FC{row['fc']} 0x{row['address']:04X} + {row['count']:<4} {row['ms']:>7.1f} ms"
            f"   {row['wanted']} wanted, {row['count'] - row['wanted']} read along{_gap_text(row)}"
        )
        print(f"  {row['picture']}")
        print(f"  {', '.join(row['registers'])}")
    print(
        f"\n  {total_ms:.1f} ms a poll; one by one it would be {apart_ms:.1f} ms. "
        f"{60_000 / max(total_ms, 0.1):.0f} such meters a minute fill the line."
    )
    print(
        "  # a register that was asked for, . one that is read along (a gap shorter than a request of its own)"
    )
    return 0


def _alone_s(profile: Profile, name: str, baud: int, turnaround_s: float) -> float:
    return read_s(profile.registers[name].count, baud, turnaround_s)


def _gap_text(row: dict[str, Any]) -> str:
    return f", gaps {'+'.join(map(str, row['gaps']))}" if row["gaps"] else ""


def _planned(
    profile: Profile, names: Sequence[str], read: Read, baud: int, turnaround_s: float
) -> dict[str, Any]:
    wanted = set(names) | {one for name in names for one in profile.registers[name].scaled_by}
    inside = sorted(
        (profile.registers[name] for name in wanted if _holds(read, profile.registers[name])),
        key=lambda one: one.address,
    )
    taken = {register.address + place for register in inside for place in range(register.count)}
    gaps = [after.address - before.address - before.count for before, after in pairwise(inside)]
    return {
        "fc": read.fc,
        "address": read.address,
        "count": read.count,
        "ms": round(read_s(read.count, baud, turnaround_s) * 1000, 1),
        "wanted": len(taken),
        "gaps": [gap for gap in gaps if gap > 0],
        "registers": [register.name for register in inside],
        "picture": _picture(read, taken),
    }


def _holds(read: Read, register: Register) -> bool:
    end = read.address + read.count
    return (
        register.fc == read.fc
        and read.address <= register.address
        and register.address + register.count <= end
    )


def _picture(read: Read, taken: set[int]) -> str:
    wide = -(-read.count // PICTURE_WIDTH)
    cells = []
    for start in range(read.address, read.address + read.count, wide):
        span = range(start, min(start + wide, read.address + read.count))
        cells.append("#" if any(address in taken for address in span) else ".")
    return f"|{''.join(cells)}|{f'  one sign is {wide} registers' if wide > 1 else ''}"


# -- decode


def _decode(options: argparse.Namespace, _settings: Settings) -> int:
    try:
        profile = _open(options.name)
        at, given = split_place(options.words)
        if not given:
            at_of_input, given = split_place(sys.stdin.read(MAX_FILE).replace(",", " ").split())
            at = at or at_of_input
        read = read_frames if options.frame else read_words
        words = read(given, at, all_hex=options.hex)
        rows = _values(profile, words)
    except (InvalidProfile, InvalidWords) as error:
        return _refused(options, error)
    if options.json:
        _print_json(
            {
                "profile": profile.name,
                "unit": words.unit,
                "fc": words.fc,
                "address": words.address,
                "values": rows,
            }
        )
    elif not rows:
        print(
            f"no register of {profile.name} lies whole in FC{words.fc} 0x{words.address:04X} + {len(words.words)}"
        )
    else:
        for row in rows:
            raw = " ".join(f"{word:04X}" for word in row["words"])
            print(f"FC{row['fc']} 0x{row['address']:04X}  {row['name']:<18} {row['text']:<24} {raw}")
    return 0 if rows and not any("fault" in row for row in rows) else EXIT_REFUSED


def _values(profile: Profile, words: Words) -> list[dict[str, Any]]:
    image = {(words.fc, words.address + place): word for place, word in enumerate(words.words)}
    span = Read(words.fc, words.address, len(words.words))
    rows: list[dict[str, Any]] = []
    decoded: dict[str, Value] = {}
    for register in sorted(profile.registers.values(), key=lambda one: one.address):
        if not _holds(span, register):
            continue
        row: dict[str, Any] = {
            "name": register.name,
            "fc": register.fc,
            "address": register.address,
            "unit": register.unit,
        }
        row["words"] = [image[register.fc, register.address + place] for place in range(register.count)]
        try:
            row["value"] = decoded[register.name] = profile.decode((register.name,), image)[register.name]
            row["text"] = _value_text(row["value"], register.unit)
        except RegisterError as error:
            row |= {"fault": str(error), "text": f"? {error}"}
        rows.append(row)
    for total, members in profile.sums.items():
        parts = [decoded.get(member) for member in members]
        if all(isinstance(part, int) for part in parts):
            first = profile.registers[members[0]]
            value = sum(part for part in parts if isinstance(part, int))
            rows.append(
                {
                    "name": total,
                    "fc": first.fc,
                    "address": first.address,
                    "unit": first.unit,
                    "words": [],
                    "value": value,
                }
                | {"text": _value_text(value, first.unit)}
            )
    return rows


_BIG: Final = {
    "Wh": ("kWh", 1000),
    "mV": ("V", 1000),
    "mA": ("A", 1000),
    "mHz": ("Hz", 1000),
    "mL": ("m3", 1_000_000),
    "mL/h": ("L/h", 1000),
}


def _value_text(value: Value, unit: str) -> str:
    if value is None:
        return "no value"
    big = _BIG.get(unit)
    if big is None or not isinstance(value, int):
        return f"{value} {unit}".rstrip()
    name, per = big
    return f"{value} {unit} = {Decimal(value) / per:f} {name}"
