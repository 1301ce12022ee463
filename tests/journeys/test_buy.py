"""A subscriber buys units: in Arabic on a phone, in English on a desk."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import DESK, PHONE, group_order, look_over, visit
from tests.demo_town import DemoTown

pytestmark = [pytest.mark.demo, pytest.mark.browser, pytest.mark.xdist_group("town")]

STAGES_SHOWN = 5  # paid, token ready, reached the meter, in the meter, supply on
TRAVEL_MS = 60_000  # the meter has its units within seconds; two busy cores may take longer


def baisa(text: str) -> int:
    """The amount that a page writes, in baisa."""
    found = re.search(r"([\d,]+)\.(\d{3})", text)
    assert found, text
    return int(found[1].replace(",", "") + found[2])


def buy(page: Page, amount: str) -> str:
    """From the first page to the receipt; answers the token's bare digits."""
    page.goto("/")
    look_over(page)
    page.locator(".persona-subscriber").click()
    page.wait_for_url("**/my")
    look_over(page)
    page.locator("article.commodity-electricity a.button[href$='/buy']").first.click()
    look_over(page)
    page.fill("#amount", amount)
    page.locator("form.form button[type=submit]").click()
    page.wait_for_url("**/my/quotes/*")
    look_over(page)
    lines = [baisa(text) for text in page.locator(".sums > div:not(.sub) dd").all_inner_texts()]
    assert lines[-1] == 5_000
    assert sum(lines[:-1]) == lines[-1], "what is shown before paying adds up"
    page.locator("form[action$='/pay'] button").click()
    page.wait_for_url("**/pay?*")
    page.locator("button[name=behaviour][value=pay]").click()
    page.wait_for_url("**/my/payments/*")
    expect(page.locator("#progress .steps > .done")).to_have_count(STAGES_SHOWN, timeout=TRAVEL_MS)
    look_over(page)
    page.locator("a.button[href^='/my/receipts/']").click()
    look_over(page)
    token = page.locator(".token-box .token")
    assert group_order(token) == token.inner_text().split("\u00a0"), "the groups stand in their order"
    return token.inner_text().replace("\u00a0", "")


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
