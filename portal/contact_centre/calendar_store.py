"""SQL of working calendars: every version that was ever valid."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg

from portal.contact_centre.work_calendar import CalendarVersion, CalendarWrong, Minutes, WorkCalendar

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


async def list_calendars(conn: psycopg.AsyncConnection[Any]) -> dict[str, WorkCalendar]:
    """All calendars by code, their versions from the oldest on. Raises CalendarWrong for a bad row."""
    cur = await conn.execute(
        """SELECT code, valid_from, time_zone, weekly, exceptions
             FROM portal.work_calendar ORDER BY code, valid_from"""
    )
    found: dict[str, list[CalendarVersion]] = {}
    for code, valid_from, time_zone, weekly, exceptions in await cur.fetchall():
        found.setdefault(code, []).append(
            CalendarVersion(
                valid_from=valid_from,
                time_zone=time_zone,
                weekly={_WEEKDAYS.index(day): _pieces(pieces) for day, pieces in weekly.items()},
                exceptions={date.fromisoformat(day): _pieces(pieces) for day, pieces in exceptions.items()},
            )
        )
    return {code: WorkCalendar(code, tuple(versions)) for code, versions in found.items()}


def _pieces(pieces: list[list[str]]) -> tuple[Minutes, ...]:
    return tuple((_minutes(start), _minutes(end)) for start, end in pieces)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    if not (hours.isdigit() and minutes.isdigit()):
        raise CalendarWrong(f"{text!r} is no time of day")
    return int(hours) * 60 + int(minutes)
