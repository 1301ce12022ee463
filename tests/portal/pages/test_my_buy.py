"""A purchase through the pages, with the real use cases, the software vault and the provider's own signatures."""

import re
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from billing.take_payment import read_link, webhook_body, webhook_headers
from portal.sell import command_key, deliver_token
from tests.billing.world import House, make_house, make_tariffs, make_vault
from tests.portal.sales import one
from tests.portal.visitor import PROVIDER_SECRET, PROVIDER_URL, PUBLIC_URL, visiting

TOKEN = re.compile(r'class="token">([0-9\u00a0]{24})<')


async def house_in(pool, number=1, **kwargs) -> House:
    async with pool.connection() as conn:
        if number == 1:
            await make_tariffs(conn)
        return await make_house(conn, number, **kwargs)


async def offer(visitor, house, amount="5") -> str:
    answer = await visitor.post(f"/my/meters/{house.drn}/buy", {"amount": amount})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def go_to_pay(visitor, quote_path, **extra):
    text = (await visitor.get(quote_path)).text
    key = re.search(r'name="idempotency_key" value="([^"]+)"', text)[1]
    return await visitor.post(f"{quote_path}/pay", {"idempotency_key": key, **extra})


def link_of(answer):
    location = answer.headers["location"]
    assert location.startswith(f"{PROVIDER_URL}/pay?"), location
    params = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    return read_link(params, PROVIDER_SECRET, datetime.now(UTC))


async def provider_says(visitor, link, status="confirmed"):
    body = webhook_body(f"evt-{link.payment_id}-{status}", link.payment_id, status, link.amount_minor)
    headers = webhook_headers(PROVIDER_SECRET, body, datetime.now(UTC))
    answer = await visitor.http.post("/webhooks/sandbox", content=body, headers=headers)
    assert answer.status_code == 200, answer.text


async def deliver(pool, vend_id) -> None:
    await deliver_token(pool, make_vault(), vend_id, lambda: datetime.now(UTC))


async def meter_accepts(pool, vend_id) -> None:
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.meter_command_step (command_id, state, occurred_at, detail)"
            ' SELECT id, \'VERIFIED\', now(), \'{"result": "accept", "relay": 1}\''
            " FROM meter_gateway.meter_command WHERE idempotency_key = %s",
            (command_key(vend_id),),
        )
        await conn.execute(
            "UPDATE meter_gateway.meter_command SET state = 'VERIFIED' WHERE idempotency_key = %s",
            (command_key(vend_id),),
        )


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_from_amount_to_units_in_the_meter(database_url, pool, language) -> None:
    house = await house_in(pool, debt_minor=30_000)
    async with visiting(database_url, language=language) as visitor:
        await visitor.be_subscriber(house.customer_id)
        form = await visitor.get(f"/my/meters/{house.drn}/buy")
        assert "30.000" in form.text, "the debt is said before anything is bought"
        quote_path = await offer(visitor, house, "١٠")
        shown = (await visitor.get(quote_path)).text
        for part in (
            "10.000",
            "2.000",
            "VAT 5%" if language == "en" else "5%",
        ):  # the whole, the debt's part, VAT
            assert part in re.sub(r"</?bdi[^>]*>", "", shown)

        link = link_of(await go_to_pay(visitor, quote_path))
        assert link.amount_minor == 10_000
        assert link.language == language
        payment_path = link.return_url.removeprefix(PUBLIC_URL)
        waiting = await visitor.get(payment_path)
        assert 'hx-trigger="every 2s"' in waiting.text
        assert '<meta http-equiv="refresh"' in waiting.text, "the page follows without script"

        await provider_says(visitor, link)
        vend_id = await one(pool, "SELECT id FROM billing.vend WHERE payment_id = %s", link.payment_id)
        part = await visitor.get(payment_path, headers={"HX-Request": "true"})
        assert "<html" not in part.text
        assert 'id="progress"' in part.text
        assert (await visitor.get(f"/my/receipts/{vend_id}")).headers["location"] == payment_path

        await deliver(pool, vend_id)
        digits = await one(pool, "SELECT digits FROM billing.token")
        receipt = await visitor.get(f"/my/receipts/{vend_id}")
        assert TOKEN.search(receipt.text)[1].replace("\u00a0", "") == digits
        assert "badge-warn" in receipt.text

        await meter_accepts(pool, vend_id)
        done = await visitor.get(payment_path)
        assert "hx-trigger" not in done.text, "nothing more is to come, the page rests"
        assert done.text.count('<li class="done">') == 5
        assert digits not in done.text.replace("\u00a0", ""), "the token stands on its receipt only"
        assert "badge-ok" in (await visitor.get(f"/my/receipts/{vend_id}")).text
        for lang in ("ar", "en"):
            pdf = await visitor.get(f"/my/receipts/{vend_id}.pdf?lang={lang}")
            assert pdf.headers["content-type"] == "application/pdf"
            assert pdf.content.startswith(b"%PDF")
        assert (await visitor.get(f"/my/receipts/{vend_id}.pdf?lang=fr")).status_code == 422


