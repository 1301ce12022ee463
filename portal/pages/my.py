"""A subscriber's pages: the meters with their days left, and one meter with its consumption."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import psycopg
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from portal import formats, my_store
from portal.access import Viewer, require
from portal.chart import Bar, Chart, draw
from portal.consumption import Bucket, View, bounds_of, buckets, pace
from portal.days_left import DaysLeft, days_left
from portal.i18n import Language
from portal.my_store import OwnMeter, OwnSale
from portal.outages.supply import SupplyReason, explain_supply
from portal.pages.render import language_of, page
from portal.runtime import runtime_of

router = APIRouter()
Subscriber = Annotated[Viewer, Depends(require("my.view"))]

PACE_SPAN = timedelta(days=14)  # two weekends: long enough to be fair, short enough to follow the season
SALES_ON_HOME = 5
SALES_ON_METER = 10
EARLIEST_DAY = date(2020, 1, 1)
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
# How many bars share one label, so that labels do not touch on a phone.
LABEL_EVERY: dict[View, int] = {"months": 3, "days": 14, "day": 6}


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


@router.get("/my")
async def home(request: Request, viewer: Subscriber) -> Response:
    """Show each meter: balance, days left, link, last purchase."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meters = await my_store.list_meters(conn, viewer.subscriber_id)
        tiles = [await _tile(conn, viewer, meter, now) for meter in meters]
        sales = await my_store.list_sales(conn, viewer.subscriber_id, limit=SALES_ON_HOME)
    return page(request, "my/home.html", block="tiles", tiles=tiles, sales=sales)


@router.get("/my/meters/{drn}")
async def meter_page(
    request: Request,
    drn: str,
    viewer: Subscriber,
    view: View = "days",
    day: Annotated[date | None, Query()] = None,
) -> Response:
    """Show one meter and its consumption over 13 months, 60 days or one day."""
    now = datetime.now(UTC)
    today = formats.in_muscat(now).date()
    shown = min(max(day or today, EARLIEST_DAY), today)
    async with runtime_of(request).pool.connection() as conn:
        meter = await my_store.get_meter(conn, viewer.subscriber_id, drn)
        tile = await _tile(conn, viewer, meter, now)
        sales = await my_store.list_sales(
            conn, viewer.subscriber_id, meter_id=meter.meter_id, limit=SALES_ON_METER
        )
        bounds = bounds_of(view, shown)
        found = buckets(await my_store.list_counters_around(conn, meter.meter_id, bounds), view, now)
    shown_buckets = [bucket for bucket in found if bucket.start <= now]
    bars = _bars(shown_buckets, view, meter, language_of(request))
    return page(
        request,
        "my/meter.html",
        tile=tile,
        meter=meter,
        sales=sales,
        view=view,
        day=shown,
        previous_day=shown - timedelta(days=1),
        next_day=shown + timedelta(days=1) if shown < today else None,
        chart=_chart(bars, view),
        known=sum(bucket.used for bucket in shown_buckets if bucket.used is not None),
        gaps=sum(bucket.used is None for bucket in shown_buckets),
    )


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


def _bars(found: list[Bucket], view: View, meter: OwnMeter, language: Language) -> list[Bar]:
    bars = []
    for bucket in found:
        if view == "day":
            label = formats.time_text(bucket.start)
            title, href = label, ""
        elif view == "days":
            label = formats.day_month_text(bucket.start, language.code)
            title = formats.date_text(bucket.start, language.code)
            day = formats.in_muscat(bucket.start).date()
            href = f"/my/meters/{meter.drn}?view=day&day={day.isoformat()}"
        else:
            label = formats.month_text(bucket.start, language.code, short=True)
            title, href = formats.month_text(bucket.start, language.code), ""
        text = language._("No reading")
        if bucket.used is not None:
            text = formats.quantity_text(bucket.used, meter.commodity, language.code)
        if bucket.used is not None and bucket.is_partial:
            text = language._("%(amount)s so far", amount=text)
        bars.append(Bar(label, title, text, bucket.used, bucket.is_partial, href))
    return bars


def _chart(bars: list[Bar], view: View) -> Chart:
    return draw(bars, label_every=LABEL_EVERY[view])
