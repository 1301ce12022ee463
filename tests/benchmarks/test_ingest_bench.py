"""The pure parts of the ingest bench: messages that the product stores, rows without a double, a verdict in words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from meter_gateway.topics import Uplink, decode_up
from tests.benchmarks import ingest_bench
from tests.benchmarks.ingest_bench import LOADS, METERS, Lines, add, pair, reading_rows, uplinks

DAY = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize("load", LOADS)
def test_messages_keep_the_contract_and_each_reading_is_another(load):
    count = METERS + 5
    keys = set()
    for boot in (1, 2):
        for seq, payload in enumerate(uplinks(load, boot, count, DAY)):
            message = decode_up(f"rsd/1/up/bench-{seq % ingest_bench.GATEWAYS}/data", payload)
            assert isinstance(message, Uplink)
            assert (message.boot, message.seq, len(message.records)) == (boot, seq, len(load.channels))
            keys |= {(record.meter, record.channel, record.at) for record in message.records}
    assert len(keys) == 2 * count * len(load.channels)
    assert 130 <= len(uplinks(LOADS[0], 1, 1, DAY)[0]) <= 180


def test_rows_have_a_key_each():
    rows = reading_rows(3 * METERS)
    assert len({(row.meter_id, row.channel, row.occurred_at) for row in rows}) == len(rows)


def test_a_round_counts_beside_its_own_anchor_and_a_loss_is_a_fault():
    both = pair("theirs", "ours")
    for anchor, ours in ((100.0, 40.0), (200.0, 120.0), (100.0, 60.0)):
        add(both, anchor, ours)
    assert both[1].ratio == pytest.approx(0.6)
    assert Lines(list(both), [], 0).faults == []
    assert Lines(list(both), [], 3).faults == ["3 lost"]
    add(both, 100.0, 10.0)
    add(both, 100.0, 10.0)
    assert Lines(list(both), [], 0).faults == ["ours"]
