"""The sweep on a real database: opened once, ended once, whoever runs it and however often."""

import asyncio
from datetime import timedelta

import pytest
from psycopg.types.json import Jsonb

from meter_gateway import meter_store, topics
from meter_gateway.message_key import to_millis
from meter_gateway.readings import check_readings as check
from meter_gateway.readings import vee_store
from meter_gateway.readings.check_readings import TURN, Checked, check_readings
from meter_gateway.store_batch import store_batch
from meter_gateway.topics import Reading, Uplink, encode, up_topic
from tests.meter_gateway.places import NOW, make_modbus_meter, make_mqtt_meter, make_site, make_usage_point

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DRN = "06000000011"


async def install(conn, meter, code="UP-1", commodity="electricity", at=NOW - timedelta(days=90)):
    point = await make_usage_point(conn, code, commodity)
    await conn.execute(
        "INSERT INTO meter_gateway.meter_installation (meter_id, usage_point_id, installed_at, installed_by)"
        " VALUES (%s, %s, %s, 'test')",
        (meter.id, point if isinstance(point, int) else point.id, at),
    )


async def make_water(conn, drn="06000000045"):
    meter = await meter_store.insert_meter(conn, drn=drn, commodity="water", model="W1", link="mqtt")
    await install(conn, meter, f"UP-{drn}", "water")
    return meter


