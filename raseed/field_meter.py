"""`raseed field add … commission`: an engineer's orders to the platform, each with a name and a password."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import psycopg

from raseed.settings import Settings

if TYPE_CHECKING:
    from portal.field.remove_meter import FinalReading
    from raseed.staff_word import Staff

Conn = psycopg.AsyncConnection[Any]
# Base units (Wh, mL) of what a display counts (kWh, m3).
SCALE: Final = {"electricity": 1_000, "water": 1_000_000}
MAX_NOTE: Final = 500


def add_commands(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the orders that need the platform."""
    from raseed import field_commission, field_credit
    from raseed.field_bus import add_target

    add = what.add_parser("add", help="take an unknown meter into the books (DATABASE_URL)")
    add.add_argument("drn", nargs="?", help="meter number; read from the meter when it is left out")
    add.add_argument("--unit", type=int, help="unit on the bus, to read number and profile from")
    add.add_argument("--profile", help="of a Modbus meter; the likely one when it is left out")
    add.add_argument("--model", default="", help="what its plate says")
    add.add_argument("--commodity", choices=("electricity", "water"), help="by the profile")
    add.add_argument("--link", choices=("modbus", "mqtt", "keypad"), default="modbus")
    for name, default, text in (
        ("sgc", "", "supply group of its key; without one it takes no tokens yet"),
        ("ti", "01", "tariff index (01)"),
        ("krn", "1", "key revision (1)"),
        ("kt", "1", "key type: 1 stock key (DDTK), 2 its own (1)"),
        ("ken", "255", "key expiry number (255)"),
        ("ea", "07", "encryption algorithm (07)"),
        ("dkga", "04", "key generation algorithm (04)"),
        ("base-date", "2014", "base date (2014)"),
    ):
        add.add_argument(f"--{name}", default=default, help=text)
    add_target(add, required=False)
    add.set_defaults(run=_add)
    bind = what.add_parser("bind", help="say on which bus and unit a meter answers (DATABASE_URL)")
    bind.add_argument("drn")
    bind.add_argument("--site", required=True)
    bind.add_argument("--bus", required=True)
    bind.add_argument("--unit", type=int, required=True)
    bind.set_defaults(run=_bind)
    install = what.add_parser("install", help="hang a meter at a usage point (DATABASE_URL)")
    install.add_argument("drn")
    install.add_argument("--point", help="code of the usage point; left out: lists the free ones")
    install.set_defaults(run=_install)
    replace = what.add_parser("replace", help="put a new meter where another hangs; credit goes over once")
    replace.add_argument("old")
    replace.add_argument("new")
    remove = what.add_parser("remove", help="take a meter down, with its final reading")
    remove.add_argument("drn")
    remove.add_argument(
        "--settle", choices=("keep", "money"), default="keep", help="the credit: kept for the next meter"
    )
    for command, run in ((replace, _replace), (remove, _remove)):
        command.add_argument(
            "--counter", help="final reading of the display, kWh or m3; the meter's own word if it is fresh"
        )
        command.add_argument("--credit", help="credit on the display, kWh or m3")
        command.add_argument(
            "--silent",
            choices=("taken", "not_taken"),
            help="of tokens that did not arrive and were not reported back: on the display, or never in it",
        )
        command.add_argument(
            "--tokens",
            type=_ids,
            metavar="IDS",
            help="of which tokens --silent speaks, as shown without --yes: 12,15",
        )
        command.add_argument("--key", default="", help="idempotency key: the same one again changes nothing")
        command.add_argument(
            "--yes", action="store_true", help="do it; without it only says what would happen"
        )
        command.set_defaults(run=run)
    for command in (add, bind, install, replace, remove):
        command.add_argument("--as", dest="person", required=True, metavar="NAME", help="staff name")
        command.add_argument("--note", default="")
    field_credit.add_commands(what)
    field_commission.add_command(what)


