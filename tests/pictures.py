"""Takes the pictures of docs/pictures from a running demo: `python -m tests.pictures`."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect

from firmware_sim.town import build_town
from tests.browsing import DESK, PHONE, open_chromium, visit
from tests.demo_town import DemoTown, running_town

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
MOST_BYTES = 150_000
COLOURS = (256, 128, 64, 32)  # a page is flat colours and text: fewer of them are not missed
TRAVEL_MS = 60_000


def save(page: Page, name: str, *, whole: bool = False) -> None:
    """Write what the page shows as a small PNG."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole, animations="disabled"))).convert("RGB")
    for colours in (None, *COLOURS):
        small = io.BytesIO()
        fewer = picture.quantize(colours, dither=Image.Dither.NONE) if colours else picture
        fewer.save(small, "PNG", optimize=True)
        if small.tell() < MOST_BYTES:
            break
    else:
        raise SystemExit(f"{name} stays over {MOST_BYTES} bytes: show less of the page")
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.png").write_bytes(small.getvalue())
    print(f"{name}.png  {small.tell() // 1000} kB")


@contextmanager
def person(
    browser: Browser, town: DemoTown, persona: str, *, language: str, size: dict[str, int]
) -> Iterator[Page]:
    with visit(browser, town.url, language=language, size=size) as page:
        page.goto("/")
        if persona:
            page.locator(f".persona-{persona}").click()
            page.wait_for_url(re.compile(r"/(my|desk|field)"))
        yield page


def front(browser: Browser, town: DemoTown) -> None:
    with person(browser, town, "", language="en", size=DESK) as page:
        page.goto("/?show=TX-1")
        save(page, "town")
    with person(browser, town, "", language="ar", size=PHONE) as page:
        page.goto(f"/demo/meters/{first_meter(page)}")
        save(page, "meter-on-the-wall")


def first_meter(page: Page) -> str:
    address = page.locator(".try-list a[href^='/demo/meters/']").first.get_attribute("href") or ""
    return address.rsplit("/", 1)[1]


def purchase(browser: Browser, town: DemoTown) -> None:
    with person(browser, town, "subscriber", language="ar", size=PHONE) as page:
        save(page, "subscriber")
        page.locator("article.commodity-electricity a.button[href$='/buy']").first.click()
        page.fill("#amount", "5")
        page.locator("form.form button[type=submit]").click()
        page.wait_for_url("**/my/quotes/*")
        save(page, "before-paying")
        page.locator("form[action$='/pay'] button").click()
        page.locator("button[name=behaviour][value=pay]").click()
        page.wait_for_url("**/my/payments/*")
        expect(page.locator("#progress .steps > .done")).to_have_count(5, timeout=TRAVEL_MS)
        receipt = page.locator("a.button[href^='/my/receipts/']").get_attribute("href")
    with person(browser, town, "subscriber", language="en", size=DESK) as page:
        page.goto(str(receipt))
        save(page, "receipt")


def desk(browser: Browser, town: DemoTown) -> None:
    with person(browser, town, "agent", language="en", size=DESK) as page:
        page.goto("/desk?q=90001001")
        page.locator("a.card-link").first.click()
        page.wait_for_url("**/desk/customers/*")
        save(page, "desk")


def outage(browser: Browser, town: DemoTown) -> None:
    with person(browser, town, "agent", language="en", size=DESK) as page:
        page.goto("/")
        page.locator("#switch-TX-4").click()
        try:
            page.goto("/desk/outages")
            row = page.locator("a.row-link", has_text="Sahil Al Bahja").first
            row.click(timeout=TRAVEL_MS)
            page.wait_for_url("**/desk/outages/*")
            save(page, "outage")
        finally:
            page.goto("/")
            page.locator("#switch-TX-4").click()


def field(browser: Browser, town: DemoTown) -> None:
    with person(browser, town, "engineer", language="ar", size=PHONE) as page:
        drn = build_town().installed[4].drn  # a Modbus meter: its registers are read over the wire
        page.goto(f"/field/meters/{drn}")
        page.locator("form[action$='/read'] button").click()
        page.wait_for_url("**/field/commands/*")
        expect(page.locator("main .notice-ok").first).to_be_visible(timeout=TRAVEL_MS)
        page.locator("details summary").click()
        save(page, "field")


SCENES: tuple[Callable[[Browser, DemoTown], None], ...] = (front, purchase, desk, outage, field)


def main() -> None:
    """Take every picture, or those of the scenes that are named."""
    with open_chromium() as browser, running_town() as town:
        for scene in SCENES:
            if not sys.argv[1:] or scene.__name__ in sys.argv[1:]:
                scene(browser, town)


if __name__ == "__main__":
    main()
