"""Engineering tokens on a real database: who may, who signs, what the vault says, what the meter does."""

from uuid import uuid4

import psycopg
import pytest

from billing import engineering_store
from billing.engineering import KINDS
from billing.errors import IdempotencyConflict, InvalidVend
from billing.request_engineering import decide_request, request_token
from portal import change_keys, issue_engineering
from tests.billing.world import NOW, Clock, make_tariffs
from tests.portal.key_world import follow, make_wired, plan_change, rich_vault, run_wire
from tests.portal.sales import all_rows, one
from token_engine.errors import VaultTimeout

VAULT = rich_vault()
ROLES = ("subscriber", "agent", "engineer", "supervisor", "admin")


@pytest.fixture
async def wired(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    return await make_wired(pool, VAULT)


async def ask(pool, wired, kind, value=0, *, by="nasser", role="admin", key=None, reason="a call"):
    async with pool.connection() as conn:
        return await request_token(
            conn,
            idempotency_key=key or uuid4().hex,
            meter_id=wired.meter_id,
            kind=kind,
            value=value,
            reason=reason,
            requested_by=by,
            role=role,
            now=NOW,
        )


async def decide(pool, request, verdict="approved", *, by="huda", role="supervisor"):
    async with pool.connection() as conn:
        return await decide_request(
            conn, request_id=request.id, verdict=verdict, decided_by=by, role=role, now=NOW
        )


async def issue(pool, request, vault=VAULT, clock=None):
    return await issue_engineering.issue_request(pool, vault, request.id, clock or Clock())


@pytest.mark.parametrize(
    ("kind", "value", "done"),
    [
        ("power_limit", 5_000, lambda s: s.power_limit_w == 5_000),
        ("phase_unbalance", 900, lambda s: True),
        ("test", 0, lambda s: True),
        ("test_4digit", 2, lambda s: True),
        ("extended_set", 63 << 10 | 1 << 1 | 1, lambda s: True),
    ],
)
async def test_a_token_that_needs_one_person_goes_to_its_meter(pool, wired, kind, value, done):
    request = await ask(pool, wired, kind, value)
    assert request.state == "APPROVED"
    assert await issue(pool, request) == "ISSUED"
    assert await run_wire(pool, wired, NOW) == ["ACCEPT"]
    assert done(wired.state)
    issued_by, reason, purpose = await one(pool, "SELECT issued_by, reason, purpose FROM billing.token")
    assert (issued_by, reason) == ("nasser", "a call")
    uses = await all_rows(pool, "SELECT used_by, purpose FROM billing.key_use")
    assert uses == ([("nasser", f"engineering.{kind}")] if KINDS[kind].needs_vault else [])
    assert purpose == ("engineering" if KINDS[kind].needs_vault else "test")


@pytest.mark.parametrize(
    ("kind", "value"), [("clear_credit", 0), ("clear_credit", 0xFFFF), ("clear_tamper", 0)]
)
async def test_two_people_sign_what_takes_credit_or_hides_tamper(pool, wired, kind, value):
    request = await ask(pool, wired, kind, value, role="engineer")
    assert request.state == "REQUESTED"
    assert await issue(pool, request) == "REQUESTED"
    assert await all_rows(pool, "SELECT 1 FROM billing.token") == []
    with pytest.raises(InvalidVend) as same:
        await decide(pool, request, by="Nasser")
    assert same.value.code == "same_person"
    assert (await decide(pool, request)).state == "APPROVED"
    assert (await decide(pool, request)).state == "APPROVED"  # said twice, decided once
    with pytest.raises(InvalidVend):
        await decide(pool, request, "refused", by="salma")
    assert await issue(pool, request) == "ISSUED"
    assert await run_wire(pool, wired, NOW) == ["ACCEPT"]
    assert wired.state.credit == (0 if kind == "clear_credit" else 50_000)


async def test_what_was_refused_is_never_issued(pool, wired):
    request = await ask(pool, wired, "clear_credit", role="engineer")
    assert (await decide(pool, request, "refused")).state == "REFUSED"
    assert await issue(pool, request) == "REFUSED"
    async with pool.connection() as conn:
        assert await engineering_store.list_requests_to_issue(conn, limit=9) == []


async def test_the_database_itself_wants_two_people(pool, wired):
    request = await ask(pool, wired, "clear_credit", role="engineer")
    async with pool.connection() as conn:
        with pytest.raises(psycopg.errors.CheckViolation):
            await engineering_store.insert_decision(
                conn,
                request_id=request.id,
                verdict="approved",
                decided_by="NASSER",
                decided_role="admin",
                note="",
                now=NOW,
            )
        await conn.rollback()
        with pytest.raises(psycopg.errors.CheckViolation):
            await conn.execute(
                "INSERT INTO billing.engineering_reservation (id, meter_id, base_date, tid, rnd, key, reserved_at)"
                " VALUES (%s, %s, 2014, 5, 5, '{}', now())",
                (request.id, wired.meter_id),
            )
        await conn.rollback()
        with pytest.raises(psycopg.errors.RestrictViolation):
            await conn.execute("UPDATE billing.engineering_request SET needs_approval = false")
        await conn.rollback()


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_each_role_may_ask_for_its_own(pool, wired, kind, role):
    if kind == "water_factor":
        async with pool.connection() as conn:
            await conn.execute("UPDATE meter_gateway.meter SET commodity = 'water'")
    allowed = role in KINDS[kind].requesters
    try:
        request = await ask(pool, wired, kind, role=role)
        assert allowed
        assert request.needs_approval == (kind in {"clear_credit", "clear_tamper"})
    except InvalidVend as refusal:
        assert not allowed
        assert refusal.code == "role_may_not"


@pytest.mark.parametrize("role", ROLES)
async def test_only_the_office_decides(pool, wired, role):
    request = await ask(pool, wired, "clear_tamper", role="engineer")
    if role in {"supervisor", "admin"}:
        assert (await decide(pool, request, role=role)).state == "APPROVED"
    else:
        with pytest.raises(InvalidVend):
            await decide(pool, request, role=role)


@pytest.mark.parametrize(
    ("kind", "value", "reason", "code"),
    [
        ("clear_credit", 8, "x", "value_out_of_range"),
        ("clear_tamper", 1, "x", "value_out_of_range"),
        ("power_limit", -1, "x", "value_out_of_range"),
        ("power_limit", 18_201_625, "x", "value_out_of_range"),
        ("water_factor", 1, "x", "not_for_this_commodity"),
        ("free_money", 1, "x", "kind_unknown"),
        ("power_limit", 1, " ", "reason_missing"),
        ("power_limit", 1, "x" * 201, "reason_missing"),
    ],
)
async def test_bad_requests_change_nothing(pool, wired, kind, value, reason, code):
    with pytest.raises(InvalidVend) as refused:
        await ask(pool, wired, kind, value, reason=reason)
    assert refused.value.code == code
    assert await all_rows(pool, "SELECT 1 FROM billing.engineering_request") == []


async def test_the_same_key_is_the_same_request(pool, wired):
    first = await ask(pool, wired, "power_limit", 100, key="k")
    assert (await ask(pool, wired, "power_limit", 100, key="k")).id == first.id
    with pytest.raises(IdempotencyConflict):
        await ask(pool, wired, "power_limit", 200, key="k")


async def test_a_refusing_vault_ends_the_request(pool, wired):
    async with pool.connection() as conn:
        await conn.execute("UPDATE billing.sts_identity SET krn = 9")
    request = await ask(pool, wired, "power_limit", 100)
    assert await issue(pool, request) == "FAILED"
    assert await issue(pool, request) == "FAILED"
    assert await one(pool, "SELECT reason FROM billing.engineering_refusal") == "unknown_key"


async def test_a_lost_answer_is_the_same_token(pool, wired):
    class Lossy:
        lost = 1

        async def fetch_result(self, request_id):
            return await VAULT.fetch_result(request_id)

        async def issue_management(self, request):
            issued = await VAULT.issue_management(request)
            if self.lost:
                self.lost -= 1
                raise VaultTimeout("lost")
            return issued

    vault, clock = Lossy(), Clock()
    request = await ask(pool, wired, "power_limit", 100)
    assert await issue(pool, request, vault, clock) == "APPROVED"
    tid = await one(pool, "SELECT tid FROM billing.engineering_reservation")
    clock.forward(minutes=9)
    assert await issue(pool, request, vault, clock) == "ISSUED"
    assert await one(pool, "SELECT tid FROM billing.token") == tid


@pytest.mark.parametrize("place", ["_reserve", "insert_service_token", "insert_key_use", "hand_token"])
async def test_a_kill_at_any_point_is_made_good(pool, wired, monkeypatch, place):
    owner = issue_engineering if place in {"_reserve", "hand_token"} else issue_engineering.token_store

    class Killed(BaseException):
        pass

    real = getattr(owner, place)

    async def then_die(*args, **kwargs):
        await real(*args, **kwargs)
        raise Killed

    request = await ask(pool, wired, "power_limit", 100)
    monkeypatch.setattr(owner, place, then_die)
    with pytest.raises(Killed):
        await issue(pool, request)
    monkeypatch.undo()
    assert await issue(pool, request) == "ISSUED"
    assert await issue(pool, request) == "ISSUED"
    for table in ("billing.token", "billing.key_use", "meter_gateway.meter_command"):
        assert await one(pool, f"SELECT count(*) FROM {table}") == 1


async def test_under_a_key_change_it_waits_for_the_proof(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await change_keys.issue_change(pool, VAULT, change.id, clock)
    request = await ask(pool, wired, "power_limit", 700)
    assert await issue(pool, request) == "ISSUED"
    await run_wire(pool, wired, clock())
    assert wired.state.power_limit_w == 0
    await follow(pool, change, clock())
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
    assert wired.state.power_limit_w == 700
