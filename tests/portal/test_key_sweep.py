"""The worker's rounds over keys: one fault holds nobody up, and an idle house is left in peace."""

from uuid import uuid4

import psycopg
import pytest

from billing import key_plan_store
from billing.request_engineering import request_token
from portal import issue_engineering, key_sweep
from portal.key_sweep import IDLE_ROUNDS, KeySweep
from tests.billing.world import NOW, Clock, make_tariffs
from tests.portal.key_world import make_wired, rich_vault
from tests.portal.sales import one

VAULT = rich_vault()


@pytest.fixture
async def wired(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    return [await make_wired(pool, VAULT, number) for number in (1, 2)]


async def ask(pool, wired):
    async with pool.connection() as conn:
        return await request_token(
            conn,
            idempotency_key=uuid4().hex,
            meter_id=wired.meter_id,
            kind="power_limit",
            value=100,
            reason="x",
            requested_by="nasser",
            role="engineer",
            now=NOW,
        )


async def test_one_fault_holds_nobody_up(pool, wired, monkeypatch):
    requests = [await ask(pool, one_of) for one_of in wired]
    real = issue_engineering.issue_request

    async def stumble(pool, vault, request_id, now_fn):
        if request_id == requests[0].id:
            raise RuntimeError("a fault of ours")
        return await real(pool, vault, request_id, now_fn)

    monkeypatch.setattr(issue_engineering, "issue_request", stumble)
    await KeySweep(pool, VAULT, Clock()).round()
    assert await one(pool, "SELECT meter_id FROM billing.token") == wired[1].meter_id
    monkeypatch.undo()
    await KeySweep(pool, VAULT, Clock()).round()
    assert await one(pool, "SELECT count(*) FROM billing.token") == 2


async def test_a_lost_database_ends_the_round(pool, wired, monkeypatch):
    await ask(pool, wired[0])

    async def away(*_args):
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(issue_engineering, "issue_request", away)
    with pytest.raises(psycopg.OperationalError):
        await KeySweep(pool, VAULT, Clock()).round()


async def test_plans_are_looked_through_seldom_while_nothing_is_to_begin(pool, wired, monkeypatch):
    looks = []

    async def look(conn, *, now, limit):
        looks.append(limit)
        return int(len(looks) < 3)

    monkeypatch.setattr(key_plan_store, "begin_changes", look)
    sweep = KeySweep(pool, VAULT, Clock())
    for _ in range(3 + IDLE_ROUNDS):
        await sweep.begin_planned()
    assert len(looks) == 3
    await sweep.begin_planned()
    assert looks == [key_sweep.BATCH] * 4
