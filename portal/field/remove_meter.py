"""Take a meter down: its final reading is kept, its credit waits for the next meter of the place or becomes money."""

from __future__ import annotations

from collections.abc import Sequence
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
from meter_gateway import command_store, event_store, meter_store, reading_store
from meter_gateway.command_state import HOLDING, CommandState
from meter_gateway.errors import InvalidMeter
from meter_gateway.event_store import NewEvent
from meter_gateway.reading_store import StoredReading
from portal.call_back_token import COMMANDS, call_back
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
# Why a credit is held for the office: the display is said to show more than the meter can hold, or less than it must.
ABOVE_TOLD: Final = "above_told"
BELOW_TOLD: Final = "below_told"
_PLATFORM: Final = "platform"
# In these states a command may still bring its token to the meter, or have brought it unseen.
_OPEN: Final = frozenset({*HOLDING, CommandState.UNKNOWN})

Conn = psycopg.AsyncConnection[Any]
Settle = Literal["keep", "money"]


@dataclass(frozen=True, slots=True)
class FinalReading:
    """What the meter showed at the end, in Wh or mL; `source` meter (its own word) or display (a person read it).

    `silent` is what a person says of tokens that a meter without its link has not reported back: taken (the display
    shows them included) or not_taken; None while nobody has said anything. `shown` are the ids of the tokens that this
    person was shown and speaks of; None where the caller has just listed them itself.
    """

    counter: int
    credit: int
    source: Literal["meter", "display"]
    silent: Word | None = None
    shown: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """A meter that may be taken down: its reading as it will be kept, and the tenths that go on from it.

    `silent` are the tokens that `final.silent` speaks of. `held_for` is why the office decides first, mostly empty.
    `bound_tenths` was meant for this meter and waits at the place again.
    """

    hanging: Hanging
    final: FinalReading
    silent: tuple[SilentToken, ...]
    units_tenths: int
    held_for: str
    bound_tenths: int

    @property
    def is_held(self) -> bool:
        """Whether the office decides first."""
        return bool(self.held_for)


@dataclass(frozen=True, slots=True)
class Removal:
    """A meter that was taken down, and what became of its credit; `price` where it became money."""

    hanging: Hanging
    carry: CreditCarry
    price: Price | None = None
    is_repeat: bool = False


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


async def list_asked(conn: Conn, meter_id: int, *, now: datetime) -> list[SilentToken]:
    """Tokens of which a person says what came of them when this meter comes down."""
    hanging = await removal_store.find_hanging(conn, meter_id)
    if hanging is None:
        return []
    silent = await token_word_store.list_silent(conn, meter_id, now - ON_ITS_WAY)
    return [] if await _can_arrive(conn, hanging, silent) else silent


async def _can_arrive(conn: Conn, hanging: Hanging, silent: Sequence[SilentToken]) -> bool:
    """Whether one of these tokens may still come to its meter by itself: its link is up, and it is on its way."""
    if not silent or not hanging.link_up:
        return False
    open_digits = {
        command.argument
        for command in await command_store.list_commands_of_meter(conn, hanging.meter_id, limit=COMMANDS)
        if command.kind == "token" and command.state in _OPEN
    }
    return any(token.is_held or token.digits in open_digits for token in silent)


async def check_removal(conn: Conn, *, meter_id: int, final: FinalReading, now: datetime) -> Checked:
    """What taking a meter down with this reading will do.

    Raises InstallRefused: not_installed, sale_open, credit_on_its_way (a token on its way to it),
    token_word_needed (one that did not arrive and was not reported back: a person says what came of it),
    reading_missing (who says it has read the display), reading_changed (not the meter's own word any more, or other
    tokens than were shown), reading_impossible, reading_below_last.
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
    if await _can_arrive(conn, hanging, silent):
        raise InstallRefused("credit_on_its_way")
    if silent and final.silent is None:
        raise InstallRefused("token_word_needed")
    final = _of_shown(final, silent)
    lost = sum(token.units_tenths for token in silent) if final.silent == "not_taken" else 0
    bound = await credit_carry_store.list_bound_to(conn, meter_id)
    held_for, credit = "", final.credit
    least = _least_credit(hanging, final)
    if final.source == "display" and credit > await _most_credit(conn, hanging, lost, now):
        held_for = ABOVE_TOLD
    elif least is not None and credit < least - DISPLAY_STEP[hanging.commodity]:
        # What waits for the office is what the meter told: a slip of the pen takes nothing from the customer.
        held_for, credit = BELOW_TOLD, least
    return Checked(
        hanging,
        final,
        tuple(silent),
        units_of(credit + lost * BASE_UNITS_PER_TENTH[hanging.commodity], hanging.commodity),
        held_for,
        sum(carry.units_tenths for carry in bound),
    )


def _of_shown(final: FinalReading, silent: Sequence[SilentToken]) -> FinalReading:
    """The reading with the tokens that its word speaks of: those that were shown, and a display that was read.

    The meter's own last word may be older than a token, so it says nothing of what the display includes.
    """
    now_silent = tuple(token.id for token in silent)
    if silent and final.source == "meter":
        raise InstallRefused("reading_missing")
    if final.shown is not None and final.shown != now_silent:
        raise InstallRefused("reading_changed")
    return replace(final, shown=now_silent)


def check_settle(checked: Checked, settle: Settle) -> None:
    """Refuse money for credit that the office has yet to look at.

    Raises InstallRefused (credit_above_told, credit_below_told).
    """
    if settle == "money" and checked.held_for == ABOVE_TOLD:
        raise InstallRefused("credit_above_told")
    if settle == "money" and checked.is_held:
        raise InstallRefused("credit_below_told")


async def _confirmed(conn: Conn, hanging: Hanging, final: FinalReading, now: datetime) -> FinalReading:
    """What is said to be the meter's own word is read anew: whoever sends it cannot say what it was."""
    if final.source == "display":
        return final
    told = await read_final(conn, hanging.meter_id, now=now)
    if told is None or not _is_near(told, final.counter, final.credit, hanging.commodity):
        raise InstallRefused("reading_changed")
    return replace(told, silent=final.silent, shown=final.shown)


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


