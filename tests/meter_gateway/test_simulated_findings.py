"""What a simulated meter suffers is what the platform finds: (fault, hours, expected findings)."""

from datetime import UTC, datetime, timedelta

import pytest

from firmware_sim.device import Device
from firmware_sim.fleet_store import FleetStore
from meter_gateway import meter_store
from meter_gateway.readings.check_readings import Checked, check_readings
from meter_gateway.store_batch import store_batch
from meter_gateway.topics import Event, Reading, Uplink, encode, up_topic
from raseed.seed import seed
from tests.firmware_sim.parts import NOW_MS, TOWN, find, fresh

TICK_MS = 600_000
METER = find("water")
DRN = METER.drn


class Wire:
    """A simulated MQTT meter of which each ten minutes one message arrives at once, on a clock that we turn."""

    def __init__(self, pool, store):
        self.pool, self.ms, self.seq, self.events = pool, NOW_MS, 0, []
        state = fresh(METER, credit=2**40, counter=1_000_000)
        self.device = Device(TOWN, METER, state, store, lambda: self.ms)
        self.device.listen(lambda _state, events: self.events.extend(events))

    @property
    def now(self):
        return datetime.fromtimestamp(self.ms / 1000, UTC)

    async def live(self, hours):
        for _ in range(int(hours * 3_600_000 / TICK_MS)):
            self.ms += TICK_MS
            self.device.tick(1)
            await self.say()

    async def say(self):
        state, at = self.device.state, self.device.state.clock_ms(self.ms)
        told = [Event(DRN, one.code, one.at_ms, one.detail) for one in self.events]
        self.events.clear()
        told.append(Reading(DRN, "counter", at, state.counter))
        if state.reverse:
            told.append(Reading(DRN, "reverse", at, state.reverse))
        self.seq += 1
        message = Uplink(DRN, 1, self.seq, at, told, clock_ok=state.clock_ok)
        async with self.pool.connection() as conn:
            await store_batch(conn, [(up_topic(DRN, Uplink), encode(message))], self.now)
            # The rows are stamped by the database's clock, which knows nothing of ours.
            for table, stamp in (("reading", "recorded_at"), ("dead_letter", "received_at")):
                await conn.execute(
                    f"UPDATE meter_gateway.{table} SET {stamp} = %s WHERE {stamp} = now()", (self.now,)
                )

    async def findings(self):
        await check_readings(self.pool, self.now)
        async with self.pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT kind, closed_at IS NULL FROM meter_gateway.reading_finding ORDER BY id"
            )
            return [(kind, "open" if is_open else "over") for kind, is_open in await cursor.fetchall()]


@pytest.fixture
async def wire(pool, tmp_path):
    async with pool.connection() as conn:
        await meter_store.insert_meter(conn, drn=DRN, commodity="water", model="W1", link="mqtt")
        await conn.execute(
            "SELECT meter_gateway.ensure_reading_partitions(%s, %s)",
            [(datetime.fromtimestamp(NOW_MS / 1000, UTC) + timedelta(days=day)).date() for day in (-1, 5)],
        )
        # This test turns the clock, also the one that stamps what is recorded.
        await conn.execute("DROP TRIGGER reading_is_a_fact ON meter_gateway.reading")
    store = FleetStore(tmp_path / "state")
    yield Wire(pool, store)
    store.close()


@pytest.mark.parametrize(
    ("fault", "hours", "found"),
    [
        (None, 49, []),
        ("leak", 49, ["leak"]),
        ("reverse_flow", 2, ["reverse"]),
        ("clock_slow", 2, ["clock"]),
        ("clock_jump", 1, ["clock"]),
        ("tamper", 1, ["tamper"]),
    ],
)
async def test_what_is_found_of_a_fault(wire, fault, hours, found):
    for part in range(0, hours, 24):  # a fault lasts a day at most
        if fault:
            wire.device.begin_fault(fault, 86_400)
        await wire.live(min(24, hours - part))
    expected = [(kind, "open") for kind in found]
    assert await wire.findings() == expected
    assert await wire.findings() == expected, "twice is as good as once"


async def test_the_town_begins_without_a_finding(pool):
    """Its 13 months of history are believed, before and after its meters told their first reading."""
    now = datetime.now(UTC)
    async with pool.connection() as conn:
        await seed(conn, TOWN, now=now)
    assert await check_readings(pool, now) == Checked()
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.meter_state (meter_id, counter, counter_at, state_at, last_seen_at)"
            " SELECT DISTINCT ON (meter_id) meter_id, value, occurred_at, occurred_at, occurred_at"
            " FROM meter_gateway.reading WHERE channel = 'counter' ORDER BY meter_id, occurred_at DESC"
            " ON CONFLICT (meter_id) DO UPDATE SET counter = EXCLUDED.counter, counter_at = EXCLUDED.counter_at"
        )
    assert await check_readings(pool, now + timedelta(hours=1)) == Checked()
