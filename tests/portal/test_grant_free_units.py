"""Free units on a real database: everybody once, whatever kills the run, with the tokens that a sale would give."""

import asyncio
from datetime import date

import pytest

from billing import free_units_store, identity_store
from billing.errors import IdempotencyConflict, InvalidVend
from billing.key_change import ChangeState
from portal import change_keys, grant_free_units
from portal.field import remove_meter
from portal.field.remove_meter import FinalReading
from portal.grant_free_units import serve_fleet
from tests.billing.world import NOW, Clock, make_tariffs
from tests.portal.key_world import follow, make_wired, plan_change, rich_vault, run_wire
from tests.portal.sales import all_rows, one
from token_engine.errors import VaultTimeout

MONTH = date(2026, 11, 1)


@pytest.fixture
def vault():
    return rich_vault()  # one a test: each database counts its meters from 1, so the ids of requests repeat


@pytest.fixture
async def town(pool, vault):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    kinds = [{}, {"ea": "11"}, {"link": "keypad", "language": "en"}, {"krn": 2}, {"commodity": "water"}]
    return [await make_wired(pool, vault, number, **kind) for number, kind in enumerate(kinds, 1)]


async def begin(pool, units=500, month=MONTH, commodity="electricity"):
    async with pool.connection() as conn:
        return await free_units_store.begin_run(
            conn, month=month, commodity=commodity, units_tenths=units, begun_by="salma", now=NOW
        )


async def unserved(pool):
    async with pool.connection() as conn:
        return await free_units_store.count_unserved(conn, MONTH, "electricity")


async def test_a_meter_that_comes_down_while_its_units_are_reserved_gets_none(pool, town):
    run, gone = await begin(pool), town[0].meter_id
    async with pool.connection() as conn:
        await remove_meter.remove(
            conn, meter_id=gone, final=FinalReading(1, 0, "display"), settle="keep", key="gone", actor="salma",
            note="", now=NOW,
        )  # fmt: skip
        async with pool.connection() as other:
            reserving = asyncio.create_task(
                free_units_store.reserve(other, run, after=0, limit=9, now=NOW), name="reserve"
            )
            await asyncio.sleep(0.3)  # it has listed the meter, and waits for its identity
            await conn.commit()
            assert (await reserving).last == max(wired.meter_id for wired in town[:4])
    rows = await all_rows(pool, "SELECT meter_id FROM billing.free_units_grant ORDER BY 1")
    assert [row[0] for row in rows] == [wired.meter_id for wired in town[1:4]]


async def test_a_fleet_is_served_once_and_the_meters_take_it(pool, town, vault):
    clock = Clock()
    run = await begin(pool)
    assert await unserved(pool) == 4
    tallies = []
    tally = await serve_fleet(pool, vault, run, clock, lambda t: tallies.append(t.served))
    assert (tally.served, tally.refused, tallies) == (4, {}, [4])
    assert await unserved(pool) == 0
    again = await serve_fleet(pool, vault, run, clock)
    assert again.served == 0
    assert await one(pool, "SELECT count(*) FROM billing.token") == 4
    for wired in town[:2]:
        before = wired.state.credit
        assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
        assert wired.state.credit == before + 50_000
    digits = await one(pool, "SELECT digits FROM billing.token WHERE meter_id = %s", town[2].meter_id)
    assert town[2].type_in(digits, clock())[0] == "ACCEPT"
    assert "nothing to pay" in await one(pool, "SELECT body FROM portal.message WHERE language = 'en'")
    uses = await all_rows(pool, "SELECT DISTINCT used_by, purpose FROM billing.key_use")
    assert uses == [("free-units", "credit")]


async def test_next_month_comes_again_and_water_apart(pool, town, vault):
    await serve_fleet(pool, vault, await begin(pool), Clock())
    december = await begin(pool, month=date(2026, 12, 1))
    assert (await serve_fleet(pool, vault, december, Clock())).served == 4
    assert (await serve_fleet(pool, vault, await begin(pool, commodity="water"), Clock())).served == 1


