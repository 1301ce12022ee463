"""Register profiles: what stands where in a meter, as versioned TOML files; read, laid over others, checked."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any, Final

from meter_gateway import registers
from meter_gateway.meter_map import (
    MAX_READ,
    InvalidProfile,
    Key,
    Profile,
    Read,
    Register,
    Value,
    plan_reads,
)
from meter_gateway.profile_check import check_profile

__all__ = [
    "InvalidProfile",
    "Profile",
    "Read",
    "Register",
    "Value",
    "check_profile",
    "load_profile",
    "parse_profile",
    "plan_reads",
    "profile_names",
    "read_profile",
]

# A second request costs as much as some 20 unwanted registers at 9600 baud; merge across up to this many.
DEFAULT_MERGE_GAP: Final = 16
PROFILE_DIR: Final = Path(__file__).parent / "profiles"
_HEAD_KEYS: Final = frozenset(
    {
        "name",
        "version",
        "title",
        "commodity",
        "kind",
        "extends",
        "source",
        "line",
        "max_read",
        "even_only",
        "merge_gap",
        "holes",
        "write_fcs",
        "gap_s",
        "settle_s",
        "remote_close",
        "freeze_minutes",
        "pairs",
        "sums",
        "poll",
        "choices",
        "factors",
        "blocks",
    }
)
_REGISTER_KEYS: Final = frozenset(
    {
        "fc",
        "address",
        "count",
        "type",
        "order",
        "scale",
        "unit",
        "sentinels",
        "writable",
        "choices",
        "factors",
        "scaled_by",
    }
)
_TABLES: Final = ("choices", "factors", "blocks", "sums")


@cache
def load_profile(name: str) -> Profile:
    """Return a profile of the package by name. Raises InvalidProfile when there is none or it is wrong."""
    return parse_profile(text_of(name))


def text_of(name: str) -> str:
    """Return the TOML text of a profile of the package. Raises InvalidProfile when there is none."""
    path = PROFILE_DIR / f"{name}.toml"
    if "/" in name or "\\" in name or not path.is_file():
        known = profile_names()
        close = [one for one in known if name and name in one] or difflib.get_close_matches(name, known, n=1)
        raise InvalidProfile(
            f"no profile is called {name!r}", hint=f"did you mean {close[0]}?" if close else ""
        )
    return path.read_text("utf-8")


def profile_names() -> tuple[str, ...]:
    """Return the names of all profiles in the package."""
    return tuple(sorted(path.stem for path in PROFILE_DIR.glob("*.toml")))


def parse_profile(text: str) -> Profile:
    """Return the checked profile that a TOML text describes. Raises InvalidProfile naming the fault."""
    profile = read_profile(text)
    check_profile(profile)
    return profile


def read_profile(text: str) -> Profile:
    """Return the profile as it stands, its rules not yet checked. Raises InvalidProfile when it cannot be read."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidProfile(f"no TOML: {error}") from None
    name = str(data.get("name", "(no name)"))
    _refuse_unknown(name, data, _HEAD_KEYS, ())
    if "extends" in data:
        data = _extended(name, data)
    try:
        return _read(name, data)
    except InvalidProfile:
        raise
    except KeyError as error:
        raise InvalidProfile(f"{name}: {error} is missing", hint="docs/profiles.md lists every key") from None
    except (TypeError, AttributeError, ValueError, InvalidOperation) as error:
        raise InvalidProfile(f"{name}: {error}") from None


