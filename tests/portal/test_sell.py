"""The sale on a real database: once and only once, whatever comes twice, late, at once or not at all."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from billing import ledger_store, reconcile, vend_store
from billing.errors import IdempotencyConflict, InvalidVend, NotFound, PaymentMismatch
from billing.ledger import ARREARS_RECEIVABLE, CUSTOMER_CHANGE, PREPAID_LIABILITY, SUSPENSE
from billing.states import PaymentEffect, PaymentState, VendState
from billing.vend import make_quote
from portal import sell
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import LossyVault, all_rows, buy, event_of, one, settle


@pytest.fixture
async def house(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn)


async def books(pool):
    async with pool.connection() as conn:
        return await reconcile.list_imbalances(conn)


async def balance(pool, account):
    async with pool.connection() as conn:
        return await ledger_store.get_balance_minor(conn, account)


async def test_a_sale_from_quote_to_token(pool, house):
    clock = Clock()
    quote, payment = await buy(pool, house)
    assert payment.state is PaymentState.PENDING
    settled = await settle(pool, event_of(payment), now=clock.forward(seconds=20))
    assert (settled.state, settled.effect, settled.vend_id) == (
        PaymentState.CONFIRMED,
        PaymentEffect.SETTLE,
        quote.vend_id,
    )
    assert await balance(pool, PREPAID_LIABILITY) == -5_000
    assert await books(pool) == []

    clock.forward(seconds=1)
    assert await sell.deliver_token(pool, make_vault(), quote.vend_id, clock) is VendState.VENDED

    digits, units = await one(pool, "SELECT digits, units_tenths FROM billing.token")
    assert len(digits) == 20
    assert units == quote.units_tenths
    assert await balance(pool, PREPAID_LIABILITY) == 0
    assert await balance(pool, CUSTOMER_CHANGE) == -quote.change_minor
    kind, argument, meter_id = await one(
        pool, "SELECT kind, argument, meter_id FROM meter_gateway.meter_command"
    )
    assert (kind, argument, meter_id) == ("token", digits, house.meter_id)
    body, language = await one(pool, "SELECT body, language FROM portal.message WHERE kind = 'token'")
    assert "\u00a0".join(digits[i : i + 4] for i in range(0, 20, 4)) in body
    assert language == "ar"
    assert "رمز شحن العداد" in body
    assert await one(pool, "SELECT key_check_value FROM billing.key_use") is not None
    steps = await all_rows(pool, "SELECT state FROM billing.vend_step ORDER BY id")
    assert [state for (state,) in steps] == ["QUOTED", "PAID", "REQUESTED", "VENDED"]
    assert await books(pool) == []


async def test_a_keypad_meter_gets_its_token_by_message_only(pool, house):
    async with pool.connection() as conn:
        keypad = await make_house(conn, 2, link="keypad", language="en")
    quote, payment = await buy(pool, keypad)
    await settle(pool, event_of(payment))
    assert await sell.deliver_token(pool, make_vault(), quote.vend_id, Clock()) is VendState.VENDED
    assert await all_rows(pool, "SELECT 1 FROM meter_gateway.meter_command") == []
    body = await one(pool, "SELECT body FROM portal.message WHERE kind = 'token'")
    assert body.startswith(f"Token for meter {keypad.drn}")


async def test_the_job_goes_with_its_transaction(pool, house):
    _quote, payment = await buy(pool, house)
    with pytest.raises(RuntimeError):
        async with pool.connection() as conn:
            await sell.settle_payment(conn, event_of(payment), NOW)
            raise RuntimeError("killed before the commit")
    assert await all_rows(pool, "SELECT 1 FROM public.procrastinate_jobs") == []
    assert (
        await one(pool, "SELECT last_tid FROM billing.sts_identity WHERE meter_id = %s", house.meter_id) == -1
    )
    assert await one(pool, "SELECT state FROM billing.payment") == "PENDING"

    await settle(pool, event_of(payment))
    jobs = await all_rows(pool, "SELECT task_name, args FROM public.procrastinate_jobs")
    assert [(name, set(args)) for name, args in jobs] == [("deliver_token", {"vend_id"})]


# -- what providers do --------------------------------------------------------------------------------------


async def test_the_same_webhook_twice_changes_nothing(pool, house):
    _quote, payment = await buy(pool, house)
    first = await settle(pool, event_of(payment))
    again = await settle(pool, event_of(payment))
    assert (first.repeated, again.repeated) == (False, True)
    assert await balance(pool, PREPAID_LIABILITY) == -5_000
    assert await one(pool, "SELECT count(*) FROM public.procrastinate_jobs") == 1
    assert await books(pool) == []


async def test_two_webhooks_in_the_same_instant_settle_once(pool, house):
    _quote, payment = await buy(pool, house)
    results = await asyncio.gather(*(settle(pool, event_of(payment)) for _ in range(6)))
    assert sorted(result.repeated for result in results) == [False, True, True, True, True, True]
    # Another event id for the same yes is no second payment either.
    other = await settle(pool, event_of(payment, event_id="evt_second_yes"))
    assert other.effect is PaymentEffect.NONE
    assert await balance(pool, PREPAID_LIABILITY) == -5_000
    assert await one(pool, "SELECT count(*) FROM billing.journal") == 1


async def test_a_wrong_amount_changes_nothing(pool, house):
    _quote, payment = await buy(pool, house)
    with pytest.raises(PaymentMismatch):
        await settle(pool, event_of(payment, amount_minor=4_999))
    assert await one(pool, "SELECT state FROM billing.payment") == "PENDING"
    assert await all_rows(pool, "SELECT 1 FROM billing.payment_event") == []
    assert (await settle(pool, event_of(payment))).effect is PaymentEffect.SETTLE


async def test_an_event_id_with_other_content_is_refused(pool, house):
    _quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment, "declined", event_id="evt_1"))
    with pytest.raises(IdempotencyConflict):
        await settle(pool, event_of(payment, "confirmed", event_id="evt_1"))
    assert await one(pool, "SELECT state FROM billing.payment") == "DECLINED"


async def test_an_unknown_payment_is_not_found(pool, house):
    _quote, payment = await buy(pool, house)
    with pytest.raises(NotFound):
        await settle(pool, replace(event_of(payment), payment_id=UUID(int=7)))


async def test_a_yes_after_a_no_is_held_in_suspense_and_told(pool, house):
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment, "declined"))
    for event_id in ("evt_late", "evt_later"):
        late = await settle(pool, event_of(payment, event_id=event_id))
        assert (late.state, late.effect, late.vend_id) == (
            PaymentState.DECLINED,
            PaymentEffect.SUSPENSE,
            None,
        )
    assert await balance(pool, SUSPENSE) == -5_000
    assert await balance(pool, PREPAID_LIABILITY) == 0
    assert await one(pool, "SELECT count(*) FROM portal.message WHERE kind = 'payment'") == 1
    assert await one(pool, "SELECT state FROM billing.vend WHERE id = %s", quote.vend_id) == "QUOTED"
    assert await books(pool) == []


async def test_a_late_yes_is_honoured_at_the_quote(pool, house):
    clock = Clock()
    quote, payment = await buy(pool, house)
    clock.forward(hours=30)  # long after the quote's end, and after we gave up
    async with pool.connection() as conn:
        assert await sell.give_up_payment(conn, payment.id, clock()) is PaymentState.EXPIRED
    settled = await settle(pool, event_of(payment), now=clock())
    assert settled.effect is PaymentEffect.SETTLE
    assert await sell.deliver_token(pool, make_vault(), quote.vend_id, clock) is VendState.VENDED
    assert await one(pool, "SELECT units_tenths FROM billing.token") == quote.units_tenths
    assert await books(pool) == []


async def test_money_for_a_meter_that_lost_its_identity_is_held(pool, house):
    _quote, payment = await buy(pool, house)
    async with pool.connection() as conn:
        await conn.execute("DELETE FROM billing.sts_identity WHERE meter_id = %s", (house.meter_id,))
    settled = await settle(pool, event_of(payment))
    assert (settled.state, settled.vend_id) == (PaymentState.CONFIRMED, None)
    assert await balance(pool, SUSPENSE) == -5_000
    assert await books(pool) == []


# -- what customers do --------------------------------------------------------------------------------------


async def test_paying_twice_with_one_key_is_one_payment(pool, house):
    quote, payment = await buy(pool, house, key="k1")
    async with pool.connection() as conn:
        start = {"customer_id": house.customer_id, "language": "ar", "now": NOW}
        again = await sell.start_payment(conn, quote_id=quote.id, idempotency_key="k1", **start)
        other_tab = await sell.start_payment(conn, quote_id=quote.id, idempotency_key="k2", **start)
    assert again == other_tab == payment
    other_quote, _other = await buy(pool, house, 6_000, key="k3")
    async with pool.connection() as conn:
        with pytest.raises(IdempotencyConflict):
            await make_and_pay_again(conn, house, "k3")
    assert other_quote.id != quote.id


async def make_and_pay_again(conn, house, key):
    quote = await make_quote(
        conn, customer_id=house.customer_id, meter_drn=house.drn, amount_minor=7_000, now=NOW
    )
    await sell.start_payment(
        conn, quote_id=quote.id, customer_id=house.customer_id, idempotency_key=key, language="en", now=NOW
    )


async def test_pressing_pay_again_while_the_bank_says_yes_never_locks_up(pool, house):
    """Both take the vend before its payment: no deadlock, whoever comes first."""
    quote, payment = await buy(pool, house)

    async def press(key):
        async with pool.connection() as conn:
            return await sell.start_payment(
                conn,
                quote_id=quote.id,
                customer_id=house.customer_id,
                idempotency_key=key,
                language="ar",
                now=NOW,
            )

    async def told(number):
        return await settle(pool, event_of(payment, event_id=f"evt_{number}"))

    steps = [press(f"k{n}") if n % 2 else told(n) for n in range(12)]
    results = await asyncio.gather(*steps)
    assert {result.id for result in results[1::2]} == {payment.id}
    assert await one(pool, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    assert await books(pool) == []


async def test_another_customers_quote_is_not_found(pool, house):
    quote, _payment = await buy(pool, house)
    async with pool.connection() as conn:
        other = await make_house(conn, 2)
        with pytest.raises(NotFound):
            await sell.start_payment(
                conn,
                quote_id=quote.id,
                customer_id=other.customer_id,
                idempotency_key="k",
                language="ar",
                now=NOW,
            )


async def test_an_old_quote_cannot_be_paid(pool, house):
    clock = Clock()
    async with pool.connection() as conn:
        quote = await make_quote(
            conn, customer_id=house.customer_id, meter_drn=house.drn, amount_minor=5_000, now=clock()
        )
        with pytest.raises(InvalidVend) as refused:
            await sell.start_payment(
                conn,
                quote_id=quote.id,
                customer_id=house.customer_id,
                idempotency_key="k",
                language="ar",
                now=clock.forward(minutes=16),
            )
    assert refused.value.code == "quote_expired"


async def test_a_debt_is_never_taken_twice(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn, debt_minor=1_500)
        quotes = [
            await make_quote(
                conn, customer_id=house.customer_id, meter_drn=house.drn, amount_minor=5_000, now=NOW
            )
            for _ in range(2)
        ]
        assert [quote.arrears_minor for quote in quotes] == [1_000, 1_000]
        start = {"customer_id": house.customer_id, "language": "ar", "now": NOW}
        first = await sell.start_payment(conn, quote_id=quotes[0].id, idempotency_key="a", **start)
        with pytest.raises(InvalidVend) as refused:
            await sell.start_payment(conn, quote_id=quotes[1].id, idempotency_key="b", **start)
        assert refused.value.code == "quote_outdated"
    # We give the first one up, the second is bought anew, and then the first is paid after all.
    async with pool.connection() as conn:
        await sell.give_up_payment(conn, first.id, NOW)
    second, payment = await buy(pool, house)
    assert second.arrears_minor == 1_000
    clock = Clock()
    for owed, vend_id in ((payment, second.vend_id), (first, quotes[0].vend_id)):
        await settle(pool, event_of(owed))
        assert await sell.deliver_token(pool, make_vault(), vend_id, clock) is VendState.VENDED
    assert await balance(pool, ARREARS_RECEIVABLE) == 0
    assert await balance(pool, CUSTOMER_CHANGE) == -(second.change_minor + quotes[0].change_minor + 500)
    assert await books(pool) == []


# -- what vaults and workers do -----------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["silent", "lost"])
async def test_a_vault_that_does_not_answer_is_asked_again_under_the_same_id(pool, house, trouble):
    clock = Clock()
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    vault = LossyVault(make_vault(), [trouble, trouble])
    assert await sell.deliver_token(pool, vault, quote.vend_id, clock) is VendState.UNKNOWN
    assert await all_rows(pool, "SELECT 1 FROM billing.token") == []
    assert await balance(pool, PREPAID_LIABILITY) == -5_000
    assert await books(pool) == []
    async with pool.connection() as conn:
        paid = await vend_store.get_vend(conn, quote.vend_id)

    clock.forward(minutes=5)
    states = [await sell.deliver_token(pool, vault, quote.vend_id, clock) for _ in range(3)]
    assert states[-1] is VendState.VENDED
    assert vault.fetched  # asked what came of the first attempt
    assert {(r.request_id, r.tid, r.rnd) for r in vault.requests} == {(str(paid.id), paid.tid, paid.rnd)}
    assert await one(pool, "SELECT count(*), min(tid) FROM billing.token") == (1, paid.tid)
    assert await one(pool, "SELECT last_tid FROM billing.sts_identity") == paid.tid
    assert await books(pool) == []


async def test_a_vault_that_hangs_is_a_time_out(pool, house):
    class Hanging(LossyVault):
        async def issue_credit(self, request):
            await asyncio.Event().wait()

    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    hanging = Hanging(make_vault())
    assert (
        await sell.deliver_token(pool, hanging, quote.vend_id, Clock(), timeout_s=0.02) is VendState.UNKNOWN
    )
    assert await sell.deliver_token(pool, make_vault(), quote.vend_id, Clock()) is VendState.VENDED


async def test_an_answer_to_another_request_is_not_taken(pool, house):
    class Confused(LossyVault):
        async def issue_credit(self, request):
            return await self.inner.issue_credit(replace(request, amount=request.amount + 1))

    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    assert await sell.deliver_token(pool, Confused(make_vault()), quote.vend_id, Clock()) is VendState.UNKNOWN
    assert await all_rows(pool, "SELECT 1 FROM billing.token") == []


async def test_a_refusal_keeps_the_money_owed(pool, house):
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    vault = LossyVault(make_vault(), ["refuse"])
    assert await sell.deliver_token(pool, vault, quote.vend_id, Clock()) is VendState.REFUSED
    assert await sell.deliver_token(pool, vault, quote.vend_id, Clock()) is VendState.REFUSED
    assert len(vault.requests) == 1
    assert await balance(pool, PREPAID_LIABILITY) == -5_000
    assert await one(pool, "SELECT detail FROM billing.vend_step WHERE state = 'REFUSED'") == "unknown_key"
    assert await books(pool) == []


async def test_many_workers_at_once_make_one_token(pool, house):
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))
    vault = LossyVault(make_vault())
    await asyncio.gather(*(sell.deliver_token(pool, vault, quote.vend_id, Clock()) for _ in range(5)))
    assert await one(pool, "SELECT state FROM billing.vend WHERE id = %s", quote.vend_id) == "VENDED"
    for table in ("billing.token", "billing.key_use", "meter_gateway.meter_command", "portal.message"):
        assert await one(pool, f"SELECT count(*) FROM {table}") == 1
    assert await one(pool, "SELECT count(*) FROM billing.journal") == 2
    assert await books(pool) == []


@pytest.mark.parametrize(
    "place",
    [
        "_claim",
        "_ask",
        "insert_credit_token",
        "insert_key_use",
        "insert_entry",
        "hand_token",
        "insert_message",
    ],
)
async def test_a_kill_at_any_point_is_made_good(pool, house, monkeypatch, place):
    """The process dies right after `place`; whoever comes next ends the sale, once."""
    modules = {
        "_claim": sell,
        "_ask": sell,
        "hand_token": sell,
        "insert_credit_token": sell.token_store,
        "insert_key_use": sell.token_store,
        "insert_entry": sell.ledger_store,
        "insert_message": sell.message_store,
    }
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment))

    class Killed(BaseException):
        pass

    real = getattr(modules[place], place)

    async def then_die(*args, **kwargs):
        await real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(modules[place], place, then_die)
    with pytest.raises(Killed):
        await sell.deliver_token(pool, make_vault(), quote.vend_id, Clock())
    monkeypatch.undo()
    assert await books(pool) == []
    assert await sell.deliver_token(pool, make_vault(), quote.vend_id, Clock()) is VendState.VENDED
    for table in ("billing.token", "meter_gateway.meter_command", "portal.message"):
        assert await one(pool, f"SELECT count(*) FROM {table}") == 1
    assert await books(pool) == []


async def test_two_sales_in_the_same_minute_have_two_tids(pool, house):
    tids = []
    for _ in range(3):
        quote, payment = await buy(pool, house)
        await settle(pool, event_of(payment))
        await sell.deliver_token(pool, make_vault(), quote.vend_id, Clock())
        tids.append(await one(pool, "SELECT tid FROM billing.vend WHERE id = %s", quote.vend_id))
    assert tids == [tids[0], tids[0] + 1, tids[0] + 2]
    assert await books(pool) == []
