"""Take a meter down: its final reading is kept, its credit waits for the next meter of the place or becomes money."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import psycopg

from billing import (
    credit_carry_store,
    identity_store,
    ledger,
    ledger_store,
    tariff_store,
    token_word_store,
)
from billing.credit_carry import CarryState, units_of
from billing.credit_carry_store import CreditCarry
from billing.errors import IdempotencyConflict, InvalidVend
from billing.quantity import BASE_UNITS_PER_TENTH
from billing.tariff import Price, price_units
from billing.token_word_store import SilentToken, Word
from billing.vend import list_open_vends
from meter_gateway import event_store, meter_store, reading_store
from meter_gateway.errors import InvalidMeter
from meter_gateway.event_store import NewEvent
from meter_gateway.reading_store import StoredReading
from portal.call_back_token import call_back
from portal.field import removal_store
from portal.field.install import InstallRefused
from portal.field.removal_store import Hanging

# A display counts whole kWh or m3, the register that was read before it more finely.
DISPLAY_STEP: Final = {"electricity": 1_000, "water": 1_000_000}
# Tokens of this long ago are in the meter, or in a drawer for good.
ON_ITS_WAY: Final = timedelta(days=45)
# A report older than this is no final reading: somebody reads the display.
FRESH: Final = timedelta(minutes=15)
MAX_VALUE: Final = 10**14
REMOVED: Final = "raseed.removed"
# Why a credit is held for the office: the display is said to show more than the meter can hold.
ABOVE_TOLD: Final = "above_told"
_PLATFORM: Final = "platform"

Conn = psycopg.AsyncConnection[Any]
Settle = Literal["keep", "money"]


@dataclass(frozen=True, slots=True)
class FinalReading:
    """What the meter showed at the end, in Wh or mL; `source` meter (its own word) or display (a person read it).

    `silent` is what a person says of tokens that a meter without its link has not reported back: taken (the display
    shows them included) or not_taken; None while nobody has said anything.
    """

    counter: int
    credit: int
    source: Literal["meter", "display"]
    silent: Word | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A meter that may be taken down: its reading as it will be kept, and the tenths that go on from it.

    `silent` are the tokens that `final.silent` speaks of. `is_held`: the office decides first. `bound_tenths` was
    meant for this meter and waits at the place again.
    """

    hanging: Hanging
    final: FinalReading
    silent: tuple[SilentToken, ...]
    units_tenths: int
    is_held: bool
    bound_tenths: int


@dataclass(frozen=True, slots=True)
class Removal:
    """A meter that was taken down, and what became of its credit; `price` where it became money."""

    hanging: Hanging
    carry: CreditCarry
    price: Price | None = None


async def read_final(conn: Conn, meter_id: int, *, now: datetime) -> FinalReading | None:
    """The final reading by the meter's own last word; None when it is too old or not complete."""
    hanging = await removal_store.find_hanging(conn, meter_id)
    if (
        hanging is None
        or hanging.counter is None
        or hanging.credit is None
        or hanging.state_at is None
        or hanging.state_at < now - FRESH
    ):
        return None
    return FinalReading(hanging.counter, hanging.credit, "meter")


async def check_removal(conn: Conn, *, meter_id: int, final: FinalReading, now: datetime) -> Checked:
    """What taking a meter down with this reading will do.

    Raises InstallRefused: not_installed, sale_open, credit_on_its_way (a token that it has not reported back),
    token_word_needed (the same, of a meter whose link is down: a person says what came of it), reading_changed (not
    the meter's own word any more), reading_impossible, reading_below_last.
    """
    has_identity = await identity_store.find_identity(conn, meter_id) is not None
    if has_identity:
        await identity_store.lock_identity(conn, meter_id)  # no sale begins while we look
    hanging = await removal_store.find_hanging(conn, meter_id)
    if hanging is None:
        raise InstallRefused("not_installed")
    final = await _confirmed(conn, hanging, final, now)
    if not 0 <= final.counter <= MAX_VALUE or abs(final.credit) > MAX_VALUE:
        raise InstallRefused("reading_impossible")
    if hanging.counter is not None and final.counter < hanging.counter - DISPLAY_STEP[hanging.commodity]:
        raise InstallRefused("reading_below_last")
    if has_identity and (
        await identity_store.has_open_issue(conn, meter_id) or await list_open_vends(conn, meter_id, now)
    ):
        raise InstallRefused("sale_open")
    silent = await token_word_store.list_silent(conn, meter_id, now - ON_ITS_WAY)
    if silent and hanging.link_up:
        raise InstallRefused("credit_on_its_way")
    if silent and final.silent is None:
        raise InstallRefused("token_word_needed")
    lost = sum(token.units_tenths for token in silent) if final.silent == "not_taken" else 0
    bound = await credit_carry_store.list_bound_to(conn, meter_id)
    return Checked(
        hanging,
        final,
        tuple(silent),
        units_of(final.credit + lost * BASE_UNITS_PER_TENTH[hanging.commodity], hanging.commodity),
        final.source == "display" and final.credit > await _most_credit(conn, hanging, lost, now),
        sum(carry.units_tenths for carry in bound),
    )


