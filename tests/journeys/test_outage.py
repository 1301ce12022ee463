"""A transformer dies: the subscriber learns it at once, and again when supply is back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import DESK, PHONE, look_over, visit
from tests.demo_town import DemoTown

pytestmark = [pytest.mark.demo, pytest.mark.browser]

NODE = "TX-1"  # feeds the house of the demo's subscriber
SEEN_MS = 60_000  # last gasps, three seconds of debounce, and a busy machine


def switch(browser: Browser, town: DemoTown, *, to: str) -> None:
    """Press the switch of the transformer on the town page."""
    with visit(browser, town.url, language="en", size=DESK) as page:
        page.goto("/")
        button = page.locator(f"#switch-{NODE}")
        assert ("switch-cut" in (button.get_attribute("class") or "")) == (to == "off")
        button.click()
        expect(page.locator(f"#switch-{NODE}")).to_have_class(
            "switch switch-restore" if to == "off" else "switch switch-cut"
        )
        look_over(page)


@contextmanager
def cut(browser: Browser, town: DemoTown) -> Iterator[None]:
    """The next test finds the town with light, whatever this one finds."""
    switch(browser, town, to="off")
    try:
        yield
    finally:
        switch(browser, town, to="on")


def open_supply_page(page: Page) -> str:
    """Sign in as the subscriber of the demo and ask why there is no supply; answers the electricity meter."""
    page.goto("/")
    page.locator(".persona-subscriber").click()
    page.wait_for_url("**/my")
    page.locator("article.commodity-electricity a[href$='/supply']").first.click()
    page.wait_for_url("**/supply")
    return page.url.split("/")[-2]


def test_an_outage_as_the_subscriber_sees_it(browser: Browser, town: DemoTown) -> None:
    with visit(browser, town.url, language="ar", size=PHONE) as page:
        with cut(browser, town):
            drn = open_supply_page(page)
            expect(page.locator("#answer")).to_contain_text("محول سكة النخيل", timeout=SEEN_MS)
            expect(page.locator("#answer .notice-ok")).to_have_count(0)
            look_over(page)
            page.goto(f"/demo/meters/{drn}")
            expect(page.locator(".lcd-dark")).to_have_count(1)
            look_over(page)
            with visit(browser, town.url, language="en", size=DESK) as desk:
                desk.goto("/")
                desk.locator(".persona-agent").click()
                desk.wait_for_url("**/desk")
                desk.goto("/desk/outages")
                look_over(desk)
                desk.locator("a.row-link", has_text="Al Nakheel lane transformer").first.click()
                expect(desk.locator(f"a[href='/desk/meters/{drn}']")).to_have_count(1)
                look_over(desk)
        page.goto(f"/my/meters/{drn}/supply")
        expect(page.locator("#answer .notice-ok")).to_be_visible(timeout=SEEN_MS)
        look_over(page)
