"""Taking meters down: nobody makes credit or money by hand, and no credit is lost, doubled or another's."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from billing import credit_carry_store, identity_store, key_change_store, token_store, token_word_store
from billing.credit_carry import CarryState
from billing.errors import InvalidVend
from billing.vend import make_quote
from meter_gateway import meter_store
from portal import sell
from portal.call_back_token import call_back
from portal.field import carry_credit, pass_credit, removal_store, remove_meter
from portal.field.install import InstallRefused, install
from portal.field.remove_meter import FinalReading
from tests.billing.world import NOW, Clock, make_house
from tests.portal.key_world import run_wire
from tests.portal.sales import all_rows, buy, event_of, one, settle
from tests.portal.swap_world import (
    FINAL,
    VAULT,
    make_old,
    make_spare,
    settle_keys,
    swap,
    take_down,
    tell_state,
)

HOUR = timedelta(hours=1)


@pytest.fixture
async def old(pool):
    return await make_old(pool)


async def hang(pool, meter_id, point, now):
    async with pool.connection() as conn:
        await install(conn, meter_id=meter_id, usage_point_id=point, installed_by="salma", note="", now=now)


async def carry_of(pool, carry_id):
    async with pool.connection() as conn:
        return await credit_carry_store.get_carry(conn, carry_id)


async def sell_token(pool, house, now=NOW):
    _quote, payment = await buy(pool, house, now=now)
    settled = await settle(pool, event_of(payment), now=now)
    await sell.deliver_token(pool, VAULT, settled.vend_id, Clock(now))
    return await one(pool, "SELECT units_tenths FROM billing.token WHERE purpose = 'credit'")


# -- credit that was meant for a meter which comes down itself ----------------------------------------------


async def test_what_was_bound_to_a_meter_waits_at_the_place_when_it_comes_down(pool, old):
    first, second = await make_spare(pool, old), await make_spare(pool, old, 78, kt=2)
    made = await swap(pool, old, first)
    assert made.carry.state is CarryState.BOUND
    point = made.plan.old.usage_point_id
    again = await swap(
        pool, first, second, key="swap-0002", final=FinalReading(10, 0, "display"), now=NOW + HOUR
    )
    assert (again.plan.units_tenths, again.plan.bound_tenths) == (0, 43)
    carry = await carry_of(pool, made.carry.id)
    assert (carry.state, carry.new_meter_id) == (CarryState.BOUND, second.meter_id)
    await carry_credit.issue_carry(pool, VAULT, carry.id, Clock(NOW + HOUR))
    await run_wire(pool, second, NOW + HOUR)
    assert second.state.credit == 4_300
    async with pool.connection() as conn:
        assert await removal_store.find_meter_at(conn, point) == second.meter_id


async def test_it_does_not_follow_the_meter_to_another_customer(pool, old):
    spare = await make_spare(pool, old)
    made = await swap(pool, old, spare)
    async with pool.connection() as conn:
        other = await make_house(conn, 5)
        point = (await removal_store.find_hanging(conn, other.meter_id)).usage_point_id
    await take_down(pool, spare.meter_id, FinalReading(10, 0, "display"), "gone-1", now=NOW + HOUR)
    await take_down(pool, other.meter_id, FinalReading(10, 0, "display"), "gone-2", now=NOW + HOUR)
    await hang(pool, spare.meter_id, point, NOW + 2 * HOUR)
    await settle_keys(pool, spare, Clock(NOW + 3 * HOUR))
    assert spare.state.credit == 0
    assert (await carry_of(pool, made.carry.id)).state is CarryState.WAITING


async def test_a_carry_left_bound_to_a_meter_that_hangs_elsewhere_makes_no_token(pool, old):
    spare = await make_spare(pool, old, kt=2)
    made = await swap(pool, old, spare)
    async with pool.connection() as conn:  # as releases before this one left it
        await conn.execute(
            "UPDATE meter_gateway.meter_installation SET removed_at = %s WHERE meter_id = %s",
            (NOW + HOUR, spare.meter_id),
        )
    state = await carry_credit.issue_carry(pool, VAULT, made.carry.id, Clock(NOW + HOUR))
    assert state is (await carry_of(pool, made.carry.id)).state is CarryState.WAITING
    assert await one(pool, "SELECT count(*) FROM billing.token WHERE purpose = 'credit'") == 0


async def test_the_office_sees_what_is_bound_too_long_and_may_settle_it(pool, old):
    made = await swap(pool, old, await make_spare(pool, old))
    async with pool.connection() as conn:
        soon = await credit_carry_store.list_undecided(conn, now=NOW + HOUR, limit=9)
        late = await credit_carry_store.list_undecided(conn, now=NOW + timedelta(days=3), limit=9)
        assert (len(soon), [carry.id for carry in late]) == (0, [made.carry.id])
        await remove_meter.settle_carry(conn, late[0], tariff_code="home-electricity", now=NOW)
    state = await carry_credit.issue_carry(pool, VAULT, made.carry.id, Clock(NOW + HOUR))
    assert state is CarryState.SETTLED


# -- nobody makes credit by hand ----------------------------------------------------------------------------


async def test_the_meters_own_word_is_read_anew_and_not_believed_as_sent(pool, old):
    await tell_state(pool, old.meter_id, credit=4_250, state_at=NOW)
    for lie in (FinalReading(10_000, 500_000_000, "meter"), FinalReading(1_000_000, 6_250, "meter")):
        with pytest.raises(InstallRefused, match="reading_changed"):
            await take_down(pool, old.meter_id, lie, settle="money")
    # The house went on using a little since the page was shown: what is kept is the newest word.
    shown = FinalReading(999_500, 4_750, "meter")
    gone = await take_down(pool, old.meter_id, shown)
    assert (gone.carry.counter, gone.carry.credit) == (1_000_000, 4_250)
    assert (await take_down(pool, old.meter_id, shown)).carry.id == gone.carry.id


@pytest.mark.parametrize(("credit", "state"), [(101_000, CarryState.WAITING), (101_001, CarryState.HELD)])
async def test_a_display_is_believed_up_to_what_was_told_and_a_step(pool, old, credit, state):
    gone = await take_down(pool, old.meter_id, replace(FINAL, credit=credit))
    assert gone.carry.state is state


async def test_a_display_above_that_is_no_money_and_no_token_until_the_office_believes_it(pool, old):
    high = replace(FINAL, credit=1_523_000)  # 152.3, with a slip
    with pytest.raises(InstallRefused, match="credit_above_told"):
        await take_down(pool, old.meter_id, high, settle="money")
    spare = await make_spare(pool, old, kt=2)
    made = await swap(pool, old, spare, final=high)
    assert (made.plan.is_held, made.carry.state, made.carry.new_meter_id) == (True, CarryState.HELD, None)
    clock = Clock(NOW)
    assert await carry_credit.issue_carry(pool, VAULT, made.carry.id, clock) is CarryState.HELD
    async with pool.connection() as conn:
        assert len(await credit_carry_store.list_undecided(conn, now=NOW, limit=9)) == 1
        released = await pass_credit.release_held(conn, made.carry.id, NOW)
    assert (released.state, released.new_meter_id) == (CarryState.BOUND, spare.meter_id)
    async with pool.connection() as conn:
        with pytest.raises(InvalidVend):
            await pass_credit.release_held(conn, made.carry.id, NOW)


@pytest.mark.parametrize(
    ("credit", "state", "tenths"), [(89_000, CarryState.WAITING, 890), (0, CarryState.HELD, 900)]
)
async def test_a_display_below_what_was_told_and_used_waits_for_the_office(pool, old, credit, state, tenths):
    low = FinalReading(1_010_000, credit, "display")  # it told 100 kWh of credit and counted 10 since
    if state is CarryState.HELD:
        with pytest.raises(InstallRefused, match="credit_below_told"):
            await take_down(pool, old.meter_id, low, settle="money")
    gone = await take_down(pool, old.meter_id, low)
    assert (gone.carry.state, gone.carry.units_tenths) == (state, tenths)
    assert gone.carry.credit == credit, "what was read stays as it was read"


async def test_what_a_meter_told_at_its_last_place_says_nothing_of_this_one(pool, old):
    await tell_state(pool, old.meter_id, state_at=NOW - timedelta(days=900))
    gone = await take_down(pool, old.meter_id, FinalReading(1_010_000, 5_000, "display"))
    assert gone.carry.state is CarryState.WAITING


async def test_what_was_bought_since_the_last_word_may_be_on_the_display(pool, old):
    tenths = await sell_token(pool, old.house)
    async with pool.connection() as conn:
        beyond = await token_word_store.get_tenths_beyond(
            conn, old.meter_id, told_at=NOW - HOUR, since=NOW - HOUR
        )
    assert beyond == tenths > 0
    await run_wire(pool, old, NOW)
    gone = await take_down(pool, old.meter_id, replace(FINAL, credit=100_000 + 100 * tenths), now=NOW + HOUR)
    assert gone.carry.state is CarryState.WAITING
    async with pool.connection() as conn:
        told = await token_word_store.get_tenths_beyond(
            conn, old.meter_id, told_at=NOW + HOUR, since=NOW - HOUR
        )
    assert told == 0, "the meter's later word has it in it"


# -- a purchase under way -----------------------------------------------------------------------------------


async def test_a_meter_whose_purchase_is_being_paid_stays(pool, old):
    await buy(pool, old.house)
    with pytest.raises(InstallRefused, match="sale_open"):
        await take_down(pool, old.meter_id, now=NOW + timedelta(minutes=1))


async def test_a_payment_that_comes_after_its_meter_is_held_and_no_token_is_made(pool, old):
    _quote, payment = await buy(pool, old.house)
    late = NOW + HOUR  # the customer came back to the provider's page after the purchase was given up
    await take_down(pool, old.meter_id, now=late)
    settled = await settle(pool, event_of(payment), now=late + HOUR)
    assert settled.vend_id is None
    assert await one(pool, "SELECT count(*) FROM billing.token") == 0
    assert await one(pool, "SELECT amount_minor FROM billing.v_suspense") == payment.amount_minor


async def test_nobody_is_sent_to_pay_for_a_meter_that_is_gone(pool, old):
    house = old.house
    async with pool.connection() as conn:
        quote = await make_quote(
            conn, customer_id=house.customer_id, meter_drn=house.drn, amount_minor=5_000, now=NOW
        )
    await take_down(pool, old.meter_id)
    async with pool.connection() as conn:
        with pytest.raises(InvalidVend, match="does not hang"):
            await sell.start_payment(
                conn,
                quote_id=quote.id,
                customer_id=house.customer_id,
                idempotency_key="k",
                language="ar",
                now=NOW,
            )


# -- a dead link and a token that was not reported ----------------------------------------------------------


async def test_with_its_link_down_a_person_says_that_the_token_was_not_taken(pool, old):
    tenths = await sell_token(pool, old.house)
    later = NOW + timedelta(days=40)
    with pytest.raises(InstallRefused, match="token_word_needed"):
        await take_down(pool, old.meter_id, now=later)
    spare = await make_spare(pool, old, kt=2)
    made = await swap(pool, old, spare, final=replace(FINAL, silent="not_taken"), now=later)
    assert made.carry.units_tenths == 43 + tenths
    words = await all_rows(pool, "SELECT word, said_by, said_at FROM billing.v_token_word")
    assert words == [("not_taken", "salma", later)]
    assert await run_wire(pool, old, later) == [], "its command does not go out any more"
    async with pool.connection() as conn:
        assert await token_word_store.list_silent(conn, old.meter_id, NOW - HOUR) == []


async def test_a_word_speaks_of_a_display_that_was_read_and_of_the_tokens_that_were_shown(pool, old):
    tenths = await sell_token(pool, old.house)
    await tell_state(pool, old.meter_id, credit=5_000, state_at=NOW)
    later = NOW + timedelta(minutes=5)
    with pytest.raises(InstallRefused, match="reading_missing"):
        await take_down(
            pool, old.meter_id, FinalReading(1_000_000, 5_000, "meter", "taken"), now=later
        )  # told before the token was typed
    async with pool.connection() as conn:
        shown = tuple(token.id for token in await remove_meter.list_asked(conn, old.meter_id, now=later))
    read = FinalReading(1_000_000, 5_000 + 100 * tenths, "display", "taken")
    for others in ((), (*shown, shown[-1] + 1)):
        with pytest.raises(InstallRefused, match="reading_changed"):
            await take_down(pool, old.meter_id, replace(read, shown=others), now=later)
    gone = await take_down(pool, old.meter_id, replace(read, shown=shown), now=later)
    assert gone.carry.units_tenths == 50 + tenths


async def test_a_meter_that_comes_back_is_sent_what_it_had_not_taken(pool, old):
    tenths = await sell_token(pool, old.house)
    gone = await take_down(pool, old.meter_id, replace(FINAL, silent="not_taken"), now=NOW + HOUR)
    assert await run_wire(pool, old, NOW + HOUR) == [], "called back"
    before = old.state.credit
    await hang(pool, old.meter_id, gone.hanging.usage_point_id, NOW + 2 * HOUR)
    assert (await carry_of(pool, gone.carry.id)).state is CarryState.RETURNED
    assert await run_wire(pool, old, NOW + 2 * HOUR) == ["ACCEPT"]
    assert old.state.credit == before + 100 * tenths


async def test_what_the_display_includes_is_not_added_and_what_it_lacks_is_not_on_it(pool, old):
    tenths = await sell_token(pool, old.house)
    full = replace(FINAL, credit=100_000 + 100 * tenths)
    async with pool.connection() as conn:
        for word, units, held in (("taken", 1_000 + tenths, False), ("not_taken", 1_000 + 2 * tenths, True)):
            said = await remove_meter.check_removal(
                conn, meter_id=old.meter_id, final=replace(full, silent=word), now=NOW + HOUR
            )
            assert (said.units_tenths, said.is_held) == (units, held)


async def test_with_its_link_up_the_token_can_still_arrive(pool, old):
    await sell_token(pool, old.house)
    await tell_state(pool, old.meter_id, link_up=True)
    with pytest.raises(InstallRefused, match="credit_on_its_way"):
        await take_down(pool, old.meter_id, replace(FINAL, silent="not_taken"), now=NOW + HOUR)


@pytest.mark.parametrize("state", ["EXPIRED", "REJECTED"])
async def test_a_token_that_failed_for_good_keeps_no_meter_on_the_wall(pool, old, state):
    tenths = await sell_token(pool, old.house)
    await tell_state(pool, old.meter_id, link_up=True)
    async with pool.connection() as conn:
        assert await remove_meter.list_asked(conn, old.meter_id, now=NOW) == [], "it is on its way"
        await conn.execute("UPDATE meter_gateway.meter_command SET state = %s", (state,))
        assert len(await remove_meter.list_asked(conn, old.meter_id, now=NOW)) == 1
    with pytest.raises(InstallRefused, match="token_word_needed"):
        await take_down(pool, old.meter_id, now=NOW + HOUR)
    gone = await take_down(pool, old.meter_id, replace(FINAL, silent="not_taken"), now=NOW + HOUR)
    assert gone.carry.units_tenths == 43 + tenths


async def test_a_token_that_the_meter_was_too_full_for_is_not_in_it(pool, old):
    await sell_token(pool, old.house)
    for result, silent in (("OVERFLOW_ERROR", 1), ("ACCEPT", 0)):
        async with pool.connection() as conn:
            await conn.execute(
                "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
                " SELECT meter_id, 'm', 'raseed.token', %s, %s, jsonb_build_object('tid', tid, 'result', %s::text)"
                "   FROM billing.token",
                (NOW + HOUR, NOW + HOUR, result),
            )
            assert len(await token_word_store.list_silent(conn, old.meter_id, NOW - HOUR)) == silent
            unused = await key_change_store.has_unused_credit(conn, old.meter_id, NOW - HOUR)
            assert unused is bool(silent), "a change of key would make it worthless"
            beyond = await token_word_store.get_tenths_beyond(
                conn, old.meter_id, told_at=NOW + 2 * HOUR, since=NOW - HOUR
            )
            assert bool(beyond) is bool(silent)


async def test_a_token_that_left_is_not_called_back(pool, old):
    await sell_token(pool, old.house)
    digits = await one(pool, "SELECT digits FROM billing.token")
    async with pool.connection() as conn:
        await conn.execute("UPDATE meter_gateway.meter_command SET state = 'SENT'")
        called = await call_back(
            conn, meter_id=old.meter_id, token_id=1, digits=digits, actor="salma", now=NOW
        )
    assert called == 0


# -- a meter that was cleared, or was it --------------------------------------------------------------------


async def make_clear_token(pool, meter_id, tid=70_000, register=0xFFFF):
    async with pool.connection() as conn:
        row = await (
            await conn.execute(
                "INSERT INTO billing.engineering_request (idempotency_key, meter_id, kind, value, needs_approval, reason,"
                " requested_by, requested_role, requested_at) VALUES (%s, %s, 'clear_credit', %s, true, 'workshop',"
                " 'noor', 'supervisor', %s) RETURNING id",
                (f"clear-{tid}", meter_id, register, NOW),
            )
        ).fetchone()
        identity = await identity_store.get_identity(conn, meter_id)
        token = await token_store.insert_service_token(
            conn,
            meter_id=meter_id,
            base_date=identity.base_date,
            tid=tid,
            token_class=2,
            subclass=1,
            units_tenths=None,
            digits="1" * 20,
            purpose="engineering",
            issued_by="noor",
            reason="clear",
            now=NOW + timedelta(minutes=5),
            request_id=f"engineering:{row[0]}",
        )
    return token.id


async def say(pool, token_id, word):
    async with pool.connection() as conn:
        assert await token_word_store.insert_word(
            conn, token_id, word, said_by="workshop", note="", now=NOW + HOUR
        )
        assert not await token_word_store.insert_word(
            conn, token_id, "taken", said_by="another", note="", now=NOW + HOUR
        )


@pytest.mark.parametrize(("word", "state"), [("taken", CarryState.BOUND), ("not_taken", CarryState.RETURNED)])
async def test_a_meter_back_at_its_place_gets_its_credit_by_token_when_it_was_cleared(pool, old, word, state):
    gone = await take_down(pool, old.meter_id)
    point = gone.hanging.usage_point_id
    token_id = await make_clear_token(pool, old.meter_id)
    with pytest.raises(InstallRefused, match="clear_unknown"):
        await hang(pool, old.meter_id, point, NOW + 2 * HOUR)
    await say(pool, token_id, word)
    await hang(pool, old.meter_id, point, NOW + 2 * HOUR)
    carry = await carry_of(pool, gone.carry.id)
    assert carry.state is state
    if state is CarryState.BOUND:
        assert carry.new_meter_id == old.meter_id
        done = await carry_credit.issue_carry(pool, VAULT, carry.id, Clock(NOW + 2 * HOUR))
        assert done is CarryState.DONE


async def test_a_clear_token_for_another_register_clears_nothing(pool, old):
    gone = await take_down(pool, old.meter_id)
    await make_clear_token(pool, old.meter_id, register=1)  # m3, in an electricity meter
    async with pool.connection() as conn:
        assert await token_word_store.find_newest_clearing(conn, old.meter_id) is None
    await hang(pool, old.meter_id, gone.hanging.usage_point_id, NOW + 2 * HOUR)
    assert (await carry_of(pool, gone.carry.id)).state is CarryState.RETURNED


async def test_of_two_clear_tokens_a_person_can_speak_of_both(pool, old):
    gone = await take_down(pool, old.meter_id)
    tokens = [await make_clear_token(pool, old.meter_id, tid) for tid in (70_000, 70_001)]
    async with pool.connection() as conn:
        for token_id in reversed(tokens):
            assert await token_word_store.find_newest_clearing(conn, old.meter_id) == token_id
            await token_word_store.insert_word(
                conn, token_id, "not_taken", said_by="workshop", note="", now=NOW + HOUR
            )
    await hang(pool, old.meter_id, gone.hanging.usage_point_id, NOW + 2 * HOUR)
    assert (await carry_of(pool, gone.carry.id)).state is CarryState.RETURNED


async def test_credit_counts_as_cleared_by_the_meters_own_word_only(pool, old):
    spare = await make_spare(pool, old, kt=2)
    made = await swap(pool, old, spare)
    await carry_credit.issue_carry(pool, VAULT, made.carry.id, Clock(NOW))
    token_id = await make_clear_token(pool, old.meter_id)
    async with pool.connection() as conn:
        assert await token_word_store.find_newest_clearing(conn, old.meter_id) == token_id
        assert await credit_carry_store.find_left_in(conn, old.meter_id) is not None, "issued, never typed"
    for result, left in (("OLD_ERROR", True), ("ACCEPT", False)):
        async with pool.connection() as conn:
            await conn.execute(
                "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
                " VALUES (%s, 'm', 'raseed.token', %s, %s, jsonb_build_object('tid', 70000, 'result', %s::text))",
                (old.meter_id, NOW + HOUR, NOW + HOUR, result),
            )
            assert (await credit_carry_store.find_left_in(conn, old.meter_id) is not None) is left
            assert await token_word_store.find_newest_clearing(conn, old.meter_id) is None, "it has spoken"
        if left:  # a person's word does not stand against the meter's
            await say(pool, token_id, "taken")
            async with pool.connection() as conn:
                assert await credit_carry_store.find_left_in(conn, old.meter_id) is not None


# -- two at once --------------------------------------------------------------------------------------------


async def test_the_same_order_twice_at_once_is_done_once_and_both_hear_so(pool, old):
    first, second = await asyncio.gather(take_down(pool, old.meter_id), take_down(pool, old.meter_id))
    assert first.carry.id == second.carry.id
    assert sorted((first.is_repeat, second.is_repeat)) == [False, True]
    with pytest.raises(InstallRefused, match="not_installed"):
        await take_down(pool, old.meter_id, key="gone-other", now=NOW + HOUR)


async def test_the_same_key_with_another_word_or_end_is_another_order(pool, old):
    await sell_token(pool, old.house)
    said = replace(FINAL, silent="taken")
    gone = await take_down(pool, old.meter_id, said, now=NOW + HOUR)
    for final, end in ((replace(FINAL, silent="not_taken"), "keep"), (said, "money")):
        with pytest.raises(InstallRefused, match="key_used"):
            await take_down(pool, old.meter_id, final, settle=end, now=NOW + 2 * HOUR)
    again = await take_down(pool, old.meter_id, said, now=NOW + 2 * HOUR)
    assert (again.carry.id, again.is_repeat) == (gone.carry.id, True)


async def test_credit_that_is_released_while_a_meter_is_hung_goes_to_that_meter(pool, old):
    gone = await take_down(pool, old.meter_id, replace(FINAL, credit=1_523_000))
    spare = await make_spare(pool, old)

    async def release():
        async with pool.connection() as conn:
            return await pass_credit.release_held(conn, gone.carry.id, NOW + HOUR)

    async with pool.connection() as conn:
        await install(
            conn,
            meter_id=spare.meter_id,
            usage_point_id=gone.hanging.usage_point_id,
            installed_by="salma",
            note="",
            now=NOW + HOUR,
        )
        releasing = asyncio.create_task(release())
        await asyncio.sleep(0.3)  # it would have found no meter there by now
    released = await releasing
    assert (released.state, released.new_meter_id) == (CarryState.BOUND, spare.meter_id)


async def test_credit_that_waits_beside_a_meter_can_be_given_to_it(pool, old):
    spare = await make_spare(pool, old)
    gone = await take_down(pool, old.meter_id)
    async with pool.connection() as conn:
        with pytest.raises(InvalidVend, match="waits already"):
            await pass_credit.release_held(conn, gone.carry.id, NOW + HOUR)
    async with pool.connection() as conn:  # hung without asking what waits there
        await meter_store.install_meter(
            conn,
            meter_id=spare.meter_id,
            usage_point_id=gone.hanging.usage_point_id,
            installed_at=NOW + HOUR,
            installed_by="salma",
        )
        given = await pass_credit.release_held(conn, gone.carry.id, NOW + HOUR)
    assert (given.state, given.new_meter_id) == (CarryState.BOUND, spare.meter_id)
