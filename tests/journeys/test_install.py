"""An engineer brings a meter from stock to a house that waits, and sees it answer."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browsing import PHONE, look_over, visit
from tests.demo_town import DemoTown

pytestmark = [pytest.mark.demo, pytest.mark.browser]

ANSWER_MS = 60_000  # the meter answers within a second; two busy cores may take longer


def test_a_meter_from_stock_is_installed_and_tested(browser: Browser, town: DemoTown) -> None:
    with visit(browser, town.url, language="ar", size=PHONE) as page:
        page.goto("/")
        page.locator(".persona-engineer").click()
        page.wait_for_url("**/field")
        look_over(page)
        spare = page.locator("section[aria-labelledby=spares] p", has_text="Raseed E1 NB").locator("a")
        drn = (spare.get_attribute("href") or "").rsplit("/", 1)[1]
        page.fill("#number", drn[:-1] + str((int(drn[-1]) + 1) % 10))  # one digit misread from the plate
        page.locator("form[role=search] button").click()
        expect(page.locator("#number-error")).to_be_visible()
        look_over(page)
        page.fill("#number", drn)
        page.locator("form[role=search] button").click()
        page.wait_for_url(f"**/field/meters/{drn}")
        look_over(page)

        page.locator(f"a[href='/field/meters/{drn}/install']").click()
        page.locator("input[name=usage_point_id]").first.check()
        page.fill("#note", "ختم 4471، بجوار الباب")
        look_over(page)
        page.locator("form[action$='/install/preview'] button").click()
        look_over(page)
        page.locator("form[action$='/install'] button").click()
        page.wait_for_url(f"**/field/meters/{drn}/checklist")
        look_over(page)

        page.goto(f"/demo/meters/{drn}")  # the screwdriver's part
        page.locator("form[action$='/hang'] button").click()
        expect(page.locator("form[action$='/hang']")).to_have_count(0)
        look_over(page)

        page.goto(f"/field/meters/{drn}")
        page.locator("form[action$='/test'] button").click()
        page.wait_for_url("**/field/commands/*")
        look_over(page)
        page.goto(f"/field/meters/{drn}")
        expect(page.locator("#live .steps > .done")).to_have_count(4, timeout=ANSWER_MS)
        look_over(page)
        page.locator("form[action$='/read'] button").click()
        page.wait_for_url("**/field/commands/*")
        expect(page.locator("main .notice-ok, main .badge-ok").first).to_be_visible(timeout=ANSWER_MS)
        look_over(page)
