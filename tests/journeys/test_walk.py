"""Every page that a link leads to, in both languages, on a phone and on a desk."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from babel.messages.pofile import read_po
from playwright.sync_api import Browser, Page

from tests.browsing import DESK, PHONE, axe_findings, scrolls_sideways, visit
from tests.demo_town import DemoTown
from tests.shopping import buy

pytestmark = [pytest.mark.demo, pytest.mark.browser]

LOCALE = Path(__file__).resolve().parents[2] / "portal" / "locale" / "ar"
PERSONAS = ("nobody", "subscriber", "agent", "engineer")
STARTS = {
    "nobody": ("/", "/sign-in", "/sign-in/staff", "/demo/sms", "/no-such-page"),
    "subscriber": ("/my", "/my/tickets"),
    "agent": ("/desk", "/desk/tickets", "/desk/outages"),
    "engineer": ("/field",),
}
# Where axe reads too, which takes most of the time: what it looks at hardly changes with language and width.
LISTENED = (("ar", PHONE), ("en", DESK))
MAX_OF_A_KIND = 1  # one meter page is like the next
MAX_PAGES = 40  # of one persona: a page that links to ever new kinds would walk for ever
# What stands in an address where a number, an id or a code is.
VARIABLE = re.compile(
    r"/(?:\d+|[a-z]{3,4}-\d+|[0-9a-f]{8}-[0-9a-f-]{27}|[A-Z]{1,3}-?[A-Z0-9-]*\d[A-Z0-9-]*|R\d\d-\d+-\w)(?=/|$)"
)
NOT_PAGES = re.compile(
    r"^/(static|webhooks|health|ready)(/|$)|\.(pdf|csv|png|jpg|svg|json)(\?|$)|/receipt\b|/attachments?/|^/field/photos/"
)

# The text that a person reads, but for what says itself that it is in another language, is a code, or is in the
# words of a person, which stand isolated (bdi, dir=auto).
READ = """
(other) => {
  const found = [];
  const foreign = `[lang="${other}"], code, .mono, script, style, bdi, [dir="auto"], time`;
  const walk = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const text = walk.currentNode.data.replace(/\\s+/g, ' ').trim();
    if (text && !walk.currentNode.parentElement.closest(foreign)) found.push(text);
  }
  for (const element of document.querySelectorAll('[aria-label], [placeholder], [title], [alt]'))
    if (!element.closest(foreign))
      for (const name of ['aria-label', 'placeholder', 'title', 'alt'])
        if (element.getAttribute(name)) found.push(element.getAttribute(name));
  return found;
}
"""
ARABIC = re.compile(r"[\u0600-\u06ff]")
# Two English words in a row; single ones are names of units, protocols and makers.
ENGLISH = re.compile(r"[A-Za-z]{3,}\s+[A-Za-z]{2,}")


@cache
def english_sentences() -> frozenset[str]:
    """Every message of the catalogues that has nothing to fill in."""
    found = set()
    for path in LOCALE.glob("*.po"):
        with path.open("rb") as source:
            for message in read_po(source, locale="ar"):
                ids = message.id if isinstance(message.id, (list, tuple)) else [message.id]
                found |= {text for text in ids if text and "%" not in text and "{" not in text}
    return frozenset(found)


def untranslated(texts: list[str], language: str) -> list[str]:
    """Texts of a page that are in the wrong language."""
    if language == "en":
        return [text for text in texts if ARABIC.search(text)]
    return [text for text in texts if text in english_sentences() or ENGLISH.search(text)]


def kind_of(address: str) -> str:
    """An address without what varies, so that a hundred meters are one kind of page; each `view` is its own."""
    parts = urlsplit(address)
    names = sorted(value if name == "view" else name for name, value in parse_qsl(parts.query))
    return VARIABLE.sub("/*", parts.path) + (f"?{','.join(names)}" if names else "")


def sign_in(page: Page, persona: str) -> None:
    if persona == "nobody":
        return
    page.goto("/")
    page.locator(f'form[action="/demo/sign-in/{persona}"]').first.locator("button").click()
    page.wait_for_url(lambda address: urlsplit(address).path not in ("/", "/town"))


def links_of(page: Page) -> list[str]:
    addresses = page.eval_on_selector_all(
        "a[href]", "links => links.map(link => new URL(link.getAttribute('href'), document.baseURI).href)"
    )
    host = urlsplit(page.url).netloc
    found = [urlsplit(address) for address in addresses]
    return [
        parts.path + (f"?{parts.query}" if parts.query else "")
        for parts in found
        if parts.netloc == host and "lang=" not in parts.query
    ]


@pytest.fixture(scope="package")
def lived_in(browser: Browser, town: DemoTown) -> DemoTown:
    """The town with a purchase and a request in it, so that their pages are there to look at."""
    with visit(browser, town.url, language="en", size=DESK) as page:
        sign_in(page, "subscriber")
        if page.locator("a[href^='/my/receipts/']").count() == 0:
            buy(page, "5")
        page.goto("/my/tickets")
        if page.locator("main a[href^='/my/tickets/R']").count() == 0:
            page.goto("/my/tickets/new?kind=enquiry")
            page.fill("#subject", "When is my meter read?")
            page.fill("#body", "I want to compare.")
            page.locator("form[action='/my/tickets/new'] button[type=submit]").click()
            page.wait_for_url("**/my/tickets/R*")
    return town


@pytest.fixture(scope="package")
def map_of(browser: Browser, lived_in: DemoTown) -> Callable[[str], list[str]]:
    """For a persona the addresses to look at: one of each kind that a link leads to."""

    @cache
    def found(persona: str) -> list[str]:
        with visit(browser, lived_in.url, language="en", size=DESK) as page:
            sign_in(page, persona)
            return list(walk(page, STARTS[persona]))

    return found


def walk(page: Page, starts: tuple[str, ...]) -> Iterator[str]:
    """Follow links breadth first from the starts."""
    waiting, kinds, given = list(starts), defaultdict(int), 0
    for path in waiting:  # grows while it is walked
        if kinds[kind_of(path)] >= MAX_OF_A_KIND or NOT_PAGES.search(path):
            continue
        kinds[kind_of(path)] += 1
        answer = page.goto(path)
        assert answer is not None
        assert answer.status < 500, f"{path} answers {answer.status}"
        if path not in starts:
            assert answer.status == 200, f"a link leads to {path}, which answers {answer.status}"
        given += 1
        assert given <= MAX_PAGES, f"over {MAX_PAGES} kinds of pages: {sorted(kinds)}"
        yield path
        waiting += links_of(page)


@pytest.mark.parametrize("language", ["ar", "en"])
@pytest.mark.parametrize("persona", PERSONAS)
def test_every_page_is_sound(
    browser: Browser, town: DemoTown, map_of: Callable[[str], list[str]], persona: str, language: str
) -> None:
    faults = []
    with visit(browser, town.url, language=language, size=PHONE) as page:
        sign_in(page, persona)
        for path in map_of(persona):
            page.set_viewport_size(PHONE)
            page.goto(path)
            faults += [f"{path}: {fault}" for fault in faults_of(page, language)]
    assert not faults, "\n".join(sorted(set(faults)))


def faults_of(page: Page, language: str) -> list[str]:
    """What is wrong with a page as it stands: its language, and on a phone and a desk its width and what axe finds."""
    faults = []
    html = page.locator("html")
    spoken = (html.get_attribute("lang"), html.get_attribute("dir"))
    if spoken != (language, "rtl" if language == "ar" else "ltr"):
        faults.append(f"lang and dir are {spoken}")
    texts = page.evaluate(READ, "en" if language == "ar" else "ar")
    faults += [f"untranslated {text!r}" for text in untranslated(texts, language)]
    for size in (PHONE, DESK):
        page.set_viewport_size(size)
        if (wider := scrolls_sideways(page)) > 0:
            faults.append(f"{wider} pixels wider than a window of {size['width']}")
        if (language, size) in LISTENED:
            faults += axe_findings(page)
    return faults


@pytest.mark.parametrize(
    ("persona", "least"), [("nobody", 5), ("subscriber", 5), ("agent", 5), ("engineer", 15)]
)
def test_every_persona_has_pages_of_its_own(
    persona: str, least: int, map_of: Callable[[str], list[str]]
) -> None:
    assert len(map_of(persona)) >= least, map_of(persona)


def test_the_look_over_sees_faults(browser: Browser) -> None:
    """What is never found may never have been looked for."""
    with visit(browser, "http://127.0.0.1", language="en", size=PHONE) as page:
        page.set_content(
            "<html lang='en'><meta name='viewport' content='width=device-width'><title>x</title><main><input><p style='inline-size: 900px'>مرحبا</p></main></html>"
        )
        assert any("label" in finding for finding in axe_findings(page))
        assert scrolls_sideways(page) > 0
        assert untranslated(page.evaluate(READ, "ar"), "en") == ["مرحبا"]
        page.add_style_tag(content="@media (min-width: 1000px) { p { inline-size: 2000px !important } }")
        found = faults_of(page, "en")
        assert any("window of 390" in fault for fault in found), found
        assert any("window of 1280" in fault for fault in found), found
        assert untranslated(["Back to the town", "MQTT", "كيلوواط"], "ar") == ["Back to the town"]
