"""A meter is replaced on a real database with meters that understand tokens: its credit goes over, once."""

from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from billing import credit_carry_store, identity_store
from billing.credit_carry import CarryState
from billing.ledger import CUSTOMER_CHANGE
from billing.ledger_store import get_balance_minor
from meter_gateway import meter_store
from portal.field import carry_credit, pass_credit, removal_store, remove_meter, replace_meter
from portal.field.install import InstallRefused, install
from portal.field.remove_meter import FinalReading
from tests.billing.world import NOW, Clock
from tests.portal.key_world import run_wire
from tests.portal.sales import all_rows, one
from tests.portal.swap_world import FINAL, VAULT, make_old, make_spare, settle_keys, swap
from token_engine.errors import VaultTimeout


@pytest.fixture
async def old(pool):
    return await make_old(pool)


async def test_the_credit_goes_to_the_new_meter_once_and_under_its_own_key(pool, old):
    spare = await make_spare(pool, old)
    made = await swap(pool, old, spare)
    assert (made.plan.units_tenths, made.plan.needs_key, made.carry.state) == (43, True, CarryState.BOUND)
    again = await swap(pool, old, spare)
    assert again.carry.id == made.carry.id
    await settle_keys(pool, spare, Clock(NOW))
    assert spare.state.credit == 4_300  # rounded up to what a token carries
    async with pool.connection() as conn:
        carry = await credit_carry_store.get_carry(conn, made.carry.id)
        assert carry.state is CarryState.DONE
        assert await carry_credit.issue_carry(pool, VAULT, carry.id, Clock(NOW)) is CarryState.DONE
    assert await one(pool, "SELECT count(*) FROM billing.token WHERE purpose = 'credit'") == 1
    assert (
        await one(
            pool,
            "SELECT removed_at = %s FROM meter_gateway.meter_installation WHERE meter_id = %s",
            NOW,
            old.meter_id,
        )
        is True
    )
    body = await one(pool, "SELECT body FROM portal.message WHERE idempotency_key LIKE 'carry:%%'")
    assert old.house.drn in body and spare.drn in body
    rows = await all_rows(
        pool,
        "SELECT channel, value FROM meter_gateway.reading WHERE meter_id = %s ORDER BY 1",
        old.meter_id,
    )
    assert rows == [("counter", FINAL.counter), ("credit", FINAL.credit)]


async def test_a_vault_that_is_silent_is_asked_again_under_the_same_tid(pool, old):
    class Deaf:
        async def fetch_result(self, _request_id):
            raise VaultTimeout("deaf")

    spare = await make_spare(pool, old, kt=2)  # has its own key already
    made, clock = await swap(pool, old, spare), Clock(NOW)
    assert await carry_credit.issue_carry(pool, Deaf(), made.carry.id, clock) is CarryState.RESERVED
    async with pool.connection() as conn:
        assert await identity_store.has_open_issue(conn, spare.meter_id)
        tid = (await credit_carry_store.get_carry(conn, made.carry.id)).tid
    assert await carry_credit.issue_carry(pool, VAULT, made.carry.id, clock) is CarryState.DONE
    assert await one(pool, "SELECT tid FROM billing.token WHERE purpose = 'credit'") == tid
    assert await run_wire(pool, spare, NOW) == ["ACCEPT"]


async def test_credit_that_is_kept_waits_for_the_next_meter_of_the_place(pool, old):
    async with pool.connection() as conn:
        removal = await remove_meter.remove(
            conn,
            meter_id=old.meter_id,
            final=FINAL,
            settle="keep",
            key="gone-0001",
            actor="salma",
            note="",
            now=NOW,
        )
    assert removal.carry.state is CarryState.WAITING
    spare = await make_spare(pool, old)
    async with pool.connection() as conn:
        await install(
            conn,
            meter_id=spare.meter_id,
            usage_point_id=removal.hanging.usage_point_id,
            installed_by="salma",
            note="",
            now=NOW + timedelta(days=1),
        )
        assert (await credit_carry_store.get_carry(conn, removal.carry.id)).new_meter_id == spare.meter_id


