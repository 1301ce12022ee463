"""A subscriber buys units: in Arabic on a phone, in English on a desk."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import DESK, PHONE, look_over, visit
from tests.demo_town import DemoTown
from tests.shopping import TRAVEL_MS, buy

pytestmark = [pytest.mark.demo, pytest.mark.browser]


def receipts(page: Page) -> None:
    """Both PDF receipts come and are what they say."""
    for language in ("ar", "en"):
        address = page.locator(f"a[href$='.pdf?lang={language}']").get_attribute("href")
        assert address
        answer = page.request.get(address)
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/pdf"
        assert answer.body().startswith(b"%PDF-")
        assert f"/Lang ({language})".encode() in answer.body()


@pytest.mark.parametrize(
    ("language", "size", "amount"), [("ar", PHONE, "٥"), ("en", DESK, "5.000")], ids=["ar-phone", "en-desk"]
)
def test_a_purchase_arrives_in_the_meter(
    browser: Browser, town: DemoTown, language: str, size: dict[str, int], amount: str
) -> None:
    with visit(browser, town.url, language=language, size=size) as page:
        digits = buy(page, amount)
        assert re.fullmatch(r"\d{20}", digits)
        receipts(page)
        drn = page.locator("a[href^='/my/meters/']").first.get_attribute("href").rsplit("/", 1)[1]

        page.goto("/demo/sms")
        message = page.locator(".sms-token").first
        assert digits in re.sub(r"\D", "", message.inner_text()), "the SMS carries the same token"
        look_over(page)

        page.goto(f"/demo/meters/{drn}")
        assert "ACCEPT" in page.locator(".lcd").inner_text()
        page.fill("#digits", digits)
        page.locator(".key-enter").click()
        expect(page.locator(".notice-error .code")).to_have_text("10")  # used: nothing added, nothing lost
        look_over(page)

        page.goto("/")
        expect(page.locator("#sale .steps > .done")).to_have_count(7)
        look_over(page)


def test_a_declined_payment_sells_nothing_and_says_so(browser: Browser, town: DemoTown) -> None:
    with visit(browser, town.url, language="en", size=PHONE) as page:
        page.goto("/")
        page.locator(".persona-subscriber").click()
        page.wait_for_url("**/my")
        page.locator("article.commodity-water a.button[href$='/buy']").first.click()
        page.fill("#amount", "2")
        page.locator("form.form button[type=submit]").click()
        page.wait_for_url("**/my/quotes/*")
        page.locator("form[action$='/pay'] button").click()
        page.locator("button[name=behaviour][value=decline]").click()
        page.wait_for_url("**/my/payments/*")
        expect(page.locator("#progress .notice-error")).to_be_visible(timeout=TRAVEL_MS)
        assert page.locator("#progress .steps > .bad").count() == 1
        assert page.locator("a[href^='/my/receipts/']").count() == 0
        look_over(page)
