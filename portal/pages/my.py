"""A subscriber's pages: the meters with their days left, and one meter with its consumption."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import psycopg
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from portal import my_store, readings_store
from portal.access import Viewer, require
from portal.consumption import pace
from portal.days_left import DaysLeft, days_left
from portal.my_store import OwnMeter, OwnSale
from portal.outages.supply import SupplyReason, explain_supply
from portal.pages.period import asked_period
from portal.pages.render import language_of, page
from portal.readings_store import FindingRow
from portal.runtime import runtime_of
from portal.show_use import Period, show_use

router = APIRouter()
Subscriber = Annotated[Viewer, Depends(require("my.view"))]

PACE_SPAN = timedelta(days=14)  # two weekends: long enough to be fair, short enough to follow the season
SALES_ON_HOME = 5
SALES_ON_METER = 10
# Where a report helps; in an outage that we know of, or without credit, it would not.
REPORTABLE = frozenset(
    {
        SupplyReason.OK,
        SupplyReason.METER_SILENT,
        SupplyReason.NO_LINK,
        SupplyReason.TAMPER,
        SupplyReason.RELAY_OPEN_BY_ORDER,
        SupplyReason.OVERLOAD,
    }
)
SERIOUS = frozenset(
    {
        SupplyReason.NO_CREDIT,
        SupplyReason.RELAY_OPEN_BY_ORDER,
        SupplyReason.TAMPER,
        SupplyReason.OVERLOAD,
        SupplyReason.OUTAGE,
    }
)


@dataclass(frozen=True, slots=True)
class MeterTile:
    """A meter with what it has left."""

    meter: OwnMeter
    left: DaysLeft
    last_sale: OwnSale | None


async def _tile(conn: psycopg.AsyncConnection, viewer: Viewer, meter: OwnMeter, now: datetime) -> MeterTile:
    used, span = pace(await my_store.list_counters_around(conn, meter.meter_id, [now - PACE_SPAN, now]))
    sales = await my_store.list_sales(conn, viewer.subscriber_id, meter_id=meter.meter_id, limit=1)
    left = days_left(credit=meter.credit, state_at=meter.state_at, used=used, span=span, now=now)
    return MeterTile(meter, left, sales[0] if sales else None)


async def _leaks(conn: psycopg.AsyncConnection, viewer: Viewer) -> dict[int, FindingRow]:
    """The water that never stops behind this customer's meters, by meter."""
    return {
        leak.meter_id: leak
        for leak in await readings_store.list_leaks_of_customer(conn, viewer.subscriber_id)
    }


@router.get("/my")
async def home(request: Request, viewer: Subscriber) -> Response:
    """Show each meter: balance, days left, link, last purchase."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meters = await my_store.list_meters(conn, viewer.subscriber_id)
        tiles = [await _tile(conn, viewer, meter, now) for meter in meters]
        sales = await my_store.list_sales(conn, viewer.subscriber_id, limit=SALES_ON_HOME)
        leaks = await _leaks(conn, viewer)
    return page(request, "my/home.html", block="tiles", tiles=tiles, sales=sales, leaks=leaks)


@router.get("/my/meters/{drn}")
async def meter_page(
    request: Request,
    drn: str,
    viewer: Subscriber,
    period: Annotated[Period, Depends(asked_period)],
) -> Response:
    """Show one meter and its consumption, from six hours by the quarter to 13 months."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meter = await my_store.get_meter(conn, viewer.subscriber_id, drn)
        tile = await _tile(conn, viewer, meter, now)
        sales = await my_store.list_sales(
            conn, viewer.subscriber_id, meter_id=meter.meter_id, limit=SALES_ON_METER
        )
        use = await show_use(
            conn,
            meter_id=meter.meter_id,
            commodity=meter.commodity,
            period=period,
            now=now,
            language=language_of(request),
        )
        leak = (await _leaks(conn, viewer)).get(meter.meter_id)
    return page(request, "my/meter.html", tile=tile, meter=meter, sales=sales, use=use, leak=leak)


@router.get("/my/meters/{drn}/supply")
async def supply_page(request: Request, drn: str, viewer: Subscriber) -> Response:
    """Answer «why have I no supply?» from what the meter and the network last said."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meter = await my_store.get_meter(conn, viewer.subscriber_id, drn)
        answer = await explain_supply(conn, meter_id=meter.meter_id, now=now)
    return page(
        request,
        "my/supply.html",
        block="answer",
        meter=meter,
        answer=answer,
        can_report=answer.reason in REPORTABLE,
        is_serious=answer.reason in SERIOUS,
    )
