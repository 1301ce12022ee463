"""The rules that a profile must keep: limits, overlaps, pairs, what each kind of meter must hold. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from meter_gateway import registers
from meter_gateway.meter_map import MAX_READ, InvalidProfile, Key, Profile, Register

_ADDRESSES: Final = 0x10000
MAX_MERGE_GAP: Final = 64  # more unwanted registers than this cost more than a second request at any speed
MAX_SETTLE_S: Final = 300.0
# What the gateway, the token delivery and the pages read of a prepaid meter by name.
PREPAID: Final = (
    "serial",
    "map_version",
    "clock",
    "boot_count",
    "credit",
    "low_1",
    "low_2",
    "relay",
    "relay_reason",
    "tamper",
    "token_count",
    "last_result",
    "last_carrier",
    "last_tid",
    "command_id",
    "command_opcode",
    "command_argument",
    "arm_key",
    "arm_complement",
    "command_echo",
    "command_status",
    "command_detail",
    "token",
    "token_submit_id",
    "token_echo",
    "token_result",
    "token_tid",
    "run_id_1",
    "power_limit",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule: what is wrong, where in the file, and what to do."""

    text: str
    key: Key
    hint: str


def check_profile(profile: Profile) -> None:
    """Raise InvalidProfile for the first rule that the map breaks."""
    for fault in faults_of(profile):
        raise InvalidProfile(f"{profile.name}: {fault.text}", fault.key, fault.hint)


def faults_of(profile: Profile) -> Iterator[Fault]:
    """Yield every broken rule, the most basic first."""
    yield from _head_faults(profile)
    for register in profile.registers.values():
        yield from _register_faults(profile, register)
    yield from _overlaps(profile)
    for pair in profile.pairs:
        yield from _pair_faults(profile, pair)
    for total, members in profile.sums.items():
        if total in profile.registers or members not in profile.pairs:
            yield Fault(
                f"sum {total} must have a name of its own and be a pair",
                ("sums", total),
                "rename one of the two",
            )
    blocks = {register.block for register in profile.registers.values()}
    for which, named in (("fast", profile.fast), ("slow", profile.slow)):
        for block in named:
            if block not in blocks:
                yield Fault(
                    f"poll names block {block!r} that is not there",
                    ("poll", which),
                    f"blocks are {', '.join(sorted(blocks))}",
                )
    yield from _kind_faults(profile)


def _head_faults(profile: Profile) -> Iterator[Fault]:
    def fault(key: str, text: str, hint: str) -> Fault:
        return Fault(text, (key,), hint)

    if profile.commodity not in ("electricity", "water"):
        yield fault(
            "commodity",
            f"commodity {profile.commodity!r} is neither electricity nor water",
            "choose one of them",
        )
    if profile.version < 1:
        yield fault("version", "version must be 1 or more", "count up from 1 with each change of meaning")
    if not 1 <= profile.max_read <= MAX_READ:
        yield fault(
            "max_read",
            f"max_read {profile.max_read} is outside 1..{MAX_READ}",
            "take the maker's limit of one read",
        )
    if not 0 <= profile.merge_gap <= MAX_MERGE_GAP:
        yield fault(
            "merge_gap",
            f"merge_gap {profile.merge_gap} is outside 0..{MAX_MERGE_GAP}",
            "16 is right at 9600 baud",
        )
    if not profile.write_fcs <= {6, 16}:
        yield fault(
            "write_fcs", "write_fcs may hold 6 and 16 only", "leave it out when nothing may be written"
        )
    if not 0 <= profile.settle_s <= MAX_SETTLE_S or not 0 <= profile.gap_s <= 1:
        key = "gap_s" if 0 <= profile.settle_s <= MAX_SETTLE_S else "settle_s"
        yield fault(
            key,
            f"settle_s is 0 to {MAX_SETTLE_S:g} and gap_s 0 to 1 s",
            "seconds, as the maker's manual gives them",
        )
    if profile.remote_close not in ("ready", "closed"):
        yield fault(
            "remote_close",
            f"remote_close {profile.remote_close!r} is neither ready nor closed",
            "ready: a person presses the button; closed: the load may come back with nobody there",
        )
    if not profile.freeze_minutes <= frozenset(range(60)):
        yield fault("freeze_minutes", "freeze_minutes are minutes of the hour", "0 to 59")
    for first, last in profile.holes:
        if not 0 <= first <= last < _ADDRESSES:
            yield fault(
                "holes", f"hole {first}..{last} is no span of addresses", "give [first, last], both unread"
            )