def _least_credit(hanging: Hanging, final: FinalReading) -> int | None:
    """What a display must show by the meter's last word at this place and what it counted since; Wh or mL.

    None where it has told nothing here.
    """
    if final.source != "display" or hanging.credit is None or hanging.counter is None:
        return None
    if hanging.state_at is None or hanging.state_at < hanging.installed_at:
        return None
    return hanging.credit - max(0, final.counter - hanging.counter)


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
    check_removal; key_used; credit_above_told, credit_below_told, no_customer, no_tariff to settle money with).
    """
    await removal_store.lock_removal_key(conn, key)
    there = await find_order(conn, key)
    if there is not None:
        return await _repeated(conn, there, meter_id, final, settle)
    await removal_store.lock_place_of(conn, meter_id)  # no credit is released to it from now on
    checked = await check_removal(conn, meter_id=meter_id, final=final, now=now)
    check_settle(checked, settle)
    hanging = checked.hanging
    await _note_reading(conn, checked, settle, actor=actor, note=note, now=now)
    # A removal never lies before what it ends.
    try:
        installation = await meter_store.remove_meter(conn, meter_id=meter_id, removed_at=now)
    except InvalidMeter:
        raise InstallRefused("not_installed") from None
    carry = await _keep_credit(
        conn, checked, key=_carry_key(key), installation_id=installation.id, actor=actor, note=note, now=now
    )
    price = (
        await settle_carry(conn, carry, tariff_code=hanging.tariff_code, now=now)
        if settle == "money"
        else None
    )
    return Removal(hanging, await credit_carry_store.get_carry(conn, carry.id), price)


def _carry_key(key: str) -> str:
    return f"removal:{key}"


async def find_order(conn: Conn, key: str) -> CreditCarry | None:
    """The removal that was done under this key."""
    return await credit_carry_store.find_carry_by_key(conn, _carry_key(key))


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
            held_for=checked.held_for,
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


async def is_same_order(
    conn: Conn, carry: CreditCarry, meter_id: int, final: FinalReading, settle: Settle
) -> bool:
    """Whether a repeated order says what was done: reading, word and what becomes of the credit."""
    if not is_same_reading(carry, meter_id, final):
        return False
    told = await removal_store.find_removal_detail(conn, meter_id, REMOVED, carry.taken_at)
    # Removals of earlier releases did not note `settle`; a word is noted only where there were tokens to speak of.
    return told.get("settle") in (None, settle) and told.get("silent") in (None, final.silent)


def is_same_reading(carry: CreditCarry, meter_id: int, final: FinalReading) -> bool:
    """Whether a repeated order says what was kept; the meter's own word may have moved on by a step meanwhile."""
    if (carry.old_meter_id, carry.source) != (meter_id, final.source):
        return False
    if final.source == "meter":
        return _is_near(final, carry.counter, carry.credit, carry.commodity)
    return (carry.counter, carry.credit) == (final.counter, final.credit)


async def _repeated(
    conn: Conn, carry: CreditCarry, meter_id: int, final: FinalReading, settle: Settle
) -> Removal:
    if not await is_same_order(conn, carry, meter_id, final, settle):
        raise InstallRefused("key_used")
    hanging = await removal_store.find_removed(conn, meter_id, carry.usage_point_id)
    return Removal(hanging, carry, is_repeat=True)


async def _note_reading(
    conn: Conn, checked: Checked, settle: Settle, *, actor: str, note: str, now: datetime
) -> None:
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
        "settle": settle,
        "usage_point": hanging.usage_point,
        "by": actor,
        "note": note,
    }
    await event_store.insert_events(conn, [NewEvent(hanging.meter_id, _PLATFORM, REMOVED, now, detail)])
