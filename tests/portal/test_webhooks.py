"""The provider's door over HTTP: every refusal by its status, nothing changed; every repeat a 200."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI

from billing.take_payment import webhook_body, webhook_headers
from portal.pages import webhooks
from portal.runtime import Runtime
from tests.billing.world import make_house, make_tariffs
from tests.portal.sales import buy, one

SECRET = "shared"


@pytest.fixture
async def client(pool):
    app = FastAPI()
    app.include_router(webhooks.router)
    app.state.runtime = Runtime(
        pool=pool,
        secret_key="k" * 32,
        demo=False,
        public_url="http://us",
        provider_url="http://bank",
        provider_secret=SECRET,
        control_url="",
        languages={},
        templates={},
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://us") as opened:
        yield opened


@pytest.fixture
async def payment(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    _quote, payment = await buy(pool, house, now=datetime.now(UTC))
    return payment


async def send(client, body, *, secret=SECRET, now=None):
    headers = webhook_headers(secret, body, now or datetime.now(UTC))
    return await client.post("/webhooks/sandbox", content=body, headers=headers)


def body_of(payment, status="confirmed", event_id="evt_1", amount_minor=5_000, payment_id=None):
    return webhook_body(event_id, payment_id or payment.id, status, amount_minor)


async def state(pool):
    return await one(pool, "SELECT state FROM billing.payment")


async def test_a_yes_is_taken_and_a_repeat_is_a_yes_too(pool, client, payment):
    first = await send(client, body_of(payment))
    assert (first.status_code, first.json()) == (200, {"state": "CONFIRMED", "repeated": False})
    again = await send(client, body_of(payment))
    assert (again.status_code, again.json()) == (200, {"state": "CONFIRMED", "repeated": True})
    assert await one(pool, "SELECT count(*) FROM public.procrastinate_jobs") == 1


async def test_two_at_the_same_instant_are_both_taken_and_count_once(pool, client, payment):
    answers = await asyncio.gather(*(send(client, body_of(payment)) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sorted(answer.json()["repeated"] for answer in answers) == [False, True, True, True]
    assert await one(pool, "SELECT count(*) FROM billing.journal") == 1


async def test_refusals_change_nothing(pool, client, payment):
    now = datetime.now(UTC)
    good = body_of(payment)
    cases = [
        (await send(client, good, secret="guess"), 401, "webhook_signature"),
        (await send(client, good, now=now - timedelta(minutes=6)), 401, "webhook_stale"),
        (await client.post("/webhooks/sandbox", content=good), 401, "webhook_unsigned"),
        (await send(client, b"not json"), 400, "webhook_unreadable"),
        (await send(client, body_of(payment, payment_id=UUID(int=5))), 404, "payment_not_found"),
        (await send(client, body_of(payment, amount_minor=4_999)), 422, "payment_amount_differs"),
        (await send(client, b" " * 20_000), 413, "webhook_too_large"),
    ]
    for answer, status, code in cases:
        assert (answer.status_code, answer.json()) == (status, {"error": code})
    assert await state(pool) == "PENDING"
    assert await one(pool, "SELECT count(*) FROM billing.payment_event") == 0


async def test_an_event_id_with_other_words_is_a_conflict(pool, client, payment):
    assert (await send(client, body_of(payment, "declined"))).status_code == 200
    other = await send(client, body_of(payment, "confirmed"))
    assert (other.status_code, other.json()) == (409, {"error": "event_id_reused"})
    assert await state(pool) == "DECLINED"


async def test_a_database_that_is_away_is_no_200(pool, client, payment):
    await pool.close()
    with pytest.raises(Exception, match="closed"):
        await send(client, body_of(payment))
