"""`raseed field credit`, `cleared`: a removed meter's credit, as the office decides or a person says."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from raseed.field_meter import MAX_NOTE, Conn, ask_engineer, connect, done_or_undone, get_meter_id
from raseed.settings import Settings

LIST_LIMIT: Final = 200


def add_commands(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both."""
    credit = what.add_parser(
        "credit", help="credit of removed meters that waits for a meter, or for the office"
    )
    credit.add_argument(
        "--settle", type=UUID, metavar="ID", help="turn this one into the customer's money (supervisor)"
    )
    credit.add_argument(
        "--release",
        type=UUID,
        metavar="ID",
        help="believe this held one, or take this waiting one: it goes to the meter there (supervisor)",
    )
    credit.add_argument("--yes", action="store_true", help="do it; without it only says what would happen")
    credit.add_argument("--as", dest="person", metavar="NAME", help="staff name, with --settle or --release")
    credit.set_defaults(run=_credit)
    cleared = what.add_parser(
        "cleared",
        help="say whether a meter took its newest clear_credit token of which nobody has said anything",
    )
    cleared.add_argument("drn")
    cleared.add_argument("word", choices=("taken", "not_taken"))
    cleared.set_defaults(run=_cleared)
    cleared.add_argument("--as", dest="person", required=True, metavar="NAME", help="staff name")
    cleared.add_argument("--note", default="")


def _credit(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from billing import credit_carry_store

        async with await connect(settings) as conn:
            if options.settle is not None:
                return await _settle(conn, options)
            if options.release is not None:
                return await _release(conn, options)
            waiting = await credit_carry_store.list_undecided(conn, now=datetime.now(UTC), limit=LIST_LIMIT)
            for one in waiting:
                unit = "kWh" if one.commodity == "electricity" else "m³"
                print(
                    f"{one.id}  {one.units_tenths // 10}.{one.units_tenths % 10} {unit}  {one.state:<8}"
                    f"  taken {one.taken_at:%Y-%m-%d}  {one.detail}"
                )
            print(f"{len(waiting)} wait")
        return 0

    return carried_out(step)


async def _settle(conn: Conn, options: argparse.Namespace) -> int:
    from billing import credit_carry_store
    from portal.field import removal_store, remove_meter
    from portal.field.install import InstallRefused
    from portal.formats import money_text

    if not options.person:
        raise InstallRefused("role")
    if options.yes:
        await ask_engineer(conn, options.person, office=True)
    carry = await credit_carry_store.lock_carry(conn, options.settle)
    place = await removal_store.find_removed(conn, carry.old_meter_id, carry.usage_point_id)
    price = await remove_meter.settle_carry(conn, carry, tariff_code=place.tariff_code, now=datetime.now(UTC))
    worth = money_text(price.total_minor if price else 0, "en")
    print(f"the credit of {place.drn} at {place.usage_point} becomes {worth} of its customer")
    return await done_or_undone(conn, options)


async def _release(conn: Conn, options: argparse.Namespace) -> int:
    from billing.errors import InvalidVend
    from portal.field import pass_credit
    from portal.field.install import InstallRefused

    if not options.person:
        raise InstallRefused("role")
    if options.yes:
        await ask_engineer(conn, options.person, office=True)
    try:
        carry = await pass_credit.release_held(conn, options.release, datetime.now(UTC))
    except InvalidVend as error:
        raise InstallRefused(error.code) from None
    print(f"the credit is {carry.state}" + (": a token follows" if carry.new_meter_id else ""))
    return await done_or_undone(conn, options)


def _cleared(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from billing import token_word_store
        from raseed.field_bus import FieldRefused

        async with await connect(settings) as conn:
            by = (await ask_engineer(conn, options.person)).name
            token_id = await token_word_store.find_newest_clearing(
                conn, await get_meter_id(conn, options.drn)
            )
            if token_id is None:
                raise FieldRefused(
                    "no clear_credit token of this meter waits for a word: none was made, or the meter itself has"
                    " said what came of it, or somebody has: the first word stands"
                )
            is_new = await token_word_store.insert_word(
                conn, token_id, options.word, said_by=f"staff:{by}", note=options.note[:MAX_NOTE],
                now=datetime.now(UTC),
            )  # fmt: skip
            if not is_new:
                raise FieldRefused("somebody has spoken of this token before: the first word stands")
        print(f"noted, by {by}: {options.word}")
        return 0

    return carried_out(step)
