"""What is known of each meter now, folded from readings, events and answers in the order of their time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import msgspec

from meter_gateway import topics

_AT: Final = attrgetter("at")
_REASONS: Final = frozenset({"none", "no_credit", "order", "tamper", "overload"})


class StatePatch(msgspec.Struct, gc=False):
    """What a batch tells about one meter; None where it says nothing. Units as in meter_state."""

    meter_id: int
    seen_at: datetime
    state_at: datetime | None = None
    credit: int | None = None
    counter: int | None = None
    counter_at: datetime | None = None
    counter_suspect: bool | None = None
    relay: int | None = None
    relay_reason: str | None = None
    load: int | None = None
    tamper: bool | None = None
    link_up: bool | None = None
    supply_on: bool | None = None
    link_at: datetime | None = None


class Told(msgspec.Struct, frozen=True, gc=False):
    """One record with its time as an instant, and whether its counter is believed."""

    meter_id: int
    at: datetime
    record: topics.MeterRecord
    believed: bool
    live: bool  # sent when it happened, not replayed from a queue


def fold(told: Iterable[Told], received_at: datetime) -> dict[int, StatePatch]:
    """Return one patch a meter; a later record of the same meter wins over an earlier one."""
    patches: dict[int, StatePatch] = {}
    for one in sorted(told, key=_AT):
        patch = patches.get(one.meter_id)
        if patch is None:
            patch = patches[one.meter_id] = StatePatch(one.meter_id, received_at)
        record = one.record
        if isinstance(record, topics.Reading):
            _take_reading(patch, one, record)
        elif isinstance(record, topics.Event):
            _take_event(patch, one, record)
        else:
            _take_values(patch, one.at, record.detail)
        if one.live and not (isinstance(record, topics.Event) and record.code in _SILENT):
            # A clock that runs ahead must not outvote what is heard later.
            _take_link(patch, min(one.at, received_at), link_up=True, supply_on=True)
    return patches


_SILENT: Final = frozenset({topics.LAST_GASP, topics.LINK_DOWN, topics.UNKNOWN_METER})


def _take_reading(patch: StatePatch, one: Told, record: topics.Reading) -> None:
    if record.channel == "counter":
        if one.believed:
            patch.counter, patch.counter_at = record.value, one.at
        return
    patch.state_at = one.at
    if record.channel == "credit":
        patch.credit = record.value
    elif record.channel == "load":
        patch.load = record.value
    elif record.channel == "relay":
        patch.relay = record.value


def _take_event(patch: StatePatch, one: Told, record: topics.Event) -> None:
    if record.code == topics.LAST_GASP:
        _take_link(patch, one.at, link_up=False, supply_on=False)
        patch.load = 0
        patch.state_at = one.at
    elif record.code in (topics.LINK_DOWN, topics.UNKNOWN_METER):
        _take_link(patch, one.at, link_up=False, supply_on=None)
    elif record.code in (topics.LINK_UP, topics.POWER_RESTORED):
        _take_link(patch, one.at, link_up=True, supply_on=True)
    elif record.code == topics.TAMPER:
        patch.tamper = record.detail.get("active") is not False
        patch.state_at = one.at
    elif record.code in (topics.TOKEN, topics.RELAY):
        _take_values(patch, one.at, record.detail)


def _take_values(patch: StatePatch, at: datetime, detail: dict[str, Any]) -> None:
    """Take credit, relay and load out of an event's or an answer's detail, where they are sound."""
    taken = False
    for name, low, high in (("credit", -(2**53), 2**53), ("relay", 0, 2), ("load", 0, 2**40)):
        value = detail.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            setattr(patch, name, value)
            taken = True
    reason = detail.get("reason")
    if isinstance(reason, str) and reason in _REASONS:
        patch.relay_reason = reason
        taken = True
    if taken:
        patch.state_at = at


def _take_link(patch: StatePatch, at: datetime, *, link_up: bool, supply_on: bool | None) -> None:
    if patch.link_at is not None and at < patch.link_at:
        return
    patch.link_up, patch.link_at = link_up, at
    if supply_on is not None:
        patch.supply_on = supply_on
