"""Any history of one meter's keys and sales: what is told to a customer works at the meter, and nothing is lost."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import key_change_store
from billing.errors import InvalidVend
from billing.key_change import ChangeState
from meter_gateway.command import expire_commands
from portal import change_keys, sell
from tests.billing.world import Clock, make_tariffs
from tests.portal.key_world import (
    follow,
    holds_issuing_key,
    identity_of,
    make_wired,
    plan_change,
    rich_vault,
    run_wire,
    type_in,
)
from tests.portal.sales import all_rows, buy, event_of, one, settle

VAULT = rich_vault()
houses = itertools.count(1)
STEPS = (
    "plan",
    "issue",
    "pay",
    "deliver",
    "wire",
    "type_set",
    "type_credit",
    "follow",
    "retry",
    "withdraw",
    "day",
)

# Where it gets interesting; chance alone seldom begins a change.
BEGINNINGS = ((), ("plan", "issue"), ("pay", "deliver", "plan", "issue"), ("plan", "issue", "pay", "deliver"))


class History:
    """One meter, and what a person and a worker do to it in any order."""

    def __init__(self, pool, wired):
        self.pool, self.wired, self.clock = pool, wired, Clock()
        self.change, self.paid, self.units = None, [], 0

    async def take(self, step, number):
        self.clock.forward(minutes=3)
        await getattr(self, step)(number)
        identity = await identity_of(self.pool, self.wired)
        # Under a change the meter has the old or the new key; without one it has the one in the books.
        assert identity.pending is not None or holds_issuing_key(self.wired, identity), step
        if identity.pending is not None:
            keys = [identity.identity_of(fields) for fields in (identity.current, identity.issuing)]
            assert self.wired.state.token.decoder_key in [VAULT.decoder_key_for(key) for key in keys]

    async def plan(self, number):
        change = await plan_change(self.pool, self.wired, {"krn": 1 + number % 3, "ti": f"{number:02d}"})
        self.change = change or self.change

    async def issue(self, _number):
        if self.change is not None:
            await change_keys.issue_change(self.pool, VAULT, self.change.id, self.clock)

    async def pay(self, _number):
        try:
            quote, payment = await buy(self.pool, self.wired.house, 2_000, now=self.clock())
        except InvalidVend as refused:
            assert refused.code == "meter_key_refused"
            return
        await settle(self.pool, event_of(payment), now=self.clock())
        self.paid.append(quote)

    async def deliver(self, _number):
        for quote in self.paid:
            await sell.deliver_token(self.pool, VAULT, quote.vend_id, self.clock)

    async def wire(self, _number):
        await run_wire(self.pool, self.wired, self.clock())

    async def type_set(self, _number):
        async with self.pool.connection() as conn:
            first = await change_keys.list_first_tokens(conn, self.wired.meter_id)
        for digits in first:
            await type_in(self.pool, self.wired, digits, self.clock.forward(seconds=9))

    async def type_credit(self, _number):
        row = await all_rows(
            self.pool,
            "SELECT digits FROM billing.token WHERE purpose = 'credit' AND meter_id = %s ORDER BY id DESC LIMIT 1",
            self.wired.meter_id,
        )
        for (digits,) in row:
            await type_in(self.pool, self.wired, digits, self.clock())

    async def follow(self, _number):
        if self.change is not None:
            await follow(self.pool, self.change, self.clock())

    async def retry(self, _number):
        await self.decide(change_keys.retry_change)

    async def withdraw(self, _number):
        async with self.pool.connection() as conn:
            first = await change_keys.list_first_tokens(conn, self.wired.meter_id)
        if not first:  # nobody withdraws a change whose tokens somebody may have typed
            await self.decide(change_keys.withdraw_change)

    async def decide(self, what):
        if self.change is None:
            return
        try:
            async with self.pool.connection() as conn:
                await what(conn, self.change.id, by="huda", reason="looked at it", now=self.clock())
        except InvalidVend as refused:
            assert refused.code in {"sale_open", "tokens_under_new_key"}

    async def day(self, _number):
        self.clock.forward(hours=25)
        async with self.pool.connection() as conn:
            await expire_commands(conn, self.clock())


@pytest.mark.anyio
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    begin=st.sampled_from(BEGINNINGS),
    steps=st.lists(st.sampled_from(STEPS), min_size=4, max_size=16),
    ea=st.sampled_from(["07", "11"]),
)
async def test_any_history_ends_with_every_unit_in_the_meter(pool, begin, steps, ea):
    async with pool.connection() as conn:
        if not await one(pool, "SELECT count(*) FROM billing.tariff"):
            await make_tariffs(conn)
    wired = await make_wired(pool, VAULT, next(houses), ea=ea)
    begun_with = wired.state.credit
    history = History(pool, wired)
    for number, step in enumerate((*begin, *steps), 1):
        await history.take(step, number)
    await settle_down(history)
    sold = sum(quote.units_tenths for quote in history.paid) * 100
    assert wired.state.credit == begun_with + sold
    identity = await identity_of(pool, wired)
    assert identity.pending is None
    assert holds_issuing_key(wired, identity)


async def settle_down(history):
    """Everything goes right from here: what was paid for must reach the meter."""
    for _ in range(4):
        for step in ("deliver", "issue", "wire", "follow", "wire", "lost_credit", "follow"):
            if step == "lost_credit":
                await type_what_expired(history)
            else:
                await history.take(step, 0)
        async with history.pool.connection() as conn:
            change = await key_change_store.find_open_change(conn, history.wired.meter_id)
        if change is not None and change.state is ChangeState.REFUSED:
            await history.retry(0)


async def type_what_expired(history):
    """A customer types from the messages what the link did not bring in time."""
    rows = await all_rows(
        history.pool,
        "SELECT t.digits FROM billing.token t JOIN meter_gateway.meter_command c"
        " ON c.idempotency_key = 'vend:' || t.vend_id AND c.state = 'EXPIRED' WHERE t.meter_id = %s ORDER BY t.id",
        history.wired.meter_id,
    )
    for (digits,) in rows:
        await type_in(history.pool, history.wired, digits, history.clock.forward(hours=1))
