"""Why a meter gives no supply: one answer from what the meter and the network last said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import psycopg
from psycopg.rows import class_row

from portal.i18n import msg
from portal.outages import outage_store

# Meters speak at least every few minutes; after this their last word says little about now.
SILENT_AFTER: Final = timedelta(minutes=20)
RELAY_OPEN, RELAY_CLOSED, RELAY_READY = 0, 1, 2  # DLMS control state


class SupplyReason(StrEnum):
    """What keeps supply away, or OK."""

    OK = "OK"
    NO_CREDIT = "NO_CREDIT"
    RELAY_OPEN_BY_ORDER = "RELAY_OPEN_BY_ORDER"
    TAMPER = "TAMPER"
    OVERLOAD = "OVERLOAD"
    READY_FOR_RECONNECTION = "READY_FOR_RECONNECTION"
    OUTAGE = "OUTAGE"
    METER_SILENT = "METER_SILENT"
    NO_LINK = "NO_LINK"
    NOT_INSTALLED = "NOT_INSTALLED"


HEADLINES: Final[dict[SupplyReason, str]] = {
    SupplyReason.OK: msg("Supply is on"),
    SupplyReason.NO_CREDIT: msg("The credit is used up"),
    SupplyReason.RELAY_OPEN_BY_ORDER: msg("Switched off by the utility"),
    SupplyReason.TAMPER: msg("Switched off after a tamper alarm"),
    SupplyReason.OVERLOAD: msg("Tripped: too much load at once"),
    SupplyReason.READY_FOR_RECONNECTION: msg("Ready: switch it on at the meter"),
    SupplyReason.OUTAGE: msg("Supply interruption in the area"),
    SupplyReason.METER_SILENT: msg("The meter does not answer"),
    SupplyReason.NO_LINK: msg("This meter has no link to us"),
    SupplyReason.NOT_INSTALLED: msg("The meter is not installed"),
}
ADVICE: Final[dict[SupplyReason, str]] = {
    SupplyReason.OK: msg(
        "The meter reports supply. If the house is dark, check the main breaker; if it stays dark, report it."
    ),
    SupplyReason.NO_CREDIT: msg(
        "Buy credit: supply comes back by itself as soon as the meter has the token."
    ),
    SupplyReason.RELAY_OPEN_BY_ORDER: msg("Please contact us: we switched this meter off and will say why."),
    SupplyReason.TAMPER: msg("An engineer must look at the meter. Please report it so that one comes."),
    SupplyReason.OVERLOAD: msg("Switch off large appliances, wait a minute, then press the meter's button."),
    SupplyReason.READY_FOR_RECONNECTION: msg("Press the button of the meter: supply waits for your hand."),
    SupplyReason.OUTAGE: msg(
        "We know of it. You need not report it again; we will tell you when it is over."
    ),
    SupplyReason.METER_SILENT: msg(
        "We cannot see the meter from here. If there is no supply, please report it so that we look into it."
    ),
    SupplyReason.NO_LINK: msg(
        "We cannot see it from here. Look at its display: it shows the credit that is left and any fault."
    ),
    SupplyReason.NOT_INSTALLED: msg("It hangs at no house, so it can supply none."),
}


@dataclass(frozen=True, slots=True)
class SupplyView:
    """What the meter last said; `credit` in Wh or mL, `relay` as in DLMS."""

    meter_id: int
    link: str
    installed: bool
    link_up: bool
    supply_on: bool | None
    credit: int | None
    relay: int | None
    relay_reason: str | None
    tamper: bool
    last_seen_at: datetime | None
    state_at: datetime | None


@dataclass(frozen=True, slots=True)
class SupplyAnswer:
    """The answer in one word, since when, and what to do; the texts are English msgids."""

    reason: SupplyReason
    since: datetime | None
    outage_id: int | None
    headline: str
    advice: str
    node_name_en: str = ""
    node_name_ar: str = ""

    @property
    def has_supply(self) -> bool:
        """True when the meter itself reports supply."""
        return self.reason is SupplyReason.OK


def judge(view: SupplyView, outage: outage_store.OpenOutage | None, now: datetime) -> SupplyReason:
    """The reason in the order of field.md 4.2: the meter's own, then the area's, then silence."""
    if not view.installed:
        return SupplyReason.NOT_INSTALLED
    if view.relay == RELAY_READY:
        return SupplyReason.READY_FOR_RECONNECTION
    if view.relay == RELAY_OPEN:
        if view.relay_reason == "tamper":
            return SupplyReason.TAMPER
        if view.relay_reason == "order":
            return SupplyReason.RELAY_OPEN_BY_ORDER
        if view.relay_reason == "overload":
            return SupplyReason.OVERLOAD
        if view.relay_reason == "no_credit" or (view.credit is not None and view.credit <= 0):
            return SupplyReason.NO_CREDIT
        return SupplyReason.RELAY_OPEN_BY_ORDER
    if outage is not None:
        return SupplyReason.OUTAGE
    if view.link == "keypad":
        return SupplyReason.NO_LINK
    fresh = view.last_seen_at is not None and now - view.last_seen_at <= SILENT_AFTER
    if view.supply_on is False or not view.link_up or not fresh:
        return SupplyReason.METER_SILENT
    return SupplyReason.OK


async def explain_supply(conn: psycopg.AsyncConnection[Any], *, meter_id: int, now: datetime) -> SupplyAnswer:
    """Answer «why have I no supply?» for one meter. Raises LookupError when there is no such meter."""
    view = await get_supply_view(conn, meter_id)
    outage = await outage_store.find_open_for_meter(conn, meter_id)
    reason = judge(view, outage, now)
    in_outage = outage is not None and reason is SupplyReason.OUTAGE
    since = view.state_at
    if reason in {SupplyReason.NO_LINK, SupplyReason.NOT_INSTALLED}:
        since = None
    elif reason is SupplyReason.METER_SILENT:
        since = view.last_seen_at
    elif outage is not None and in_outage:
        since = outage.started_at
    return SupplyAnswer(
        reason=reason,
        since=since,
        outage_id=outage.outage_id if outage is not None and in_outage else None,
        headline=HEADLINES[reason],
        advice=ADVICE[reason],
        node_name_en=outage.node_name_en if outage is not None and in_outage else "",
        node_name_ar=outage.node_name_ar if outage is not None and in_outage else "",
    )


async def get_supply_view(conn: psycopg.AsyncConnection[Any], meter_id: int) -> SupplyView:
    """What a meter last said. Raises LookupError."""
    async with conn.cursor(row_factory=class_row(SupplyView)) as cur:
        await cur.execute(
            """SELECT meter_id, link, usage_point_id IS NOT NULL AS installed, link_up, supply_on, credit,
                      relay, relay_reason, tamper, last_seen_at, state_at
                 FROM meter_gateway.v_meter WHERE meter_id = %s""",
            (meter_id,),
        )
        row = await cur.fetchone()
    if row is None:
        raise LookupError(f"meter {meter_id} is not there")
    return row
