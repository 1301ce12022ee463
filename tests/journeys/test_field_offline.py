"""An engineer without a network: the pages stand, what is entered waits on the phone and is sent once."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, Route, expect

from tests.browsing import PHONE, look_over, visit
from tests.demo_town import DemoTown

pytestmark = [pytest.mark.demo, pytest.mark.browser]

WAITING = "#draft-list > li:not(.empty)"
OTHERS_DRAFT = """() => new Promise((done) => {
  const asked = indexedDB.open("raseed-field", 1);
  asked.onsuccess = () => {
    const step = asked.result.transaction("drafts", "readwrite");
    step.objectStore("drafts").put({key: "other-0001", owner: "999999", kind: "entry", drn: "1", fields: {},
      photo: null, made_at: new Date().toISOString(), state: "waiting", summary: "private"});
    step.oncomplete = () => { asked.result.close(); done(); };
  };
})"""

ALL_DRAFTS = """() => new Promise((done) => {
  const asked = indexedDB.open("raseed-field", 1);
  asked.onsuccess = () => {
    const found = asked.result.transaction("drafts").objectStore("drafts").getAllKeys();
    found.onsuccess = () => { asked.result.close(); done(found.result); };
  };
})"""


def until(page: Page, condition: str) -> None:
    """Wait for a condition with `await` in it; wait_for_function takes any promise for a yes."""
    page.evaluate(f"""async () => {{
      const end = Date.now() + 15_000;
      while (!({condition})) {{
        if (Date.now() > end) throw new Error("it never came");
        await new Promise((done) => setTimeout(done, 50));
      }}
    }}""")


@pytest.fixture
def phone(browser: Browser, town: DemoTown) -> Iterator[Page]:
    """An engineer's phone, signed in, with the pages for a day without a network on it."""
    with visit(browser, town.url, language="en", size=PHONE) as page:
        page.goto("/")
        page.locator(".persona-engineer").click()
        page.wait_for_url("**/field")
        page.evaluate("navigator.serviceWorker.ready")
        until(
            page,
            "(await Promise.all(['/field', '/field/drafts', '/field/drafts/new', '/field/offline']"
            ".map((path) => caches.match(path)))).every(Boolean)",
        )
        yield page


def installed_meter(page: Page) -> str:
    page.goto("/field/sites")
    page.locator("a.card-link").first.click()
    link = page.locator(".units a").first.get_attribute("href") or ""
    return link.rsplit("/", 1)[1]


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2400, 1200), "teal").save(out, "JPEG")
    return out.getvalue()


def test_what_is_entered_without_a_network_is_sent_once(phone: Page) -> None:
    drn = installed_meter(phone)
    phone.goto(f"/field/meters/{drn}/photos")
    photos = phone.locator(".photos img").count()
    sent: list[Request] = []
    phone.on(
        "request",
        lambda request: (
            sent.append(request)
            if request.method == "POST" and request.url.endswith("/field/drafts")
            else None
        ),
    )
    phone.goto(f"/field/meters/{drn}/checklist")
    until(phone, f"await caches.match('/field/meters/{drn}/checklist')")
    phone.context.set_offline(True)

    phone.goto("/field/drafts/new")
    expect(phone.locator("#phone-offline")).to_be_visible()
    look_over(phone)
    phone.fill("#e-drn", drn)
    phone.fill("#e-note", "Terminals tightened, 2.5 Nm")
    phone.locator("section[aria-labelledby=d-entry] button").click()
    expect(phone.locator("section[aria-labelledby=d-entry] .draft-answer")).to_contain_text(
        "Kept on this phone"
    )
    phone.fill("#p-drn", drn)
    phone.set_input_files("#p-photo", {"name": "plate.jpg", "mimeType": "image/jpeg", "buffer": picture()})
    phone.locator("section[aria-labelledby=d-photo] button").click()
    expect(phone.locator("#phone-count")).to_have_text("2")
    phone.goto(f"/field/meters/{drn}/checklist")  # as it was last, from the phone
    expect(phone.locator("#item-test_token")).to_be_visible()
    phone.goto("/field/meters/00000000000/photos")  # never opened: says so
    expect(phone.locator("h1")).to_have_text("This page is not on the phone")
    phone.goto("/field/drafts")
    expect(phone.locator(WAITING)).to_have_count(2)
    expect(phone.locator("#draft-list")).to_contain_text("2.5 Nm")
    look_over(phone)
    assert sent == []

    # The first answer is lost on its way back: the phone does not know that its draft was taken.
    lost: list[Route] = []

    def lose_the_first_answer(route: Route) -> None:
        if route.request.method != "POST" or lost:
            route.continue_()
            return
        lost.append(route)
        assert route.fetch().ok
        route.abort()

    phone.route("**/field/drafts", lose_the_first_answer)
    phone.context.set_offline(False)
    expect(phone.locator("#draft-said")).to_contain_text("stays on this phone")
    assert len(lost) == 1
    expect(phone.locator(WAITING)).to_have_count(2)
    phone.locator("#draft-send").click()
    expect(phone.locator("#draft-said")).to_contain_text("Sent.")
    expect(phone.locator(WAITING)).to_have_count(0)
    assert len(sent) == 3
    phone.goto("/field/drafts")
    phone.goto(f"/field/meters/{drn}/photos")
    expect(phone.locator(".photos img")).to_have_count(photos + 1)
    look_over(phone)
    phone.goto(f"/field/meters/{drn}")
    phone.goto(f"/field/meters/{drn}/checklist")
    expect(phone.locator("#item-wiring")).to_contain_text("2.5 Nm")
    assert len(sent) == 3, "nothing is sent again by itself"