async def test_another_customers_sale_is_not_there(database_url, pool) -> None:
    mine, other = await house_in(pool, 1), await house_in(pool, 2)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(mine.customer_id)
        quote_path = await offer(visitor, mine)
        link = link_of(await go_to_pay(visitor, quote_path))
        await provider_says(visitor, link)
        vend_id = await one(pool, "SELECT id FROM billing.vend WHERE payment_id IS NOT NULL")
        await deliver(pool, vend_id)
        spare = await offer(visitor, mine)
        await visitor.be_subscriber(other.customer_id)
        for path in (
            f"/my/meters/{mine.drn}",
            f"/my/meters/{mine.drn}/buy",
            f"/my/meters/{mine.drn}/token",
            f"/my/meters/{mine.drn}/supply",
            spare,
            f"/my/payments/{link.payment_id}",
            f"/my/receipts/{vend_id}",
            f"/my/receipts/{vend_id}.pdf",
        ):
            assert (await visitor.get(path)).status_code == 404, path
        stolen = await visitor.post(f"{spare}/pay", {"idempotency_key": "12345678"})
        assert stolen.status_code == 404
        assert (await visitor.post(f"/my/meters/{mine.drn}/buy", {"amount": "5"})).status_code == 404
        assert await one(pool, "SELECT count(*) FROM billing.payment") == 1


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("", "Enter an amount"),
        ("abc", "with digits"),
        ("-5", "above zero"),
        ("0", "above zero"),
        ("0.1", "0.500"),
        ("100.001", "100.000"),
        ("1.2345", "three digits"),
        ("1e9", "with digits"),
        ("9" * 39, "too large"),
        ("٥٫٠٠٠٠", "three digits"),
        ("<script>", "with digits"),
    ],
)
async def test_a_wrong_amount_is_said_beside_the_field_and_changes_nothing(
    database_url, pool, amount, words
) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        answer = await visitor.post(f"/my/meters/{house.drn}/buy", {"amount": amount})
        assert answer.status_code == 422
        assert words in re.sub(r"</?bdi[^>]*>", "", answer.text)
        assert "<script>" not in answer.text.split("<main")[1]
        assert await one(pool, "SELECT count(*) FROM billing.quote") == 0


async def test_a_double_click_pays_once(database_url, pool) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        quote_path = await offer(visitor, house)
        key = {"idempotency_key": "the same form"}
        first = link_of(await visitor.post(f"{quote_path}/pay", key))
        second = link_of(await visitor.post(f"{quote_path}/pay", key))
        assert first.payment_id == second.payment_id
        assert (await visitor.get(quote_path)).headers["location"] == f"/my/payments/{first.payment_id}"
        await provider_says(visitor, first)
        again = await visitor.post(f"{quote_path}/pay", key)
        assert again.headers["location"] == f"/my/payments/{first.payment_id}", "never to the provider again"


