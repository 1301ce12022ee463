"""Take a meter down: its final reading is kept, its credit waits for the next meter of the place or becomes money."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import psycopg

from billing import credit_carry_store, identity_store, key_change_store, ledger, ledger_store, tariff_store
from billing.credit_carry import CarryState, units_of
from billing.credit_carry_store import CreditCarry
from billing.errors import IdempotencyConflict, InvalidVend
from billing.tariff import Price, price_units
from meter_gateway import event_store, meter_store, reading_store
from meter_gateway.event_store import NewEvent
from meter_gateway.reading_store import StoredReading
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
_PLATFORM: Final = "platform"

Conn = psycopg.AsyncConnection[Any]
Settle = Literal["keep", "money"]


@dataclass(frozen=True, slots=True)
class FinalReading:
    """What the meter showed at the end, in Wh or mL; `source` meter (its own word) or display (a person read it)."""

    counter: int
    credit: int
    source: Literal["meter", "display"]


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


async def check_removal(conn: Conn, *, meter_id: int, final: FinalReading, now: datetime) -> Hanging:
    """The place of a meter that may be taken down with this reading.

    Raises InstallRefused: not_installed, sale_open, credit_on_its_way (a token that it has not reported back),
    reading_impossible, reading_below_last.
    """
    hanging = await removal_store.find_hanging(conn, meter_id)
    if hanging is None:
        raise InstallRefused("not_installed")
    if not 0 <= final.counter <= MAX_VALUE or abs(final.credit) > MAX_VALUE:
        raise InstallRefused("reading_impossible")
    if hanging.counter is not None and final.counter < hanging.counter - DISPLAY_STEP[hanging.commodity]:
        raise InstallRefused("reading_below_last")
    if await identity_store.find_identity(conn, meter_id) is not None:
        await identity_store.lock_identity(conn, meter_id)  # no sale begins while we look
        if await identity_store.has_open_issue(conn, meter_id):
            raise InstallRefused("sale_open")
        if await key_change_store.has_unused_credit(conn, meter_id, now - ON_ITS_WAY):
            raise InstallRefused("credit_on_its_way")
    return hanging


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

    Raises InstallRefused (those of check_removal; key_used; no_customer, no_tariff to settle money with).
    """
    carry_key = f"removal:{key}"
    there = await credit_carry_store.find_carry_by_key(conn, carry_key)
    if there is not None:
        return await _repeated(conn, there, meter_id, final)
    hanging = await check_removal(conn, meter_id=meter_id, final=final, now=now)
    await _note_reading(conn, hanging, final, actor=actor, note=note, now=now)
    # A removal never lies before what it ends.
    installation = await meter_store.remove_meter(conn, meter_id=meter_id, removed_at=now)
    try:
        carry = await credit_carry_store.insert_carry(
            conn,
            idempotency_key=carry_key,
            installation_id=installation.id,
            old_meter_id=meter_id,
            usage_point_id=hanging.usage_point_id,
            customer_id=hanging.customer_id,
            commodity=hanging.commodity,
            counter=final.counter,
            credit=final.credit,
            source=final.source,
            taken_by=actor,
            note=note,
            now=now,
        )
    except IdempotencyConflict:
        raise InstallRefused("key_used") from None
    price = (
        await settle_carry(conn, carry, tariff_code=hanging.tariff_code, now=now)
        if settle == "money"
        else None
    )
    return Removal(hanging, await credit_carry_store.get_carry(conn, carry.id), price)


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


def carried_units(final: FinalReading, commodity: str) -> int:
    """Tenths of a kWh or m3 that a final reading gives to the next meter."""
    return units_of(final.credit, commodity)


async def _repeated(conn: Conn, carry: CreditCarry, meter_id: int, final: FinalReading) -> Removal:
    if (carry.old_meter_id, carry.counter, carry.credit) != (meter_id, final.counter, final.credit):
        raise InstallRefused("key_used")
    hanging = await removal_store.find_removed(conn, meter_id, carry.usage_point_id)
    return Removal(hanging, carry)


async def _note_reading(
    conn: Conn, hanging: Hanging, final: FinalReading, *, actor: str, note: str, now: datetime
) -> None:
    values = (("counter", final.counter), ("credit", final.credit))
    await reading_store.insert_readings(
        conn, [StoredReading(hanging.meter_id, channel, now, value, "valid") for channel, value in values]
    )
    detail = {
        "counter": final.counter,
        "credit": final.credit,
        "source": final.source,
        "usage_point": hanging.usage_point,
        "by": actor,
        "note": note,
    }
    await event_store.insert_events(conn, [NewEvent(hanging.meter_id, _PLATFORM, REMOVED, now, detail)])