def check_settle(checked: Checked, settle: Settle) -> None:
    """Refuse money for credit that the office has yet to look at. Raises InstallRefused (credit_above_told)."""
    if checked.is_held and settle == "money":
        raise InstallRefused("credit_above_told")


async def _confirmed(conn: Conn, hanging: Hanging, final: FinalReading, now: datetime) -> FinalReading:
    """What is said to be the meter's own word is read anew: whoever sends it cannot say what it was."""
    if final.source == "display":
        return final
    told = await read_final(conn, hanging.meter_id, now=now)
    if told is None or not _is_near(told, final.counter, final.credit, hanging.commodity):
        raise InstallRefused("reading_changed")
    return replace(told, silent=final.silent)


def _is_near(final: FinalReading, counter: int, credit: int, commodity: str) -> bool:
    step = DISPLAY_STEP[commodity]
    return abs(final.counter - counter) <= step and abs(final.credit - credit) <= step


async def _most_credit(conn: Conn, hanging: Hanging, lost_tenths: int, now: datetime) -> int:
    """The most that a meter can hold by its last word and the tokens since, with a step of its display; Wh or mL."""
    told_at = hanging.state_at if hanging.credit is not None else None
    since = now - token_word_store.SILENT_WINDOW if told_at is None else min(told_at, now - ON_ITS_WAY)
    beyond = await token_word_store.get_tenths_beyond(conn, hanging.meter_id, told_at=told_at, since=since)
    told = hanging.credit if told_at is not None and hanging.credit is not None else 0
    units = (beyond - lost_tenths) * BASE_UNITS_PER_TENTH[hanging.commodity]
    return told + units + DISPLAY_STEP[hanging.commodity]


async def remove(
    conn: Conn,
    *,
    meter_id: int,
    final: FinalReading,
    settle: Settle,
    key: str,
    actor: str,
    note: str,
    now: datetime,
) -> Removal:
    """Take a meter down in the caller's transaction; a repeat of `key` changes nothing.

    Who may have `settle` "money" the caller decides: it is the office's. Raises InstallRefused (those of
    check_removal; key_used; credit_above_told, no_customer, no_tariff to settle money with).
    """
    carry_key = f"removal:{key}"
    await removal_store.lock_removal_key(conn, key)
    there = await credit_carry_store.find_carry_by_key(conn, carry_key)
    if there is not None:
        return await _repeated(conn, there, meter_id, final)
    checked = await check_removal(conn, meter_id=meter_id, final=final, now=now)
    check_settle(checked, settle)
    hanging = checked.hanging
    await _note_reading(conn, checked, actor=actor, note=note, now=now)
    # A removal never lies before what it ends.
    try:
        installation = await meter_store.remove_meter(conn, meter_id=meter_id, removed_at=now)
    except InvalidMeter:
        raise InstallRefused("not_installed") from None
    carry = await _keep_credit(
        conn, checked, key=carry_key, installation_id=installation.id, actor=actor, note=note, now=now
    )
    price = (
        await settle_carry(conn, carry, tariff_code=hanging.tariff_code, now=now)
        if settle == "money"
        else None
    )
    return Removal(hanging, await credit_carry_store.get_carry(conn, carry.id), price)