async def test_a_month_that_was_begun_keeps_its_units(pool, town, vault):
    await begin(pool, 500)
    with pytest.raises(IdempotencyConflict):
        await begin(pool, 600)
    for units in (0, 16_384):
        with pytest.raises(InvalidVend):
            await begin(pool, units, month=date(2026, 12, 1))


async def test_two_runs_at_once_serve_each_meter_once(pool, town, vault, monkeypatch):
    monkeypatch.setattr(grant_free_units, "CHUNK", 1)
    run = await begin(pool)
    tallies = await asyncio.gather(*(serve_fleet(pool, rich, run, Clock()) for rich in (vault, vault)))
    assert sum(tally.served for tally in tallies) == 4
    assert await one(pool, "SELECT count(*) FROM billing.token") == 4


@pytest.mark.parametrize(
    "place", ["reserve", "list_unserved", "issue_credits", "insert_service_token", "hand_token"]
)
async def test_a_killed_run_goes_on_where_it_was(pool, town, vault, monkeypatch, place):
    monkeypatch.setattr(grant_free_units, "CHUNK", 2)
    owner = {
        "issue_credits": vault,
        "insert_service_token": grant_free_units.token_store,
        "hand_token": grant_free_units,
    }.get(place, free_units_store)

    class Killed(BaseException):
        pass

    real, calls = getattr(owner, place), []

    async def die_at_the_third(*args, **kwargs):
        result = await real(*args, **kwargs)
        calls.append(place)
        if len(calls) == (3 if place in {"insert_service_token", "hand_token", "list_unserved"} else 2):
            raise Killed
        return result

    run = await begin(pool)
    monkeypatch.setattr(owner, place, die_at_the_third)
    with pytest.raises(Killed):
        await serve_fleet(pool, vault, run, Clock())
    monkeypatch.setattr(owner, place, real)
    before = await one(pool, "SELECT count(*) FROM billing.token")
    assert (await serve_fleet(pool, vault, run, Clock())).served == 4 - before
    assert await one(pool, "SELECT count(*) FROM billing.token") == 4
    assert await one(pool, "SELECT count(DISTINCT meter_id) FROM billing.token") == 4


async def test_a_silent_vault_loses_nothing(pool, town, vault):
    class Silent:
        async def issue_credits(self, requests):
            raise VaultTimeout("nobody answers")

    run = await begin(pool)
    with pytest.raises(VaultTimeout):
        await serve_fleet(pool, Silent(), run, Clock())
    assert await unserved(pool) == 4
    assert (await serve_fleet(pool, vault, run, Clock())).served == 4


async def test_who_cannot_be_served_is_told_of_and_holds_nobody_up(pool, town, vault):
    async with pool.connection() as conn:
        for meter, change in ((0, "kt = 1"), (1, "last_tid = 16777215"), (2, "krn = 9")):
            await conn.execute(
                f"UPDATE billing.sts_identity SET {change} WHERE meter_id = %s", (town[meter].meter_id,)
            )
    tally = await serve_fleet(pool, vault, await begin(pool), Clock())
    assert tally.served == 1
    assert tally.refused == {"no_tid_left": 1, "unknown_key": 1}
    async with pool.connection() as conn:
        assert not await identity_store.has_open_issue(conn, town[2].meter_id)


async def test_under_a_key_change_the_new_key_comes_first(pool, town, vault):
    clock, wired = Clock(), town[0]
    change = await plan_change(pool, wired, {"krn": 3})
    await change_keys.issue_change(pool, vault, change.id, clock)
    await serve_fleet(pool, vault, await begin(pool), clock)
    assert (await run_wire(pool, wired, clock()))[-1] == "ACCEPT"
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    before = wired.state.credit
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
    assert wired.state.credit == before + 50_000
    body = await one(
        pool,
        "SELECT body FROM portal.message g JOIN billing.free_units_grant f ON f.meter_id = %s"
        " AND g.reference = 'free:2026-11:' || f.meter_id",
        wired.meter_id,
    )
    assert body.count("•") == 2
