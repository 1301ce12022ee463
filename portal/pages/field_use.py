"""The engineer's look at a meter's consumption: the same drawing that its customer sees."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from portal.access import NotFound, Viewer, require
from portal.contact_centre import desk_store
from portal.pages.period import asked_period
from portal.pages.render import language_of, page
from portal.runtime import runtime_of
from portal.show_use import Period, show_use

router = APIRouter()
Engineer = Annotated[Viewer, Depends(require("field.view"))]


@router.get("/field/meters/{drn}/use")
async def use_page(
    request: Request,
    drn: str,
    _viewer: Engineer,
    period: Annotated[Period, Depends(asked_period)],
) -> Response:
    """Show what a meter measured, from six hours by the quarter to 13 months."""
    async with runtime_of(request).pool.connection() as conn:
        meter = await desk_store.find_meter(conn, drn)
        if meter is None:
            raise NotFound
        use = await show_use(
            conn,
            meter_id=meter.meter_id,
            commodity=meter.commodity,
            period=period,
            now=datetime.now(UTC),
            language=language_of(request),
        )
    return page(request, "field/use.html", meter=meter, use=use)
