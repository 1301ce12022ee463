"""A purchase as a subscriber makes it in the browser, looked over at each step."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browsing import group_order, look_over

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