def _ids(typed: str) -> tuple[int, ...]:
    return tuple(sorted({int(one) for one in typed.split(",")}))


async def ask_engineer(conn: Conn, name: str, *, office: bool = False) -> Staff:
    """Who gives the order: by password, of the field; for money of the office. Raises NotStaff, InstallRefused."""
    from billing.engineering import APPROVERS
    from portal.field.install import InstallRefused
    from raseed.staff_word import ask_staff

    person = await ask_staff(conn, name)
    if person.role not in (APPROVERS if office else {"engineer", *APPROVERS}):
        raise InstallRefused("role")
    return person


async def connect(settings: Settings) -> Conn:
    """A connection of this command. Raises psycopg.OperationalError."""
    return await psycopg.AsyncConnection.connect(settings.need("database_url"))


def amount(typed: str, commodity: str) -> int:
    """Wh or mL of what a display shows in kWh or m3. Raises FieldRefused."""
    from raseed.field_bus import FieldRefused

    try:
        value = Decimal(typed.replace(",", ".")) * SCALE[commodity]
    except InvalidOperation:
        raise FieldRefused(f"{typed!r} is no number") from None
    if not value.is_finite() or value != value.to_integral_value() or abs(value) > 10**14:
        raise FieldRefused(f"{typed!r} is no reading of a meter")
    return int(value)


async def get_meter_id(conn: Conn, typed: str) -> int:
    """The meter of a typed number. Raises InstallRefused."""
    from meter_gateway import meter_store
    from portal.field.install import InstallRefused, check_number

    meter = await meter_store.find_meter_by_drn(conn, check_number(typed))
    if meter is None:
        raise InstallRefused("number_unknown")
    return meter.id


