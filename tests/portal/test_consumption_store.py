"""Bars from the history are those from the readings themselves, and a chart reads few rows of it."""

import random
from datetime import timedelta

import psycopg

from meter_gateway.time_series import keep_history
from portal import consumption_store, my_store
from portal.consumption import bounds_of, buckets, buckets_of, reach
from portal.formats import in_muscat
from tests.billing.world import make_house, make_tariffs
from tests.meter_gateway.places import NOW

VIEWS = ["months", "year", "days", "day", "hours"]
METER = 4_711


async def a_year(conn, *, days=400, minutes=60, suspect_every=97):
    """Readings of 400 days with holes and doubt, and those of a neighbour."""
    chance, rows, value = random.Random(5), [], 0
    at = NOW - timedelta(days=days)
    while at < NOW:
        value += chance.randrange(300)
        quality = (
            "suspect" if len(rows) % suspect_every == 3 else chance.choice(["valid"] * 9 + ["estimated"])
        )
        rows.append((METER, at, value + 10**9 * (quality == "suspect"), quality))
        at += timedelta(minutes=minutes) * (80 if chance.random() < 0.002 else 1)
    await conn.execute(
        "SELECT meter_gateway.ensure_reading_partitions(%s::date, %s::date)", (rows[0][1].date(), NOW.date())
    )
    async with conn.cursor().copy(
        "COPY meter_gateway.reading (meter_id, channel, occurred_at, value, quality) FROM STDIN"
    ) as copy:
        for meter, when, counter, quality in rows:
            await copy.write_row((meter, "counter", when, counter, quality))
            await copy.write_row((meter + 1, "counter", when, counter, quality))


async def drawn(conn, view, day=None):
    bounds = bounds_of(view, day or in_muscat(NOW).date(), 6)
    spans = await consumption_store.list_spans(
        conn, METER, view, since=bounds[0] - reach(view), until=bounds[-1] + reach(view)
    )
    return bounds, spans


async def test_the_history_draws_what_the_readings_would(pool):
    async with pool.connection() as conn:
        await a_year(conn)
    seen = {}
    for written in (False, True):
        if written:
            await keep_history.catch_up(pool, NOW)
        async with pool.connection() as conn:
            for view in VIEWS:
                bounds, spans = await drawn(conn, view)
                found = buckets_of(spans, bounds, view, NOW)
                plain = buckets(await my_store.list_counters_around(conn, METER, bounds), view, NOW)
                assert [one.used for one in found] == [one.used for one in plain], view
                assert seen.setdefault(view, found) == found, "whether it is written yet or not"
                assert len(spans) <= 2 * len(bounds) + 7 * 53
    assert sum(one.suspect_count for one in seen["year"]) > 50
    assert any(one.used is None for one in seen["days"])
    assert any(one.is_estimated for one in seen["days"])
    assert not all(one.is_estimated for one in seen["day"])


async def test_a_year_is_drawn_without_a_look_at_all_its_readings(pool, database_url):
    async with pool.connection() as conn:
        await a_year(conn)
    await keep_history.catch_up(pool, NOW)
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        await conn.execute("ANALYZE")
        cursor = psycopg.AsyncClientCursor(conn)
        for view in ("months", "year", "days"):
            bounds = bounds_of(view, in_muscat(NOW).date())
            await cursor.execute(
                "EXPLAIN (ANALYZE, FORMAT JSON) " + consumption_store.query_of(view).as_string(conn),
                (METER, bounds[0] - reach(view), bounds[-1] + reach(view)),
            )
            read = list(rows_read((await cursor.fetchone())[0][0]["Plan"]))
            assert sum(rows for name, rows in read if name.startswith("history")) > 10
            of_readings = sum(rows for name, rows in read if not name.startswith("history"))
            assert of_readings < 200, f"of 19,000 readings: {read}"


def rows_read(node):
    """(table, rows) of each scan of a plan, those that a filter threw away too."""
    if "Relation Name" in node:
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield node["Relation Name"], rows * node["Actual Loops"]
    for part in node.get("Plans", []):
        yield from rows_read(part)


async def test_a_meter_without_readings_has_gaps(conn):
    await make_tariffs(conn)
    house = await make_house(conn)
    bounds = bounds_of("year", in_muscat(NOW).date())
    spans = await consumption_store.list_spans(
        conn, house.meter_id, "year", since=bounds[0], until=bounds[-1]
    )
    assert spans == []
    assert {one.used for one in buckets_of(spans, bounds, "year", NOW)} == {None}


