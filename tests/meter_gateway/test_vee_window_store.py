"""Measures of stretches of readings, on the real database."""

from datetime import timedelta

import pytest

from meter_gateway import topics
from meter_gateway.readings import check_readings as check
from meter_gateway.readings import decide_finding, vee_store, vee_window_store
from meter_gateway.readings.check_readings import check_readings
from meter_gateway.readings.estimate import HALF_HOURS, half_hour_of
from tests.meter_gateway.places import NOW, make_mqtt_meter
from tests.meter_gateway.test_check_readings import (
    HOUR,
    MINUTE,
    findings,
    install,
    make_water,
    quarters,
    said,
    tell,
)

HALF = 30 * MINUTE


def lived(days, per_half_hour):
    """A counter by half-hours that ends at NOW."""
    found, value = [], 1_000_000
    for place in range(int(days * 48) + 1):
        at = NOW - timedelta(days=days) + place * HALF
        found.append((at, value))
        value += per_half_hour(at)
    return found


def asleep_at_night(at):
    return 0 if at.hour < 6 else 120


async def test_a_habit_is_the_mean_of_each_half_hour(conn):
    meter = await make_mqtt_meter(conn)
    await tell(conn, meter, lived(3, asleep_at_night))
    habit = await vee_window_store.find_habit(conn, meter.id, NOW)
    assert len(habit) == HALF_HOURS
    # The slot of a half-hour holds what was used up to its reading.
    assert habit[half_hour_of(NOW.replace(hour=3))] == 0
    assert habit[half_hour_of(NOW.replace(hour=12))] == 120


async def test_half_a_day_is_no_habit(conn):
    meter = await make_mqtt_meter(conn)
    await tell(conn, meter, lived(0.5, asleep_at_night))
    assert await vee_window_store.find_habit(conn, meter.id, NOW) is None


async def test_a_long_gap_takes_the_shape_of_the_habit(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await install(conn, meter)
        history = lived(3, asleep_at_night)
        await tell(conn, meter, history)
    await check_readings(pool, NOW + 5 * HOUR)
    async with pool.connection() as conn:
        after = NOW + 24 * HOUR
        await tell(conn, meter, [(after, history[-1][1] + 36 * 120)])
    assert (await check_readings(pool, after + MINUTE)).estimated == 23
    async with pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT occurred_at, value, method FROM meter_gateway.v_reading_estimate ORDER BY occurred_at"
        )
        rows = await cursor.fetchall()
    assert {row[2] for row in rows} == {"typical"}
    by_hour = {row[0].hour: row[1] for row in rows}
    night, day = by_hour[6] - by_hour[0], by_hour[18] - by_hour[12]
    assert 0 < night < day / 8


