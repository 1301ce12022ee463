"""The pretend bank: its page, its buttons, its memory, and webhooks that come until they are taken."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from uuid import UUID

import httpx
import pytest

from billing.errors import ProviderUnavailable
from billing.payment_store import Payment
from billing.provider_link import ProviderLink
from billing.sandbox_page import amount_text, content_policy
from billing.sandbox_server import Sender, check_loopback, make_app
from billing.sandbox_store import BEHAVIOURS, PaymentUnknown, SandboxStore
from billing.states import PaymentEvent, PaymentState
from billing.take_payment import read_webhook, redirect_url
from tests.billing.world import NOW, Clock
from tests.raseed.ports import free_port

SECRET = "bank-secret"
ID = UUID(int=42)
PAYMENT = Payment(ID, UUID(int=1), "k", "sandbox", 5_250, PaymentState.PENDING, "ar", NOW, None, None)


class Bank:
    """The provider over one store, a browser before it, and a receiver of webhooks behind it."""

    def __init__(self, folder, clock):
        self.clock = clock
        self.store = SandboxStore.in_folder(folder)
        self.app = make_app(self.store, provider_secret=SECRET, wake=asyncio.Event(), now_fn=clock)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://bank")
        self.link = ProviderLink(self.client, url="http://bank", secret=SECRET)
        self.answers = []  # status codes that the receiver will give; 200 when empty
        self.received = []
        receiver = httpx.AsyncClient(transport=httpx.MockTransport(self._receive))
        self.sender = Sender(
            self.store,
            receiver,
            webhook_url="http://us/webhooks/sandbox",
            provider_secret=SECRET,
            now_fn=clock,
        )

    def _receive(self, request):
        status = self.answers.pop(0) if self.answers else 200
        if status == 0:
            raise httpx.ConnectError("nobody there")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(read_webhook(headers, request.content, secret=SECRET, now=self.clock()))
        return httpx.Response(status)

    def pay_url(self, payment=PAYMENT):
        return redirect_url(
            payment,
            provider_url="http://bank",
            provider_secret=SECRET,
            return_url="http://us:8080/my/sales/1",
            now=self.clock(),
        )

    async def open_and_act(self, behaviour, **more):
        assert (await self.client.get(self.pay_url())).status_code == 200
        return await self.client.post(f"/payments/{ID}/act", json={"behaviour": behaviour, **more})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def bank(tmp_path, clock):
    made = Bank(tmp_path, clock)
    yield made
    made.store.close()


async def test_the_page_speaks_the_customers_language(bank):
    arabic = await bank.client.get(bank.pay_url())
    assert arabic.status_code == 200
    assert '<html lang="ar" dir="rtl">' in arabic.text
    assert '<bdi dir="ltr">5.250</bdi>' in arabic.text
    assert "<script" not in arabic.text
    from dataclasses import replace

    english = await bank.client.get(bank.pay_url(replace(PAYMENT, id=UUID(int=43), language="en")))
    assert '<html lang="en" dir="ltr">' in english.text
    for behaviour in BEHAVIOURS:
        assert f'value="{behaviour}"' in english.text
    policy = english.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self' http://us:8080;" in policy


async def test_a_forged_or_old_link_shows_nothing(bank, clock):
    url = bank.pay_url()
    forged = await bank.client.get(url.replace("amount=5250", "amount=1"))
    assert forged.status_code == 403
    clock.forward(minutes=21)
    assert (await bank.client.get(url)).status_code == 403
    assert (await bank.client.get("/pay")).status_code == 403


async def test_the_button_pays_and_leads_back(bank):
    url = httpx.URL(bank.pay_url())
    form = {**dict(url.params), "behaviour": "pay"}
    back = await bank.client.post("/pay", data=form)
    assert (back.status_code, back.headers["location"]) == (303, "http://us:8080/my/sales/1")
    assert await bank.sender.send_due() == 1
    (event,) = bank.received
    assert (event.payment_id, event.status, event.amount_minor) == (ID, PaymentEvent.CONFIRMED, 5_250)
    # A second press changes nothing, and the page says so.
    await bank.client.post("/pay", data={**form, "behaviour": "decline"})
    assert await bank.sender.send_due() == 0
    assert (await bank.link.ask(ID, bank.clock())).status is PaymentEvent.CONFIRMED
    assert "behaviour" not in (await bank.client.get(str(url))).text
    bad = await bank.client.post("/pay", data={**form, "behaviour": "steal"})
    assert bad.status_code == 403


async def test_paying_late_and_twice_and_silently(bank, clock):
    await bank.open_and_act("pay_late")
    assert await bank.sender.send_due() == 0
    assert await bank.link.ask(ID, clock()) is None
    clock.forward(seconds=8)
    assert await bank.sender.send_due() == 1
    asked = await bank.link.ask(ID, clock())
    assert asked.event_id == bank.received[0].event_id


async def test_twice_is_the_same_event_twice(bank):
    await bank.open_and_act("pay_twice")
    assert await bank.sender.send_due() == 2
    one, two = bank.received
    assert one == two


async def test_silence_answers_only_when_asked_after_a_while(bank, clock):
    await bank.open_and_act("pay_silent", silent_s=30)
    clock.forward(seconds=29)
    assert await bank.link.ask(ID, clock()) is None
    clock.forward(seconds=1)
    assert (await bank.link.ask(ID, clock())).status is PaymentEvent.CONFIRMED
    assert await bank.sender.send_due() == 0


async def test_a_change_of_mind_is_two_events(bank, clock):
    await bank.open_and_act("decline_then_pay")
    await bank.sender.send_due()
    assert (await bank.link.ask(ID, clock())).status is PaymentEvent.DECLINED
    clock.forward(seconds=3)
    await bank.sender.send_due()
    assert [event.status for event in bank.received] == [PaymentEvent.DECLINED, PaymentEvent.CONFIRMED]
    assert bank.received[0].event_id != bank.received[1].event_id
    assert (await bank.link.ask(ID, clock())).status is PaymentEvent.CONFIRMED


async def test_a_webhook_comes_until_it_is_taken_and_backs_off(bank, clock):
    await bank.open_and_act("decline")
    bank.answers = [0, 503, 422]
    for wait_s in (1, 2, 4):
        assert await bank.sender.send_due() == 0
        clock.forward(seconds=wait_s - 0.5)
        assert bank.store.list_due(clock()) == []
        clock.forward(seconds=0.5)
    assert await bank.sender.send_due() == 1
    assert await bank.sender.send_due() == 0
    # Hours later the same words, signed anew.
    assert {event.event_id for event in bank.received} == {bank.received[0].event_id}


async def test_a_receiver_that_is_away_for_hours_is_tried_each_minute(bank, clock):
    await bank.open_and_act("pay")
    bank.answers = [0] * 12
    for _ in range(12):
        await bank.sender.send_due()
        clock.forward(minutes=1)
    assert await bank.sender.send_due() == 1


async def test_what_is_asked_wrongly_is_refused(bank):
    assert (await bank.client.post(f"/payments/{ID}/act", json={"behaviour": "pay"})).status_code == 404
    await bank.client.get(bank.pay_url())
    for sent in ({"behaviour": "steal"}, {"behaviour": "pay_silent", "silent_s": -1}, {}, []):
        assert (await bank.client.post(f"/payments/{ID}/act", json=sent)).status_code == 422
    plain = await bank.client.post(f"/payments/{ID}/act", content=b'{"behaviour":"pay"}')
    assert plain.status_code == 422
    assert (await bank.client.post("/payments/x/act", json={"behaviour": "pay"})).status_code == 422
    assert not bank.store.is_decided(ID)


async def test_only_who_has_the_secret_may_ask(bank, clock):
    await bank.open_and_act("pay")
    assert (await bank.client.get(f"/payments/{ID}")).status_code == 401
    stranger = ProviderLink(bank.client, url="http://bank", secret="guess")
    with pytest.raises(ProviderUnavailable):
        await stranger.ask(ID, clock())
    assert await bank.link.ask(UUID(int=7), clock()) is None


async def test_a_provider_that_is_away_says_so():
    async with httpx.AsyncClient() as client:
        link = ProviderLink(client, url=f"http://127.0.0.1:{free_port()}", secret=SECRET)
        with pytest.raises(ProviderUnavailable):
            await link.ask(ID, NOW)


def test_a_payment_that_nobody_opened_is_unknown(tmp_path):
    store = SandboxStore.in_folder(tmp_path)
    with pytest.raises(PaymentUnknown):
        store.standing(ID, NOW)
    with pytest.raises(PaymentUnknown):
        store.act(ID, "pay", NOW)
    store.close()


@pytest.mark.parametrize(
    ("host", "served"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("192.168.1.5", False), ("::", False), ("bank.example", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_is_served(host, served):
    if served:
        check_loopback(host)
    else:
        with pytest.raises(ValueError, match="this machine only"):
            check_loopback(host)


def test_amounts_and_policies_are_written_out():
    assert amount_text(1_234_567) == "1,234.567"
    assert "form-action 'self';" in content_policy()


_ROLE = """
import asyncio, pathlib, sys
from billing import sandbox_server
asyncio.run(sandbox_server.run(host="127.0.0.1", port=int(sys.argv[1]), state_dir=pathlib.Path(sys.argv[2]),
                               webhook_url=sys.argv[3], provider_secret="bank-secret"))