async def _keep_credit(
    conn: Conn, checked: Checked, *, key: str, installation_id: int, actor: str, note: str, now: datetime
) -> CreditCarry:
    hanging, final = checked.hanging, checked.final
    # What was meant for this meter never came into it: it waits at the place for the next.
    for bound in await credit_carry_store.list_bound_to(conn, hanging.meter_id):
        await credit_carry_store.mark_unbound(conn, bound, now)
    for token in checked.silent:
        if final.silent is not None:
            await token_word_store.insert_word(
                conn, token.id, final.silent, said_by=actor, note=note, now=now
            )
        if final.silent == "not_taken":
            await call_back(
                conn, meter_id=hanging.meter_id, token_id=token.id, digits=token.digits, actor=actor, now=now
            )
    try:
        return await credit_carry_store.insert_carry(
            conn,
            idempotency_key=key,
            installation_id=installation_id,
            old_meter_id=hanging.meter_id,
            usage_point_id=hanging.usage_point_id,
            customer_id=hanging.customer_id,
            commodity=hanging.commodity,
            counter=final.counter,
            credit=final.credit,
            source=final.source,
            units_tenths=checked.units_tenths,
            held_for=ABOVE_TOLD if checked.is_held else "",
            taken_by=actor,
            note=note,
            now=now,
        )
    except IdempotencyConflict:
        raise InstallRefused("key_used") from None


async def settle_carry(
    conn: Conn, carry: CreditCarry, *, tariff_code: str | None, now: datetime
) -> Price | None:
    """Turn a waiting credit into the customer's money at the first block's rate; None when there is none.

    Raises InstallRefused (no_customer, no_tariff, carry_not_waiting).
    """
    if carry.state is CarryState.EMPTY:
        return None
    if carry.customer_id is None:
        raise InstallRefused("no_customer")
    if tariff_code is None:
        raise InstallRefused("no_tariff")
    tariff = await tariff_store.get_tariff_at(conn, tariff_code, now)
    price = price_units(tariff, month_to_date_tenths=0, units_tenths=carry.units_tenths)
    try:
        await credit_carry_store.mark_settled(
            conn, carry, amount_minor=price.total_minor, detail=f"{tariff_code} {tariff.version}", now=now
        )
    except InvalidVend:
        raise InstallRefused("carry_not_waiting") from None
    if price.total_minor:
        entry = ledger.carry_entry(
            carry.id,
            carry.customer_id,
            carry.commodity,
            energy_minor=price.energy_minor,
            vat_minor=price.vat_minor,
        )
        await ledger_store.insert_entry(conn, entry, now=now)
    return price


def is_same_reading(carry: CreditCarry, meter_id: int, final: FinalReading) -> bool:
    """Whether a repeated order says what was kept; the meter's own word may have moved on by a step meanwhile."""
    if (carry.old_meter_id, carry.source) != (meter_id, final.source):
        return False
    if final.source == "meter":
        return _is_near(final, carry.counter, carry.credit, carry.commodity)
    return (carry.counter, carry.credit) == (final.counter, final.credit)


async def _repeated(conn: Conn, carry: CreditCarry, meter_id: int, final: FinalReading) -> Removal:
    if not is_same_reading(carry, meter_id, final):
        raise InstallRefused("key_used")
    hanging = await removal_store.find_removed(conn, meter_id, carry.usage_point_id)
    return Removal(hanging, carry)


async def _note_reading(conn: Conn, checked: Checked, *, actor: str, note: str, now: datetime) -> None:
    hanging, final = checked.hanging, checked.final
    values = (("counter", final.counter), ("credit", final.credit))
    await reading_store.insert_readings(
        conn, [StoredReading(hanging.meter_id, channel, now, value, "valid") for channel, value in values]
    )
    detail = {
        "counter": final.counter,
        "credit": final.credit,
        "source": final.source,
        "silent": final.silent if checked.silent else None,
        "usage_point": hanging.usage_point,
        "by": actor,
        "note": note,
    }
    await event_store.insert_events(conn, [NewEvent(hanging.meter_id, _PLATFORM, REMOVED, now, detail)])