async def test_a_gap_without_a_first_value_is_not_estimated(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await install(conn, meter, at=NOW - 9 * HOUR)
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        await tell(conn, meter, [(NOW + HOUR, 500)])
    checked = await check_readings(pool, NOW + HOUR)
    assert (checked.closed, checked.estimated) == (1, 0)


async def test_the_turn_leaves_out_who_is_silent_or_has_no_link(conn):
    told = [await make_mqtt_meter(conn, drn) for drn in ("06000000011", "06000000086", "06000000094")]
    await tell(conn, told[0], [(NOW - HOUR, 5)])
    await tell(conn, told[1], [(NOW - 96 * HOUR, 5)])
    assert await vee_window_store.list_turn(conn, 0, NOW, limit=9) == [told[0].id]
    assert await vee_window_store.list_turn(conn, told[0].id, NOW, limit=9) == []


@pytest.mark.parametrize(
    ("per_quarter", "still", "least"), [(2_000, False, 8_000), (0, True, 0), (1, False, 4)]
)
async def test_a_flow_is_measured_by_quarters(conn, per_quarter, still, least):
    water, other = await make_water(conn), await make_mqtt_meter(conn)
    await tell(conn, water, quarters(49, per_quarter))
    await tell(conn, other, quarters(49, per_quarter))
    (flow,) = await vee_window_store.list_flows(conn, [water.id, other.id], NOW)
    assert flow.meter_id == water.id, "electricity has no leaks"
    assert (flow.still_at is not None, flow.least_per_hour) == (still, least)
    assert flow.longest == 15 * MINUTE
    assert flow.intervals in (192, 193)


async def test_a_garbage_counter_is_measured_like_any_other(conn):
    """Nine times ten to the fifteenth and then a thousand: an hour of that is more than a bigint holds."""
    garbage, leaking = await make_water(conn), await make_water(conn, "06000000052")
    await tell(conn, garbage, [(NOW - HALF, 1_000), (NOW, 9 * 10**15)])
    await tell(conn, leaking, quarters(49, 2_000))
    flows = await vee_window_store.list_flows(conn, [garbage.id, leaking.id], NOW)
    assert {flow.meter_id: flow.least_per_hour for flow in flows} == {
        garbage.id: 2 * (9 * 10**15 - 1_000),
        leaking.id: 8_000,
    }
    await tell(conn, garbage, [(NOW - 10 * MINUTE, -(2**62)), (NOW - 9 * MINUTE, 2**62)])
    assert len(await vee_window_store.list_flows(conn, [garbage.id], NOW)) == 1


async def test_what_fails_is_told_and_keeps_no_other_measure_and_no_next_turn_waiting(pool, monkeypatch):
    async with pool.connection() as conn:
        stuck = await make_mqtt_meter(conn)
        hours = [NOW - place * HOUR for place in range(96)]
        await tell(conn, stuck, [(at, 10_000) for at in hours] + [(NOW - 97 * HOUR, 9_000)])
        await tell(conn, stuck, [(at, 350) for at in hours], channel="load")

    async def broken(conn, *_args, **_more):
        await conn.execute("SELECT 9223372036854775807 + 1")

    monkeypatch.setattr(check, "TURN", 1)
    monkeypatch.setattr(vee_window_store, "list_flows", broken)
    monkeypatch.setattr(vee_store, "list_heard", broken)
    checked = await check_readings(pool, NOW)
    assert [type(fault).__name__ for fault in checked.faults] == ["NumericValueOutOfRange"] * 2
    assert checked.opened == 1
    async with pool.connection() as conn:
        assert await findings(conn, "kind") == [("flat",)]
        assert await vee_store.find_mark(conn, "turn") == stuck.id


async def test_a_flat_is_over_when_the_register_was_replaced(pool):
    async with pool.connection() as conn:
        stuck = await make_mqtt_meter(conn)
        hours = [NOW - place * HOUR for place in range(96)]
        await tell(conn, stuck, [(at, 10_000) for at in hours] + [(NOW - 97 * HOUR, 9_000)])
        await tell(conn, stuck, [(at, 350) for at in hours], channel="load")
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn) == [("flat", False)]
        await tell(conn, stuck, [(NOW + HOUR, 5)])
    await check_readings(pool, NOW + HOUR)
    async with pool.connection() as conn:
        assert await findings(conn, "to_at", "detail ->> 'counter_after'") == [(NOW + HOUR, "5")]


async def test_a_gap_of_a_meter_that_never_spoke_ends_when_it_is_taken_down(pool):
    async with pool.connection() as conn:
        await install(conn, await make_mqtt_meter(conn))
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn) == [("gap", False)]
        await conn.execute("UPDATE meter_gateway.meter_installation SET removed_at = %s", (NOW,))
    for later in (1, 2):
        await check_readings(pool, NOW + later * HOUR)
    async with pool.connection() as conn:
        assert await findings(conn, "kind", "to_at") == [("gap", NOW)]


async def test_what_flowed_back_is_over_though_the_register_is_told_at_each_poll(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await tell(conn, meter, [(NOW + place * HOUR, 5_000 + place) for place in range(30)])
        told = [(NOW - 30 * HOUR, 10)] + [(NOW + place * HOUR, 900) for place in range(30)]
        await tell(conn, meter, told, channel="reverse")
    for hours in (0, 23, 25):
        await check_readings(pool, NOW + hours * HOUR)
        async with pool.connection() as conn:
            assert await findings(conn) == [("reverse", hours == 25)]


async def test_a_wrong_clock_that_a_person_explained_is_not_told_again(pool):
    slow = timedelta(seconds=200)
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await tell(conn, meter, [(NOW - place * HOUR, 10_000 - place) for place in range(6)], late=slow)
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT id FROM meter_gateway.reading_finding")
        (finding,) = await cursor.fetchone()
        await decide_finding.explain_finding(conn, finding, by="salim", reason="known", now=NOW)
        await tell(conn, meter, [(NOW + HOUR, 10_001)], late=slow)
    assert (await check_readings(pool, NOW + HOUR + 5 * MINUTE)).opened == 0
    async with pool.connection() as conn:
        assert await said(conn) == [(topics.CLOCK_DRIFT, True)]


async def test_readings_that_were_brought_along_are_no_gap(conn):
    meter = await make_mqtt_meter(conn)
    await install(conn, meter)
    await tell(conn, meter, [(NOW - HOUR, 700)])
    await conn.execute("DELETE FROM meter_gateway.meter_state")
    assert await vee_window_store.list_new_gaps(conn, NOW, limit=9) == []
    (gap,) = await vee_window_store.list_new_gaps(conn, NOW + 2 * HOUR, limit=9)
    assert (gap.from_at, gap.detail["counter"]) == (NOW - HOUR, 700)