def _register_faults(profile: Profile, register: Register) -> Iterator[Fault]:
    def fault(text: str, key: str, hint: str) -> Fault:
        return Fault(f"{register.name} {text}", (*place_of(register), key), hint)

    if register.fc not in (3, 4):
        yield fault(
            f"has fc {register.fc}; registers are read by 3 or 4", "fc", "3: holding, 4: input registers"
        )
    if register.count < 1 or register.address < 0 or register.address + register.count > _ADDRESSES:
        yield fault(
            "lies outside the address space", "address", "the wire's 0-based address: 40001 becomes 0"
        )
    fixed = registers.WORDS.get(register.type)
    if fixed is not None and register.count != fixed:
        yield fault(
            f"is {register.type}, which takes {fixed} registers, not {register.count}",
            "count",
            "leave it out",
        )
    if register.count > profile.max_read:
        yield fault(
            f"is longer than max_read {profile.max_read}: a value is never split", "count", "raise max_read"
        )
    if register.order not in registers.WORD_ORDERS:
        yield fault(f"has unknown word order {register.order!r}", "order", "one of ABCD, CDAB, BADC, DCBA")
    if not register.scale.is_finite() or register.scale <= 0:
        yield fault(
            f"has scale {register.scale}; it must be a positive decimal", "scale", 'as text, such as "0.1"'
        )
    if register.writable and 16 not in profile.write_fcs:
        yield fault(
            "is writable but write_fcs has no 16", "writable", "add write_fcs = [16], or do not write it"
        )
    if profile.even_only and (register.address % 2 or register.count % 2):
        yield fault("breaks even_only", "address", "the meter answers even addresses and even counts only")
    if any(
        first < register.address + register.count and register.address <= last
        for first, last in profile.holes
    ):
        yield fault("lies in a hole", "address", "the meter answers exception 2 there")
    if register.factors is not None and not all(factor > 0 for factor in register.factors.values()):
        yield fault("selects a factor that is not positive", "factors", "a decimal as text, such as '1000'")
    for name in register.scaled_by:
        scaler = profile.registers.get(name)
        if scaler is None or scaler.type in ("ascii", "bcd") or scaler.scaled_by:
            yield fault(
                f"is scaled by {name!r}, which is no plain number",
                "scaled_by",
                "name a unit or ratio register",
            )
    if register.scaled_by and register.writable:
        yield fault(
            "is writable and scaled by another", "writable", "what is written must not depend on a read"
        )


def place_of(register: Register) -> Key:
    """The key of a register in its file."""
    return ("blocks", register.block, "registers", register.name)


def _overlaps(profile: Profile) -> Iterator[Fault]:
    ordered = sorted(profile.registers.values(), key=lambda one: (one.fc, one.address))
    for before, after in pairwise(ordered):
        if before.fc == after.fc and after.address < before.address + before.count:
            yield Fault(
                f"{before.name} and {after.name} overlap at 0x{after.address:04X}",
                (*place_of(after), "address"),
                f"{before.name} takes {before.count} registers from 0x{before.address:04X}",
            )


def _pair_faults(profile: Profile, pair: Sequence[str]) -> Iterator[Fault]:
    key = next((("sums", total) for total, members in profile.sums.items() if members == pair), ("pairs",))
    for name in pair:
        if name not in profile.registers:
            yield Fault(f"pair names {name!r} that is not there", key, "name registers of this profile")
            return
    members = [profile.registers[name] for name in pair]
    if not members:
        yield Fault("a pair without registers", key, "name at least two")
        return
    if len({register.fc for register in members}) != 1:
        yield Fault(f"pair {'+'.join(pair)} is read by two function codes", key, "one read cannot fetch both")
        return
    start, end = min(r.address for r in members), max(r.address + r.count for r in members)
    if end - start > profile.max_read:
        yield Fault(f"pair {'+'.join(pair)} does not fit one read", key, f"it spans {end - start} registers")
    if any(first < end and start <= last for first, last in profile.holes):
        yield Fault(f"pair {'+'.join(pair)} spans a hole", key, "its parts cannot be read at one instant")


def _kind_faults(profile: Profile) -> Iterator[Fault]:
    if profile.kind == "prepaid":
        missing = [name for name in PREPAID if name not in profile.registers]
        if missing:
            yield Fault(
                f"a prepaid meter lacks {', '.join(missing)}",
                ("kind",),
                'extends = "raseed-prepaid-e1" brings the block; kind = "meter" does without',
            )
        return
    if profile.kind != "meter":
        yield Fault(f"kind {profile.kind!r} is neither prepaid nor meter", ("kind",), "choose one of them")
        return
    if "token" in profile.registers or "command_id" in profile.registers:
        yield Fault("a plain meter has no mailbox", ("kind",), 'kind = "prepaid" for one that takes tokens')
    if not profile.has("counter") and not profile.has("load"):
        yield Fault(
            "there is neither counter nor load",
            ("blocks",),
            "name the cumulative register or sum `counter`, what flows now `load`",
        )
