"""What the sweep finds and moves on, with the pretend bank behind a real line."""

import asyncio

import httpx
import pytest

from billing import reconcile
from billing.provider_link import ProviderLink
from billing.sandbox_server import make_app
from billing.sandbox_store import SandboxStore
from billing.take_payment import redirect_url
from portal import sell, sweep
from portal.sweep import Sweep
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import LossyVault, all_rows, buy, event_of, one, settle

SECRET = "bank-secret"


@pytest.fixture
async def house(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn)


class Town:
    """A sweep, its clock, and the bank that it asks."""

    def __init__(self, pool, folder):
        self.pool = pool
        self.clock = Clock()
        self.store = SandboxStore.in_folder(folder)
        app = make_app(self.store, provider_secret=SECRET, wake=asyncio.Event(), now_fn=self.clock)
        self.bank = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://bank")
        self.vault = LossyVault(make_vault())
        self.sweep = Sweep(
            pool, self.vault, ProviderLink(self.bank, url="http://bank", secret=SECRET), self.clock
        )

    async def press(self, payment, behaviour, **more):
        url = redirect_url(
            payment,
            provider_url="http://bank",
            provider_secret=SECRET,
            return_url="http://us/",
            now=self.clock(),
        )
        assert (await self.bank.get(url)).status_code == 200
        answer = await self.bank.post(f"/payments/{payment.id}/act", json={"behaviour": behaviour, **more})
        assert answer.status_code == 200

    async def state_of(self, payment):
        return await one(self.pool, "SELECT state FROM billing.payment WHERE id = %s", payment.id)

    async def books(self):
        async with self.pool.connection() as conn:
            return await reconcile.list_imbalances(conn)


@pytest.fixture
async def town(pool, tmp_path):
    made = Town(pool, tmp_path)
    yield made
    made.store.close()


async def test_a_silent_payment_is_asked_about_and_settled(town, house):
    quote, payment = await buy(town.pool, house)
    await town.press(payment, "pay_silent", silent_s=20)
    assert await town.sweep.ask_about_silent() == 0
    town.clock.forward(seconds=5)
    assert await town.sweep.ask_about_silent() == 1
    assert await town.state_of(payment) == "PENDING"
    assert await town.sweep.ask_about_silent() == 0  # not again at once
    town.clock.forward(seconds=20)
    await town.sweep.round()
    assert await town.state_of(payment) == "CONFIRMED"
    town.clock.forward(seconds=4)
    await town.sweep.round()
    assert await one(town.pool, "SELECT state FROM billing.vend WHERE id = %s", quote.vend_id) == "VENDED"
    assert await town.books() == []


async def test_a_fresh_silent_payment_does_not_wait_behind_those_that_are_not_due(town, house, monkeypatch):
    monkeypatch.setattr("portal.sweep.BATCH", 1)
    _quote, left_alone = await buy(town.pool, house)
    town.clock.forward(seconds=600)
    assert (
        await town.sweep.ask_about_silent() == 1
    )  # asked about just now: not due for a while, and the oldest
    town.clock.forward(seconds=1)
    _quote, fresh = await buy(town.pool, house)
    town.clock.forward(seconds=6)
    await town.press(fresh, "pay_silent", silent_s=0)
    assert await town.sweep.ask_about_silent() == 1
    assert await town.state_of(fresh) == "CONFIRMED"
    assert await town.state_of(left_alone) == "PENDING"


async def test_a_poll_and_a_webhook_that_race_settle_once(town, house):
    _quote, payment = await buy(town.pool, house)
    await town.press(payment, "pay")
    town.clock.forward(seconds=6)
    event = await town.sweep.provider.ask(payment.id, town.clock())
    await asyncio.gather(town.sweep.ask_about_silent(), settle(town.pool, event, now=town.clock()))
    assert await town.state_of(payment) == "CONFIRMED"
    assert await one(town.pool, "SELECT count(*) FROM billing.journal") == 1


async def test_a_payment_that_nobody_made_is_given_up_only_when_the_bank_says_so(town, house, caplog):
    _quote, payment = await buy(town.pool, house)
    away = ProviderLink(
        httpx.AsyncClient(transport=httpx.MockTransport(_dead)), url="http://bank", secret=SECRET
    )
    working, town.sweep.provider = town.sweep.provider, away
    for _ in range(3):
        town.clock.forward(hours=1)
        await town.sweep.ask_about_silent()
    assert await town.state_of(payment) == "PENDING"
    assert [record.message for record in caplog.records] == ["payment provider is silent"]
    town.sweep.provider = working
    town.clock.forward(hours=1)
    await town.sweep.ask_about_silent()
    assert await town.state_of(payment) == "EXPIRED"
    assert caplog.records[-1].message == "payment provider answers again"
    assert await town.books() == []


async def test_money_that_came_after_we_gave_up_is_found_though_no_webhook_comes(town, house):
    quote, payment = await buy(town.pool, house)
    town.clock.forward(minutes=31)
    await town.sweep.ask_about_silent()
    assert await town.state_of(payment) == "EXPIRED"
    await town.press(payment, "pay")  # on a page that was opened just before
    town.clock.forward(minutes=1)
    assert await town.sweep.ask_about_silent() == 0, "seldom: each time that its age has doubled"
    town.clock.forward(minutes=31)
    assert await town.sweep.ask_about_silent() == 1
    assert await town.state_of(payment) == "CONFIRMED"
    assert await one(town.pool, "SELECT state FROM billing.vend WHERE id = %s", quote.vend_id) == "PAID"
    assert await town.books() == []