async def test_settled_credit_is_money_in_balanced_books(pool, old):
    async with pool.connection() as conn:
        removal = await remove_meter.remove(
            conn,
            meter_id=old.meter_id,
            final=replace(FINAL, credit=100_000),
            settle="money",
            key="gone-0002",
            actor="salma",
            note="",
            now=NOW,
        )
        assert removal.price is not None and removal.carry.state is CarryState.SETTLED
        change = await get_balance_minor(conn, CUSTOMER_CHANGE, customer_id=old.house.customer_id)
        assert change == -removal.price.total_minor == -removal.carry.amount_minor < 0
        # Given once: neither again in money nor to a meter.
        with pytest.raises(InstallRefused, match="carry_not_waiting"):
            await remove_meter.settle_carry(conn, removal.carry, tariff_code="home-electricity", now=NOW)
    assert await one(pool, "SELECT sum(amount_minor) FROM billing.posting") == 0


async def test_a_meter_whose_credit_went_elsewhere_is_cleared_before_it_hangs_again(pool, old):
    spare = await make_spare(pool, old)
    made = await swap(pool, old, spare)
    await settle_keys(pool, spare, Clock(NOW))  # the credit is in the new one now
    async with pool.connection() as conn:
        point = made.plan.old.usage_point_id
        await remove_meter.remove(
            conn,
            meter_id=spare.meter_id,
            final=FinalReading(10, 0, "display"),
            settle="keep",
            key="gone-0003",
            actor="salma",
            note="",
            now=NOW + timedelta(hours=1),
        )
        with pytest.raises(InstallRefused, match="credit_not_cleared"):
            async with conn.transaction():
                await install(
                    conn,
                    meter_id=old.meter_id,
                    usage_point_id=point,
                    installed_by="salma",
                    note="",
                    now=NOW + timedelta(hours=2),
                )


async def test_the_same_meter_back_at_its_place_has_its_credit_in_it(pool, old):
    async with pool.connection() as conn:
        removal = await remove_meter.remove(
            conn,
            meter_id=old.meter_id,
            final=FINAL,
            settle="keep",
            key="gone-0004",
            actor="salma",
            note="",
            now=NOW,
        )
        await install(
            conn,
            meter_id=old.meter_id,
            usage_point_id=removal.hanging.usage_point_id,
            installed_by="salma",
            note="",
            now=NOW + timedelta(hours=2),
        )
        assert (await credit_carry_store.get_carry(conn, removal.carry.id)).state is CarryState.RETURNED


@pytest.mark.parametrize(
    ("final", "reason"),
    [
        (FinalReading(-1, 0, "display"), "reading_impossible"),
        (FinalReading(998_999, 0, "display"), "reading_below_last"),
    ],
)
async def test_readings_that_cannot_be(pool, old, final, reason):
    async with pool.connection() as conn:
        with pytest.raises(InstallRefused, match=reason):
            await remove_meter.check_removal(conn, meter_id=old.meter_id, final=final, now=NOW)


async def test_what_was_carried_is_a_fact(pool, old):
    spare = await make_spare(pool, old)
    made = await swap(pool, old, spare)
    for statement in (
        "UPDATE billing.credit_carry SET units_tenths = 999 WHERE id = %s",
        "DELETE FROM billing.credit_carry WHERE id = %s",
    ):
        async with pool.connection() as conn:
            with pytest.raises(psycopg.errors.RestrictViolation):
                async with conn.transaction():
                    await conn.execute(statement, (made.carry.id,))


async def test_a_plan_changes_nothing(pool, old):
    spare = await make_spare(pool, old)
    async with pool.connection() as conn:
        plan = await replace_meter.plan_replacement(
            conn, old_id=old.meter_id, new_id=spare.meter_id, final=FINAL, now=NOW
        )
        assert plan.units_tenths == 43
        with pytest.raises(InstallRefused, match="same_meter"):
            await replace_meter.plan_replacement(
                conn, old_id=old.meter_id, new_id=old.meter_id, final=FINAL, now=NOW
            )
        assert (await meter_store.find_state(conn, spare.meter_id)) is None
    assert await one(pool, "SELECT count(*) FROM billing.credit_carry") == 0


async def test_where_it_hangs_and_where_it_hung(pool, old):
    async with pool.connection() as conn:
        here = await removal_store.find_hanging(conn, old.meter_id)
        assert await removal_store.find_customer_of_point(conn, here.usage_point_id) == old.house.customer_id
        assert (
            await pass_credit.bind_waiting(conn, usage_point_id=here.usage_point_id, meter_id=99, now=NOW)
            == []
        )
        await meter_store.remove_meter(conn, meter_id=old.meter_id, removed_at=NOW)
        assert await removal_store.find_hanging(conn, old.meter_id) is None
        gone = await removal_store.find_removed(conn, old.meter_id, here.usage_point_id)
        assert (gone.usage_point, gone.customer_id) == (here.usage_point, here.customer_id)