async def test_a_running_sale_is_shown_and_a_second_needs_a_word(database_url, pool) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        link_of(await go_to_pay(visitor, await offer(visitor, house)))
        assert "still under way" in (await visitor.get(f"/my/meters/{house.drn}/buy")).text
        second = await offer(visitor, house)
        assert "still under way" in (await visitor.get(second)).text
        refused = await go_to_pay(visitor, second)
        assert refused.status_code == 422
        assert f'href="{second}?lang=ar"' in refused.text, (
            "the switch leads to a page, not to the form's target"
        )
        assert await one(pool, "SELECT count(*) FROM billing.payment") == 1
        link_of(await go_to_pay(visitor, second, again="yes"))
        assert await one(pool, "SELECT count(*) FROM billing.payment") == 2


async def test_an_old_offer_is_not_paid(database_url, pool) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        quote_path = await offer(visitor, house)
        async with pool.connection() as conn:
            await conn.execute("UPDATE billing.quote SET expires_at = now() - interval '1 second'")
        text = (await visitor.get(quote_path)).text
        assert "This offer has expired" in text
        assert "/pay" not in text
        answer = await visitor.post(f"{quote_path}/pay", {"idempotency_key": "12345678"})
        assert answer.headers["location"] == f"/my/meters/{house.drn}/buy"
        assert "offer has expired" in (await visitor.get(answer.headers["location"])).text
        assert await one(pool, "SELECT count(*) FROM billing.payment") == 0


@pytest.mark.parametrize(("status", "words"), [("declined", "was declined"), ("confirmed", "being made")])
async def test_the_payment_page_says_what_the_provider_said(database_url, pool, status, words) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        link = link_of(await go_to_pay(visitor, await offer(visitor, house)))
        await provider_says(visitor, link, status)
        assert words in (await visitor.get(f"/my/payments/{link.payment_id}")).text


async def test_a_silent_provider_is_unknown_never_failed(database_url, pool) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        link = link_of(await go_to_pay(visitor, await offer(visitor, house)))
        async with pool.connection() as conn:
            await conn.execute("UPDATE billing.payment SET created_at = now() - interval '3 minutes'")
        text = (await visitor.get(f"/my/payments/{link.payment_id}")).text
        assert "outcome is unknown" in text
        assert "do not pay again" in text


async def test_a_payment_left_in_the_middle_is_gone_on_with(database_url, pool) -> None:
    mine, other = await house_in(pool, 1), await house_in(pool, 2)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(mine.customer_id)
        link = link_of(await go_to_pay(visitor, await offer(visitor, mine)))
        path = f"/my/payments/{link.payment_id}/resume"
        again = link_of(await visitor.post(path))
        assert (again.payment_id, again.amount_minor) == (link.payment_id, link.amount_minor)
        await visitor.be_subscriber(other.customer_id)
        assert (await visitor.post(path)).status_code == 404
        await visitor.be_subscriber(mine.customer_id)
        await provider_says(visitor, link)
        assert (await visitor.post(path)).headers["location"] == f"/my/payments/{link.payment_id}"


async def test_reading_tokens_is_limited(database_url, pool) -> None:
    house = await house_in(pool, link="keypad")
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        link = link_of(await go_to_pay(visitor, await offer(visitor, house)))
        await provider_says(visitor, link)
        vend_id = await one(pool, "SELECT id FROM billing.vend WHERE payment_id IS NOT NULL")
        await deliver(pool, vend_id)
        seen = await visitor.get(f"/my/receipts/{vend_id}")
        assert "at the keypad of meter" in seen.text
        async with pool.connection() as conn:
            await conn.execute("UPDATE portal.rate_limit SET hits = 120 WHERE bucket LIKE 'token-view:%'")
        limited = await visitor.get(f"/my/receipts/{vend_id}")
        assert limited.status_code == 429
        assert not TOKEN.search(limited.text)


@pytest.mark.parametrize("path", ["/my/receipts/x", "/my/payments/1", "/my/quotes/%00", "/my/receipts/x.pdf"])
async def test_an_address_that_is_no_id_is_refused_politely(database_url, pool, path) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        assert (await visitor.get(path)).status_code in {404, 422}
