"""The town in an empty database: whole, once, and with a history that ends where the meters stand."""

from datetime import UTC, datetime, timedelta

from firmware_sim.town import build_town
from raseed.seed import seed

NOW = datetime.now(UTC)


async def count(conn, query):
    return (await (await conn.execute(query)).fetchone())[0]


async def test_the_whole_town_is_there_once(pool):
    town = build_town(1)
    async with pool.connection() as conn:
        assert await seed(conn, town, now=NOW)
    async with pool.connection() as conn:
        assert not await seed(conn, town, now=NOW)
        assert (
            await count(conn, "SELECT count(*) FROM meter_gateway.v_meter WHERE usage_point IS NOT NULL")
            == 60
        )
        assert await count(conn, "SELECT count(*) FROM billing.sts_identity") == len(town.meters)
        assert await count(conn, "SELECT count(*) FROM billing.v_agreement") == 60
        persona = town.customers[0]
        assert await count(
            conn, "SELECT sum(balance_minor) FROM billing.v_balance WHERE account = 'arrears_receivable'"
        ) == sum(c.arrears_minor for c in town.customers)
        assert persona.arrears_minor > 0


async def test_history_ends_at_the_counter_and_never_falls(pool):
    town = build_town(1)
    async with pool.connection() as conn:
        await seed(conn, town, now=NOW)
        meter = town.installed[0]
        rows = await (
            await conn.execute(
                "SELECT r.occurred_at, r.value, r.quality FROM meter_gateway.v_reading r "
                "JOIN meter_gateway.v_meter m USING (meter_id) WHERE m.drn = %s ORDER BY occurred_at",
                (meter.drn,),
            )
        ).fetchall()
    values = [value for _at, value, _quality in rows]
    assert values == sorted(values)
    assert values[-1] == meter.initial_counter
    assert {quality for _at, _value, quality in rows} == {"simulated"}
    assert rows[0][0] < NOW - timedelta(days=390)
    assert len([at for at, _v, _q in rows if at > NOW - timedelta(days=60)]) >= 60 * 48 - 1
