"""The period that a page of consumption is asked for, from its query."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import Query

from portal.consumption import View
from portal.show_use import Period


def asked_period(
    view: View = "days",
    day: Annotated[date | None, Query()] = None,
    hour: Annotated[int | None, Query(ge=0, le=23)] = None,
) -> Period:
    """Take view, day and hour of the query; a wrong one is answered with 422."""
    return Period(view, day, hour)