def test_a_conflict_is_told_in_plain_words_and_another_person_sees_nothing(
    phone: Page, browser: Browser, town: DemoTown
) -> None:
    drn = installed_meter(phone)
    phone.context.set_offline(True)
    phone.goto("/field/drafts/new")
    phone.fill("#i-drn", drn)  # it hangs somewhere already
    phone.select_option("#i-point", index=1)
    phone.locator("section[aria-labelledby=d-install] button").click()
    expect(phone.locator("#phone-count")).to_have_text("1")
    phone.context.set_offline(False)
    phone.goto("/field/drafts")
    expect(phone.locator("#draft-list .draft-words")).to_have_text(
        "The meter or the place was taken meanwhile. Look again."
    )
    look_over(phone)

    # Somebody else's draft, left when her session ended: neither shown nor sent, and not in the way of this person's.
    phone.evaluate(OTHERS_DRAFT)
    phone.goto("/field/drafts")
    expect(phone.locator(WAITING)).to_have_count(1)
    phone.locator("#draft-send").click()
    expect(phone.locator("#phone-count")).to_have_text("1")

    phone.locator("form[action='/sign-out'] button").click()
    expect(phone.locator("#leave")).to_be_visible()
    look_over(phone)
    phone.locator("#leave-stay").click()
    expect(phone.locator(WAITING)).to_have_count(1)
    phone.locator("form[action='/sign-out'] button").click()
    phone.locator("#leave-anyway").click()
    phone.wait_for_url(lambda address: "/field" not in address)
    left = phone.evaluate("async () => (await caches.keys()).filter((name) => name.includes('pages'))")
    assert left == [], "the pages of who signed out are gone from the phone"
    assert phone.evaluate(ALL_DRAFTS) == ["other-0001"], (
        "and the drafts; what another person left waits for her"
    )


def test_two_taps_are_one_draft(phone: Page) -> None:
    drn = installed_meter(phone)
    phone.context.set_offline(True)
    phone.goto("/field/drafts/new")
    phone.fill("#p-drn", drn)
    phone.set_input_files("#p-photo", {"name": "plate.jpg", "mimeType": "image/jpeg", "buffer": picture()})
    # Both taps come before the picture was made smaller.
    phone.eval_on_selector(
        "section[aria-labelledby=d-photo] button", "(button) => { button.click(); button.click(); }"
    )
    expect(phone.locator("#phone-count")).to_have_text("1")
    phone.fill("#e-drn", drn)
    phone.fill("#e-note", "Once")
    entry = phone.locator("section[aria-labelledby=d-entry]")
    entry.locator("button").click()
    expect(entry.locator(".draft-answer")).to_contain_text("Kept on this phone")
    phone.eval_on_selector(
        "section[aria-labelledby=d-entry] form", "(form) => { form.noValidate = true; form.requestSubmit(); }"
    )
    expect(entry.locator("button").first).to_be_enabled()  # and again a moment later
    assert len(phone.evaluate(ALL_DRAFTS)) == 2
    phone.fill("#e-drn", drn)
    phone.fill("#e-note", "Twice")
    entry.locator("button").click()
    expect(phone.locator("#phone-count")).to_have_text("3")


def test_an_ended_session_takes_its_pages_from_the_phone(phone: Page) -> None:
    names = "async () => (await caches.keys()).filter((name) => name.startsWith('raseed-field-pages'))"
    assert phone.evaluate(names) != []
    phone.context.clear_cookies(name="raseed_session")
    phone.goto("/field")
    phone.wait_for_url("**/sign-in?next=*")
    until(phone, f"(await ({names})()).length === 0")
