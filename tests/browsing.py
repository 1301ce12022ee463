"""A real browser for the tests, and what every page must hold: no serious axe finding, no sideways scroll."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

CHROMIUM = os.environ.get("RASEED_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
AXE = Path(__file__).parent.parent / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 15_000  # two busy cores: far above what a page takes, far below what a person would wait
GRAVE = ("serious", "critical")


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """The system's chromium without a window; the test is skipped where there is none."""
    if not Path(CHROMIUM).exists():
        refuse = pytest.fail if os.environ.get("CI") else pytest.skip
        refuse(f"{CHROMIUM} is not installed (RASEED_CHROMIUM names another)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, url: str, *, language: str, size: dict[str, int]) -> Iterator[Page]:
    """A person with cookies of her own. Fails when a page had an error in its console, the policy's included."""
    context = browser.new_context(
        viewport={"width": size["width"], "height": size["height"]},
        is_mobile=size["width"] < 600,
        has_touch=size["width"] < 600,
        locale="ar-OM" if language == "ar" else "en-GB",
        timezone_id="Asia/Muscat",
        base_url=url,
    )
    host = urlsplit(url).hostname or ""
    context.add_cookies([{"name": "raseed_lang", "value": language, "domain": host, "path": "/"}])
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    said: list[str] = []
    page.on(
        "console",
        lambda message: said.append(f"{page.url}: {message.text}") if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
    try:
        yield page
    finally:
        context.close()
    # A status of 4xx is what the test itself looks at; the browser only repeats it.
    loud = [line for line in said if "Failed to load resource" not in line]
    assert not loud, loud


@cache
def _axe_source() -> str:
    if not AXE.is_file():
        pytest.fail("axe-core is missing: run  npm ci --ignore-scripts  first")
    return AXE.read_text(encoding="utf-8")


def axe_findings(page: Page) -> list[str]:
    """What axe finds serious or critical, one line each.

    The source goes in through the debugger, which the page's own policy does not touch.
    """
    page.evaluate(_axe_source())
    found = page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations.map("
        "v => [v.impact, v.id, v.help, v.nodes.slice(0, 3).map(n => n.target.join(' ') + ' ' + (n.any[0]?.message ?? ''))])"
    )
    return [
        f"{impact} {rule}: {help_text} at {'; '.join(nodes)}"
        for impact, rule, help_text, nodes in found
        if impact in GRAVE
    ]


def scrolls_sideways(page: Page) -> int:
    """By how many pixels the page is wider than its window.

    The window is the one that was asked for: a phone's own innerWidth grows with a page that is too wide.
    """
    size = page.viewport_size
    assert size is not None
    return int(page.evaluate("document.documentElement.scrollWidth")) - size["width"]


def look_over(page: Page) -> None:
    """Fail unless the page as it stands is sound: nothing grave for axe, and no wider than its window."""
    assert axe_findings(page) == [], page.url
    assert scrolls_sideways(page) <= 0, f"{page.url} is wider than its window"


def group_order(token: Locator) -> list[str]:
    """The groups of four digits as the eye meets them, from the left of the screen to its right."""
    return list(
        token.evaluate(
            """(element) => {
              const node = document.createTreeWalker(element, NodeFilter.SHOW_TEXT).nextNode();
              const found = [...node.data.matchAll(/\\d{4}/g)].map((group) => {
                const range = document.createRange();
                range.setStart(node, group.index);
                range.setEnd(node, group.index + 4);
                const box = range.getBoundingClientRect();
                return [Math.round(box.top), box.left, group[0]];
              });
              return found.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((group) => group[2]);
            }"""
        )
    )
