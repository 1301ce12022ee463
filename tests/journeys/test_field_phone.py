"""From the phone alone: an unknown meter on a serial line is scanned, profiled, named, installed and commissioned."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from firmware_sim.town import build_town
from tests.browsing import PHONE, look_over, visit
from tests.demo_town import DemoTown

pytestmark = [pytest.mark.demo, pytest.mark.browser]

GATEWAY_MS = 60_000  # a scan waits for polls; two busy cores
MOST_STEPS = 25  # taps and entries that the work takes: more, and it is not two minutes
STRANGER = next(meter for meter in build_town().strangers if (meter.bus or "").startswith("rtu"))


class Hand:
    """Counts what a person does: taps and entries."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.steps = 0

    def tap(self, selector: str | Locator) -> None:
        self.steps += 1
        (self.page.locator(selector) if isinstance(selector, str) else selector).click()

    def enter(self, selector: str, text: str) -> None:
        self.steps += 1
        self.page.fill(selector, text)


def counter_of(page: Page) -> str:
    """What the meter's display says of its counter: read here from its registers, as the town has no such display."""
    row = page.locator("table.table tr", has=page.locator("code", has_text=re.compile(r"^counter$")))
    return re.sub(r"[^\d.]", "", row.locator("td").first.inner_text())


def test_an_unknown_meter_is_commissioned_from_the_phone(browser: Browser, town: DemoTown) -> None:
    with visit(browser, town.url, language="en", size=PHONE) as page:
        page.goto("/")
        page.locator(".persona-engineer").click()
        page.wait_for_url("**/field")
        hand, began = Hand(page), time.monotonic()
        hand.tap(f"a[href$='/buses/{STRANGER.bus}']")
        hand.enter("#first", "30")
        hand.enter("#last", "36")
        hand.tap("section[aria-labelledby=scan] button")
        look_over(page)
        hand.tap("main form button")
        page.wait_for_url("**/field/tasks/*")
        expect(page.locator("#task .card-head .badge-ok")).to_be_visible(timeout=GATEWAY_MS)
        expect(page.locator(f"#unit-{STRANGER.unit}")).to_contain_text("Unknown meter")
        look_over(page)

        hand.tap(f"#unit-{STRANGER.unit} button")
        likely = page.locator("#task section.card", has=page.locator(".badge-ok", has_text="Likely"))
        expect(likely).to_contain_text(STRANGER.profile or "", timeout=GATEWAY_MS)
        look_over(page)
        probe = page.url
        hand.tap(likely.get_by_role("button", name="Live registers"))
        expect(page.locator("table.table")).to_be_visible(timeout=GATEWAY_MS)
        look_over(page)
        display = counter_of(page)
        page.goto(probe)

        hand.tap(likely.get_by_role("link", name="Take it into our books"))
        look_over(page)
        hand.enter("#drn", STRANGER.drn)
        hand.enter("#model", STRANGER.model)
        hand.tap("main form button[type=submit]")
        page.wait_for_url(f"**/field/meters/{STRANGER.drn}/install")
        hand.tap("input[name=usage_point_id] >> nth=0")
        hand.enter("#note", "Seal 4471")
        hand.tap("form[action$='/install/preview'] button")
        look_over(page)
        hand.tap("form[action$='/install'] button")
        page.wait_for_url("**/checklist")
        look_over(page)

        hand.tap("#item-wiring button[value=done]")
        hand.tap("#item-seal button[value=done]")
        expect(page.locator("#item-link .badge-ok")).to_be_visible(timeout=GATEWAY_MS)
        hand.enter("#display", display)
        hand.tap("#item-display button")
        expect(page.locator("#item-display .badge-ok")).to_be_visible()
        hand.tap("#item-test_token form button")
        page.wait_for_url("**/field/commands/*")
        expect(page.locator("#answer .notice-ok")).to_be_visible(timeout=GATEWAY_MS)
        page.goto(f"/field/meters/{STRANGER.drn}/checklist")
        for _ in range(30):
            if page.locator("form[action$='/finish']").count():
                break
            page.wait_for_timeout(1000)
            page.reload()
        hand.tap("form[action$='/finish'] button")
        page.wait_for_url("**/certificate")
        expect(page.locator("h1")).to_have_text("This meter is commissioned.")
        look_over(page)
        print(f"{hand.steps} taps and entries, {time.monotonic() - began:.0f} s with all waiting")
        assert hand.steps <= MOST_STEPS