async def test_what_persons_decided_and_what_was_estimated_is_drawn_so(pool):
    """A counter that began again, a contradiction that was decided, a gap that was filled by estimates."""
    day = bounds_of("day", in_muscat(NOW).date() - timedelta(days=2))[0]
    async with pool.connection() as conn:
        await make_tariffs(conn)
        meter = (await make_house(conn)).meter_id

        async def told(hour, value, quality="valid"):
            await conn.execute(
                "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, quality)"
                " VALUES (%s, 'counter', %s, %s, %s)",
                (meter, day + timedelta(hours=hour), value, quality),
            )

        for hour, value in ((0, 1_000), (1, 1_100), (2, 1_200), (8, 1_800), (9, 1_950), (10, 2_000)):
            await told(hour, value)
        for hour in range(11, 16):
            await told(hour, 10 * hour, "suspect")
        finding = (
            await (
                await conn.execute(
                    "INSERT INTO meter_gateway.reading_finding (meter_id, kind, channel, from_at, opened_at)"
                    " VALUES (%s, 'gap', 'counter', %s, %s) RETURNING id",
                    (meter, day, NOW),
                )
            ).fetchone()
        )[0]
        for hour in range(3, 8):
            await conn.execute(
                "INSERT INTO meter_gateway.reading_estimate (finding_id, meter_id, channel, occurred_at, value, slot_s,"
                " method, recorded_at) VALUES (%s, %s, 'counter', %s, %s, 600, 'line', %s)",
                (finding, meter, day + timedelta(hours=hour), 1_000 + 100 * hour, NOW),
            )
        await conn.execute(
            "INSERT INTO meter_gateway.counter_rebase (finding_id, meter_id, cause, from_at, base_value, until_at,"
            " top_value, last_at, last_value, believed, decided_by, decided_at, reason)"
            " VALUES (%s, %s, 'reset', %s, 110, %s, 150, %s, 2000, 5, 'p', %s, 'r')",
            (
                finding,
                meter,
                day + timedelta(hours=11),
                day + timedelta(hours=15),
                day + timedelta(hours=10),
                NOW,
            ),
        )
    await keep_history.catch_up(pool, NOW)
    bounds = [day + timedelta(hours=hour) for hour in range(25)]
    async with pool.connection() as conn:
        spans = await consumption_store.list_spans(
            conn, meter, "day", since=bounds[0] - reach("day"), until=bounds[-1] + reach("day")
        )
    found = buckets_of(spans, bounds, "day", NOW)
    assert [one.used for one in found[:10]] == [100] * 8 + [150, 50]
    assert [one.is_estimated for one in found[:10]] == [False] * 3 + [True] * 5 + [False] * 2
    assert [one.used for one in found[10:15]] == [None, 10, 10, 10, 10], "the fall itself is no use"
    assert sum(one.suspect_count for one in found) == 0


async def test_estimates_that_were_replaced_do_not_come_back_when_readings_are_dropped(pool):
    """True readings came late; years on they go by retention, and what history kept of them stays."""
    day = bounds_of("days", in_muscat(NOW).date())[-3]
    async with pool.connection() as conn:
        await make_tariffs(conn)
        meter = (await make_house(conn)).meter_id
        cursor = await conn.execute(
            "INSERT INTO meter_gateway.reading_finding (meter_id, kind, channel, from_at, opened_at)"
            " VALUES (%s, 'gap', 'counter', %s, %s) RETURNING id",
            (meter, day, NOW),
        )
        (finding,) = await cursor.fetchone()
        for hour in range(26):
            at = day + timedelta(hours=hour)
            await conn.execute(
                "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value)"
                " VALUES (%s, 'counter', %s, %s)",
                (meter, at, 1_000 + 100 * hour),
            )
            if 3 <= hour < 8:
                await conn.execute(
                    "INSERT INTO meter_gateway.reading_estimate (finding_id, meter_id, channel, occurred_at, value,"
                    " slot_s, method, recorded_at) VALUES (%s, %s, 'counter', %s, %s, 600, 'line', %s)",
                    (finding, meter, at, 1_000 + 90 * hour, NOW),
                )
    await keep_history.catch_up(pool, NOW)
    bounds = [day, day + timedelta(days=1)]
    found = []
    for is_dropped in (False, True):
        async with pool.connection() as conn:
            if is_dropped:
                await conn.execute("TRUNCATE meter_gateway.reading")  # as retention leaves it
                cursor = await conn.execute("SELECT count(*) FROM meter_gateway.v_reading_estimate")
                assert await cursor.fetchone() == (5,), "nothing replaces them any more"
            spans = await consumption_store.list_spans(
                conn, meter, "days", since=bounds[0] - reach("days"), until=bounds[-1] + reach("days")
            )
        (bucket,) = buckets_of(spans, bounds, "days", NOW)
        found.append((bucket.used, bucket.is_estimated))
    assert found == [(2_400, False)] * 2
