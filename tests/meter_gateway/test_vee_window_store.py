"""Measures of stretches of readings, on the real database."""

from datetime import timedelta

import pytest

from meter_gateway.readings import vee_window_store
from meter_gateway.readings.check_readings import check_readings
from meter_gateway.readings.estimate import HALF_HOURS, half_hour_of
from tests.meter_gateway.places import NOW, make_mqtt_meter
from tests.meter_gateway.test_check_readings import HOUR, MINUTE, install, make_water, quarters, tell

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


async def test_readings_that_were_brought_along_are_no_gap(conn):
    meter = await make_mqtt_meter(conn)
    await install(conn, meter)
    await tell(conn, meter, [(NOW - HOUR, 700)])
    await conn.execute("DELETE FROM meter_gateway.meter_state")
    assert await vee_window_store.list_new_gaps(conn, NOW, limit=9) == []
    (gap,) = await vee_window_store.list_new_gaps(conn, NOW + 2 * HOUR, limit=9)
    assert (gap.from_at, gap.detail["counter"]) == (NOW - HOUR, 700)
