"""Recode plans on a real database: the dry run writes nothing, meters are fixed, two people sign, the rest is told."""

from uuid import uuid4

import psycopg
import pytest

from billing import key_plan_store, plan_keys
from billing.errors import IdempotencyConflict, InvalidVend
from tests.billing.world import NOW, make_house, make_meter

SCOPE, TARGET = {"sgc": "201457", "krn": 1}, {"krn": 2}


@pytest.fixture
async def fleet(conn):
    houses = [await make_house(conn, number) for number in range(1, 4)]
    await make_meter(conn, 9)  # a spare on the shelf is no part of a plan
    return houses


async def make(conn, *, by="huda", role="supervisor", key=None, scope=SCOPE, target=TARGET, reason="yearly"):
    return await plan_keys.make_plan(
        conn,
        idempotency_key=key or uuid4().hex,
        scope=scope,
        target=target,
        reason=reason,
        requested_by=by,
        role=role,
        now=NOW,
    )


async def decide(conn, plan, verdict="approved", *, by="salma", role="admin"):
    return await plan_keys.decide_plan(
        conn, plan_id=plan.id, verdict=verdict, decided_by=by, role=role, now=NOW
    )


async def test_a_dry_run_writes_nothing_and_names_the_broken_rules(conn, fleet):
    await conn.execute("UPDATE billing.sts_identity SET krn = 2 WHERE meter_id = %s", (fleet[0].meter_id,))
    preview = await plan_keys.preview_plan(conn, scope={"sgc": "201457"}, target=TARGET, now=NOW)
    assert [meter.identity.drn for meter in preview.meters] == [house.drn for house in fleet[1:]]
    assert preview.rules == {"nothing_to_change": 1}
    assert await (await conn.execute("SELECT 1 FROM billing.key_plan")).fetchall() == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"role": "engineer"}, "role_may_not"),
        ({"reason": " "}, "reason_missing"),
        ({"scope": {}}, "scope_invalid"),
        ({"scope": {"name": "x"}}, "scope_invalid"),
        ({"target": {"drn": "1"}}, "target_invalid"),
        ({"target": {"krn": 1}}, "plan_changes_nothing"),
        ({"scope": {"sgc": "999999"}}, "plan_changes_nothing"),
    ],
)
async def test_a_plan_that_cannot_be(conn, fleet, change, code):
    with pytest.raises(InvalidVend) as refused:
        await make(conn, **change)
    assert refused.value.code == code


async def test_nothing_begins_before_another_person_signed(conn, fleet):
    plan = await make(conn)
    assert plan.meters == 3
    assert await key_plan_store.begin_changes(conn, now=NOW, limit=9) == 0
    for by, role, code in (("HUDA", "admin", "same_person"), ("nasser", "engineer", "role_may_not")):
        with pytest.raises(InvalidVend) as refused:
            await decide(conn, plan, by=by, role=role)
        assert refused.value.code == code
    await decide(conn, plan)
    await decide(conn, plan)
    with pytest.raises(InvalidVend):
        await decide(conn, plan, "refused")
    assert await key_plan_store.begin_changes(conn, now=NOW, limit=2) == 2
    assert await key_plan_store.begin_changes(conn, now=NOW, limit=2) == 1
    assert await key_plan_store.begin_changes(conn, now=NOW, limit=2) == 0
    assert await key_plan_store.get_progress(conn, plan.id) == {"PLANNED": 3}


async def test_the_database_itself_wants_a_second_person(conn, fleet):
    plan = await make(conn)
    for statement in (
        (
            "INSERT INTO billing.key_plan_decision (id, verdict, decided_by, decided_role, decided_at)"
            " VALUES (%(plan)s, 'approved', 'Huda', 'admin', now())"
        ),
        (
            "INSERT INTO billing.key_change (meter_id, plan_id, old, new, with_sgc, begun_by, begun_at, looked_at)"
            " VALUES (%(meter)s, %(plan)s, '{}', '{}', false, 'huda', now(), now())"
        ),
    ):
        with pytest.raises(psycopg.errors.CheckViolation):
            async with conn.transaction():
                await conn.execute(statement, {"plan": plan.id, "meter": fleet[0].meter_id})


async def test_a_meter_that_breaks_a_rule_meanwhile_is_told_of(conn, fleet):
    plan = await make(conn)
    await decide(conn, plan)
    await conn.execute("UPDATE billing.sts_identity SET krn = 2 WHERE meter_id = %s", (fleet[0].meter_id,))
    await make_house(conn, 7)  # comes too late: the plan's meters are fixed
    assert await key_plan_store.begin_changes(conn, now=NOW, limit=9) == 3
    rest = await key_plan_store.list_rest(conn, plan.id, limit=9)
    assert [(line.drn, line.state, line.detail) for line in rest] == [
        (fleet[0].drn, "FAILED", "nothing_to_change"),
        (fleet[1].drn, "PLANNED", ""),
        (fleet[2].drn, "PLANNED", ""),
    ]


async def test_the_same_key_is_the_same_plan(conn, fleet):
    first = await make(conn, key="k")
    assert (await make(conn, key="k")).id == first.id
    with pytest.raises(IdempotencyConflict):
        await make(conn, key="k", target={"krn": 3})
    assert [plan.id for plan in await key_plan_store.list_plans(conn, limit=9)] == [first.id]
