"""Put a new meter where another hangs: final reading, credit carried over once, bus and unit, key; in one step."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from billing import credit_carry_store, identity_store
from billing.credit_carry_store import CreditCarry
from billing.identity_store import STOCK_KEYS
from meter_gateway import meter_store
from meter_gateway.meter_store import Meter
from portal.field import removal_store, remove_meter
from portal.field.install import InstallRefused, install
from portal.field.removal_store import Hanging
from portal.field.remove_meter import FinalReading

Conn = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replacement would do; `units_tenths` go to the new meter, which needs a key of its own first or not.

    `held_for` is why they wait for the office first, mostly empty. `bound_tenths` were meant for the old meter and go
    along. `takes_unit` is the (site, bus, unit) that the new meter takes over from the old one; None where it has its
    own link already, or none.
    """

    old: Hanging
    new: Meter
    final: FinalReading
    units_tenths: int
    needs_key: bool
    takes_unit: tuple[str, str, int] | None
    held_for: str = ""
    bound_tenths: int = 0

    @property
    def is_held(self) -> bool:
        """Whether the credit waits for the office first."""
        return bool(self.held_for)


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement that was made."""

    plan: Plan
    carry: CreditCarry
    is_repeat: bool = False


async def plan_replacement(
    conn: Conn, *, old_id: int, new_id: int, final: FinalReading, now: datetime
) -> Plan:
    """What would happen; changes nothing.

    Raises InstallRefused (those of remove_meter.check_removal, same_meter, other_commodity, meter_hangs,
    identity_missing, credit_not_cleared), MeterNotFound.
    """
    if old_id == new_id:
        raise InstallRefused("same_meter")
    checked = await remove_meter.check_removal(conn, meter_id=old_id, final=final, now=now)
    old = checked.hanging
    new = await meter_store.get_meter(conn, new_id)
    if new.commodity != old.commodity:
        raise InstallRefused("other_commodity")
    if await removal_store.find_hanging(conn, new_id) is not None:
        raise InstallRefused("meter_hangs")
    identity = await identity_store.find_identity(conn, new_id)
    if identity is None:
        raise InstallRefused("identity_missing")
    if await credit_carry_store.find_left_in(conn, new_id) is not None:
        raise InstallRefused("credit_not_cleared")
    takes = None
    if new.link == "modbus" and new.bus_id is None and old.site and old.bus and old.unit_id:
        takes = (old.site, old.bus, old.unit_id)
    return Plan(
        old,
        new,
        checked.final,
        checked.units_tenths,
        identity.issuing.kt in STOCK_KEYS,
        takes,
        checked.held_for,
        checked.bound_tenths,
    )


async def replace(
    conn: Conn,
    *,
    old_id: int,
    new_id: int,
    final: FinalReading,
    key: str,
    actor: str,
    note: str,
    now: datetime,
) -> Replacement:
    """Replace a meter in the caller's transaction; a repeat of `key` changes nothing and gives what was made.

    Raises as plan_replacement and install do, and InstallRefused (key_used).
    """
    await removal_store.lock_removal_key(conn, key)
    there = await remove_meter.find_order(conn, key)
    if there is not None:
        return await _repeated(conn, there, old_id, new_id, final)
    await removal_store.lock_place_of(conn, old_id)
    plan = await plan_replacement(conn, old_id=old_id, new_id=new_id, final=final, now=now)
    old_bus = (await meter_store.get_meter(conn, old_id)).bus_id
    removal = await remove_meter.remove(
        conn, meter_id=old_id, final=final, settle="keep", key=key, actor=actor, note=note, now=now
    )
    if plan.takes_unit is not None and old_bus is not None:
        await meter_store.put_on_bus(conn, meter_id=new_id, bus_id=old_bus, unit_id=plan.takes_unit[2])
    await install(
        conn,
        meter_id=new_id,
        usage_point_id=plan.old.usage_point_id,
        installed_by=actor,
        note=note,
        now=now,
    )
    return Replacement(plan, await credit_carry_store.get_carry(conn, removal.carry.id))


async def _repeated(
    conn: Conn, carry: CreditCarry, old_id: int, new_id: int, final: FinalReading
) -> Replacement:
    hangs = await removal_store.find_hanging(conn, new_id)
    if (
        not await remove_meter.is_same_order(conn, carry, old_id, final, "keep")
        or hangs is None
        or hangs.usage_point_id != carry.usage_point_id
    ):
        raise InstallRefused("key_used")
    old = await removal_store.find_removed(conn, old_id, carry.usage_point_id)
    new = await meter_store.get_meter(conn, new_id)
    plan = Plan(old, new, final, carry.units_tenths, needs_key=False, takes_unit=None)
    return Replacement(plan, carry, is_repeat=True)