def _add(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from meter_gateway.profile import load_profile
        from portal.field import take_stock
        from raseed.field_bus import FieldRefused

        found = await _look(options, settings)
        drn, profile = options.drn or found.get("serial"), options.profile or found.get("likely")
        if not drn:
            raise FieldRefused("say the meter number, or where to read it: --site/--tty/--tcp with --unit")
        if options.link == "modbus" and not profile:
            raise FieldRefused(
                "no profile stands out: name one with --profile (raseed field probe, raseed field words)"
            )
        if found.get("serial") and found["serial"] != drn:
            raise FieldRefused(f"the meter on this unit says that it is {found['serial']}, not {drn}")
        commodity = options.commodity or (load_profile(profile).commodity if profile else "electricity")
        model = options.model or (load_profile(profile).title if profile else "")
        async with await connect(settings) as conn:
            await ask_engineer(conn, options.person)
            meter = await take_stock.add_meter(
                conn,
                drn=drn,
                commodity=commodity,
                model=model[: take_stock.MAX_MODEL],
                link=options.link,
                profile=profile,
                sts=_plate(options),
            )
            if options.site and options.unit:
                await take_stock.bind_meter(
                    conn, meter_id=meter.id, site=options.site, bus=options.bus or "", unit=options.unit
                )
        where = (
            f", on {options.site} {options.bus} unit {options.unit}" if options.site and options.unit else ""
        )
        print(f"meter {meter.drn} is in the books: {model}, {commodity}, profile {profile or 'none'}{where}")
        return 0

    return carried_out(step)


async def _look(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    from raseed.field_bus import Bar, target_of

    if options.unit is None or not (options.site or options.tty or options.tcp):
        return {}
    bar = Bar("probe", quiet=options.json)
    try:
        profiles = [options.profile] if options.profile else []
        return await target_of(options, settings).run(
            "probe", {"unit": options.unit, "profiles": profiles}, bar
        )
    finally:
        bar.end()


def _plate(options: argparse.Namespace) -> Any:
    from portal.field.take_stock import StsPlate

    if not options.sgc:
        return None
    return StsPlate(
        sgc=options.sgc,
        ti=options.ti.zfill(2),
        krn=int(options.krn),
        kt=int(options.kt),
        ken=int(options.ken),
        ea=options.ea,
        dkga=options.dkga,
        base_date=int(options.base_date),
    )


def _bind(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from portal.field import take_stock

        async with await connect(settings) as conn:
            await ask_engineer(conn, options.person)
            meter_id = await get_meter_id(conn, options.drn)
            await take_stock.bind_meter(
                conn, meter_id=meter_id, site=options.site, bus=options.bus, unit=options.unit
            )
        print(f"meter {options.drn} answers on {options.site} {options.bus} unit {options.unit}")
        return 0

    return carried_out(step)


def _install(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from portal.field import field_store, install
        from portal.field.install import InstallRefused

        async with await connect(settings) as conn:
            points = await field_store.list_free_points(conn)
            if not options.point:
                for one in points:
                    print(
                        f"{one.code:<12} {one.commodity:<11} {one.address_en}  {one.customer_en or 'nobody'}"
                    )
                return 0
            chosen = next((one for one in points if one.code == options.point), None)
            if chosen is None:
                raise InstallRefused("point_taken")
            person = await ask_engineer(conn, options.person)
            place = await install.install(
                conn,
                meter_id=await get_meter_id(conn, options.drn),
                usage_point_id=chosen.usage_point_id,
                installed_by=f"staff:{person.name}",
                note=options.note[:MAX_NOTE],
                now=datetime.now(UTC),
            )
        print(
            f"meter {options.drn} hangs at {place.code}, {place.address_en}."
            f" Next: raseed field commission {options.drn}"
        )
        return 0

    return carried_out(step)


async def final_of(conn: Conn, options: argparse.Namespace, meter_id: int, now: datetime) -> FinalReading:
    """The reading of an order; that of the same order when it was carried out already."""
    from meter_gateway import meter_store
    from portal.field import remove_meter
    from portal.field.install import InstallRefused
    from portal.field.remove_meter import FinalReading

    commodity = (await meter_store.get_meter(conn, meter_id)).commodity
    done = await remove_meter.find_order(conn, options.key) if options.key else None
    final: FinalReading | None
    if options.counter is not None and options.credit is not None:
        final = FinalReading(amount(options.counter, commodity), amount(options.credit, commodity), "display")
    elif done is not None:
        final = FinalReading(done.counter, done.credit, "meter" if done.source == "meter" else "display")
    else:
        final = await remove_meter.read_final(conn, meter_id, now=now)
    if final is None or (options.counter is None) != (options.credit is None):
        raise InstallRefused("reading_needed")
    shown = None if done is not None else await _said_of(conn, options, meter_id, now)
    return replace(final, silent=options.silent, shown=shown)


async def _said_of(conn: Conn, options: argparse.Namespace, meter_id: int, now: datetime) -> tuple[int, ...]:
    """Which tokens --silent speaks of. With --yes they are named: one that came since is not among them."""
    from portal.field import remove_meter
    from raseed.field_bus import FieldRefused

    silent = await remove_meter.list_asked(conn, meter_id, now=now)
    for token in silent:
        units = f"{token.units_tenths // 10}.{token.units_tenths % 10}"
        print(f"not reported back: token {token.id}, {units} units, of {token.issued_at:%Y-%m-%d %H:%M}Z")
    ids = tuple(token.id for token in silent)
    if options.tokens is not None:
        return tuple(options.tokens)
    if ids and options.silent and options.yes:
        raise FieldRefused(f"say of which tokens: --tokens {','.join(map(str, ids))}")
    return ids


def _replace(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from portal.field import replace_meter

        now = datetime.now(UTC)
        async with await connect(settings) as conn:
            by = f"staff:{(await ask_engineer(conn, options.person)).name}" if options.yes else options.person
            old_id, new_id = await get_meter_id(conn, options.old), await get_meter_id(conn, options.new)
            made = await replace_meter.replace(
                conn,
                old_id=old_id,
                new_id=new_id,
                final=await final_of(conn, options, old_id, now),
                key=options.key or str(uuid4()),
                actor=by,
                note=options.note[:MAX_NOTE],
                now=now,
            )
            for line in _replacement_lines(made.plan):
                print(line)
            if made.is_repeat:
                return _said_before()
            return await done_or_undone(conn, options)

    return carried_out(step)


def _replacement_lines(plan: Any) -> list[str]:
    from meter_gateway.bus.survey import show

    unit = "Wh" if plan.old.commodity == "electricity" else "mL"
    name = "kWh" if unit == "Wh" else "m³"
    shown = show(plan.final.counter, unit), show(plan.final.credit, unit)
    lines = [
        f"at {plan.old.usage_point}, {plan.old.address_en} ({plan.old.customer_en or 'no customer'}):",
        f"  {plan.old.drn} comes down: counter {shown[0]}, credit {shown[1]} (by the {plan.final.source})",
        f"  {plan.new.drn} goes up ({plan.new.model})",
    ]
    if plan.takes_unit:
        lines.append("  it takes over {} {} unit {}".format(*plan.takes_unit))
    if plan.needs_key:
        lines.append("  it gets its own key first: two tokens, by the worker")
    if plan.bound_tenths:
        lines.append(
            f"  {plan.bound_tenths // 10}.{plan.bound_tenths % 10} {name} that were meant for the old one go along"
        )
    if plan.is_held:
        lines.append(f"  its credit waits for the office: {_why_held(plan.held_for)} (raseed field credit)")
    elif plan.units_tenths:
        whole, tenth = divmod(plan.units_tenths, 10)
        lines.append(f"  {whole}.{tenth} {name} go over to it by one token, once")
    else:
        lines.append("  no credit goes over")
    return lines


def _remove(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from portal.field import remove_meter
        from portal.formats import money_text

        now, office = datetime.now(UTC), options.settle == "money"
        async with await connect(settings) as conn:
            by = options.person
            if options.yes:
                by = f"staff:{(await ask_engineer(conn, options.person, office=office)).name}"
            meter_id = await get_meter_id(conn, options.drn)
            final = await final_of(conn, options, meter_id, now)
            gone = await remove_meter.remove(
                conn,
                meter_id=meter_id,
                final=final,
                settle=options.settle,
                key=options.key or str(uuid4()),
                actor=by,
                note=options.note[:MAX_NOTE],
                now=now,
            )
            unit = "kWh" if gone.hanging.commodity == "electricity" else "m³"
            whole, tenth = divmod(gone.carry.units_tenths, 10)
            credit = f"{whole}.{tenth} {unit}"
            print(f"{gone.hanging.drn} comes down from {gone.hanging.usage_point}, {gone.hanging.address_en}")
            if gone.price is not None:
                print(
                    f"  {credit} become {money_text(gone.price.total_minor, 'en')} of {gone.hanging.customer_en}"
                )
            elif gone.carry.state == "HELD":
                print(f"  {credit} wait for the office: {_why_held(gone.carry.detail)}")
            elif gone.carry.state == "WAITING":
                print(f"  {credit} wait for the next meter of this place")
            else:
                print(f"  its credit of {credit} is {gone.carry.state}")
            if gone.is_repeat:
                return _said_before()
            return await done_or_undone(conn, options)

    return carried_out(step)


def _why_held(reason: str) -> str:
    if reason == "below_told":
        return "the display shows less than the meter told and used since"
    return "it is more than the meter told and was sold to it"


def _said_before() -> int:
    print("this order was carried out before, under the same --key: nothing was changed")
    return 0


async def done_or_undone(conn: Conn, options: argparse.Namespace) -> int:
    """Keep what was done with --yes, else undo it and say so."""
    if options.yes:
        print("done")
        return 0
    # Done and undone: what it says is what it would do, refusals included.
    await conn.rollback()
    print("nothing was changed; say --yes to do it", file=sys.stderr)
    return 0
