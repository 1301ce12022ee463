"""Gather what the checklist of a meter is made of, from the stores that know it; close it with a certificate."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from billing import identity_store, key_change_store
from billing.identity_store import STOCK_KEYS, StsIdentity
from billing.key_change_store import KeyChange
from portal.contact_centre.desk_store import DeskMeter
from portal.field import commissioning_store, field_store, install
from portal.field.checklist import NEVER_ACTED, Facts, Item, Mark, build_checklist, may_finish
from portal.field.commissioning_store import Certificate, Place
from portal.field.field_store import FieldCommand
from portal.field.take_draft import RELAY_PURPOSE

RELAY_OPEN_KEY: Final = "field-relay-open:"
RELAY_CLOSE_KEY: Final = "field-relay-close:"
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)

Conn = psycopg.AsyncConnection[Any]


class NotComplete(Exception):
    """A required item of the checklist is open."""


async def gather_facts(conn: Conn, meter: DeskMeter, place: Place | None) -> Facts:
    """Everything known about the commissioning of a meter at the place where it hangs now."""
    since = place.installed_at if place else _EVER
    identity = await identity_store.find_identity(conn, meter.meter_id)
    change = await key_change_store.find_open_change(conn, meter.meter_id)
    test = await _newest(conn, meter.meter_id, install.TEST_KEY, since)
    opened = await _newest(conn, meter.meter_id, RELAY_OPEN_KEY, since)
    closed = await _newest(conn, meter.meter_id, RELAY_CLOSE_KEY, opened.created_at if opened else since)
    consent = (
        await commissioning_store.find_consent(
            conn,
            meter_id=meter.meter_id,
            usage_point_id=place.usage_point_id,
            purpose=RELAY_PURPOSE,
            since=since,
        )
        if place
        else None
    )
    return Facts(
        link=meter.link,
        is_critical=place.is_critical if place else False,
        tamper=meter.tamper,
        has_identity=identity is not None,
        installed_at=meter.installed_at,
        last_seen_at=meter.last_seen_at,
        link_up=meter.link_up,
        key_change=_key_state(identity, change),
        test_state=test.state if test else None,
        test_at=test.created_at if test else None,
        open_state=opened.state if opened else None,
        close_state=closed.state if closed else None,
        relay_at=(closed or opened).created_at if opened else None,
        photos=await commissioning_store.count_photos(conn, meter.meter_id, since=since),
        entries=await commissioning_store.list_entries(conn, meter.meter_id, since=since),
        consent=consent,
        relay=meter.relay,
        other_opened=opened is not None and await _is_opened_since(conn, opened),
    )


async def _is_opened_since(conn: Conn, opened: FieldCommand) -> bool:
    """Whether somebody else's order may have opened the relay after ours: then it is theirs to close."""
    newest = await field_store.find_last_of_kind(conn, opened.meter_id, kind="relay_open")
    return newest is not None and newest.id > opened.id and newest.state not in NEVER_ACTED


def _key_state(identity: StsIdentity | None, change: KeyChange | None) -> str | None:
    """Why the meter has not its own key yet; None when it has, or when nobody knows any key of it."""
    if change is not None:
        return str(change.state)
    return "stock_key" if identity is not None and identity.current.kt in STOCK_KEYS else None


async def _newest(conn: Conn, meter_id: int, prefix: str, since: datetime) -> FieldCommand | None:
    found = await field_store.find_last_command(conn, meter_id, key_prefix=prefix)
    return found if found is not None and found.created_at >= since else None


async def finish(conn: Conn, meter: DeskMeter, *, login_id: int, now: datetime) -> Certificate:
    """Close the checklist with a certificate, in the caller's transaction; one that is there is returned.

    Raises NotComplete.
    """
    place = await commissioning_store.find_place(conn, meter.meter_id)
    if place is None:
        raise NotComplete
    there = await commissioning_store.find_certificate(conn, meter.meter_id, installed_at=place.installed_at)
    if there is not None:
        return there
    items = build_checklist(await gather_facts(conn, meter, place))
    if not may_finish(items):
        raise NotComplete
    await commissioning_store.insert_certificate(
        conn,
        meter_id=meter.meter_id,
        usage_point_id=place.usage_point_id,
        installed_at=place.installed_at,
        items=[_kept(item) for item in items],
        completed_by=login_id,
        now=now,
    )
    made = await commissioning_store.find_certificate(conn, meter.meter_id, installed_at=place.installed_at)
    if made is None:
        raise NotComplete
    return made


def _kept(item: Item) -> dict[str, Any]:
    """An item as the certificate keeps it; what was not asked for and not done was left out."""
    left_out = item.mark is Mark.OPEN and not item.required
    return {
        "code": item.code,
        "mark": (Mark.SKIPPED if left_out else item.mark).value,
        "required": item.required,
        "reason": item.reason,
        "at": item.at.isoformat() if item.at else None,
        "by_en": item.by_en,
        "by_ar": item.by_ar,
        "detail": dict(item.detail),
    }