"""


async def _start(port, folder, webhook_url):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _ROLE, str(port), str(folder), webhook_url, env={**os.environ}
    )
    async with httpx.AsyncClient() as client:
        for _ in range(100):
            try:
                if (await client.get(f"http://127.0.0.1:{port}/health")).is_success:
                    return process
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
    raise AssertionError("the provider did not start")


async def test_the_role_survives_a_kill_with_its_webhook(tmp_path):
    """Killed before anybody took the webhook, it is sent by the next process."""
    port, ours = free_port(), free_port()
    url = f"http://127.0.0.1:{ours}/webhooks/sandbox"
    from datetime import UTC, datetime

    process = await _start(port, tmp_path, url)
    async with httpx.AsyncClient() as client:
        pay = redirect_url(
            PAYMENT,
            provider_url=f"http://127.0.0.1:{port}",
            provider_secret=SECRET,
            return_url="http://us/",
            now=datetime.now(UTC),
        )
        assert (await client.get(pay)).status_code == 200
        done = await client.post(f"http://127.0.0.1:{port}/payments/{ID}/act", json={"behaviour": "pay"})
        assert done.status_code == 200
    process.send_signal(signal.SIGKILL)
    await process.wait()

    taken = asyncio.Event()

    async def receive(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()
        assert head.startswith(b"POST /webhooks/sandbox ")
        taken.set()

    server = await asyncio.start_server(receive, "127.0.0.1", ours)
    process = await _start(port, tmp_path, url)
    async with asyncio.timeout(10):
        await taken.wait()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await process.wait() == 0
    server.close()
    store = SandboxStore.in_folder(tmp_path)
    await asyncio.sleep(0)
    assert store.list_due(datetime.now(UTC) + timedelta(hours=1)) == []
    store.close()
