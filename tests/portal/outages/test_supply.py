"""«Why have I no supply?» as a table, and on the database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from portal.outages import supply, watch
from portal.outages.infer import Rules
from portal.outages.outage_store import OpenOutage
from portal.outages.supply import SupplyReason, SupplyView, explain_supply, judge
from tests.portal.small_town import NOW, build, languages

OUTAGE = OpenOutage(7, NOW, "probable", "Transformer", "محول")
LIVE = {
    "meter_id": 1,
    "link": "mqtt",
    "installed": True,
    "link_up": True,
    "supply_on": True,
    "credit": 5000,
    "relay": 1,
    "relay_reason": "none",
    "tamper": False,
    "last_seen_at": NOW - timedelta(minutes=1),
    "state_at": NOW - timedelta(minutes=1),
}


@pytest.mark.parametrize(
    ("changes", "outage", "reason"),
    [
        ({}, None, SupplyReason.OK),
        ({"relay": None}, None, SupplyReason.OK),
        ({"relay": 0, "relay_reason": "no_credit", "credit": 0}, None, SupplyReason.NO_CREDIT),
        ({"relay": 0, "relay_reason": None, "credit": -5}, None, SupplyReason.NO_CREDIT),
        # the house's own reason is told even when the whole street is dark
        ({"relay": 0, "relay_reason": "no_credit", "credit": 0}, OUTAGE, SupplyReason.NO_CREDIT),
        ({"relay": 0, "relay_reason": "order"}, None, SupplyReason.RELAY_OPEN_BY_ORDER),
        ({"relay": 0, "relay_reason": "order", "credit": 0}, None, SupplyReason.RELAY_OPEN_BY_ORDER),
        ({"relay": 0, "relay_reason": "tamper"}, None, SupplyReason.TAMPER),
        ({"relay": 0, "relay_reason": "overload"}, None, SupplyReason.OVERLOAD),
        ({"relay": 2}, None, SupplyReason.READY_FOR_RECONNECTION),
        ({}, OUTAGE, SupplyReason.OUTAGE),
        ({"link": "keypad", "last_seen_at": None, "link_up": False}, OUTAGE, SupplyReason.OUTAGE),
        ({"link": "keypad", "last_seen_at": None, "link_up": False}, None, SupplyReason.NO_LINK),
        ({"link_up": False}, None, SupplyReason.METER_SILENT),
        ({"supply_on": False}, None, SupplyReason.METER_SILENT),
        ({"last_seen_at": None}, None, SupplyReason.METER_SILENT),
        ({"last_seen_at": NOW - timedelta(minutes=21)}, None, SupplyReason.METER_SILENT),
        ({"installed": False}, None, SupplyReason.NOT_INSTALLED),
    ],
)
def test_the_reason(changes, outage, reason):
    assert judge(SupplyView(**LIVE | changes), outage, NOW) is reason


def test_every_reason_has_words_and_its_arabic():
    for reason in SupplyReason:
        for text in (supply.HEADLINES[reason], supply.ADVICE[reason]):
            assert languages()["ar"]._(text) != text


async def test_an_outage_is_the_answer_until_that_very_meter_is_back(conn):
    town = await build(conn)
    for meter in ("a1", "a2", "a3"):
        await town.state(meter, NOW, relay=1, relay_reason="none")
    await town.gasp("a1", "a2", at=NOW)
    later = NOW + timedelta(minutes=2)
    await watch.evaluate(conn, now=later, rules=Rules(), languages=languages())
    answer = await explain_supply(conn, meter_id=town.meters["a1"], now=later)
    assert (answer.reason, answer.since, answer.node_name_en) == (
        SupplyReason.OUTAGE,
        NOW,
        "transformer TX-1",
    )
    assert answer.outage_id is not None
    keypad = await explain_supply(conn, meter_id=town.meters["a4"], now=later)
    assert keypad.outage_id == answer.outage_id
    other = await explain_supply(conn, meter_id=town.meters["c1"], now=NOW - timedelta(minutes=55))
    assert other.reason is SupplyReason.OK
    assert other.has_supply
    await town.event("a1", "3.26.0.216", later)
    await town.state("a1", later)
    await watch.evaluate(conn, now=later, rules=Rules(), languages=languages())
    assert (await explain_supply(conn, meter_id=town.meters["a1"], now=later)).reason is SupplyReason.OK
    assert (await explain_supply(conn, meter_id=town.meters["a2"], now=later)).reason is SupplyReason.OUTAGE


async def test_a_meter_seen_alive_after_the_cut_is_not_under_it(conn):
    town = await build(conn)
    await town.gasp("a1", "a2", at=NOW)
    later = NOW + timedelta(minutes=2)
    await watch.evaluate(conn, now=later, rules=Rules(), languages=languages())
    await town.reading("a3", later)
    await watch.evaluate(conn, now=later, rules=Rules(), languages=languages())
    assert (await explain_supply(conn, meter_id=town.meters["a3"], now=later)).reason is SupplyReason.OK


async def test_no_such_meter(conn):
    with pytest.raises(LookupError):
        await explain_supply(conn, meter_id=999, now=NOW)
