"""A year of one meter, drawn, and what space partitions would cost: `make bench WHAT=history`.

Pictures. 20 meters with a counter, a credit and a load each 15 minutes for 400 days (35,040 readings a year and
channel, 2.3 million in all) go into a freshly migrated database; the job of the headend keeps the history. Then one
meter's picture is made 40 times for each view, from the query to the finished HTML with its SVG. Anchor: the same
picture from the readings themselves, grouped by the database. Timed by the wall, warm, median and worst.

Space. The same rows of 200 meters go into two hypertables, in batches as ingest writes them: partitioned by time alone,
and by time and meter (4 ways). Then one meter's year is read from each.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from meter_gateway.time_series import history_store, keep_history
from portal import consumption_store, i18n, show_use
from portal.pages.render import make_templates
from raseed.migrate import migrate
from tests.conftest import with_database
from tests.embedded import embedded_server
from tests.timescale import TimescaleMissing, timescale_server

GOAL_MS = 100
REPEATS = 40
METERS = 20
DAYS = 400
VIEWS = ("year", "days", "months", "day", "hours")
PAGE = '{% from "use_chart.html" import show_use with context %}{{ show_use(use, "electricity") }}'
# The same spans from the readings: (unit, unit) by view.
UNITS = {"year": "day", "days": "day", "months": "month", "day": "hour"}
RAW = """
    SELECT date_trunc('{unit}', occurred_at, 'Asia/Muscat') AS start,
           min(occurred_at) FILTER (WHERE quality <> 'suspect') AS first_at,
           (array_agg(value ORDER BY occurred_at) FILTER (WHERE quality <> 'suspect'))[1] AS first_value,
           max(occurred_at) FILTER (WHERE quality <> 'suspect') AS last_at,
           (array_agg(value ORDER BY occurred_at DESC) FILTER (WHERE quality <> 'suspect'))[1] AS last_value,
           count(*) FILTER (WHERE quality <> 'suspect') AS value_count,
           count(*) FILTER (WHERE quality = 'estimated') AS estimated_count,
           count(*) FILTER (WHERE quality = 'suspect') AS suspect_count
      FROM meter_gateway.v_reading
     WHERE meter_id = %s AND channel = 'counter' AND occurred_at >= %s AND occurred_at < %s GROUP BY 1 ORDER BY 1"""


async def fill(conn: psycopg.AsyncConnection, now: datetime) -> int:
    """Readings in the order in which they come: time by time, meter by meter."""
    first = now - timedelta(days=DAYS)
    await conn.execute("SELECT meter_gateway.ensure_reading_partitions(%s::date, %s::date)", (first, now))
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, recorded_at)"
        " SELECT m, c, t, CASE c WHEN 'counter' THEN 500 * extract(epoch FROM t - %(first)s)::bigint / 900"
        "                        ELSE 1000 + (hashint8(m * extract(epoch FROM t)::bigint) %% 900) END, t"
        "   FROM generate_series(%(first)s, %(now)s, interval '15 minutes') t, generate_series(1, %(meters)s) m,"
        "        unnest(ARRAY['counter', 'credit', 'load']) c",
        {"first": first, "now": now, "meters": METERS},
    )
    return cursor.rowcount


async def milliseconds(work: Callable[[], Awaitable[object]]) -> list[float]:
    """How long each of REPEATS runs takes, after two that warm up."""
    taken = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - began) * 1e3)
    return sorted(taken[2:])


async def pictures(url: str, edition: str) -> list[str]:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    language = i18n.load_languages()["en"]
    page = make_templates({"en": language})["en"].from_string(PAGE)
    missed = []
    async with AsyncConnectionPool(url, min_size=1, max_size=2, open=False) as pool:
        began = time.perf_counter()
        async with pool.connection() as conn:
            rows = await fill(conn, now)
        filled = time.perf_counter() - began
        began = time.perf_counter()
        steps = await keep_history.catch_up(pool, now)
        kept = time.perf_counter() - began
        print(
            f"\n{edition}: {rows:,} readings in {filled:.0f} s; the job wrote their history in {kept:.1f} s"
        )
        print(f"({steps} steps, {rows / kept:,.0f} readings/s)\n")
        async with pool.connection() as conn:
            await conn.execute("ANALYZE")
        print("| view | picture ms, median (worst) | from the readings ms | bars |\n|---|---|---|---|")
        async with pool.connection() as conn:
            for view in VIEWS:
                missed += await picture(conn, view, page, language, now)
    return missed


async def picture(conn, view, page, language, now) -> list[str]:
    bars = 0

    async def make() -> None:
        nonlocal bars
        use = await show_use.show_use(
            conn,
            meter_id=7,
            commodity="electricity",
            period=show_use.Period(view),
            now=now,
            language=language,
        )
        bars = len(use.chart.bars)
        assert use.known > 0
        assert "<svg" in page.render(use=use)

    ours = await milliseconds(make)
    anchor = None
    if view in UNITS:
        real = consumption_store.query_of
        consumption_store.query_of = lambda asked: sql.SQL(RAW.format(unit=UNITS[asked]))
        try:
            anchor = await milliseconds(make)
        finally:
            consumption_store.query_of = real
    raw = f"{statistics.median(anchor):.1f}" if anchor else ""
    print(f"| {view} | {statistics.median(ours):.1f} ({ours[-1]:.1f}) | {raw} | {bars} |")
    return [view] if statistics.median(ours) >= GOAL_MS else []


async def space(url: str) -> None:
    """Time alone against time and meter, on TimescaleDB."""
    print("\n| hypertable | chunks | rows/s in | one meter's year ms | planning ms |\n|---|---|---|---|---|")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        for name, ways in (("by_time", 0), ("by_time_and_meter", 4)):
            await conn.execute(f"CREATE TABLE {name} (LIKE meter_gateway.reading INCLUDING ALL)")
            await conn.execute(
                f"SELECT create_hypertable('{name}', 'occurred_at', chunk_time_interval => interval '1 month')"
            )
            if ways:
                await conn.execute(f"SELECT add_dimension('{name}', 'meter_id', number_partitions => {ways})")
        first = datetime(2026, 1, 1, tzinfo=UTC)
        rates: dict[str, list[float]] = {"by_time": [], "by_time_and_meter": []}
        for day in range(0, 330, 3):  # rounds go over both in turn: a slow spell meets both
            for name, taken in rates.items():
                begin = first + timedelta(days=day)
                began = time.perf_counter()
                for part in range(4):
                    await conn.execute(
                        f"INSERT INTO {name} (meter_id, channel, occurred_at, value) SELECT m, c, t, 1 FROM"
                        " generate_series(%s::timestamptz, %s, interval '1 hour') t, generate_series(1, 200) m,"
                        " unnest(ARRAY['counter', 'load']) c",
                        (begin + timedelta(hours=18 * part), begin + timedelta(hours=18 * part + 17)),
                    )
                taken.append(72 * 400 / (time.perf_counter() - began))
        await conn.execute("ANALYZE")
        for name, taken in rates.items():
            await space_row(conn, name, statistics.median(taken))


async def space_row(conn, name: str, rate: float) -> None:
    query = (
        f"SELECT date_trunc('day', occurred_at), max(value) FROM {name} WHERE meter_id = 7"
        " AND channel = 'counter' AND occurred_at >= '2026-01-01' GROUP BY 1"
    )

    async def read() -> None:
        await (await conn.execute(query)).fetchall()

    async def plan() -> None:
        await conn.execute("EXPLAIN " + query)

    chunks = await (await conn.execute("SELECT count(*) FROM show_chunks(%s::regclass)", (name,))).fetchone()
    took, planned = statistics.median(await milliseconds(read)), statistics.median(await milliseconds(plan))
    print(f"| {name} | {chunks[0]} | {rate:,.0f} | {took:.1f} | {planned:.1f} |")


async def on(server: str, edition: str) -> list[str]:
    name = f"history_bench_{uuid.uuid4().hex[:8]}"
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as conn:
        await conn.execute(f"CREATE DATABASE {name}")
        try:
            await migrate(with_database(server, name))
            missed = await pictures(with_database(server, name), edition)
            async with await psycopg.AsyncConnection.connect(with_database(server, name)) as inside:
                hypertable = await history_store.is_hypertable(inside)
            if hypertable:
                await space(with_database(server, name))
        finally:
            await conn.execute(f"DROP DATABASE {name} WITH (FORCE)")
    return missed


def main() -> int:
    missed = []
    given = os.environ.get("RASEED_TEST_DATABASE_URL")
    with (
        tempfile.TemporaryDirectory() as folder,
        nullcontext(given) if given else embedded_server(Path(folder)) as server,
    ):
        missed += asyncio.run(on(server, "plain PostgreSQL"))
    try:
        with timescale_server() as server:
            missed += asyncio.run(on(server, "TimescaleDB, Apache edition"))
    except TimescaleMissing as reason:
        print(f"TimescaleDB left out: {reason}")
    print(
        f"\n{len(missed)} goals missed (under {GOAL_MS} ms each)"
        + (f": {', '.join(missed)}" if missed else "")
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