def _refuse_unknown(name: str, table: Mapping[str, Any], known: Collection[str], key: Key) -> None:
    for one in table:
        if one not in known:
            close = difflib.get_close_matches(one, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise InvalidProfile(f"{name}: {one!r} means nothing here", (*key, one), hint)


def _extended(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a profile over those that it extends, each over the one before: blocks of the same name are replaced.

    Limits are the strictest of all; the poll and the head are the profile's own, else the first one's.
    """
    parents = data["extends"] if isinstance(data["extends"], list) else [data["extends"]]
    layers: list[Mapping[str, Any]] = []
    for parent in parents:
        if parent not in profile_names():
            raise InvalidProfile(f"{name}: extends {parent!r}, which is not there", ("extends",))
        under = tomllib.loads(text_of(str(parent)))
        if "extends" in under:
            raise InvalidProfile(f"{name}: extends {parent!r}, which itself extends another", ("extends",))
        layers.append(under)
    layers.append(data)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = {**layer, **merged}
    merged |= data
    for table in _TABLES:
        merged[table] = {}
        for layer in layers:
            merged[table].update(layer.get(table, {}))
    for listed in ("pairs", "holes"):
        merged[listed] = [one for layer in layers for one in layer.get(listed, [])]
    merged["max_read"] = min(layer.get("max_read", MAX_READ) for layer in layers)
    merged["gap_s"] = max(layer.get("gap_s", 0) for layer in layers)
    merged["settle_s"] = max(layer.get("settle_s", 0) for layer in layers)
    merged["even_only"] = any(layer.get("even_only", False) for layer in layers)
    return merged


def _read(name: str, data: Mapping[str, Any]) -> Profile:
    found: dict[str, Register] = {}
    for block, table in data["blocks"].items():
        defaults = {key: value for key, value in table.items() if key != "registers"}
        for short, entry in table["registers"].items():
            key = ("blocks", block, "registers", short)
            if short in found:
                raise InvalidProfile(
                    f"{name}: register {short} is named twice", key, "give each its own name"
                )
            found[short] = _read_register(name, key, defaults, entry, data)
    sums = {total: tuple(members) for total, members in data.get("sums", {}).items()}
    return Profile(
        name=name,
        version=int(data["version"]),
        title=str(data["title"]),
        commodity=str(data["commodity"]),
        kind=data.get("kind", "prepaid" if "token" in found else "meter"),
        max_read=int(data.get("max_read", MAX_READ)),
        even_only=bool(data.get("even_only", False)),
        merge_gap=int(data.get("merge_gap", DEFAULT_MERGE_GAP)),
        holes=tuple((int(first), int(last)) for first, last in data.get("holes", [])),
        write_fcs=frozenset(int(fc) for fc in data.get("write_fcs", [])),
        gap_s=float(data.get("gap_s", 0)),
        settle_s=float(data.get("settle_s", 0)),
        remote_close=data.get("remote_close", "ready"),
        freeze_minutes=frozenset(int(minute) for minute in data.get("freeze_minutes", [])),
        line=str(data.get("line", "")),
        source=str(data.get("source", "")),
        registers=found,
        pairs=tuple(tuple(pair) for pair in (*data.get("pairs", []), *sums.values())),
        sums=sums,
        fast=tuple(data["poll"]["fast"]),
        slow=tuple(data["poll"].get("slow", [])),
    )


def _read_register(
    profile: str, key: Key, defaults: Mapping[str, Any], own: Any, data: Mapping[str, Any]
) -> Register:
    name = key[-1]
    if not isinstance(own, dict):
        raise InvalidProfile(f"{profile}: {name} is no table", key, "write { address = 0, type = 'u16' }")
    entry = {**defaults, **own}
    _refuse_unknown(f"{profile}: {name}", entry, _REGISTER_KEYS, key)
    for needed in ("address", "type"):
        if needed not in entry:
            raise InvalidProfile(f"{profile}: {name}: '{needed}' is missing", key, "every register has both")
    type_ = entry["type"]
    if type_ not in registers.WORDS and type_ not in ("ascii", "bcd"):
        known = ", ".join((*registers.WORDS, "ascii", "bcd"))
        raise InvalidProfile(
            f"{profile}: {name} has unknown type {type_!r}", (*key, "type"), f"types are {known}"
        )
    choices = _table(profile, key, "choices", entry, data)
    factors = _table(profile, key, "factors", entry, data)
    try:
        return Register(
            name=name,
            block=key[1],
            fc=int(entry.get("fc", 3)),
            address=int(entry["address"]),
            count=int(entry.get("count", registers.WORDS.get(type_, 0))),
            type=type_,
            order=entry.get("order", "ABCD"),
            scale=Decimal(str(entry.get("scale", "1"))),
            unit=str(entry.get("unit", "")),
            sentinels=tuple(Decimal(str(value)) for value in entry.get("sentinels", [])),
            writable=bool(entry.get("writable", False)),
            choices=None if choices is None else {int(number): str(one) for number, one in choices.items()},
            factors=None
            if factors is None
            else {int(number): Decimal(str(one)) for number, one in factors.items()},
            scaled_by=tuple(entry.get("scaled_by", ())),
        )
    except (TypeError, ValueError, InvalidOperation) as error:
        raise InvalidProfile(f"{profile}: {name}: {error}", key, "a value of the wrong type") from None


def _table(
    profile: str, key: Key, kind: str, entry: Mapping[str, Any], data: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    wanted = entry.get(kind)
    if wanted is None:
        return None
    tables = data.get(kind, {})
    if wanted not in tables:
        hint = f"add [{kind}.{wanted}]"
        raise InvalidProfile(
            f"{profile}: {key[-1]} names {kind} {wanted!r} that are not there", (*key, kind), hint
        )
    found: Mapping[str, Any] = tables[wanted]
    return found