def _dead(_request):
    raise httpx.ConnectError("nobody there")


async def test_a_bank_that_names_another_amount_is_logged_and_not_believed(town, house, caplog):
    _quote, payment = await buy(town.pool, house)
    await town.press(payment, "pay")
    async with town.pool.connection() as conn:
        await conn.execute("UPDATE billing.payment SET amount_minor = amount_minor + 1")
    town.clock.forward(seconds=6)
    await town.sweep.ask_about_silent()
    assert await town.state_of(payment) == "PENDING"
    assert "payment_amount_differs" in caplog.text


async def test_a_stuck_vend_is_delivered_and_backs_off_while_the_vault_is_away(town, house):
    quote, payment = await buy(town.pool, house)
    await settle(town.pool, event_of(payment))
    assert await town.sweep.deliver_stuck() == 0  # its job has just been deferred
    town.vault.plan = ["silent"] * 3
    town.clock.forward(seconds=3)
    assert await town.sweep.deliver_stuck() == 1
    assert await one(town.pool, "SELECT state FROM billing.vend") == "UNKNOWN"
    asked_after = []
    for second in range(1, 40):
        town.clock.forward(seconds=1)
        if await town.sweep.deliver_stuck():
            asked_after.append(second)
    assert asked_after == [3, 9, 21]
    assert await one(town.pool, "SELECT state FROM billing.vend WHERE id = %s", quote.vend_id) == "VENDED"
    assert len({request.tid for request in town.vault.requests}) == 1
    assert await town.books() == []


async def test_one_vends_fault_does_not_hold_up_the_next(town, house, monkeypatch):
    broken, payment = await buy(town.pool, house)
    await settle(town.pool, event_of(payment))
    good, payment = await buy(town.pool, house)
    await settle(town.pool, event_of(payment))
    real = sell.deliver_token

    async def deliver(pool, vault, vend_id, now_fn):
        if vend_id == broken.vend_id:
            raise RuntimeError("a fault of ours")
        return await real(pool, vault, vend_id, now_fn)

    monkeypatch.setattr(sell, "deliver_token", deliver)
    town.clock.forward(seconds=4)
    assert await town.sweep.deliver_stuck() == 2
    states = {broken.vend_id: "PAID", good.vend_id: "VENDED"}
    for vend_id, state in states.items():
        assert await one(town.pool, "SELECT state FROM billing.vend WHERE id = %s", vend_id) == state


async def test_messages_are_sent_once_by_two_sweeps(town, house):
    quote, payment = await buy(town.pool, house)
    await settle(town.pool, event_of(payment))
    await sell.deliver_token(town.pool, town.vault, quote.vend_id, town.clock)
    sent = await asyncio.gather(town.sweep.send_messages(), town.sweep.send_messages())
    assert sum(sent) == 1
    assert await one(town.pool, "SELECT sent_at FROM portal.message") == NOW


async def tickets(pool):
    return await all_rows(
        pool, "SELECT kind, vend_id, subject, idempotency_key, created_by FROM portal.ticket ORDER BY id"
    )


async def test_a_sale_that_stays_without_token_gets_a_person(town, house):
    quote, payment = await buy(town.pool, house)
    await settle(town.pool, event_of(payment))
    town.vault.plan = ["silent"] * 99
    town.clock.forward(seconds=290)
    await town.sweep.round()
    assert await tickets(town.pool) == []
    town.clock.forward(seconds=11)
    await asyncio.gather(town.sweep.open_late_tickets(), town.sweep.open_late_tickets())
    await town.sweep.round()
    (ticket,) = await tickets(town.pool)
    assert ticket == (
        "token_problem",
        quote.vend_id,
        "تم الدفع ولم يصدر الرمز بعد",
        f"late-sale:{quote.vend_id}",
        None,
    )
    assert await one(town.pool, "SELECT count(*) FROM portal.message WHERE kind = 'ticket'") == 1


async def test_a_refusal_and_money_in_suspense_get_a_person_at_once(town, house):
    refused, payment = await buy(town.pool, house)
    await settle(town.pool, event_of(payment))
    await sell.deliver_token(town.pool, LossyVault(make_vault(), ["refuse"]), refused.vend_id, town.clock)
    declined, payment = await buy(town.pool, house)
    await settle(town.pool, event_of(payment, "declined"))
    assert await town.sweep.open_late_tickets() == 1
    await settle(town.pool, event_of(payment))
    assert await town.sweep.open_late_tickets() == 1
    assert [row[1] for row in await tickets(town.pool)] == [refused.vend_id, declined.vend_id]
    assert await town.sweep.open_late_tickets() == 0


async def test_one_sale_that_gets_no_ticket_does_not_keep_the_next_from_its_own(
    town, house, monkeypatch, caplog
):
    vends = []
    for _ in range(2):
        quote, payment = await buy(town.pool, house)
        await settle(town.pool, event_of(payment))
        vends.append(quote.vend_id)
    town.clock.forward(minutes=6)
    real = sweep.open_ticket

    async def refusing(conn, *, new, **more):
        if new.vend_id == str(vends[0]):
            raise RuntimeError("a fault")
        return await real(conn, new=new, **more)

    monkeypatch.setattr(sweep, "open_ticket", refusing)
    await town.sweep.open_late_tickets()
    await town.sweep.open_late_tickets()
    assert [row[1] for row in await tickets(town.pool)] == [vends[1]]
    assert caplog.text.count("got no ticket") == 1