async def tell(conn, meter, values, *, channel="counter", late=timedelta(), quality="valid"):
    """Readings as (instant, value), heard `late`; the newest becomes the state."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, recorded_at, quality)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [(meter.id, channel, at, value, at + late, quality) for at, value in values],
        )
    at, value = max(values)
    columns = {"counter": "counter, counter_at", "credit": "credit, state_at", "load": "load, state_at"}
    if channel in columns:
        names = columns[channel]
        first, second = names.split(", ")
        await conn.execute(
            f"INSERT INTO meter_gateway.meter_state (meter_id, {names}) VALUES (%s, %s, %s)"
            f" ON CONFLICT (meter_id) DO UPDATE SET {first} = EXCLUDED.{first}, {second} = EXCLUDED.{second}",
            (meter.id, value, at),
        )


async def say(conn, meter, code, at, **detail):
    await conn.execute(
        "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (meter.id, meter.drn, code, at, at, Jsonb(detail)),
    )


async def findings(conn, *columns):
    names = ", ".join(columns or ("kind", "closed_at IS NOT NULL"))
    cursor = await conn.execute(f"SELECT {names} FROM meter_gateway.reading_finding ORDER BY id")
    return [tuple(row) for row in await cursor.fetchall()]


async def said(conn):
    cursor = await conn.execute(
        "SELECT code, (detail ->> 'active')::boolean FROM meter_gateway.meter_event WHERE edge = 'platform' ORDER BY id"
    )
    return [tuple(row) for row in await cursor.fetchall()]


async def test_nothing_new_is_nothing_found(pool):
    assert await check_readings(pool, NOW) == Checked()


async def test_events_open_once_and_end_once_however_often_the_sweep_runs(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await say(conn, meter, topics.COUNTER_SUSPECT, NOW - 9 * MINUTE, value=0, believed=500)
        await say(conn, meter, topics.COUNTER_BELIEVED, NOW - 8 * MINUTE, value=501, believed=500)
        await say(conn, meter, topics.COUNTER_SUSPECT, NOW - 1 * MINUTE, value=7, believed=501)
        await say(conn, meter, topics.TAMPER, NOW - 1 * MINUTE, active=True)
        await conn.execute(
            "INSERT INTO meter_gateway.meter_state (meter_id, counter_suspect, tamper) VALUES (%s, true, true)",
            (meter.id,),
        )
    for _ in range(3):
        await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn, "kind", "from_at", "to_at", "detail ->> 'value'") == [
            ("counter", NOW - 9 * MINUTE, NOW - 8 * MINUTE, "501"),
            ("counter", NOW - 1 * MINUTE, None, "7"),
            ("tamper", NOW - 1 * MINUTE, None, None),
        ]
        cursor = await conn.execute("SELECT step, actor FROM meter_gateway.reading_finding_step ORDER BY id")
        assert sorted(await cursor.fetchall()) == [("closed", "platform")] + 3 * [("opened", "platform")]
        await say(conn, meter, topics.TAMPER, NOW, active=False)
        await conn.execute("UPDATE meter_gateway.meter_state SET tamper = false, counter_suspect = false,"
                           " counter_at = %s", (NOW,))  # fmt: skip
    await check_readings(pool, NOW + MINUTE)
    async with pool.connection() as conn:
        assert [closed for _, closed in await findings(conn)] == [True, True, True]


async def test_a_doubt_that_nobody_told_is_found_by_its_state(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await conn.execute(
            "INSERT INTO meter_gateway.meter_state (meter_id, counter_suspect, counter, counter_at)"
            " VALUES (%s, true, 500, %s)",
            (meter.id, NOW - HOUR),
        )
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn) == [("counter", False)]


async def test_two_headends_do_not_check_at_once(pool, conn):
    assert await vee_store.lock_checks(conn)
    async with pool.connection() as other:
        meter = await make_mqtt_meter(other)
        await say(other, meter, topics.TAMPER, NOW, active=True)
    assert await check_readings(pool, NOW) == Checked()
    await conn.rollback()
    assert (await check_readings(pool, NOW)).opened == 1


async def test_two_sweeps_side_by_side_open_and_end_once(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await say(conn, meter, topics.COUNTER_SUSPECT, NOW - 5 * MINUTE, value=1)
        await say(conn, meter, topics.COUNTER_BELIEVED, NOW - 4 * MINUTE, value=2)
        await say(conn, meter, topics.TAMPER, NOW, active=True)
    for _ in range(3):
        await asyncio.gather(*(check_readings(pool, NOW) for _ in range(4)))
    async with pool.connection() as conn:
        assert await findings(conn) == [("counter", True), ("tamper", False)]
        cursor = await conn.execute("SELECT count(*) FROM meter_gateway.reading_finding_step")
        assert await cursor.fetchone() == (3,)


async def test_a_stranger_is_found_and_gone_when_the_meter_speaks_again(pool):
    async with pool.connection() as conn:
        _, bus_id = await make_site(conn)
        meter = await make_modbus_meter(conn, bus_id)
        await say(conn, meter, topics.UNKNOWN_METER, NOW - 5 * MINUTE, found="04999999994")
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn, "kind", "detail ->> 'found'") == [("stranger", "04999999994")]
        await tell(conn, meter, [(NOW, 5)], channel="credit")
    await check_readings(pool, NOW + MINUTE)
    async with pool.connection() as conn:
        assert await findings(conn) == [("stranger", True)]


async def test_a_gap_is_found_estimated_apart_and_replaced_by_late_readings(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await install(conn, meter)
        await tell(conn, meter, [(NOW - 8 * HOUR, 1_000), (NOW - 7 * HOUR, 1_100)])
    await check_readings(pool, NOW - 5.5 * HOUR)
    async with pool.connection() as conn:
        assert await findings(conn) == [], "one turn missed is no gap"
    await check_readings(pool, NOW - 4 * HOUR)
    await check_readings(pool, NOW - 3 * HOUR)
    async with pool.connection() as conn:
        assert await findings(conn, "kind", "from_at", "detail ->> 'cause'") == [
            ("gap", NOW - 7 * HOUR, "link_down")
        ]
        await tell(conn, meter, [(NOW - 2 * HOUR, 1_600)])
    checked = await check_readings(pool, NOW - HOUR)
    assert (checked.closed, checked.estimated) == (1, 4)
    async with pool.connection() as conn:
        assert await findings(conn, "from_at", "to_at") == [(NOW - 7 * HOUR, NOW - 2 * HOUR)]
        assert await best(conn, meter) == [1000, 1100, "1200e", "1300e", "1400e", "1500e", 1600]
        # What the meter kept while it was away arrives, one reading a little beside its hour.
        await tell(
            conn,
            meter,
            [(NOW - 6 * HOUR, 1_150), (NOW - 4.2 * HOUR, 1_390), (NOW - 2 * HOUR + MINUTE, 1_601)],
        )
        assert await best(conn, meter) == [1000, 1100, 1150, "1300e", 1390, "1500e", 1600, 1601]
        cursor = await conn.execute("SELECT count(*) FROM meter_gateway.reading WHERE quality = 'estimated'")
        assert (await cursor.fetchone())[0] == 0, "estimates never stand among what was measured"


async def best(conn, meter):
    cursor = await conn.execute(
        "SELECT value, quality FROM meter_gateway.v_reading_best WHERE meter_id = %s AND channel = 'counter'"
        " ORDER BY occurred_at",
        (meter.id,),
    )
    return [f"{value}e" if quality == "estimated" else value for value, quality in await cursor.fetchall()]


async def test_a_meter_taken_down_has_no_gap(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await install(conn, meter)
        await tell(conn, meter, [(NOW - 9 * HOUR, 1_000)])
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        await conn.execute("UPDATE meter_gateway.meter_installation SET removed_at = %s", (NOW,))
    await check_readings(pool, NOW + HOUR)
    await check_readings(pool, NOW + 2 * HOUR)
    async with pool.connection() as conn:
        assert await findings(conn) == [("gap", True)]


def quarters(hours, per_quarter, start=NOW - 49 * HOUR, value=50_000_000):
    count = int(hours * 4)
    return [(start + place * 15 * MINUTE, value + place * per_quarter) for place in range(count + 1)]


async def test_water_that_never_stops_is_a_leak_until_it_stops(pool):
    async with pool.connection() as conn:
        leaking, sleeping, hourly = (
            await make_water(conn, "06000000045"),
            await make_water(conn, "06000000052"),
            await make_water(conn, "06000000060"),
        )
        await tell(conn, leaking, quarters(49, 2_000))
        await tell(
            conn, sleeping, [(at, value if at.hour != 1 else 50_000_000) for at, value in quarters(49, 0)]
        )
        await tell(conn, hourly, quarters(49, 900)[::4])
    for _ in range(2):
        await check_readings(pool, NOW)
    async with pool.connection() as conn:
        rows = await findings(conn, "meter_id", "kind", "(detail ->> 'least_per_hour')::int", "closed_at")
        assert rows == [(leaking.id, "leak", 8_000, None), (hourly.id, "leak", 3_600, None)]
        assert await said(conn) == [(topics.LEAK, True)] * 2
        await tell(conn, leaking, [(NOW + 15 * MINUTE, 50_400_000), (NOW + 30 * MINUTE, 50_400_000)])
    await check_readings(pool, NOW + HOUR)
    async with pool.connection() as conn:
        assert await findings(conn, "meter_id", "to_at") == [
            (leaking.id, NOW + 30 * MINUTE),
            (hourly.id, None),
        ]
        assert await said(conn) == [(topics.LEAK, True), (topics.LEAK, True), (topics.LEAK, False)]


async def test_what_a_person_explained_is_not_found_again_for_a_month(pool):
    async with pool.connection() as conn:
        meter = await make_water(conn)
        await tell(conn, meter, quarters(49, 2_000))
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE meter_gateway.reading_finding SET closed_at = %s, closed_by = 'salim', outcome = 'explained',"
            " reason = 'a bakery: it works day and night'",
            (NOW,),
        )
        await tell(conn, meter, [(NOW + 15 * MINUTE, 60_000_000)])
    assert (await check_readings(pool, NOW + 15 * MINUTE)).opened == 0
    async with pool.connection() as conn:
        assert await findings(conn) == [("leak", True)]


async def test_a_counter_that_stands_still_while_load_flows(pool):
    async with pool.connection() as conn:
        moving, stuck, empty = [
            await make_mqtt_meter(conn, drn) for drn in ("06000000011", "06000000086", "06000000094")
        ]
        hours = [NOW - place * HOUR for place in range(96)]
        await tell(conn, moving, [(at, 10_000 - place) for place, at in enumerate(hours)])
        await tell(conn, stuck, [(at, 10_000) for at in hours] + [(NOW - 97 * HOUR, 9_000)])
        await tell(conn, stuck, [(at, 350) for at in hours], channel="load")
        await tell(conn, empty, [(at, 10_000) for at in hours])
        await tell(conn, empty, [(at, 2) for at in hours], channel="load")
    for _ in range(2):
        await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn, "meter_id", "kind", "from_at", "detail ->> 'mean_load'") == [
            (stuck.id, "flat", NOW - 95 * HOUR, "350")
        ]
        await tell(conn, stuck, [(NOW + HOUR, 10_001)])
    await check_readings(pool, NOW + HOUR)
    async with pool.connection() as conn:
        assert await findings(conn) == [("flat", True)]


async def test_a_counter_that_stands_still_after_a_life_of_use(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        used = [(NOW - timedelta(days=8 + day), 900_000 - day * 9_000) for day in range(28)]
        await tell(conn, meter, used + [(NOW - place * 6 * HOUR, 900_000) for place in range(30)])
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        ((kind, daily),) = await findings(conn, "kind", "(detail ->> 'daily_before')::int")
        assert kind == "flat"
        assert 8_000 < daily < 9_100


async def test_energy_that_flows_back(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await tell(conn, meter, [(NOW, 5_000)])
        await tell(conn, meter, [(NOW - 30 * HOUR, 10), (NOW - HOUR, 900)], channel="reverse")
    for _ in range(2):
        await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn, "kind", "channel", "detail ->> 'rise'") == [("reverse", "reverse", "890")]
        assert await said(conn) == [(topics.REVERSE, True)]
    await check_readings(pool, NOW + 24 * HOUR)
    async with pool.connection() as conn:
        assert ("reverse", True) in await findings(conn)


async def test_a_slow_clock_is_found_by_readings_and_told_once(pool):
    async with pool.connection() as conn:
        slow, right, queued = [
            await make_mqtt_meter(conn, drn) for drn in ("06000000011", "06000000086", "06000000094")
        ]
        times = [NOW - place * MINUTE for place in range(5)]
        await tell(conn, slow, [(at, 100) for at in times], late=600 * MINUTE / 60)
        await tell(conn, right, [(at, 100) for at in times], late=timedelta(seconds=1))
        for at in times:
            await tell(conn, queued, [(at, 100)], late=NOW - at + 10 * MINUTE)
    for _ in range(2):
        await check_readings(pool, NOW + 10 * MINUTE)
    async with pool.connection() as conn:
        assert await findings(conn, "meter_id", "kind", "channel", "(detail ->> 'seconds')::int") == [
            (slow.id, "clock", "meter", -600)
        ]
        later = [NOW + (20 + place) * MINUTE for place in range(5)]
        await tell(conn, slow, [(at, 101) for at in later], late=timedelta(seconds=1))
    await check_readings(pool, NOW + 25 * MINUTE)
    async with pool.connection() as conn:
        assert await findings(conn) == [("clock", True)]
        assert await said(conn) == [(topics.CLOCK_DRIFT, True), (topics.CLOCK_DRIFT, False)]


async def test_a_clock_a_year_back_is_found_by_what_was_refused(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        year_back = to_millis(NOW - timedelta(days=365))
        message = Uplink(DRN, 1, 1, year_back, [Reading(DRN, "counter", year_back, 5)])
        await store_batch(conn, [(up_topic(DRN, Uplink), encode(message))], NOW)
        await conn.execute("UPDATE meter_gateway.dead_letter SET received_at = %s", (NOW,))
    for _ in range(2):
        await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn, "meter_id", "kind", "(detail ->> 'seconds')::int") == [
            (meter.id, "clock", -365 * 86_400)
        ]


async def test_conflicts_wait_for_a_person_as_one_finding(pool):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        for place, value in enumerate((5, 6, 7)):
            reading = Reading(DRN, "credit", to_millis(NOW), value)
            message = Uplink(DRN, 1, place, to_millis(NOW), [reading])
            await store_batch(conn, [(up_topic(DRN, Uplink), encode(message))], NOW)
    for _ in range(2):
        await check_readings(pool, NOW)
    async with pool.connection() as conn:
        assert await findings(conn, "meter_id", "kind", "channel", "detail ->> 'conflicts'") == [
            (meter.id, "conflict", "credit", "2")
        ]


async def test_a_sweep_takes_its_turn_of_meters_and_comes_round(pool):
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.meter (drn, commodity, model, link)"
            " SELECT '0700000' || lpad(n::text, 4, '0'), 'water', 'W1', 'mqtt' FROM generate_series(1, %s) n",
            (TURN + 1,),
        )
        await conn.execute(
            "INSERT INTO meter_gateway.meter_state (meter_id, counter, counter_at) SELECT id, 5, %s"
            " FROM meter_gateway.meter",
            (NOW,),
        )
        marks = []
    for _ in range(3):
        await check_readings(pool, NOW)
        async with pool.connection() as conn:
            marks.append(await vee_store.find_mark(conn, "turn"))
    assert marks[0] > 0
    assert marks[1] == 0, "the last meter was looked at"
    assert marks[2] == marks[0]


async def test_an_event_that_commits_late_is_not_missed(pool):
    """The mark of events stays behind the newest two minutes."""
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await say(conn, meter, topics.RELAY, NOW - HOUR, relay=1)
        await say(conn, meter, topics.RELAY, NOW, relay=0)
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        cursor = await conn.execute("SELECT min(id) FROM meter_gateway.meter_event")
        assert await vee_store.find_mark(conn, "events") == (await cursor.fetchone())[0]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meter_gateway.reading_finding SET from_at = now()",
        "DELETE FROM meter_gateway.reading_finding",
        "UPDATE meter_gateway.reading_finding_step SET reason = 'x'",
    ],
)
async def test_a_finding_is_a_fact(pool, change):
    async with pool.connection() as conn:
        meter = await make_mqtt_meter(conn)
        await say(conn, meter, topics.TAMPER, NOW, active=True)
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        with pytest.raises(Exception, match="refused"):
            await conn.execute(change)
        await conn.rollback()


async def test_the_sweep_goes_on_after_a_fall(pool, monkeypatch, caplog):
    """What fails is told once; the next sweep comes all the same."""
    monkeypatch.setattr(check, "FIRST_CHECK_S", 0.0)
    monkeypatch.setattr(check, "CHECK_EVERY_S", 0.01)
    swept = asyncio.Event()
    falls = 0

    async def falling(_conn, _now, _checked):
        nonlocal falls
        falls += 1
        if falls < 3:
            raise ValueError("a bad row")
        swept.set()

    monkeypatch.setattr(check, "CHECKS", (falling,))
    caplog.set_level("INFO", logger=check.__name__)
    task = asyncio.create_task(check.run(pool, clock=lambda: NOW))
    await asyncio.wait_for(swept.wait(), 10)
    while "checked again" not in caplog.text:
        await asyncio.sleep(0.005)
    task.cancel()
    assert caplog.text.count("are not checked") == 1
